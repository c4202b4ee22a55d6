"""Drawn volumes that look like electron microscopy, with exact labels: for the demo, and for tests.

A world of neurites, mitochondria, vesicles, synapses and dark bodies is laid out in nanometres and then cut
at the spacing of the sections, so that neighbouring sections show the same objects, as in a real stack. All
coordinates are (section, row, column) nanometres from the centre of the first voxel.

    neurites     random curves that keep their distance; a cell is what lies nearest to its curve (a weighted
                 Voronoi diagram), its membrane where the two nearest curves are equally far
    mitochondria capsules along the curves: two membranes, matrix, cristae; kept clear of the cell membrane
    distractors  vesicle clusters with a post-synaptic density, dark bodies without cristae, reticulum
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from mitoda.errors import InputError
from mitoda.volumes.volume import VoxelSize

LATTICE = 40.0
"""Distances are computed on a lattice of this many nanometres and interpolated to pixels between."""
MARGIN = 500.0
"""The world reaches this many nanometres beyond what is drawn, so that nothing ends at the border."""
REACH = 420.0
"""No point is further than this many nanometres from its own neurite's curve (less its thickness)."""


@dataclass(frozen=True)
class PhantomDomain:
    """How one microscope shows one tissue. Grey values run from 0, black, to 1, white, before the microscope.

    The numbers of the presets were chosen by eye beside VNC III (`SOURCE`) and Lucchi (`TARGET`).
    """

    voxel_size: VoxelSize
    """Nanometres: (section, row, column). Pixels are square."""
    planes: int = 1
    """Planes averaged through the thickness of one section; the label is that of the middle."""
    cytoplasm: float = 0.75
    """Grey of the cytoplasm, on average."""
    cytoplasm_spread: float = 0.05
    """Standard deviation of the cytoplasm's grey from cell to cell."""
    membrane: float = 0.1
    """Grey of membranes."""
    membrane_width: float = 9.0
    """Nanometres from the middle of a cell border to where its darkness has fallen to 1/e."""
    matrix: float = 0.5
    """Grey of the inside of mitochondria."""
    crista: float = 0.25
    """Grey of cristae."""
    crista_spacing: float = 60.0
    """Nanometres from crista to crista."""
    mitochondrion_radius: float = 130.0
    """Nanometres, on average; it varies by a fifth."""
    mitochondria_share: float = 0.08
    """Share of the volume that mitochondria take; what is drawn lies between 0.05 and 0.12 if it can."""
    texture: float = 0.06
    """Standard deviation of the granular texture of the cytoplasm."""
    texture_size: float = 8.0
    """Nanometres: standard deviation of the blur of that texture."""
    blur: float = 4.0
    """Nanometres: standard deviation of the microscope's point spread in the section."""
    noise: float = 0.05
    """Standard deviation of the detector's noise on white; it falls with the root of the grey value."""
    brightness: float = 0.0
    """Added after the contrast."""
    contrast: float = 1.0
    """Factor on grey values around 0.5."""
    illumination: float = 0.06
    """Standard deviation of the slow change of brightness across a section."""
    flicker: float = 0.03
    """Standard deviation of the brightness from section to section."""
    curtains: float = 0.0
    """Standard deviation of the streaks along columns that milling leaves."""

    def __post_init__(self) -> None:
        if min(self.voxel_size) <= 0 or self.voxel_size[1] != self.voxel_size[2]:
            raise InputError(
                f"voxel_size is {self.voxel_size}; expected positive nanometres and square pixels"
            )
        if self.planes < 1:
            raise InputError(f"planes is {self.planes}; expected 1 or more")


SOURCE = PhantomDomain(voxel_size=(50.0, 5.0, 5.0), planes=3, flicker=0.04)
"""Serial-section TEM: thick sections, crisp black membranes on bright cytoplasm, strong cristae."""

TARGET = PhantomDomain(
    voxel_size=(10.0, 5.0, 5.0),
    cytoplasm=0.62,
    cytoplasm_spread=0.03,
    membrane=0.22,
    membrane_width=11.0,
    matrix=0.36,
    crista=0.24,
    crista_spacing=45.0,
    mitochondrion_radius=150.0,
    texture=0.09,
    texture_size=14.0,
    blur=6.5,
    noise=0.075,
    brightness=-0.04,
    contrast=0.62,
    flicker=0.012,
    curtains=0.012,
)
"""FIB-SEM: thin sections, low contrast, coarse dark cytoplasm, dark mitochondria with faint cristae."""


def draw_phantom(
    domain: PhantomDomain, shape: tuple[int, int, int], seed: int, mitochondria: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume and its exact label.

    Parameters
    ----------
    domain : PhantomDomain
        `SOURCE`, `TARGET`, or one of your own.
    shape : (int, int, int)
        Sections, rows, columns. Below half a micrometre (100 pixels) hardly one mitochondrion fits in.
    seed : int
        The same seed draws the same volume.
    mitochondria : bool
        False draws the same world, and the same noise, without any.

    Returns
    -------
    image : ndarray of uint8, shape (sections, rows, columns)
    label : ndarray of uint8, shape (sections, rows, columns)
        255 inside the outer membrane of a mitochondrion, 0 elsewhere.

    Examples
    --------
    >>> image, label = draw_phantom(SOURCE, (3, 64, 96), seed=1)
    >>> image.shape, image.dtype, sorted(set(label.flat) | {0, 255})
    ((3, 64, 96), dtype('uint8'), [np.uint8(0), np.uint8(255)])
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"the shape of a phantom is {shape}; expected (sections, rows, columns), each 1 or more"
        )
    world_seed, mitochondria_seed, microscope_seed = np.random.SeedSequence(seed).spawn(3)
    frame = Frame(shape, domain.voxel_size)
    world = lay_out_world(domain, frame, np.random.default_rng(world_seed))
    if mitochondria:
        world.bodies += place_mitochondria(world, domain, np.random.default_rng(mitochondria_seed))
    microscope = Microscope(domain, frame, np.random.default_rng(microscope_seed))
    image, label = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    offsets = (np.arange(domain.planes) - (domain.planes - 1) / 2) / domain.planes * domain.voxel_size[0]
    for section in range(shape[0]):
        depth = section * domain.voxel_size[0]
        drawn = [Plane(world, domain, depth + offset).draw() for offset in offsets]
        inside = drawn[domain.planes // 2][1] if domain.planes % 2 else Plane(world, domain, depth).draw()[1]
        image[section] = microscope.show(np.mean([grey for grey, _ in drawn], axis=0))
        label[section] = np.where(inside, np.uint8(255), np.uint8(0))
    return image, label


class Frame:
    """The pixels of a section, and the coarser lattice on which distances are computed.

    `step` pixels lie between two lattice points, and the lattice covers the section:

        pixels   0 1 2 3 4 5 6 7 8 9        lattice points at 0, 4, 8, 12 for a step of 4
    """

    def __init__(self, shape: tuple[int, int, int], voxel_size: VoxelSize) -> None:
        self.shape, self.pixel = shape, voxel_size[1]
        self.extent = np.array([(size - 1) * edge for size, edge in zip(shape, voxel_size, strict=True)])
        self.step = max(1, round(LATTICE / self.pixel))
        self.lattice = tuple(-(-(size - 1) // self.step) + 1 for size in shape[1:])
        self.rows, self.columns = (np.arange(size) * self.pixel for size in shape[1:])
        self.lattice_rows, self.lattice_columns = (
            np.arange(n) * self.step * self.pixel for n in self.lattice
        )

    @cached_property
    def upsampling(self) -> tuple[np.ndarray, np.ndarray]:
        """Matrices (pixels, lattice points) of linear interpolation along rows and columns."""
        rows, columns = (
            np.maximum(0, 1 - abs(np.arange(size)[:, None] / self.step - np.arange(points))).astype(
                np.float32
            )
            for size, points in zip(self.shape[1:], self.lattice, strict=True)
        )
        return rows, columns

    def window(self, wanted: np.ndarray) -> tuple[slice, slice] | None:
        """Smallest window of the lattice around the points wanted, one point wider; None if none is."""
        if not wanted.any():
            return None
        ends = (np.flatnonzero(wanted.any(axis))[[0, -1]] for axis in (1, 0))
        rows, columns = (slice(max(0, first - 1), last + 2) for first, last in ends)
        return rows, columns

    def pixels(self, window: tuple[slice, slice]) -> tuple[slice, slice]:
        """The pixels between the first and the last lattice point of a window."""
        rows, columns = (
            slice(part.start * self.step, min(size, (min(part.stop, points) - 1) * self.step + 1))
            for part, size, points in zip(window, self.shape[1:], self.lattice, strict=True)
        )
        return rows, columns

    def interpolate(self, values: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Values on a window of the lattice, linearly interpolated to `pixels(window)`."""
        along_rows, along_columns = self.upsampling
        rows, columns = self.pixels(window)
        return along_rows[rows, window[0]] @ values.astype(np.float32) @ along_columns[columns, window[1]].T


class SmoothNoise:
    """Smooth Gaussian noise in space, of standard deviation 1, about one hill per `wavelength` nanometres.

    Random values on a grid of that spacing, weighted with cubic B-splines: it has a value everywhere, so
    planes at any depth fit together.
    """

    def __init__(
        self, rng: np.random.Generator, frame: Frame, wavelength: float, at_pixels: bool = False
    ) -> None:
        rows, columns = (
            (frame.rows, frame.columns) if at_pixels else (frame.lattice_rows, frame.lattice_columns)
        )
        self.wavelength = wavelength
        knots = [int(size / wavelength) + 8 for size in (frame.extent[0], rows[-1], columns[-1])]
        self.knots = rng.standard_normal(knots, dtype=np.float32)
        self.along_rows, self.along_columns = self.weights(rows, knots[1]), self.weights(columns, knots[2])

    def weights(self, positions: np.ndarray, knots: int) -> np.ndarray:
        """Cubic B-spline weights, shape (positions, knots), scaled to a variance of about 1."""
        distance = abs(positions[:, None] / self.wavelength + 3 - np.arange(knots))
        weights = np.where(
            distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
        )
        return (weights / np.sqrt(np.mean(np.sum(weights**2, axis=1)))).astype(np.float32)

    def at(self, depth: float) -> np.ndarray:
        """The noise in the plane at this depth, float32, shape (rows, columns)."""
        coefficients = np.tensordot(self.weights(np.array([depth]), len(self.knots))[0], self.knots, axes=1)
        return self.along_rows @ coefficients @ self.along_columns.T


@dataclass
class Body:
    """A capsule around a curve inside one cell: a mitochondrion, or a dark body that is none."""

    curve: np.ndarray
    """Shape (points, 3), nanometres, points about 25 nm apart."""
    radius: float
    """Nanometres."""
    cell: int
    """The neurite it lies in."""
    is_mitochondrion: bool
    crista_angle: float = 0.0
    """Angle of the cristae with the plane across the curve, in radians."""

    @cached_property
    def tangents(self) -> np.ndarray:
        """Unit tangents of the curve, shape (points, 3)."""
        steps = np.gradient(self.curve, axis=0) if len(self.curve) > 1 else np.array([[0.0, 0.0, 1.0]])
        return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)

    def stripes(self, offset: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Position across the cristae in nanometres, of points at `offset` from the curve."""
        along = (offset * self.tangents[nearest]).sum(-1)
        across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0)) * np.sign(offset[..., 2])
        return np.cos(self.crista_angle) * (along + 25 * nearest) + np.sin(self.crista_angle) * across


@dataclass
class World:
    """Everything that exists, in nanometres."""

    frame: Frame
    curves: list[np.ndarray]
    """The middle line of every neurite, shape (points, 3)."""
    radii: np.ndarray
    """What a neurite is thicker than others, shape (neurites,)."""
    greys: np.ndarray
    """Deviation of each neurite's cytoplasm, in standard deviations."""
    warp: list[SmoothNoise]
    """Displacement of borders along the three axes, on the lattice."""
    ruffle: SmoothNoise
    """Roughness of membranes, at pixels."""
    folds: SmoothNoise
    """The reticulum lies where it is zero, at pixels."""
    patches: SmoothNoise
    """Where there is reticulum, and how cristae bend, at pixels."""
    bodies: list[Body] = field(default_factory=list)
    vesicles: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """Shape (vesicles, 4): centre in nanometres, and the cell it belongs to."""
    densities: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """Post-synaptic densities, shape (densities, 4): centre in nanometres, and the cell with the vesicles."""

    def points(self, depth: float) -> np.ndarray:
        """Where the lattice points of a plane lie after warping, shape (rows, columns, 3)."""
        rows, columns = np.meshgrid(self.frame.lattice_rows, self.frame.lattice_columns, indexing="ij")
        plane = np.stack([np.full_like(rows, depth), rows, columns], axis=-1)
        return plane + 45.0 * np.stack([noise.at(depth) for noise in self.warp], axis=-1)


def nearest_cells(world: World, points: np.ndarray, curves: list[np.ndarray]) -> np.ndarray:
    """Distance of lattice points (rows, columns, 3) to each curve less its thickness, 1e6 where far away."""
    distance = np.full((len(curves), *points.shape[:2]), 1e6, np.float32)
    low, high = points.min((0, 1)) - REACH, points.max((0, 1)) + REACH
    for cell, curve in enumerate(curves):
        near = curve[within(curve, low, high)]
        if len(near) == 0:
            continue
        low_near, high_near = near.min(0) - REACH, near.max(0) + REACH
        window = world.frame.window(within(points, low_near, high_near))
        if window is not None:
            distance[(cell, *window)] = distance_to(near, points[window])[0] - world.radii[cell]
    return distance


def within(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which points (..., 3) lie inside a box."""
    inside = np.ones(points.shape[:-1], bool)
    for axis in range(3):
        inside &= (points[..., axis] > low[axis]) & (points[..., axis] < high[axis])
    return inside


def distance_to(curve: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points (rows, columns, 3) to the nearest point of a curve, and which point that is."""
    flat = points.reshape(-1, 3)
    squared = (flat**2).sum(1)[:, None] - 2 * flat @ curve.T + (curve**2).sum(1)
    nearest = squared.argmin(1)
    distance = np.sqrt(np.maximum(squared[np.arange(len(flat)), nearest], 0))
    return distance.reshape(points.shape[:2]), nearest.reshape(points.shape[:2])


def lattice_cells(world: World, depth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell at each lattice point of a plane, its distance to the border in nanometres, and the points."""
    points = world.points(depth)
    distance = nearest_cells(world, points, world.curves)
    cell = distance.argmin(0)
    first, second = np.partition(distance, 1, axis=0)[:2]
    return cell, (second - first) / 2, points


def draw_cells(world: World, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell at each pixel of a plane, and its distance to the border of that cell in nanometres."""
    frame = world.frame
    distance = nearest_cells(world, points, world.curves)
    second_lattice = np.partition(distance, 1, axis=0)[1]
    first = np.full(frame.shape[1:], np.float32(1e6))
    second = first.copy()
    cell = np.full(frame.shape[1:], -1)
    for index in np.flatnonzero((distance <= second_lattice + 2 * LATTICE).any((1, 2))):
        window = frame.window(distance[index] <= second_lattice + 2 * LATTICE)
        if window is None:
            continue
        pixels = frame.pixels(window)
        candidate = frame.interpolate(distance[(index, *window)], window)
        nearer = candidate < first[pixels]
        second[pixels] = np.where(nearer, first[pixels], np.minimum(second[pixels], candidate))
        first[pixels] = np.where(nearer, candidate, first[pixels])
        cell[pixels] = np.where(nearer, index, cell[pixels])
    return cell, (second - first) / 2


def lay_out_world(domain: PhantomDomain, frame: Frame, rng: np.random.Generator) -> World:
    """Neurites, dark bodies, vesicles and synapses: all that does not depend on the mitochondria."""
    curves = grow_neurites(frame, rng)
    world = World(
        frame,
        curves,
        radii=rng.uniform(0, 110, len(curves)),
        greys=rng.standard_normal(len(curves)),
        warp=[SmoothNoise(rng, frame, 350.0) for _ in range(3)],
        ruffle=SmoothNoise(rng, frame, 70.0, at_pixels=True),
        folds=SmoothNoise(rng, frame, 260.0, at_pixels=True),
        patches=SmoothNoise(rng, frame, 330.0, at_pixels=True),
    )
    volume = float(np.prod((frame.extent + np.array([400, 0, 0])) / 1000))
    for cell in rng.integers(len(curves), size=rng.poisson(1.5 * volume)):
        middle = rng.integers(len(curves[cell]))
        centre = curves[cell][middle] + rng.normal(0, 40, 3)
        world.bodies.append(Body(centre[None], rng.uniform(60, 110), int(cell), is_mitochondrion=False))
    place_synapses(world, rng, count=rng.poisson(3.0 * volume) + 1)
    return world


def grow_neurites(frame: Frame, rng: np.random.Generator) -> list[np.ndarray]:
    """Random curves, a point every 60 nm, that fill the box and its margin and keep 220 nm apart."""
    low, high = np.full(3, -MARGIN), frame.extent + MARGIN
    curves: list[np.ndarray] = []
    while True:
        tree = cKDTree(np.concatenate(curves)) if curves else None
        starts = rng.uniform(low, high, (300, 3))
        gaps = tree.query(starts)[0] if tree else np.full(300, np.inf)
        if gaps.max() < 340:
            return curves
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        start = starts[gaps.argmax()]
        ahead, behind = (walk(start, sign * direction, low, high, tree, rng) for sign in (1, -1))
        curves.append(np.concatenate([behind[::-1], start[None], ahead]))


def walk(
    start: np.ndarray,
    direction: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    tree: cKDTree | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Points of a walk that bends, until it leaves the box, meets a curve of the tree or is 4 µm long."""
    points: list[np.ndarray] = []
    for _ in range(66):
        for _ in range(6):
            turned = direction + rng.normal(0, 0.16, 3)
            turned /= np.linalg.norm(turned)
            point = start + 60 * turned
            if tree is None or tree.query(point)[0] > 220:
                break
        else:
            break
        if (point < low).any() or (point > high).any():
            break
        start, direction = point, turned
        points.append(point)
    return np.array(points).reshape(-1, 3)


def place_synapses(world: World, rng: np.random.Generator, count: int) -> None:
    """Clusters of vesicles on one side of cell borders, and a dark density on the other."""
    vesicles, densities = [], []
    for depth in rng.uniform(-100, world.frame.extent[0] + 100, count):
        cell, border, points = lattice_cells(world, depth)
        candidates = np.argwhere(border < LATTICE / 2)
        if len(candidates) == 0:
            continue
        place = tuple(candidates[rng.integers(len(candidates))])
        site, own = points[place], cell[place]
        curve = world.curves[own]
        inward = curve[distance_to(curve, site[None, None])[1][0, 0]] - site
        centre = site + inward / max(np.linalg.norm(inward), 1) * 110
        spots = np.zeros((0, 3))
        for spot in rng.normal(centre, 80, (rng.integers(40, 140), 3)):
            if (((spots - spot) ** 2).sum(1) > 41**2).all():
                spots = np.concatenate([spots, spot[None]])
        vesicles += [[*spot, own] for spot in spots]
        densities.append([*site, own])
    world.vesicles, world.densities = np.reshape(vesicles, (-1, 4)), np.reshape(densities, (-1, 4))


def place_mitochondria(world: World, domain: PhantomDomain, rng: np.random.Generator) -> list[Body]:
    """Mitochondria along the neurites, until their share of a coarse sample of the volume is reached.

    Where the volume is so small that none fits into 0.11 of it, the limit is given up after eight rounds.
    """
    depths = np.linspace(0, world.frame.extent[0], min(world.frame.shape[0], 12))
    planes = [lattice_cells(world, depth) for depth in depths]
    total = sum(cell.size for cell, _, _ in planes)
    visible = np.unique([cell for cell, _, _ in planes])
    chosen: list[Body] = []
    share, wanted = 0.0, domain.mitochondria_share
    for attempt in range(12):
        candidates = [
            body for cell in visible for body in line_up(world.curves[cell], int(cell), domain, rng)
        ]
        limit = wanted + 0.03 if attempt < 8 else 0.3
        for index in rng.permutation(len(candidates)):
            if share > wanted * (1 if attempt == 0 else 0.7):
                return chosen
            body = candidates[index]
            added = sum(count_inside(body, *plane) for plane in planes) / total
            if added and share + added < limit and not any(overlap(body, other) for other in chosen):
                chosen.append(body)
                share += added
    return chosen


def count_inside(body: Body, cell: np.ndarray, border: np.ndarray, points: np.ndarray) -> int:
    """How many lattice points of a plane lie inside a body."""
    near = (cell == body.cell) & (border > 15)
    near &= within(points, body.curve.min(0) - body.radius, body.curve.max(0) + body.radius)
    if not near.any():
        return 0
    return int((distance_to(body.curve, points[near][None])[0] < body.radius).sum())


def overlap(body: Body, other: Body) -> bool:
    """Whether two bodies of one cell touch."""
    if body.cell != other.cell:
        return False
    return bool(distance_to(body.curve, other.curve[None])[0].min() < body.radius + other.radius + 30)


def line_up(curve: np.ndarray, cell: int, domain: PhantomDomain, rng: np.random.Generator) -> list[Body]:
    """Mitochondria one after the other along a neurite."""
    along = np.arange(len(curve)) * 60.0
    bodies, start = [], rng.uniform(0, 400)
    while start < along[-1]:
        length = rng.uniform(200, 1300)
        stops = np.arange(start, min(start + length, along[-1]), 25.0)
        line = np.stack([np.interp(stops, along, curve[:, axis]) for axis in range(3)], axis=1)
        line = ndimage.gaussian_filter1d(line, 2.0, axis=0, mode="nearest") + rng.normal(0, 25, 3)
        radius = domain.mitochondrion_radius * np.clip(rng.normal(1, 0.2), 0.6, 1.5)
        bodies.append(Body(line, radius, cell, is_mitochondrion=True, crista_angle=rng.uniform(-0.9, 0.9)))
        start += length + 2 * radius + rng.uniform(50, 500)
    return bodies


@dataclass
class Plane:
    """One plane through the world, and what is drawn of it so far; all at pixels but `points`."""

    world: World
    domain: PhantomDomain
    depth: float
    """Nanometres."""

    def __post_init__(self) -> None:
        world = self.world
        self.points = world.points(self.depth)
        self.ruffle, self.folds, self.patches = (
            noise.at(self.depth) for noise in (world.ruffle, world.folds, world.patches)
        )
        self.cell, border = draw_cells(world, self.points)
        self.border = border + 2.5 * self.ruffle
        self.grey = self.domain.cytoplasm + self.domain.cytoplasm_spread * world.greys[self.cell].astype(
            np.float32
        )
        self.inside = np.zeros(self.grey.shape, bool)

    def darken(self, darkness: np.ndarray, part: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Move grey values towards that of membranes; 0 leaves them, 1 replaces them."""
        self.grey[part] += darkness * (self.domain.membrane - self.grey[part])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey values before the microscope, and where mitochondria are."""
        self.darken(0.7 * np.exp(-((self.folds / 0.055) ** 2)) * (self.patches > 0.45) * (self.border > 20))
        self.draw_vesicles()
        for body in self.world.bodies:
            self.draw_body(body)
        self.draw_densities()
        self.darken(np.exp(-((self.border / self.domain.membrane_width) ** 2)))
        return self.grey, self.inside

    def box(self, centre: np.ndarray, reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Pixels around a centre, and their distance to it in nanometres."""
        frame = self.world.frame
        first = np.ceil((centre[1:3] - reach) / frame.pixel).astype(int).clip(0)
        last = np.floor((centre[1:3] + reach) / frame.pixel).astype(int).clip(-1)
        part = (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
        rows, columns = frame.rows[part[0], None] - centre[1], frame.columns[None, part[1]] - centre[2]
        return part, np.sqrt(rows**2 + columns**2 + (self.depth - centre[0]) ** 2).astype(np.float32)

    def draw_vesicles(self) -> None:
        """Rings 40 nm wide, bright inside, in the cell that they belong to."""
        for vesicle in self.world.vesicles[abs(self.world.vesicles[:, 0] - self.depth) < 24]:
            part, distance = self.box(vesicle, 32)
            own = (self.cell[part] == vesicle[3]) & (self.border[part] > 12)
            self.grey[part] += own * (distance < 17) * 0.3 * (1 - self.grey[part])
            self.darken(0.85 * own * np.exp(-(((distance - 19) / 5) ** 2)), part)

    def draw_densities(self) -> None:
        """Dark fuzz along the border beside a cluster of vesicles: thin on their side, thick on the other."""
        for density in self.world.densities[abs(self.world.densities[:, 0] - self.depth) < 130]:
            part, distance = self.box(density, 130)
            width = np.where(self.cell[part] == density[3], 10, 24)
            self.darken(0.9 * np.exp(-((self.border[part] / width) ** 2)) * (distance < 130), part)

    def draw_body(self, body: Body) -> None:
        """Draw a mitochondrion or a dark body. Its border is ruffled, and keeps clear of the cell's."""
        frame, reach = self.world.frame, body.radius + LATTICE
        low, high = body.curve.min(0) - reach, body.curve.max(0) + reach
        if not low[0] - 150 < self.depth < high[0] + 150:
            return
        window = frame.window(within(self.points, low, high))
        if window is None:
            return
        distance, nearest = distance_to(body.curve, self.points[window])
        if distance.min() > reach:
            return
        part = frame.pixels(window)
        depth_in = body.radius - frame.interpolate(distance, window) - 7 * self.ruffle[part]
        depth_in = np.where(self.cell[part] == body.cell, np.minimum(depth_in, self.border[part] - 16), -1)
        if body.is_mitochondrion:
            offset = self.points[window] - body.curve[nearest]
            phase = frame.interpolate(body.stripes(offset, nearest), window)
            look = self.mitochondrion_look(part, depth_in, phase)
            self.inside[part] |= depth_in > 0
        else:
            look = self.domain.membrane + 0.12 + 0.04 * self.ruffle[part]
        self.grey[part] = np.where(depth_in > 0, look, self.grey[part])

    def mitochondrion_look(
        self, part: tuple[slice, slice], depth_in: np.ndarray, phase: np.ndarray
    ) -> np.ndarray:
        """Grey values by the depth below the surface and the place along the cristae, both in nanometres.

        surface | outer membrane | gap | inner membrane | matrix, crossed by cristae
              0          5          13         21         from 22
        """
        domain = self.domain
        phase = phase + 7 * self.ruffle[part] + 16 * self.patches[part]
        crista = np.clip(2.2 * np.cos(2 * np.pi * phase / domain.crista_spacing) - 0.6, 0, 1)
        crista *= np.clip((depth_in - 22) / 8, 0, 1) * np.clip(1.2 + self.folds[part], 0, 1)
        look = domain.matrix + crista * (domain.crista - domain.matrix)
        look += 0.5 * np.exp(-(((depth_in - 13) / 4) ** 2)) * (domain.cytoplasm - look)
        shells = np.exp(-(((depth_in - 5) / 6) ** 2)) + 0.75 * np.exp(-(((depth_in - 21) / 6) ** 2))
        return look + shells.clip(0, 1) * (domain.membrane - look)


class Microscope:
    """Texture, blur, uneven light, noise, contrast: from grey values of the world to uint8, by section."""

    def __init__(self, domain: PhantomDomain, frame: Frame, rng: np.random.Generator) -> None:
        self.domain, self.frame, self.rng = domain, frame, rng
        self.light = SmoothNoise(rng, frame, 1500.0, at_pixels=True)
        self.texture = self.grain(domain.texture_size)
        self.depth = 0.0

    def grain(self, size: float) -> np.ndarray:
        """White noise blurred by `size` nanometres (a standard deviation), scaled to standard deviation 1."""
        white = self.rng.standard_normal(self.frame.shape[1:], dtype=np.float32)
        sigma = size / self.frame.pixel
        return ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3) * max(
            1.0, 2 * np.sqrt(np.pi) * sigma
        )

    def show(self, grey: np.ndarray) -> np.ndarray:
        """The next section as the microscope shows it, uint8."""
        domain = self.domain
        kept = np.exp(-domain.voxel_size[0] / (2 * domain.texture_size))
        grey = grey + domain.texture * grey * self.texture
        self.texture = kept * self.texture + np.sqrt(1 - kept**2) * self.grain(domain.texture_size)
        grey = ndimage.gaussian_filter(grey.astype(np.float32), domain.blur / self.frame.pixel, truncate=3)
        grey += domain.noise * np.sqrt(grey.clip(0.05)) * self.grain(0.45 * self.frame.pixel)
        grey += domain.illumination * self.light.at(self.depth) + domain.flicker * self.rng.standard_normal()
        if domain.curtains:
            streaks = self.rng.standard_normal(grey.shape[1], dtype=np.float32)
            grey += domain.curtains * ndimage.gaussian_filter1d(streaks, 1.0, mode="wrap") * 1.9
        self.depth += domain.voxel_size[0]
        shown = 0.5 + domain.contrast * (grey - 0.5) + domain.brightness
        return np.round(255 * shown.clip(0, 1)).astype(np.uint8)
