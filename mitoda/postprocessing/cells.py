"""A mask on a coarse grid, and the heights of its cells: distances to the background, in nanometres."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.evaluation.metrics import full_scale
from mitoda.volumes import Volume, VoxelSize

CELL_NM = 20.0
"""Side of a cell: a tenth of the diameter of a thin mitochondrion."""
DEEPEST_NM = 400.0
"""Distances are not computed beyond this, more than the half-width of nearly all mitochondria. It bounds the margin."""
HOLE_NM = 100.0
"""Holes in a section that are smaller than a circle of this diameter do not count as background."""
TILE = 128
"""Rows and columns of cells whose distances are computed together."""
PER_NM = 10
"""Heights are integers of this many steps a nanometre, so that slabs agree in spite of rounding."""


def grid_step(side_nm: float) -> int:
    """Voxels that make a cell along one axis, at least one.

    Examples
    --------
    >>> grid_step(5.0), grid_step(8.0), grid_step(30.0)
    (4, 2, 1)
    """
    return max(1, round(CELL_NM / side_nm))


@dataclass(frozen=True)
class Grid:
    """Cells of whole voxels, about `CELL_NM` long where voxels are shorter."""

    voxel_size: VoxelSize

    @property
    def steps(self) -> tuple[int, int, int]:
        """Voxels of a cell along sections, rows and columns."""
        section, row, column = map(grid_step, self.voxel_size)
        return section, row, column

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Lengths of a cell in nanometres."""
        section, row, column = (step * size for step, size in zip(self.steps, self.voxel_size, strict=True))
        return section, row, column

    def reduce(self, pixels: np.ndarray, ufunc: np.ufunc) -> np.ndarray:
        """Reduce a section's pixels to those of cells; cells at the far borders may have fewer pixels."""
        rows = ufunc.reduceat(pixels, np.arange(0, pixels.shape[0], self.steps[1]), axis=0)
        return np.asarray(ufunc.reduceat(rows, np.arange(0, pixels.shape[1], self.steps[2]), axis=1))

    def expand(self, cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The value of the cell of each pixel."""
        wide = np.repeat(np.repeat(cells, self.steps[1], 0), self.steps[2], 1)
        return wide[: shape[0], : shape[1]]


def layers(mask: Volume, probability: Volume | None, grid: Grid) -> Iterator[np.ndarray]:
    """Yield layers of cells, float32: 0 where a cell is not full of foreground, else its mean probability (or 1)."""
    sections, pixel_area = mask.shape[0], grid.voxel_size[1] * grid.voxel_size[2]
    max_hole = math.pi / 4 * HOLE_NM**2 / pixel_area
    cell_pixels = grid.reduce(np.ones(mask.shape[1:], np.float32), np.add)
    for first in range(0, sections, grid.steps[0]):
        block = range(first, min(first + grid.steps[0], sections))
        full, total = np.ones(cell_pixels.shape, bool), np.zeros(cell_pixels.shape, np.float32)
        for section in block:
            full &= grid.reduce(fill_small_holes(mask.read(section) != 0, max_hole), np.logical_and)
            if probability is not None:
                total += grid.reduce(read_probability(probability, section), np.add)
        mean = np.ones_like(total) if probability is None else total / (cell_pixels * len(block))
        yield np.where(full, np.maximum(mean, np.float32(1e-3)), np.float32(0))


def read_probability(probability: Volume, section: int) -> np.ndarray:
    """Probabilities of a section, float32 from 0 to 1, of floats, uint8 / 255 or uint16 / 65535.

    Raises
    ------
    InputError
        If it holds anything else.
    """
    values = probability.read(section)
    low, high, scale = values.min(), values.max(), full_scale(values.dtype)
    if (values.dtype.kind not in "bf" and scale not in (255, 65535)) or not 0 <= low <= high <= scale:
        raise InputError(
            f"section {section} of {probability.name} holds {values.dtype} values from {low:g} to {high:g}; "
            "probabilities are floats from 0 to 1, uint8 / 255 or uint16 / 65535"
        )
    return np.asarray(values / np.float32(scale), np.float32)


def fill_small_holes(mask: np.ndarray, max_pixels: float) -> np.ndarray:
    """Set background that foreground surrounds to foreground, if it has at most so many pixels.

    Examples
    --------
    >>> ring = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)
    >>> fill_small_holes(ring, 1).astype(int).tolist()
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    """
    if not mask.any() or mask.all():
        return mask
    labels, count = ndimage.label(~mask)
    small = np.bincount(labels.ravel(), minlength=count + 1) <= max_pixels
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[border] = False
    small[0] = True  # the foreground itself
    return np.asarray(small[labels])


def heights(window: np.ndarray, spacing: tuple[float, float, float], core: slice) -> np.ndarray:
    """Heights of the core of a window, int32: its distance to the nearest 0 times its value; beyond borders is no 0.

    Parameters
    ----------
    window : ndarray, shape (layers, rows, columns)
        With a margin of `DEEPEST_NM` around the core, but at the ends of the stack.
    """
    _, rows, columns = window.shape
    found = np.zeros((core.stop - core.start, rows, columns), np.int32)
    margins = [math.ceil(DEEPEST_NM / length) for length in spacing[1:]]
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            tile = (slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns)))
            if not window[(core, *tile)].any():
                continue
            wide = [
                slice(max(0, part.start - margin), part.stop + margin)
                for part, margin in zip(tile, margins, strict=True)
            ]
            near = window[(slice(None), *wide)]
            if near.all():  # nothing to measure to
                distance = np.full(near.shape, DEEPEST_NM)
            else:
                distance = ndimage.distance_transform_edt(near, spacing)
            inner = tuple(
                slice(part.start - outer.start, part.stop - outer.start)
                for part, outer in zip(tile, wide, strict=True)
            )
            height = distance[(core, *inner)].clip(0, DEEPEST_NM) * near[(core, *inner)] * PER_NM
            found[(slice(None), *tile)] = np.where(near[(core, *inner)] > 0, np.rint(height).clip(1), 0)
    return found
