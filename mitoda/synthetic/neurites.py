"""Growing a world: neurites, and all in them that does not depend on the mitochondria."""

import numpy as np
from scipy.spatial import cKDTree

from mitoda.synthetic.frame import LATTICE, Frame, SmoothNoise
from mitoda.synthetic.preset import PhantomDomain
from mitoda.synthetic.world import Body, World, distance_to, lattice_cells

MARGIN = 500.0
"""The world reaches this many nanometres beyond what is drawn, so that nothing ends at the border."""


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
