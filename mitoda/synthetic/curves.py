"""Random curves in space, and their distance to every pixel of a plane."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

STEP = 40.0
"""Nanometres from point to point of a curve."""
COARSE = 4
"""Pixels between the places at which the nearest points are searched; distances to those are exact at every pixel."""
NEIGHBOURS = 8
"""Nearest points among which one of another curve is searched."""


@dataclass(frozen=True)
class Curves:
    """Points along curves; each belongs to an owner, which may own several curves."""

    points: np.ndarray
    """(n, 3) nanometres, float32."""
    tangents: np.ndarray
    """(n, 3), unit vectors."""
    along: np.ndarray
    """(n,) nanometres from the beginning of its curve."""
    owner: np.ndarray
    """(n,) int."""

    @classmethod
    def join(cls, lines: list[np.ndarray], owners: list[int]) -> "Curves":
        """Build curves from lines (points, 3); each needs two points or more."""
        tangents = [np.gradient(line, axis=0) for line in lines]
        lengths = [np.arange(len(line)) * STEP for line in lines]
        all_tangents = np.concatenate(tangents).astype(np.float32)
        all_tangents /= np.maximum(np.linalg.norm(all_tangents, axis=1, keepdims=True), 1e-6)
        return cls(
            np.concatenate(lines).astype(np.float32),
            all_tangents,
            np.concatenate(lengths).astype(np.float32),
            np.repeat(owners, [len(line) for line in lines]),
        )

    def nearest(self, places: np.ndarray) -> "Nearest":
        """Find the nearest owner, and the next one, of places (rows, columns, 3)."""
        rows, columns = places.shape[:2]
        middle = places[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE]
        count = min(NEIGHBOURS, len(self.points))
        _, found = cKDTree(self.points).query(middle.reshape(-1, 3), k=list(range(1, count + 1)), eps=0.0)
        differs = self.owner[found] != self.owner[found[:, :1]]
        second = found[np.arange(len(found)), differs.argmax(1)]
        second = np.where(differs.any(1), second, -1)
        first, second = (
            one.reshape(middle.shape[:2]).repeat(COARSE, 0).repeat(COARSE, 1) for one in (found[:, 0], second)
        )
        first, second = (
            np.pad(one, [(0, max(0, rows - one.shape[0])), (0, max(0, columns - one.shape[1]))], mode="edge")[
                :rows, :columns
            ]
            for one in (first, second)
        )
        own, along, across = self._distance(places, first)
        other, along_other, across_other = self._distance(places, np.maximum(second, 0))
        other = np.where(second < 0, np.float32(1e4), other)
        swap = other < own
        return Nearest(
            owner=np.where(swap, self.owner[second], self.owner[first]),
            distance=np.where(swap, other, own),
            border=abs(other - own) / 2,
            along=np.where(swap, along_other, along),
            across=np.where(swap, across_other, across),
        )

    def _distance(self, places: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance of places to the piece of curve around a point, place along the curve, and signed offset."""
        offset = places - self.points[index]
        tangent = self.tangents[index]
        along = np.einsum("rci,rci->rc", offset, tangent)
        clipped = along.clip(-STEP / 2, STEP / 2)
        squared = np.einsum("rci,rci->rc", offset, offset) - 2 * clipped * along + clipped**2
        distance = np.sqrt(np.maximum(squared, 0))
        return distance, self.along[index] + along, distance * np.sign(offset[..., 1] + 0.3 * offset[..., 2])


@dataclass(frozen=True)
class Nearest:
    """The nearest owner at each pixel of a plane; all (rows, columns), lengths in nanometres."""

    owner: np.ndarray
    distance: np.ndarray
    """To its curve."""
    border: np.ndarray
    """To where another owner is as near."""
    along: np.ndarray
    """Along its curve."""
    across: np.ndarray
    """Distance to its curve with a sign: which side of it."""


def bent_line(
    rng: np.random.Generator, start: np.ndarray, direction: np.ndarray, length: float, bend: float
) -> np.ndarray:
    """A line of a length from `start`, (points, 3), that bends by about `bend` radians a micrometre."""
    count = max(2, int(length / STEP) + 1)
    turns = gaussian_filter1d(rng.standard_normal((count, 3)), 4, axis=0, mode="nearest")
    walk = np.cumsum(turns, axis=0) * bend * np.sqrt(STEP / 1000) * 2.0
    steps = direction + walk
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    line: np.ndarray = start + np.cumsum(steps, axis=0) * STEP
    return line
