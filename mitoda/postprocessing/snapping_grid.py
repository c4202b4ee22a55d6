"""Grey values on the contours of a section, summed by component and by place, on a grid of cells of about 20 nm."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.contours import Rim, blur_at, contour_sums, find_rim

BLOCK = 2
"""Grid cells along rows and columns that make a block."""
REACH_NM = 200.0
"""Distance around a component that belongs to it, where no other is nearer."""
BLUR_NM = 5.0
"""Standard deviation of the blur of the image before grey values are read, half a membrane."""

FARTHEST = 100.0
"""Standard deviations. A section of nearly one value has some farther out, whose sums do not fit in float16."""


class Gathered(NamedTuple):
    """Grey values on the contours of a section at each of `LEVELS`, as arrays."""

    sums: np.ndarray
    """(parts, levels), float32, of each part, which is a component within the section."""
    counts: np.ndarray
    """(parts, levels), float32, pixels."""
    blocks: np.ndarray
    """(blocks,), flat indices of the blocks of grid cells that have contours."""
    block_sums: np.ndarray
    """(blocks, levels), float16"""
    block_counts: np.ndarray
    """(blocks, levels), uint16"""


@dataclass(frozen=True)
class SnappingGrid:
    """Cells of a section's pixels, and the grey values on its contours."""

    cell: tuple[float, float]
    """Pixels per grid cell, along rows and columns."""
    voxel_size: tuple[float, float, float]
    """Nanometres: section thickness, rows, columns."""

    @property
    def cell_nm(self) -> tuple[float, float]:
        """Nanometres of a grid cell, along rows and columns."""
        return self.cell[0] * self.voxel_size[1], self.cell[1] * self.voxel_size[2]

    def gather(self, grey: np.ndarray, probability: np.ndarray, parts: np.ndarray) -> Gathered:
        """Sum the grey values on the contours of a section.

        Parameters
        ----------
        grey : ndarray, shape (rows, columns)
        probability : ndarray, shape (rows, columns)
            × 255, uint8.
        parts : ndarray, shape (grid rows, grid columns)
            Its mask on the grid, labelled with consecutive numbers; 0 is background.
        """
        numbers = parts[parts > 0]
        before = int(numbers.min()) - 1 if numbers.size else 0
        count = int(numbers.max()) - before if numbers.size else 0
        regions = self.regions(np.where(parts > 0, parts - before, 0)).ravel()
        rim = find_rim(probability)
        rows, columns = self._cells_of_pixels(grey.shape, parts.shape)
        region = regions[rows[rim.rows] * parts.shape[1] + columns[rim.columns]]
        rim, region = Rim(*(values[region > 0] for values in rim)), region[region > 0]
        values = self._grey_at(grey, rim)
        sums, counts = contour_sums(values, rim, region, count)
        across = -(-parts.shape[1] // BLOCK)
        blocks, block = np.unique(
            rows[rim.rows] // BLOCK * across + columns[rim.columns] // BLOCK, return_inverse=True
        )
        of_blocks = contour_sums(values, rim, block + 1, len(blocks))
        return Gathered(
            sums.astype(np.float32),
            counts.astype(np.float32),
            blocks.astype(np.int32),
            of_blocks[0].astype(np.float16),
            of_blocks[1].astype(np.uint16),
        )

    def regions(self, labels: np.ndarray) -> np.ndarray:
        """The label that each grid cell belongs to: the nearest within `REACH_NM`, 0 where there is none."""
        if not labels.any():
            return labels
        distance, nearest = ndimage.distance_transform_edt(labels == 0, self.cell_nm, return_indices=True)
        return np.where(distance <= REACH_NM, labels[tuple(nearest)], 0)

    def to_pixels(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Bring a map on the grid to the pixels of its section: each takes its grid cell's value."""
        rows, columns = self._cells_of_pixels(shape, values.shape)
        return np.asarray(values.take(rows, 0).take(columns, 1))

    def _cells_of_pixels(
        self, shape: tuple[int, ...], cells: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row of the grid of each row of pixels, and column of each column."""
        rows, columns = (
            np.minimum((np.arange(size) / cell).astype(int), count - 1)
            for size, cell, count in zip(shape, self.cell, cells, strict=True)
        )
        return rows, columns

    def _grey_at(self, grey: np.ndarray, rim: Rim) -> np.ndarray:
        """Blurred grey values at some pixels, in standard deviations from the section's mean, at most `FARTHEST`."""
        sample = grey[::2, ::2].astype(np.float32)  # enough for mean and contrast
        values = blur_at(grey, rim, (BLUR_NM / self.voxel_size[1], BLUR_NM / self.voxel_size[2]))
        values = (values - sample.mean()) / max(float(sample.std()), 1e-6)
        return np.asarray(values).clip(-FARTHEST, FARTHEST)
