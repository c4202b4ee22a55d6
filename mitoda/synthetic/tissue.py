"""Tissue of a random kind under a random microscope, with exact mitochondria labels: training data without end.

A piece of tissue is a few sections of one place. Its kind, the look of its mitochondria and its microscope are drawn
at random, much wider than any real data set, so that a network trained on many pieces has to rely on what all
mitochondria share.

    kind       neuropil, myelinated fibres, cell bodies, cells in resin, striated muscle, tissue packed with mitochondria
    contents   membranes, myelin, nuclei, reticulum in sheets and stacks, vesicles, lysosomes, lipid, glycogen, filaments
    mitochondria   round to long and branched; pale to dark; cristae across, along, tubular or none; swollen
    microscope contrast of every structure, blur, grain, noise, charging, shading
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from mitoda.synthetic.curves import Curves, Nearest, bent_line
from mitoda.synthetic.lattice import Frame, SmoothNoise

PIXEL = 5.0
"""Nanometres; coarser microscopes are drawn with more blur."""
MARGIN = 700.0
"""Nanometres around the sections in which curves begin, so that nothing ends at the border."""
KINDS = {
    "neuropil": 0.36, "fibres": 0.16, "soma": 0.16, "culture": 0.12, "muscle": 0.1, "packed": 0.1,
}  # fmt: skip
"""Share of each kind of tissue."""


@dataclass(frozen=True)
class Look:
    """Grey values, 0 (black) to 1 (white), and widths in nanometres of one piece of tissue."""

    cytoplasm: float
    cytoplasm_spread: float
    membrane: float
    membrane_width: float
    matrix: float
    crista: float
    crista_spacing: float
    crista_share: float
    """Share of the matrix that has cristae."""
    crista_kind: str
    envelope: float
    """Visibility of the two mitochondrial membranes, 0 to 1."""
    granule: float
    """Strength of the cytoplasm's granules."""
    granule_size: float
    myelin: float
    nucleus: float
    chromatin: float
    lumen: float
    """Inside reticulum, vesicles and between membranes."""
    resin: float


def draw_look(rng: np.random.Generator) -> Look:
    """Draw the look of a piece of tissue."""
    u = rng.uniform
    cytoplasm = u(0.5, 0.85)
    membrane = max(0.02, cytoplasm - u(0.25, 0.65))
    state = rng.choice(["dark", "equal", "pale"], p=[0.7, 0.18, 0.12])
    matrix = cytoplasm + {"dark": u(-0.42, -0.1), "equal": u(-0.12, 0.03), "pale": u(0.0, 0.15)}[state]
    matrix = float(np.clip(matrix, membrane + 0.02, 0.95))
    bright = state != "pale" and rng.random() < 0.35
    crista = matrix + u(0.06, 0.3) if bright else matrix - u(0.06, 0.35)
    resolved = rng.random() < 0.8
    return Look(
        cytoplasm=cytoplasm,
        cytoplasm_spread=u(0.0, 0.09),
        membrane=membrane,
        membrane_width=u(5, 13),
        matrix=matrix,
        crista=float(np.clip(crista if resolved else matrix, membrane - 0.02, 0.95)),
        crista_spacing=u(28, 95),
        crista_share=u(0.1, 0.5) if state == "pale" else u(0.3, 1.0),
        crista_kind=str(rng.choice(["across", "along", "tilted", "tubular", "bent"])),
        envelope=u(0.7, 1.0) if state != "dark" else u(0.15, 1.0),
        granule=u(0.02, 0.14),
        granule_size=u(5, 22),
        myelin=max(0.02, membrane + u(-0.08, 0.12)),
        nucleus=float(np.clip(cytoplasm + u(-0.15, 0.12), 0.1, 0.95)),
        chromatin=float(np.clip(cytoplasm - u(0.08, 0.4), 0.05, 0.9)),
        lumen=float(np.clip(cytoplasm + u(0.0, 0.25), 0, 1)),
        resin=u(0.55, 1.0),
    )


@dataclass
class Nucleus:
    """An ellipsoid with its envelope, inside a cell body."""

    centre: np.ndarray
    radii: np.ndarray
    shell: float
    """Nanometres of cytoplasm around it."""


@dataclass
class Blob:
    """A round body that is no mitochondrion: lysosome, lipid, peroxisome, endosome, dense core."""

    centre: np.ndarray
    radii: np.ndarray
    grey: float
    rim: float
    """Visibility of its membrane."""
    mottled: float
    """Spread of its grey."""


@dataclass
class Piece:
    """Everything that one piece of tissue holds. Lengths are nanometres, coordinates (section, row, column)."""

    kind: str
    look: Look
    frame: Frame
    cells: Curves
    greys: np.ndarray
    """Deviation of each cell's cytoplasm, in standard deviations."""
    mitochondria: Curves | None
    radii: np.ndarray
    """Of each mitochondrion."""
    hosts: np.ndarray
    """Cell of each mitochondrion; −1 − k for fibre k."""
    gap: float
    """Least distance between two mitochondria."""
    fibres: list[tuple[Curves, float, float]]
    """Curve, outer radius and thickness of the myelin of each myelinated fibre."""
    nucleus: Nucleus | None
    blobs: list[Blob]
    vesicles: np.ndarray
    """(n, 3)."""
    direction: np.ndarray
    """Of muscle filaments."""
    noise: dict[str, SmoothNoise]
    rates: dict[str, float] = field(default_factory=dict)
    """Thresholds that say how much of each texture there is."""


def draw_piece(seed: int, side: int, sections: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a piece of tissue and its exact mitochondria labels.

    Parameters
    ----------
    seed : int
        The same seed draws the same piece.
    side : int
        Rows and columns, of `PIXEL` nanometres.
    sections : int
    spacing : float
        Nanometres from section to section.

    Returns
    -------
    image : ndarray of uint8, shape (sections, side, side)
    label : ndarray of uint8, shape (sections, side, side)
        255 inside the outer membrane of a mitochondrion, 0 elsewhere.

    Examples
    --------
    >>> image, label = draw_piece(3, side=96, sections=2, spacing=50.0)
    >>> image.shape, label.dtype, set(label.flat) <= {0, 255}
    ((2, 96, 96), dtype('uint8'), True)
    """
    rng = np.random.default_rng(seed)
    frame = Frame((sections, side, side), (spacing, PIXEL, PIXEL))
    piece = _lay_out(rng, frame)
    planes = [Plane(piece, section * spacing) for section in range(sections)]
    _drop_slivers(piece, planes)
    microscope = Microscope(rng, frame)
    images, labels = zip(*(plane.draw(rng) for plane in planes), strict=True)
    shown = np.stack([microscope.show(image) for image in images])
    return shown, np.stack(labels).astype(np.uint8) * np.uint8(255)


def _unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _lines(
    rng: np.random.Generator, frame: Frame, mean_distance: float, direction: np.ndarray | None, bend: float
) -> list[np.ndarray]:
    """Random bent lines through a box, as dense as one per `mean_distance` squared."""
    low, high = np.full(3, -MARGIN), frame.extent + MARGIN
    volume, length = float(np.prod(high - low)), rng.uniform(1500, 4000)
    count = int(np.clip(volume / (length * mean_distance**2), 6, 4000))
    found = []
    for start in rng.uniform(low, high, (count, 3)):
        own = _unit(rng)
        if direction is not None:
            own = direction + 0.25 * own
            own /= np.linalg.norm(own)
        one = length * rng.uniform(0.3, 1.5)
        found.append(bent_line(rng, start - own * one / 2, own, one, bend))
    return found


def _lay_out(rng: np.random.Generator, frame: Frame) -> Piece:
    kind = str(rng.choice(list(KINDS), p=np.array(list(KINDS.values()))))
    look, u = draw_look(rng), rng.uniform
    direction = _unit(rng)
    size = {
        "neuropil": u(130, 420), "fibres": u(180, 600), "soma": u(180, 600), "culture": u(700, 2500),
        "muscle": u(500, 1300), "packed": u(2500, 5000),
    }[kind]  # fmt: skip
    aligned = kind == "muscle" or (kind in ("neuropil", "fibres") and rng.random() < 0.3)
    lines = _lines(rng, frame, size, direction if aligned else None, 0.1 if aligned else u(0.1, 0.6))
    cells = Curves.join(lines, list(range(len(lines))))
    nucleus = None
    if kind in ("soma", "culture") or rng.random() < 0.08:
        radii = u(1000, 3500, 3)
        away = np.array([0, *rng.uniform(-0.3, 1.3, 2)]) * frame.extent
        shell = u(150, 900) if kind == "soma" else u(1500, 5000)
        nucleus = Nucleus(away, radii, shell)
    fibres: list[tuple[Curves, float, float]] = []
    for _ in range(int(rng.integers(1, 5)) if kind == "fibres" else int(rng.random() < 0.12)):
        own = direction if rng.random() < 0.6 else _unit(rng)
        start = rng.uniform(0, 1, 3) * frame.extent - own * 5000
        line = bent_line(rng, start, own, 10000, 0.08)
        radius = u(250, 900)
        fibres.append((Curves.join([line], [0]), radius, min(u(40, 350), 0.6 * radius)))
    wavelengths = {"warp0": 350, "warp1": 350, "warp2": 350, "ruffle": u(60, 130), "fold": u(160, 420),
                   "patch": u(300, 900), "patch2": u(300, 1200), "chromatin": u(150, 500), "bend": u(120, 300)}  # fmt: skip
    noise = {
        name: SmoothNoise(rng, frame, wavelength, at_pixels=True) for name, wavelength in wavelengths.items()
    }
    lines_m, owners, radii_m, hosts = _mitochondria(rng, frame, kind, cells, fibres, direction)
    blobs = []
    for _ in range(int(rng.poisson(u(0, 9)))):
        radius = float(np.exp(rng.normal(np.log(150), 0.45)))
        grey = rng.choice([u(0.02, 0.3), u(0.7, 1.0), look.matrix + u(-0.1, 0.1)], p=[0.5, 0.2, 0.3])
        blobs.append(
            Blob(rng.uniform(0, 1, 3) * frame.extent + rng.normal(0, 60, 3), radius * rng.uniform(0.7, 1.3, 3),
                 float(np.clip(grey, 0, 1)), float(rng.random() < 0.6) * u(0.3, 1), u(0.0, 0.2))
        )  # fmt: skip
    clusters = [
        rng.normal(rng.uniform(0, 1, 3) * frame.extent, u(80, 260), (int(rng.integers(15, 130)), 3))
        for _ in range(int(rng.poisson(u(0, 9))))
    ]
    return Piece(
        kind, look, frame, cells, rng.standard_normal(len(lines)),
        Curves.join(lines_m, owners) if lines_m else None, np.array(radii_m), np.array(hosts, int),
        u(16, 60), fibres, nucleus, blobs, np.concatenate(clusters) if clusters else np.zeros((0, 3)), direction, noise,
        {
            "reticulum": rng.choice([9.0, u(0.3, 1.6)], p=[0.25, 0.75]),
            "stacks": rng.choice([9.0, u(0.4, 1.4)], p=[0.45, 0.55]),
            "stack_period": u(45, 130),
            "glycogen": rng.choice([9.0, u(-0.5, 1.2)], p=[0.75, 0.25]),
            "chromatin": u(-0.6, 1.2),
            "warp": u(20, 130),
            "membranes": 0.0 if rng.random() < 0.03 else u(0.6, 1.0),
            "empty_outside": float(kind == "culture" or rng.random() < 0.04),
            "filopodia": u(0.0, 0.5),
            "filaments": u(0.3, 1.0) if kind == "muscle" else 0.0,
        },
    )  # fmt: skip


def _mitochondria(
    rng: np.random.Generator,
    frame: Frame,
    kind: str,
    cells: Curves,
    fibres: list[tuple[Curves, float, float]],
    direction: np.ndarray,
) -> tuple[list[np.ndarray], list[int], list[float], list[int]]:
    """Lines, owner of each line, radius and host of each mitochondrion."""
    u = rng.uniform
    base = {"neuropil": u(85, 210), "fibres": u(85, 210), "soma": u(90, 220), "culture": u(100, 300),
            "muscle": u(180, 480), "packed": u(160, 450)}[kind]  # fmt: skip
    lines: list[np.ndarray] = []
    owners: list[int] = []
    radii: list[float] = []
    hosts: list[int] = []

    def add(line: np.ndarray, host: int, owner: int | None = None) -> int:
        if owner is None:
            owner = len(radii)
            radii.append(base * float(np.clip(np.exp(rng.normal(0, 0.2)), 0.6, 1.6)))
            hosts.append(host)
        lines.append(line)
        owners.append(owner)
        return owner

    if rng.random() < 0.04:  # tissue without mitochondria
        return lines, owners, radii, hosts
    low, high = np.full(3, -MARGIN / 2), frame.extent + MARGIN / 2
    longest = u(300, 3500)
    if kind in ("neuropil", "fibres") or (kind == "soma" and rng.random() < 0.7):
        share = u(0.25, 1.0)
        curves = np.split(cells.points, np.flatnonzero(np.diff(cells.owner)) + 1)
        for cell in np.flatnonzero(rng.random(len(curves)) < share):
            curve = curves[cell]
            length = min(len(curve), max(3, int(u(150, longest) / 40)))
            first = int(rng.integers(0, len(curve) - length + 1))
            add(curve[first : first + length] + rng.normal(0, 30, 3), int(cell))
    for index, (curve, _, _) in enumerate(fibres):
        first = 0
        while first < len(curve.points):
            length = int(u(300, 3000) / 40)
            if rng.random() < 0.6 and length > 2:
                part = curve.points[first : first + length]
                if len(part) > 2:
                    add(part + rng.normal(0, 60, 3), -1 - index)
            first += length + int(u(200, 2000) / 40)
    if kind in ("culture", "muscle", "packed", "soma"):
        tree = cKDTree(cells.points)
        volume = float(np.prod(high - low))
        length = u(300, 1500) if kind != "culture" else longest
        density = {"soma": u(0.05, 0.25), "culture": u(0.04, 0.3), "muscle": u(0.3, 1.3), "packed": u(0.3, 1.3)}[kind]  # fmt: skip
        count = int(density * volume / (np.pi * base**2 * (length + 1.3 * base)))
        for start in rng.uniform(low, high, (min(count, 1500), 3)):
            own = _unit(rng) if kind != "muscle" else direction + 0.15 * _unit(rng)
            one = bent_line(rng, start, own / np.linalg.norm(own), length * u(0.2, 1.6), u(0.1, 1.5))
            owner = add(one, int(cells.owner[tree.query(one[len(one) // 2])[1]]))
            if rng.random() < 0.12 and len(one) > 6:  # a branch
                at = int(rng.integers(2, len(one) - 2))
                add(bent_line(rng, one[at], _unit(rng), length * u(0.3, 1.0), u(0.1, 1.0)), -1, owner)
    return lines, owners, radii, hosts


def _drop_slivers(piece: Piece, planes: list["Plane"]) -> None:
    """Remove mitochondria that have no room: none of their cuts is a third of their radius deep."""
    deepest = np.zeros(len(piece.radii))
    for plane in planes:
        inside = plane.depth_in > 0
        np.maximum.at(deepest, plane.mitochondrion[inside], plane.depth_in[inside])
    keep = deepest > 0.33 * piece.radii
    for plane in planes:
        if len(keep):
            plane.depth_in = np.where(keep[plane.mitochondrion], plane.depth_in, np.float32(-1e4))


class Plane:
    """One plane through a piece of tissue. Arrays are (rows, columns), lengths nanometres."""

    def __init__(self, piece: Piece, depth: float) -> None:
        self.piece, self.depth = piece, depth
        frame = piece.frame
        self.noise = {name: one.at(depth) for name, one in piece.noise.items()}
        rows, columns = np.meshgrid(frame.rows, frame.columns, indexing="ij")
        places = np.stack([np.full_like(rows, depth), rows, columns], axis=-1)
        warp = np.stack([self.noise[f"warp{axis}"] for axis in range(3)], axis=-1)
        self.places = (places + piece.rates["warp"] * warp).astype(np.float32)
        self.cell: Nearest = piece.cells.nearest(self.places)
        self.border = self.cell.border + 2.5 * self.noise["ruffle"]
        self.fibre, self.fibre_depth = self._fibres()
        self.soma, self.nuclear = self._nucleus()
        self.mitochondrion, self.depth_in, self.along, self.across = self._mitochondria()

    def _fibres(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of the fibre, -1 for none, and depth below its surface."""
        number = np.full(self.places.shape[:2], -1)
        depth = np.full(self.places.shape[:2], np.float32(-1e4))
        for index, (curve, radius, _) in enumerate(self.piece.fibres):
            own = radius * (1 + 0.15 * self.noise["patch"]) - curve.nearest(self.places).distance
            number = np.where(own > np.maximum(depth, 0), index, number)
            depth = np.maximum(depth, own)
        return number, depth

    def _nucleus(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth below the surface of the cell body, and of the nucleus."""
        one = self.piece.nucleus
        if one is None:
            away = np.full(self.places.shape[:2], np.float32(-1e4))
            return away, away
        distance = np.linalg.norm((self.places - one.centre) / one.radii, axis=-1)
        depth = (1 - distance) * one.radii.min() + 90 * self.noise["patch"]
        return depth + one.shell + 150 * self.noise["patch2"], depth

    def _mitochondria(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Number of the nearest mitochondrion, depth below its surface, place along it and across it."""
        piece = self.piece
        if piece.mitochondria is None:
            zero = np.zeros(self.places.shape[:2])
            return zero.astype(int), zero - 1e4, zero, zero
        near = piece.mitochondria.nearest(self.places)
        depth = piece.radii[near.owner] * (1 + 0.12 * self.noise["bend"]) - near.distance
        depth = np.minimum(depth, near.border - piece.gap / 2)
        host = piece.hosts[near.owner]
        in_fibre = self.fibre >= 0
        myelin = np.array([one[2] for one in piece.fibres] + [0.0])[self.fibre]
        in_soma = self.soma > 0
        room = np.where(in_soma, np.minimum(self.soma, -self.nuclear - 40), self.border)
        room = np.where(in_fibre, self.fibre_depth - myelin, room)
        fits = np.where(host < 0, self.fibre == -1 - host, ~in_fibre)
        fits &= (host < 0) | in_soma | (self.cell.owner == host)
        if piece.rates["empty_outside"] and piece.nucleus is not None:
            fits &= in_soma
        depth = np.where(fits, np.minimum(depth, room - 14), -1e4)
        return near.owner, depth.astype(np.float32), near.along, near.across

    def darken(self, darkness: np.ndarray, grey: float) -> None:
        """Move grey values towards one; 0 leaves them, 1 replaces them."""
        self.grey += darkness * (grey - self.grey)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Grey values before the microscope, and where mitochondria are."""
        piece, look = self.piece, self.piece.look
        in_soma = self.soma > 0
        owner_grey = np.where(in_soma | (self.fibre >= 0), 0.0, piece.greys[self.cell.owner])
        self.grey = (look.cytoplasm + look.cytoplasm_spread * owner_grey).astype(np.float32)
        self._granules(rng)
        if piece.rates["filaments"]:
            self._filaments()
        self._reticulum()
        if piece.rates["glycogen"] < 5:
            spots = _grain(rng, self.grey.shape, 2.2)
            self.darken((spots > 1.1) * (self.noise["patch2"] > piece.rates["glycogen"]) * 0.8, look.membrane)
        self._vesicles()
        for blob in piece.blobs:
            self._blob(blob, rng)
        self._membranes()
        self._fibre()
        self._nuclear(rng)
        self._outside(rng)
        inside = self.depth_in > 0
        self._mitochondrion(rng, inside)
        return self.grey, inside

    def _granules(self, rng: np.random.Generator) -> None:
        look = self.piece.look
        texture = _grain(rng, self.grey.shape, look.granule_size / PIXEL)
        self.grey += look.granule * (0.6 + 0.4 * np.tanh(self.noise["patch"])) * texture * 0.7

    def _filaments(self) -> None:
        """Sarcomeres: bands every 1.6 to 2.2 µm along the filaments, filaments every 35 nm across."""
        f = self.piece.direction
        side = np.cross(f, [0.0, 0.0, 1.0] if abs(f[2]) < 0.9 else [0.0, 1.0, 0.0])
        side /= np.linalg.norm(side)
        other = np.cross(f, side)
        along, first, second = (self.places @ axis for axis in (f, side, other))
        band = np.cos(2 * np.pi * (along + 40 * self.noise["patch"]) / 1900)
        self.grey += 0.1 * self.piece.rates["filaments"] * np.tanh(4 * band)
        self.darken(0.7 * np.exp(-((np.mod(along + 950, 1900) - 950) / 45) ** 2), self.piece.look.membrane)
        lattice = np.cos(2 * np.pi * first / 38) * np.cos(2 * np.pi * second / 41)
        self.grey += 0.13 * self.piece.rates["filaments"] * (lattice + 0.6 * np.cos(2 * np.pi * first / 33))

    def _reticulum(self) -> None:
        """Sheets, and stacks of parallel sheets, of reticulum: two membranes around a lumen."""
        look, rates = self.piece.look, self.piece.rates
        away = (self.border > 25) | (self.soma > 0)
        slope = np.float32(70.0)
        where = (self.noise["patch"] > rates["reticulum"]) & away
        distance = abs(self.noise["fold"]) * slope
        self.darken(0.8 * where * np.exp(-(((distance - 11) / 6) ** 2)), look.membrane)
        self.darken(0.8 * where * (distance < 8), look.lumen)
        where = (self.noise["patch2"] > rates["stacks"]) & away
        phase = (self.places[..., 1] * 0.8 + self.places[..., 2] * 0.6 + 160 * self.noise["patch"]) / rates["stack_period"]
        wave = np.cos(2 * np.pi * phase)
        broken = np.clip(0.7 + self.noise["fold"], 0, 1)
        self.darken(0.75 * where * broken * np.clip(2.5 * wave - 1.2, 0, 1), look.membrane)

    def _vesicles(self) -> None:
        look = self.piece.look
        near = self.piece.vesicles[abs(self.piece.vesicles[:, 0] - self.depth) < 20]
        for vesicle in near:
            part, squared = self._box(vesicle[1:], 34)
            if squared.size == 0:
                continue
            own = (self.border[part] > 12) | (self.soma[part] > 0)
            distance = np.sqrt(squared)
            piece = self.grey[part]
            piece += own * (distance < 17) * 0.5 * (look.lumen - piece)
            piece += 0.8 * own * np.exp(-(((distance - 19) / 5) ** 2)) * (look.membrane - piece)

    def _box(self, centre: np.ndarray, reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Pixels around a centre (row, column), and their squared distance to it."""
        frame = self.piece.frame
        first = np.ceil((centre - reach) / frame.pixel).astype(int).clip(0)
        last = np.floor((centre + reach) / frame.pixel).astype(int).clip(-1)
        part = (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
        rows, columns = frame.rows[part[0], None] - centre[0], frame.columns[None, part[1]] - centre[1]
        return part, rows**2 + columns**2

    def _blob(self, blob: Blob, rng: np.random.Generator) -> None:
        part, _ = self._box(blob.centre[1:], float(blob.radii.max() * 1.4))
        places = self.places[part]
        if places.size == 0:
            return
        distance = np.linalg.norm((places - blob.centre) / blob.radii, axis=-1)
        depth = (1 - distance) * blob.radii.min() + 12 * self.noise["bend"][part]
        own = (depth > 0) & ((self.border[part] > 10) | (self.soma[part] > 0))
        grey = blob.grey + blob.mottled * (0.6 * self.noise["ruffle"][part] + 0.8 * _grain(rng, depth.shape, 3))
        target = self.grey[part]
        target += np.clip(depth / 8, 0, 1) * own * (grey - target)
        rim = blob.rim * np.exp(-((depth / 8) ** 2)) * (self.border[part] > 4)
        target += rim * (self.piece.look.membrane - target)

    def _membranes(self) -> None:
        look, rates = self.piece.look, self.piece.rates
        outside = (self.soma < 0) & (self.fibre < 0)
        edge = np.exp(-((self.border / look.membrane_width) ** 2))
        self.darken(rates["membranes"] * edge * outside, look.membrane)
        if self.piece.nucleus is not None:
            self.darken(rates["membranes"] * np.exp(-((self.soma / look.membrane_width) ** 2)), look.membrane)

    def _fibre(self) -> None:
        """Axoplasm with neurofilaments, and myelin around it."""
        look = self.piece.look
        for index, (_, _, thickness) in enumerate(self.piece.fibres):
            own = self.fibre == index
            depth = self.fibre_depth + 5 * self.noise["ruffle"]
            self.darken(0.5 * own * (depth > thickness), min(1.0, look.cytoplasm + 0.08))
            sheath = own & (depth < thickness)
            lamellae = 0.5 + 0.5 * np.cos(2 * np.pi * depth / 16)
            self.darken(sheath * (0.8 + 0.2 * lamellae), look.myelin)
            split = sheath & (self.noise["fold"] > 1.6)
            self.darken(0.7 * split * lamellae, look.lumen)
            self.darken(0.8 * np.exp(-(((depth - thickness - 12) / 7) ** 2)) * own, look.membrane)

    def _nuclear(self, rng: np.random.Generator) -> None:
        piece, look = self.piece, self.piece.look
        if piece.nucleus is None:
            return
        depth = self.nuclear
        inside = depth > 0
        self.grey = np.where(inside, look.nucleus, self.grey).astype(np.float32)
        speckle = _grain(rng, self.grey.shape, 5.0)
        dense = (self.noise["chromatin"] + 0.5 * speckle + 1.2 * np.exp(-depth.clip(0) / 120)) > 1.1 + piece.rates["chromatin"]
        self.darken(inside * dense * 0.85, look.chromatin)
        self.grey += inside * 0.06 * _grain(rng, self.grey.shape, 2.0)
        for place in (0.0, -34.0):
            self.darken(0.9 * np.exp(-(((depth - place) / 7) ** 2)), look.membrane)
        self.darken(0.7 * np.exp(-(((depth + 17) / 8) ** 2)), look.lumen)

    def _outside(self, rng: np.random.Generator) -> None:
        """Resin around a cell, with processes of other cells in it."""
        piece, look = self.piece, self.piece.look
        if not piece.rates["empty_outside"] or piece.nucleus is None:
            return
        shown = np.random.default_rng(len(piece.greys)).random(len(piece.greys)) < piece.rates["filopodia"] * 0.3
        empty = (self.soma < 0) & ~(shown[self.cell.owner] & (self.border > 0) & (self.cell.distance < 160))
        edge = np.clip(-self.soma / 12, 0, 1)
        self.darken(empty * edge, look.resin)

    def _mitochondrion(self, rng: np.random.Generator, inside: np.ndarray) -> None:
        """Two membranes, matrix and cristae.

        surface | outer membrane | gap | inner membrane | matrix, crossed by cristae
              0          5          13         21         from 22
        """
        look, depth = self.piece.look, self.depth_in
        deviation = np.random.default_rng(7).standard_normal(max(1, len(self.piece.radii)))
        wobble = 14 * self.noise["bend"] + 6 * self.noise["ruffle"]
        phase = {
            "across": self.along + wobble,
            "along": self.across + wobble,
            "tilted": 0.7 * self.along + 0.7 * self.across + wobble,
            "tubular": self.along + wobble,
            "bent": self.along + 4 * wobble,
        }[look.crista_kind] + 31 * self.mitochondrion
        wave = np.cos(2 * np.pi * phase / look.crista_spacing)
        if look.crista_kind == "tubular":
            wave = 0.3 + wave * np.cos(2 * np.pi * (self.across + wobble) / look.crista_spacing)
        limit = ndimage.gaussian_filter(self.noise["fold"] + 0.4 * self.noise["bend"], 1)
        has = np.clip(3 * (limit + 2.4 * (look.crista_share - 0.5)), 0, 1)
        crista = np.clip(2.2 * wave - 0.7, 0, 1) * np.clip((depth - 20) / 8, 0, 1) * has
        matrix = look.matrix + 0.025 * deviation[self.mitochondrion]
        grey = matrix + crista * (look.crista - matrix) + 0.025 * _grain(rng, depth.shape, 1.6)
        grey = grey + look.envelope * 0.5 * np.exp(-(((depth - 13) / 4) ** 2)) * (look.lumen - grey)
        shells = np.exp(-(((depth - 5) / 6) ** 2)) + 0.75 * np.exp(-(((depth - 21) / 6) ** 2))
        grey = grey + look.envelope * shells.clip(0, 1) * (look.membrane - grey)
        self.grey = np.where(inside, self.grey + np.clip((depth + 2) / 4, 0, 1) * (grey - self.grey), self.grey)


def _grain(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """White noise blurred by σ pixels, scaled to standard deviation 1, float32."""
    white = rng.standard_normal(shape, dtype=np.float32)
    blurred = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3)
    return np.asarray(blurred * np.float32(max(1.0, 2 * np.sqrt(np.pi) * sigma)))


class Microscope:
    """Blur, noise, uneven light and contrast, drawn at random once for all sections of a piece."""

    def __init__(self, rng: np.random.Generator, frame: Frame) -> None:
        self.rng, u = rng, rng.uniform
        self.blur = float(np.exp(u(np.log(1.5), np.log(11)))) / PIXEL
        self.noise = float(np.exp(u(np.log(0.01), np.log(0.13))))
        self.grain = float(rng.random() < 0.5) * u(0, 0.06), u(0.6, 3)
        self.light = SmoothNoise(rng, frame, u(900, 3000), at_pixels=True)
        self.illumination = u(0, 0.1)
        self.flicker = u(0, 0.05)
        self.contrast = u(0.4, 1.1)
        self.streaks = float(rng.random() < 0.3) * u(0, 0.05)
        self.depth, self.spacing = 0.0, frame.extent[0] / max(1, frame.shape[0] - 1)

    def show(self, grey: np.ndarray) -> np.ndarray:
        """Return the next section as the microscope shows it, uint8."""
        rng = self.rng
        grey = ndimage.gaussian_filter(grey.astype(np.float32), self.blur, truncate=3)
        grey += self.noise * np.sqrt(grey.clip(0.05)) * _grain(rng, grey.shape, 0.4)
        grey += self.grain[0] * _grain(rng, grey.shape, self.grain[1])
        grey += self.illumination * self.light.at(self.depth) + self.flicker * rng.standard_normal()
        if self.streaks:
            lines = rng.standard_normal(grey.shape[1], dtype=np.float32)
            grey += self.streaks * ndimage.gaussian_filter1d(lines, 1.0, mode="wrap") * 1.9
        self.depth += self.spacing
        shown = 0.5 + self.contrast * (grey - 0.5)
        return np.round(255 * shown.clip(0, 1)).astype(np.uint8)
