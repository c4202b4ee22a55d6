"""What a drawn volume shows, laid out in nanometres: neurites, mitochondria and distractors."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from mitoda.synthetic.lattice import LATTICE, Frame, SmoothNoise
from mitoda.synthetic.preset import PhantomDomain

REACH = 420.0
"""No point is further than this many nanometres from the surface of its own neurite."""

MARGIN = 500.0
"""The world reaches this many nanometres beyond what is drawn, so that nothing ends at the border."""


@dataclass
class Body:
    """A capsule around a curve inside one cell: a mitochondrion or a dark body."""

    curve: np.ndarray
    """Shape (points, 3), nanometres, points about 25 nm apart."""
    radius: float
    cell: int
    is_mitochondrion: bool
    crista_angle: float = 0.0
    """Radians between the cristae and the plane across the curve."""

    @cached_property
    def tangents(self) -> np.ndarray:
        """Unit tangents of the curve, shape (points, 3)."""
        steps = np.gradient(self.curve, axis=0) if len(self.curve) > 1 else np.array([[0.0, 0.0, 1.0]])
        tangents: np.ndarray = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
        return tangents

    def stripes(self, offset: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Position across the cristae in nanometres, of points at `offset` from the curve."""
        along = (offset * self.tangents[nearest]).sum(-1)
        across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0)) * np.sign(offset[..., 2])
        position: np.ndarray = (
            np.cos(self.crista_angle) * (along + 25 * nearest) + np.sin(self.crista_angle) * across
        )
        return position


@dataclass
class World:
    """Everything that exists. Lengths are nanometres; a cell is the index of its neurite."""

    frame: Frame
    curves: list[np.ndarray]
    """The middle line of every neurite, shape (points, 3)."""
    radii: np.ndarray
    """How much thicker than the thinnest each neurite is."""
    greys: np.ndarray
    """Deviation of each neurite's cytoplasm, in standard deviations."""
    warp: list[SmoothNoise]
    """Displacement of borders along the three axes, on the lattice."""
    ruffle: SmoothNoise
    """Roughness of membranes."""
    folds: SmoothNoise
    """The reticulum lies where it is zero."""
    patches: SmoothNoise
    """Where there is reticulum, and how cristae bend."""
    bodies: list[Body] = field(default_factory=list)
    vesicles: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """Shape (vesicles, 4): centre and cell."""
    densities: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """Post-synaptic densities, shape (densities, 4): centre, and the cell that holds the vesicles."""

    def points(self, depth: float) -> np.ndarray:
        """Where the lattice points of a plane lie after warping, shape (rows, columns, 3)."""
        rows, columns = np.meshgrid(self.frame.lattice_rows, self.frame.lattice_columns, indexing="ij")
        plane = np.stack([np.full_like(rows, depth), rows, columns], axis=-1)
        return plane + 45.0 * np.stack([noise.at(depth) for noise in self.warp], axis=-1)


def nearest_cells(world: World, points: np.ndarray) -> np.ndarray:
    """Distance of lattice points (rows, columns, 3) to each curve less its thickness, 1e6 where far away."""
    distance = np.full((len(world.curves), *points.shape[:2]), 1e6, np.float32)
    low, high = points.min((0, 1)) - REACH, points.max((0, 1)) + REACH
    for cell, curve in enumerate(world.curves):
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
    distance = nearest_cells(world, points)
    cell = distance.argmin(0)
    first, second = np.partition(distance, 1, axis=0)[:2]
    return cell, (second - first) / 2, points


def draw_cells(world: World, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell at each pixel of a plane, and its distance to the border of that cell in nanometres."""
    frame = world.frame
    distance = nearest_cells(world, points)
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
    box = np.full(3, -MARGIN), frame.extent + MARGIN
    curves: list[np.ndarray] = []
    while True:
        tree = cKDTree(np.concatenate(curves)) if curves else None
        starts = rng.uniform(*box, (300, 3))
        gaps = tree.query(starts)[0] if tree else np.full(300, np.inf)
        if gaps.max() < 340:
            return curves
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        start = starts[gaps.argmax()]
        ahead, behind = (walk(start, sign * direction, box, tree, rng) for sign in (1, -1))
        curves.append(np.concatenate([behind[::-1], start[None], ahead]))


def walk(
    start: np.ndarray,
    direction: np.ndarray,
    box: tuple[np.ndarray, np.ndarray],
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
        if (point < box[0]).any() or (point > box[1]).any():
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
    """Mitochondria along the neurites until they fill their share of the volume, measured on at most 12 planes.

    In a volume so small that none fits into its share, the limit is relaxed after eight rounds.
    """
    if domain.mitochondria_share == 0:
        return []
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
        for index in range(len(candidates)) if domain.touching else rng.permutation(len(candidates)):
            if share > wanted * (1 if attempt == 0 else 0.7):
                return chosen
            body = candidates[index]
            added = sum(count_inside(body, *plane) for plane in planes) / total
            if (
                added
                and share + added < limit
                and not any(overlap(body, other, -80 if domain.touching else 30) for other in chosen)
            ):
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


def overlap(body: Body, other: Body, gap: float) -> bool:
    """Whether two bodies of one cell are less than `gap` nanometres apart."""
    return body.cell == other.cell and bool(
        distance_to(body.curve, other.curve[None])[0].min() < body.radius + other.radius + gap
    )


def line_up(curve: np.ndarray, cell: int, domain: PhantomDomain, rng: np.random.Generator) -> list[Body]:
    """Mitochondria one after the other along a neurite."""
    along = np.arange(len(curve)) * 60.0
    bodies: list[Body] = []
    start, radius = rng.uniform(0, 400), 0.0
    while start < along[-1]:
        length = rng.uniform(200, 1300)
        stops = np.arange(start, min(start + length, along[-1]), 25.0)
        line = np.stack([np.interp(stops, along, curve[:, axis]) for axis in range(3)], axis=1)
        line = ndimage.gaussian_filter1d(line, 2.0, axis=0, mode="nearest") + rng.normal(0, 25, 3)
        if not (domain.touching and bodies):  # those that touch are equally thick
            radius = domain.mitochondrion_radius * np.clip(rng.normal(1, 0.2), 0.6, 1.5)
        bodies.append(Body(line, radius, cell, is_mitochondrion=True, crista_angle=rng.uniform(-0.9, 0.9)))
        start += length + 2 * radius + (rng.uniform(-70, -30) if domain.touching else rng.uniform(50, 500))
    return bodies
