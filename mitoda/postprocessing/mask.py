"""From probabilities to the mask that is written: boundaries on their rings, small components dropped.

Both need the whole stack before the first section can be finished, so a section is taken in twice: as it is predicted
(`take`), and once the last one has been (`finished`). Between the two it waits as uint8, in a file or packed in memory.
"""

import math

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.components import StreamedComponents
from mitoda.postprocessing.membrane_snapping import Rings, grid_step

PROBABILITY_LEVELS = 255
"""Probability maps are written, and wait, as uint8: probability × 255, rounded."""

ON_RING = 0.5
"""Probability that a boundary on its ring counts as, so that a higher threshold still gives a smaller mask."""


def quantised(probability: np.ndarray) -> np.ndarray:
    """Return probabilities × 255, rounded, as uint8."""
    return np.rint(probability * PROBABILITY_LEVELS).astype(np.uint8)


def moved(mask: np.ndarray, distance: float, pixel: tuple[float, float]) -> np.ndarray:
    """Move the boundary of a mask outward by nanometres, inward where negative.

    Parameters
    ----------
    mask : ndarray, shape (rows, columns), bool
    pixel : (float, float)
        Nanometres, along rows and columns.

    Examples
    --------
    >>> moved(np.array([[False, False, True, False]]), 5.0, (5.0, 5.0)).tolist()
    [[False, True, True, True]]
    """
    if distance == 0 or not mask.any():
        return mask
    if distance > 0:
        return np.asarray(ndimage.distance_transform_edt(~mask, pixel) <= distance)
    # Outside of the section the mask goes on: what the border cuts off has no boundary there.
    padded = np.pad(mask, 1, "edge")
    return np.asarray(ndimage.distance_transform_edt(padded, pixel)[1:-1, 1:-1] > -distance)


class Finishing:
    """What the sections of a stack have in common that decides where each ends.

    Parameters
    ----------
    threshold : float
        Probability from which a pixel is mitochondrion.
    min_size : int
        Components of fewer voxels, joined through sections, become background.
    snap : bool
        Whether each component's boundary is moved to its own dark ring; see `rings`.
    voxel_size : (float, float, float)
        Nanometres: section thickness, rows, columns.
    boundary : float
        Nanometres by which the mask's boundary is moved outward in each section, inward where negative: annotators
        differ in where they draw it.
    """

    def __init__(
        self,
        threshold: float,
        min_size: int,
        snap: bool,
        voxel_size: tuple[float, float, float],
        boundary: float = 0.0,
    ) -> None:
        self.threshold = threshold
        self.pixel = (voxel_size[1], voxel_size[2])
        self.boundary = boundary
        self.min_size = min_size
        self._components = StreamedComponents()
        self._steps = (grid_step(self.pixel[0]), grid_step(self.pixel[1]))
        smallest = min_size / math.prod(self._steps)
        self._rings = Rings(self._steps, voxel_size, smallest) if snap else None

    @property
    def reads_images(self) -> bool:
        """Whether `take` looks at grey values."""
        return self._rings is not None

    @property
    def moves_nothing(self) -> bool:
        """Whether boundaries should be moved to their rings, and no ring stands out; once all have been taken."""
        return self._rings is not None and self._rings.level() is None

    def waiting(self, probability: np.ndarray) -> np.ndarray:
        """As what a section waits, uint8: its probabilities where boundaries will move, else its mask, 0 and 255."""
        if self._rings is not None:
            return quantised(probability)
        mask = moved(probability >= self.threshold, self.boundary, self.pixel)
        return np.where(mask, np.uint8(255), np.uint8(0))

    def mask_of(self, waiting: np.ndarray) -> np.ndarray:
        """What of a section that waits is mitochondrion so far, bool."""
        return waiting > 0 if self._rings is None else waiting >= self.threshold * PROBABILITY_LEVELS

    def take(self, waiting: np.ndarray, grey: np.ndarray | None) -> None:
        """Take in the next section; `grey` is its image, where `reads_images`."""
        if self._rings is not None and grey is not None:
            self._rings.add(grey, waiting, self._cells_of(waiting))
        elif self.min_size:
            self._components.add(waiting)

    def finished(self, section: int, waiting: np.ndarray) -> np.ndarray:
        """What of a section is mitochondrion in the end, bool; once all have been taken."""
        if self._rings is not None:
            shifts = self._rings.shifts(section, self._cells_of(waiting), ON_RING)
            levels = ((self.threshold - shifts) * PROBABILITY_LEVELS).clip(1, None)  # of a cell's foreground
            return moved(waiting >= self._rings.spread(levels, waiting.shape), self.boundary, self.pixel)
        if self.min_size:
            return self._components.without_small(section, waiting, self.min_size) > 0
        return self.mask_of(waiting)

    def _cells_of(self, waiting: np.ndarray) -> np.ndarray:
        """The mask on the grid of the rings: the middle pixel of each cell stands for it."""
        rows, columns = self._steps
        return self.mask_of(waiting[rows // 2 :: rows, columns // 2 :: columns])
