"""From the probabilities of a stack to its final mask.

Both steps, boundaries on membranes and the removal of small components, need the whole stack before the first section
is final. So each section is seen twice: `add` takes it as it is predicted, `finalize` returns its mask once the last
one was added. In between it is pending, as uint8, in a file.
"""

import math

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.cells import grid_step
from mitoda.postprocessing.components import SizeLimit, StreamedComponents
from mitoda.postprocessing.membrane_snapping import MembraneSnapping
from mitoda.postprocessing.snapping_grid import SnappingGrid

REFERENCE = 0.5
"""Probability that a boundary on a membrane is given, so that a higher threshold still gives a smaller mask."""


def quantise(probability: np.ndarray) -> np.ndarray:
    """Return probability × 255, rounded, as uint8: what maps are written as."""
    result = np.empty(probability.shape, np.uint8)
    for row, values in enumerate(probability):  # by rows: a section may be large
        np.rint(values * 255, out=result[row], casting="unsafe")
    return result


def move_boundary(mask: np.ndarray, distance_nm: float, pixel_nm: tuple[float, float]) -> np.ndarray:
    """Move the boundary of a section's mask, (rows, columns), outward; inward where the distance is negative.

    Examples
    --------
    >>> move_boundary(np.array([[False, False, True, False]]), 5.0, (5.0, 5.0)).tolist()
    [[False, True, True, True]]
    """
    if distance_nm == 0 or not mask.any():
        return mask
    if distance_nm > 0:
        return np.asarray(ndimage.distance_transform_edt(~mask, pixel_nm) <= distance_nm)
    # The mask continues outside of the section: where the border cuts it off there is no boundary.
    padded = np.pad(mask, 1, "edge")
    return np.asarray(ndimage.distance_transform_edt(padded, pixel_nm)[1:-1, 1:-1] > -distance_nm)


class MaskFinalizer:
    """Turns the probabilities of a stack into its mask.

    Parameters
    ----------
    threshold, min_voxels, snap, boundary_nm
        See `inference.settings.MaskSettings`.
    voxel_size : (float, float, float)
        Nanometres: section thickness, rows, columns.
    """

    def __init__(
        self,
        threshold: float,
        min_voxels: int,
        snap: bool,
        voxel_size: tuple[float, float, float],
        boundary_nm: float = 0.0,
    ) -> None:
        self.threshold = threshold
        self.pixel_nm = (voxel_size[1], voxel_size[2])
        self.boundary_nm = boundary_nm
        self.needs_images = snap
        """Whether `add` reads grey values."""
        self._components = StreamedComponents()
        self._steps = (grid_step(self.pixel_nm[0]), grid_step(self.pixel_nm[1]))
        self.grid = SnappingGrid(self._steps, voxel_size)
        min_cells = min_voxels / math.prod(self._steps)
        self._snapping = MembraneSnapping(self._steps, voxel_size, min_cells) if snap else None
        self.limit = (
            SizeLimit.compact(min_voxels, voxel_size) if self._snapping is None else self._snapping.limit
        )
        """Of components, in voxels or, where boundaries are moved, in grid cells."""

    @property
    def found_no_membranes(self) -> bool:
        """Whether boundaries were to be moved to membranes, and none stands out. Call after all sections were added."""
        return self._snapping is not None and self._snapping.curves.overall is None

    def pending(self, probability: np.ndarray) -> np.ndarray:
        """What is kept of a section, uint8: its probabilities where boundaries will move, else its mask, 0 and 255."""
        if self._snapping is not None:
            return quantise(probability)
        mask = move_boundary(probability >= self.threshold, self.boundary_nm, self.pixel_nm)
        return np.where(mask, np.uint8(255), np.uint8(0))

    def provisional(self, pending: np.ndarray) -> np.ndarray:
        """The mask of a pending section before snapping and removal, bool."""
        return pending > 0 if self._snapping is None else pending >= self.threshold * 255

    def add(self, pending: np.ndarray, grey: np.ndarray | None) -> None:
        """Add the next section; `grey` is its image, where `needs_images`."""
        if self._snapping is not None and grey is not None:
            self._snapping.add(grey, pending, self.cells(pending))
        elif self.limit.voxels:
            self._components.add(pending)

    def finalize(self, section: int, pending: np.ndarray) -> np.ndarray:
        """Return the final mask of a section, bool. Call after all sections were added."""
        if self._snapping is not None:
            shifts = self._snapping.shifts(section, self.cells(pending), REFERENCE)
            return self.shifted(pending, shifts)
        if self.limit.voxels:
            return self._components.is_large(self._components.number(section, pending), self.limit)
        return self.provisional(pending)

    def shifted(self, pending: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """The mask of a pending section, bool, from what is added to its probabilities in each grid cell."""
        thresholds = ((self.threshold - shifts) * 255).clip(1, None)  # of the foreground of each cell
        mask = pending >= self.grid.to_pixels(thresholds, pending.shape)
        return move_boundary(mask, self.boundary_nm, self.pixel_nm)

    def cells(self, pending: np.ndarray) -> np.ndarray:
        """The provisional mask on the grid of the snapping: the middle pixel of each cell stands for it."""
        return self.provisional(pending[self._middles(pending.shape)])

    def grid_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of `cells` of a section with so many rows and columns of pixels."""
        rows, columns = (
            len(range(size)[part]) for size, part in zip(shape, self._middles(shape), strict=True)
        )
        return rows, columns

    def _middles(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The middle row and column of each cell; the last one where a section is narrower than half a cell."""
        return tuple(
            slice(min(step // 2, size - 1), None, step) for size, step in zip(shape, self._steps, strict=True)
        )
