"""Mitochondria placed along the neurites of a world."""

import numpy as np
from scipy import ndimage

from mitoda.synthetic.preset import PhantomDomain
from mitoda.synthetic.world import Body, World, distance_to, lattice_cells, within


def place_mitochondria(world: World, domain: PhantomDomain, rng: np.random.Generator) -> list[Body]:
    """Mitochondria along the neurites, until their share of a coarse sample of the volume is reached; of 0, none.

    Where the volume is so small that none fits into 0.11 of it, the limit is given up after eight rounds.
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
