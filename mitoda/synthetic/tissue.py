"""Tissue of a random kind under a random microscope, with exact mitochondria labels: training data without end.

A piece of tissue is a few sections of one place. Its kind, the look of its mitochondria and its microscope are random,
more varied than any data set, so that a network trained on many pieces relies on what all mitochondria share.

    kind          neuropil, myelinated fibres, cell bodies, cells in resin, striated muscle, tissue full of mitochondria
    contents      membranes, myelin, nuclei, reticulum in sheets and stacks, vesicles, lysosomes, lipid, glycogen
    mitochondria  round to long and branched, pale to dark, swollen; cristae across, along, tubular, or none
    microscope    contrast of every structure, blur, grain, noise, streaks, uneven light
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from mitoda.synthetic.curves import STEP, Curves, bent_line
from mitoda.synthetic.lattice import Frame, SmoothNoise
from mitoda.synthetic.look import Look, draw_look

MARGIN = 700.0
"""Nanometres around the sections in which curves begin, so that nothing ends at the border."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """A kind of tissue; ranges of what is drawn uniformly, in nanometres."""

    share: float
    """Of all pieces."""
    cell: Range
    """Distance between the middles of cells."""
    radius: Range
    """Of mitochondria, on average over a piece."""
    in_cells: float = 0.0
    """Share of pieces in which mitochondria follow cells."""
    density: Range | None = None
    """Share of the volume filled with mitochondria that lie anywhere; None: there are no such."""
    fibres: int = 0
    """Most myelinated fibres."""
    shell: Range | None = None
    """Width of the cytoplasm around a nucleus; None: seldom a nucleus."""


KINDS = {
    "neuropil": Kind(0.36, (130, 420), (85, 210), in_cells=1),
    "fibres": Kind(0.16, (180, 600), (85, 210), in_cells=1, fibres=4),
    "soma": Kind(0.16, (180, 600), (90, 220), in_cells=0.7, density=(0.05, 0.25), shell=(150, 900)),
    "culture": Kind(0.12, (700, 2500), (100, 300), density=(0.04, 0.3), shell=(1500, 5000)),
    "muscle": Kind(0.1, (500, 1300), (180, 480), density=(0.3, 1.3)),
    "packed": Kind(0.1, (2500, 5000), (160, 450), density=(0.3, 1.3)),
}


@dataclass(frozen=True)
class Nucleus:
    """An ellipsoid with its envelope, in a cell body."""

    centre: np.ndarray
    radii: np.ndarray
    shell: float
    """Nanometres of cytoplasm around it."""


@dataclass(frozen=True)
class Fibre:
    """A myelinated axon."""

    curve: Curves
    radius: float
    """Of the outer surface of its myelin."""
    myelin: float
    """Its thickness."""


@dataclass(frozen=True)
class Blob:
    """A round body that is no mitochondrion: lysosome, lipid droplet, peroxisome, endosome."""

    centre: np.ndarray
    radii: np.ndarray
    grey: float
    rim: float
    """Visibility of its membrane."""
    mottled: float
    """Spread of its grey."""


@dataclass(frozen=True)
class Mitochondria:
    """All mitochondria of a piece."""

    curves: Curves | None
    """None: there are none."""
    radii: np.ndarray
    hosts: np.ndarray
    """Cell of each; −1 − k for fibre k."""
    gap: float
    """Least distance between two of them."""


@dataclass(frozen=True)
class Piece:
    """Everything that a piece of tissue holds. Lengths are nanometres, coordinates (section, row, column)."""

    look: Look
    frame: Frame
    cells: Curves
    greys: np.ndarray
    """Deviation of each cell's cytoplasm, in standard deviations."""
    shown: np.ndarray
    """Which cells are seen in resin."""
    mitochondria: Mitochondria
    fibres: list[Fibre]
    nucleus: Nucleus | None
    blobs: list[Blob]
    vesicles: np.ndarray
    """(n, 3)."""
    direction: np.ndarray
    """Of muscle filaments and aligned cells."""
    noise: dict[str, SmoothNoise]


def lay_out_piece(rng: np.random.Generator, frame: Frame) -> Piece:
    """Draw what a piece of tissue holds."""
    name = str(rng.choice(list(KINDS), p=[kind.share for kind in KINDS.values()]))
    kind, look, u = KINDS[name], draw_look(rng, name), rng.uniform
    direction = unit_vector(rng)
    aligned = name == "muscle" or (kind.density is None and rng.random() < 0.3)
    lines = _fill(rng, frame, u(*kind.cell), direction if aligned else None, 0.1 if aligned else u(0.1, 0.6))
    cells = Curves.join(lines, list(range(len(lines))))
    nucleus = None
    if kind.shell is not None or rng.random() < 0.08:
        centre = np.array([0, *u(-0.6, 1.6, 2)]) * frame.extent
        nucleus = Nucleus(centre, u(1000, 3500, 3), u(*(kind.shell or (150, 900))))
    fibres = _fibres(rng, frame, direction, kind)
    wavelengths = {
        **{f"warp{axis}": 350.0 for axis in range(3)},
        "ruffle": u(60, 130),
        "fold": u(160, 420),
        "patch": u(300, 900),
        "patch2": u(300, 1200),
        "chromatin": u(150, 500),
        "bend": u(120, 300),
    }
    noise = {one: SmoothNoise(rng, frame, length, at_pixels=True) for one, length in wavelengths.items()}
    return Piece(
        look=look,
        frame=frame,
        cells=cells,
        greys=rng.standard_normal(len(lines)),
        shown=rng.random(len(lines)) < look.processes,
        mitochondria=_mitochondria(rng, frame, kind, cells, fibres, direction if aligned else None),
        fibres=fibres,
        nucleus=nucleus,
        blobs=_blobs(rng, frame, look),
        vesicles=_vesicles(rng, frame),
        direction=direction,
        noise=noise,
    )


def unit_vector(rng: np.random.Generator) -> np.ndarray:
    """A random direction."""
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _fill(
    rng: np.random.Generator, frame: Frame, distance: float, direction: np.ndarray | None, bend: float
) -> list[np.ndarray]:
    """Random bent lines through the sections and their margin, about `distance` apart."""
    low, high = np.full(3, -MARGIN), frame.extent + MARGIN
    volume, length = float(np.prod(high - low)), rng.uniform(1500, 4000)
    count = int(np.clip(volume / (length * distance**2), 6, 4000))
    found = []
    for middle in rng.uniform(low, high, (count, 3)):
        own = unit_vector(rng)
        if direction is not None:
            own = direction + 0.25 * own
            own /= np.linalg.norm(own)
        one = length * rng.uniform(0.3, 1.5)
        found.append(bent_line(rng, middle - own * one / 2, own, one, bend))
    return found


def _fibres(rng: np.random.Generator, frame: Frame, direction: np.ndarray, kind: Kind) -> list[Fibre]:
    """Myelinated axons that cross the sections."""
    count = int(rng.integers(1, kind.fibres + 1)) if kind.fibres else int(rng.random() < 0.12)
    found = []
    for _ in range(count):
        own = direction if rng.random() < 0.6 else unit_vector(rng)
        start = rng.uniform(0, 1, 3) * frame.extent - own * 5000
        radius = rng.uniform(250, 900)
        curve = Curves.join([bent_line(rng, start, own, 10000, 0.08)], [0])
        found.append(Fibre(curve, radius, min(rng.uniform(40, 350), 0.6 * radius)))
    return found


def _blobs(rng: np.random.Generator, frame: Frame, look: Look) -> list[Blob]:
    """Round bodies near the sections: half of them dark, a fifth pale, the others as grey as mitochondria."""
    u, found = rng.uniform, []
    for _ in range(int(rng.poisson(u(0, 9)))):
        radius = float(np.exp(rng.normal(np.log(150), 0.45)))
        grey = rng.choice([u(0.02, 0.3), u(0.7, 1.0), look.matrix + u(-0.1, 0.1)], p=[0.5, 0.2, 0.3])
        centre = u(0, 1, 3) * frame.extent + rng.normal(0, 60, 3)
        rim = u(0.3, 1) if rng.random() < 0.6 else 0.0
        found.append(Blob(centre, radius * u(0.7, 1.3, 3), float(np.clip(grey, 0, 1)), rim, u(0.0, 0.2)))
    return found


def _vesicles(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Centres of vesicles, in clusters."""
    clusters = [
        rng.normal(rng.uniform(0, 1, 3) * frame.extent, rng.uniform(80, 260), (int(rng.integers(15, 130)), 3))
        for _ in range(int(rng.poisson(rng.uniform(0, 9))))
    ]
    return np.concatenate(clusters) if clusters else np.zeros((0, 3))


def _mitochondria(
    rng: np.random.Generator,
    frame: Frame,
    kind: Kind,
    cells: Curves,
    fibres: list[Fibre],
    direction: np.ndarray | None,
) -> Mitochondria:
    """Mitochondria along cells and fibres, or anywhere in large cells; in one piece of 25 there are none."""
    u = rng.uniform
    lines: list[np.ndarray] = []
    owners: list[int] = []
    hosts: list[int] = []

    def add(line: np.ndarray, host: int) -> None:
        lines.append(line)
        owners.append(len(hosts))
        hosts.append(host)

    longest, base = u(300, 3500), u(*kind.radius)
    if kind.in_cells == 1 or (kind.in_cells and rng.random() < kind.in_cells):
        share = u(0.25, 1.0)
        curves = np.split(cells.points, np.flatnonzero(np.diff(cells.owner)) + 1)
        for cell in np.flatnonzero(rng.random(len(curves)) < share):
            count = min(len(curves[cell]), max(3, int(u(150, longest) / STEP)))
            first = int(rng.integers(0, len(curves[cell]) - count + 1))
            add(curves[cell][first : first + count] + rng.normal(0, 30, 3), int(cell))
    for index, fibre in enumerate(fibres):
        first = 0
        while first < len(fibre.curve.points) - 3:
            count = int(u(300, 3000) / STEP)
            if rng.random() < 0.6:
                add(fibre.curve.points[first : first + count] + rng.normal(0, 60, 3), -1 - index)
            first += count + int(u(200, 2000) / STEP)
    if kind.density is not None:
        tree = cKDTree(cells.points)
        length = u(300, 1500) if kind.shell is None else longest
        low, high = np.full(3, -MARGIN / 2), frame.extent + MARGIN / 2
        one_volume = np.pi * base**2 * (length + 1.3 * base)
        count = min(1500, int(u(*kind.density) * float(np.prod(high - low)) / one_volume))
        for start in u(low, high, (count, 3)):
            own = unit_vector(rng) if direction is None else direction + 0.15 * unit_vector(rng)
            line = bent_line(rng, start, own / np.linalg.norm(own), length * u(0.2, 1.6), u(0.1, 1.5))
            add(line, int(cells.owner[tree.query(line[len(line) // 2])[1]]))
            if rng.random() < 0.12 and len(line) > 6:  # a branch
                fork = line[int(rng.integers(2, len(line) - 2))]
                lines.append(bent_line(rng, fork, unit_vector(rng), length * u(0.3, 1.0), u(0.1, 1.0)))
                owners.append(owners[-1])
    radii = base * np.exp(rng.normal(0, 0.2, len(hosts))).clip(0.6, 1.6)
    none = not lines or rng.random() < 0.04
    curves_of_all = None if none else Curves.join(lines, owners)
    return Mitochondria(curves_of_all, radii, np.array(hosts, int), u(16, 60))
