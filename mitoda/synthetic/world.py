"""Everything that exists in a phantom, in nanometres, and which cell a point of it lies in."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mitoda.synthetic.frame import LATTICE, Frame, SmoothNoise

REACH = 420.0
"""No point is further than this many nanometres from its own neurite's curve (less its thickness)."""


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
