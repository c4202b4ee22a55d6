"""Where each mitochondrion ends: on the dark ring that its own outer membrane makes in the image.

A network's boundary lies at one level of probability for all mitochondria, and is too wide for some, too narrow for
others, which it half believes in. For each of them the level is found whose contour runs where the image is darkest, as
`coarse.darkest_level` does for a whole volume; the probabilities around it are then shifted until that level is the
reference: the level that is darkest for all of them together, so that only their differences are evened out. No label
is read. Of a mitochondrion without a clear ring nothing changes.

Sections stream through twice: once to add up grey values on contours, once to shift. Components and the regions around
them are kept on a grid of about 20 nm; memory grows with their number, not with the number of voxels.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.components import StreamedComponents

LEVELS = np.arange(0.10, 0.901, 0.05)
"""Levels of probability among which a mitochondrion's boundary is sought."""
GRID = 20.0
"""Nanometres, about: cells on which components and regions are kept."""
REACH = 200.0
"""Nanometres around a component that belong to it, where no other is nearer."""
CONTOUR = 100
"""Pixels that a component's contour must have at a level, all its sections together, for that level to count."""
BLUR = 5.0
"""Nanometres, half a membrane: standard deviation of the blur of the image before grey values are read off."""


class Rings:
    """Grey values on the contours of every component of a stack, and the shifts that follow from them.

    Parameters
    ----------
    cell : (float, float)
        Pixels per grid cell, along rows and columns.
    pixel : (float, float)
        Nanometres, along rows and columns.
    reference : float, optional
        Probability on whose contour the membrane should run; by default the level that is darkest for all components
        together.
    smallest : float
        Components of fewer grid cells, joined through sections, are taken away; 0 takes none.
    """

    def __init__(
        self,
        cell: tuple[float, float],
        pixel: tuple[float, float],
        reference: float | None = None,
        smallest: float = 0.0,
    ) -> None:
        self.cell = cell
        self.pixel = pixel
        self.reference = reference
        self.smallest = smallest
        self._components = StreamedComponents()
        self._parts = 0
        """Parts of components, each within a section, seen so far."""
        self._sums: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._shifts: np.ndarray | None = None

    def add(self, grey: np.ndarray, levels: np.ndarray, cells: np.ndarray) -> None:
        """Take in the next section.

        Parameters
        ----------
        grey : ndarray, shape (rows, columns)
        levels : ndarray, shape (rows, columns), uint8
            Probability × 255.
        cells : ndarray, shape (h, w), bool
            Grid cells that are mitochondrion; what hangs together in them is a component.
        """
        numbers = self._components.add(cells)
        count = int(numbers.max(initial=self._parts)) - self._parts
        if count == 0:
            return
        regions = self._regions(np.where(numbers > 0, numbers - self._parts, 0))
        self._parts += count
        rim = find_rim(levels)
        rows, columns = self._cells_of_pixels(grey.shape, regions.shape)
        near = regions[rows[rim.rows], columns[rim.columns]]
        rim, near = rim.take(near > 0), near[near > 0]
        sums, counts = contour_sums(self._grey_at(grey, rim), rim, near, count)
        self._sums.append(sums.astype(np.float32))
        self._counts.append(counts.astype(np.float32))

    def shifts(self, section: int, cells: np.ndarray) -> np.ndarray:
        """What is to be added to the probabilities of a section: (h, w), float32.

        Where a component is taken away, and outside of all of them where small ones are, that is −1.

        Parameters
        ----------
        section : int
            Its number in the order of `add`.
        cells : ndarray
            What was given to `add` for it.
        """
        if self._shifts is None:
            self._shifts = self._find_shifts()
        regions = self._regions(self._components.numbered(section, cells))
        return self._shifts[regions]

    def spread(self, shifts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Bring a map on the grid to the pixels of its section: each takes its grid cell's value."""
        rows, columns = self._cells_of_pixels(shape, shifts.shape)
        return shifts[rows[:, None], columns[None, :]]

    def _find_shifts(self) -> np.ndarray:
        """The shift of each component, by the number of its root; the first is of what belongs to none."""
        roots = self._components.roots()
        numbers, component = np.unique(roots, return_inverse=True)  # far fewer than parts
        sums = np.zeros((len(numbers), len(LEVELS)))
        counts = np.zeros_like(sums)
        if self._parts:
            np.add.at(sums, component[1:], np.concatenate(self._sums))
            np.add.at(counts, component[1:], np.concatenate(self._counts))
        reference = self.reference
        if reference is None:
            whole = ring_levels(sums.sum(0, keepdims=True), counts.sum(0, keepdims=True), math.nan)
            reference = float(whole[0])
        shifts = np.zeros(len(roots), np.float32)
        shifts[numbers] = np.nan_to_num(reference - ring_levels(sums, counts, reference))
        shifts[self._components.sizes() < self.smallest] = -1.0
        shifts[0] = -1.0 if self.smallest else 0.0
        return shifts

    def _regions(self, labels: np.ndarray) -> np.ndarray:
        """The label that each grid cell belongs to: the nearest within REACH, 0 where there is none."""
        if not labels.any():
            return labels
        sampling = [cell * pixel for cell, pixel in zip(self.cell, self.pixel, strict=True)]
        distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling, return_indices=True)
        return np.where(distance <= REACH, labels[tuple(nearest)], 0)

    def _cells_of_pixels(
        self, shape: tuple[int, ...], cells: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row of the grid of each row of pixels, and column of each column."""
        rows, columns = (
            np.minimum((np.arange(size) / cell).astype(int), count - 1)
            for size, cell, count in zip(shape, self.cell, cells, strict=True)
        )
        return rows, columns

    def _grey_at(self, grey: np.ndarray, rim: "Rim") -> np.ndarray:
        """Grey values of a few pixels, a little blurred, on a scale on which sections of different contrast add up."""
        sample = grey[::2, ::2].astype(
            np.float32
        )  # of mean and contrast a quarter of the pixels tells enough
        values = blurred_at(grey, rim, (BLUR / self.pixel[0], BLUR / self.pixel[1]))
        return (values - sample.mean()) / max(float(sample.std()), 1e-6)


def grid_step(pixel: float) -> int:
    """Pixels of so many nanometres that make a grid cell, at least one.

    Examples
    --------
    >>> grid_step(5.0), grid_step(8.0), grid_step(30.0)
    (4, 2, 1)
    """
    return max(1, round(GRID / pixel))


@dataclass(frozen=True)
class Rim:
    """Pixels of a section that lie on a contour at one or more of `LEVELS`; one entry for each.

    A contour is the pixels over a level that touch, along an edge, one that is not. A pixel over `own` of the levels
    whose lowest neighbour is over `lowest` lies on the contours lowest + 1 … own, so one pass serves all levels.
    """

    rows: np.ndarray
    columns: np.ndarray
    lowest: np.ndarray
    own: np.ndarray

    def take(self, which: np.ndarray) -> "Rim":
        """Some of the pixels."""
        return Rim(self.rows[which], self.columns[which], self.lowest[which], self.own[which])


CLASSES = (np.arange(256)[:, None] >= LEVELS * 255 - 1e-6).sum(1).astype(np.int8)
"""How many of `LEVELS` a probability × 255 reaches."""


def find_rim(levels: np.ndarray) -> Rim:
    """Find the pixels on contours of a section of probabilities × 255, uint8, shape (rows, columns)."""
    own = CLASSES[levels]
    lowest = own.copy()
    np.minimum(lowest[1:], own[:-1], out=lowest[1:])
    np.minimum(lowest[:-1], own[1:], out=lowest[:-1])
    np.minimum(lowest[:, 1:], own[:, :-1], out=lowest[:, 1:])
    np.minimum(lowest[:, :-1], own[:, 1:], out=lowest[:, :-1])
    place = np.flatnonzero(own > lowest)
    rows, columns = np.divmod(place, levels.shape[1])
    return Rim(rows, columns, lowest.ravel()[place], own.ravel()[place])


def blurred_at(grey: np.ndarray, rim: Rim, sigma: tuple[float, float]) -> np.ndarray:
    """Gaussian blur of an image at a few of its pixels, σ in pixels; its edge pixels go on outside.

    Only contours are looked at, a few per cent of a section: to blur all of it takes ten times as long.
    """
    rows, columns = grey.shape
    result = np.zeros(len(rim.rows), np.float32)
    reaches = [math.ceil(2 * one) for one in sigma]
    whole = 0.0
    for down in range(-reaches[0], reaches[0] + 1):
        for right in range(-reaches[1], reaches[1] + 1):
            weight = math.exp(-0.5 * ((down / sigma[0]) ** 2 + (right / sigma[1]) ** 2))
            whole += weight
            near = (rim.rows + down).clip(0, rows - 1) * columns + (rim.columns + right).clip(0, columns - 1)
            result += weight * grey.ravel()[near].astype(np.float32)
    return result / whole


def contour_sums(
    grey: np.ndarray, rim: Rim, regions: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of grey values, and numbers of pixels, on the contours of a section at each of `LEVELS`, by region.

    Parameters
    ----------
    grey, regions : ndarray, shape (pixels of the rim,)
        Grey value of each, and the region it lies in, 1 to `count`.

    Returns
    -------
    sums, counts : ndarray, shape (count, levels)
    """
    width = len(LEVELS) + 1
    row = (regions.astype(np.int64) - 1) * width
    first, behind = row + rim.lowest, row + rim.own

    def summed(weights: np.ndarray | None) -> np.ndarray:
        steps = np.bincount(first, weights, count * width) - np.bincount(behind, weights, count * width)
        return steps.reshape(count, width).cumsum(1)[:, :-1]

    return summed(grey.astype(np.float64)), summed(None)


def ring_levels(sums: np.ndarray, counts: np.ndarray, reference: float) -> np.ndarray:
    """Find the level of each component whose contour is darkest; the reference where there is no clear minimum.

    No clear minimum: too few pixels, or the darkest contour is at either end of the levels.

    Parameters
    ----------
    sums, counts : ndarray, shape (components, levels)
        Of `contour_sums`, added up over sections.

    Returns
    -------
    ndarray, shape (components,)
    """
    known = counts >= CONTOUR
    means = np.where(known, sums / np.maximum(counts, 1), math.inf)
    best = means.argmin(1)
    inside = (best > 0) & (best < len(LEVELS) - 1) & known.any(1)
    return np.where(inside, LEVELS[best], reference)
