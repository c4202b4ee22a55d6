"""Where each mitochondrion ends: on the dark ring that its own outer membrane makes in the image.

A network's boundary lies at one level of probability for all mitochondria, and is too wide for some, too narrow for
others, which it half believes in. Annotators draw along the outer membrane, so the level is found whose contour runs
where the image is darkest: for all mitochondria together, for each of them, and for each place along its boundary, from
the contours within some 40 nm and a few sections; where these are short, the mitochondrion as a whole decides. The
probabilities are then shifted until that level is the one asked for. No label is read. Of a mitochondrion without a
clear ring nothing changes, nor of a volume without one.

Sections stream through twice: once to add up grey values on contours, once to shift. Components and the regions around
them are kept on a grid of about 20 nm; the sums of a place wait in a temporary file, so memory grows with the number of
components, not with the number of sections.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.components import StreamedComponents
from mitoda.postprocessing.contours import LEVELS, Rim, blurred_at, contour_sums, find_rim
from mitoda.postprocessing.spill import ArrayFile

GRID = 20.0
"""Nanometres, about: cells on which components and regions are kept."""
PLACE = 2
"""Cells along rows and columns that make a place."""
REACH = 200.0
"""Nanometres around a component that belong to it, where no other is nearer."""
CONTOUR = 100
"""Pixels that a component's contour must have at a level, all its sections together, for that level to count."""
FALL = 0.1
"""By how much, in standard deviations of the grey values, the darkest contour of all components together must be darker
than that at the lowest level; Lucchi: 0.6 to 0.8."""
BLUR = 5.0
"""Nanometres, half a membrane: standard deviation of the blur of the image before grey values are read off."""
NEAR = 40.0
"""Nanometres in a section: standard deviation of the Gaussian by which contours count for a place."""
NEAR_SECTIONS = 15.0
"""The same across sections."""
PRIOR = 50.0
"""Pixels of contour as much as which the whole component counts at each of its places."""


@dataclass(frozen=True)
class Curves:
    """Mean grey value on the contour of each component at each of `LEVELS`, by the component's number."""

    numbers: np.ndarray
    """(components,), ascending."""
    means: np.ndarray
    """(components, levels); infinite where too few pixels are known."""
    levels: np.ndarray
    """(components,): where each is darkest; NaN where there is no clear ring."""
    whole: float | None
    """Where all together are darkest; None where no level stands out, and then none has a ring of its own."""


class Rings:
    """Grey values on the contours of every component of a stack, and the shifts that follow from them.

    Parameters
    ----------
    cell : (float, float)
        Pixels per grid cell, along rows and columns.
    voxel_size : (float, float, float)
        Nanometres: section thickness, rows, columns.
    smallest : float
        Components of fewer grid cells, joined through sections, are taken away; 0 takes none.
    """

    def __init__(
        self,
        cell: tuple[float, float],
        voxel_size: tuple[float, float, float],
        smallest: float = 0.0,
    ) -> None:
        self.cell = cell
        self.thickness, *pixel = voxel_size
        self.pixel = (pixel[0], pixel[1])
        self.smallest = smallest
        self._components = StreamedComponents()
        self._parts = 0
        """Parts of components, each within a section, seen so far."""
        self._sums: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._places = ArrayFile()
        """Of each section: places with contours in them, and the sums and counts of these."""
        self._window: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._curves: Curves | None = None

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
        regions = self._regions(np.where(numbers > 0, numbers - self._parts, 0)).ravel()
        self._parts += count
        rim = find_rim(levels)
        rows, columns = self._cells_of_pixels(grey.shape, cells.shape)
        near = regions[rows[rim.rows] * cells.shape[1] + columns[rim.columns]]
        rim, near = rim.take(near > 0), near[near > 0]
        values = self._grey_at(grey, rim)
        sums, counts = contour_sums(values, rim, near, count)
        self._sums.append(sums.astype(np.float32))
        self._counts.append(counts.astype(np.float32))
        across = places_along(cells.shape[1])
        places, place = np.unique(
            rows[rim.rows] // PLACE * across + columns[rim.columns] // PLACE, return_inverse=True
        )
        sums, counts = contour_sums(values, rim, place + 1, len(places))
        self._places.append([places.astype(np.int32), sums.astype(np.float16), counts.astype(np.uint16)])

    def level(self) -> float | None:
        """Where the contours of all components together are darkest; None where no level stands out."""
        return self._known().whole

    def shifts(self, section: int, cells: np.ndarray, reference: float) -> np.ndarray:
        """What is to be added to the probabilities of a section: (h, w), float32.

        Where a component is taken away, and outside of all of them where small ones are, that is −1. Sections are
        best asked for in their order.

        Parameters
        ----------
        section : int
            Its number in the order of `add`.
        cells : ndarray
            What was given to `add` for it.
        reference : float
            Probability on whose contour the membrane should run.
        """
        curves = self._known()
        regions = self._regions(self._components.numbered(section, cells))
        component = np.searchsorted(curves.numbers, regions)
        levels = curves.levels[component]
        if not np.isnan(levels).all():
            levels = self._levels_of_places(section, component)
        shifts = np.nan_to_num(reference - levels).astype(np.float32)
        if self.smallest:
            sizes = self._components.sizes()
            shifts[(sizes[regions] < self.smallest) | (regions == 0)] = -1.0
        return shifts

    def spread(self, shifts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Bring a map on the grid to the pixels of its section: each takes its grid cell's value."""
        rows, columns = self._cells_of_pixels(shape, shifts.shape)
        return shifts.take(rows, 0).take(columns, 1)

    def _known(self) -> Curves:
        """The curves; once all sections are taken in, they are added up."""
        if self._curves is None:
            self._curves = self._find_curves()
        return self._curves

    def _find_curves(self) -> Curves:
        """Add up what the parts of each component have; the first number, 0, is of what belongs to none."""
        numbers, component = np.unique(self._components.roots(), return_inverse=True)  # far fewer than parts
        sums = np.zeros((len(numbers), len(LEVELS)))
        counts = np.zeros_like(sums)
        if self._parts:
            np.add.at(sums, component[1:], np.concatenate(self._sums))
            np.add.at(counts, component[1:], np.concatenate(self._counts))
        whole = clear_level(ring_means(sums.sum(0), counts.sum(0)))
        means = ring_means(sums, counts)
        levels = ring_levels(means) if whole is not None else np.full(len(numbers), math.nan)
        return Curves(numbers, means.astype(np.float32), levels, whole)

    def _levels_of_places(self, section: int, component: np.ndarray) -> np.ndarray:
        """The darkest level at each grid cell: its place's, or its component's where none stands out.

        Parameters
        ----------
        component : ndarray, shape (h, w)
            Row of the curves of each cell.
        """
        curves = self._known()
        own = curves.levels[component]
        of_place = component[::PLACE, ::PLACE]
        box = ndimage.find_objects((~np.isnan(own))[::PLACE, ::PLACE].astype(np.int8))
        if not box:
            return own
        inside = of_place[box[0]]
        best = np.full(inside.shape, math.inf, np.float32)
        darkest = np.zeros(inside.shape, np.int8)
        near = list(self._near(section))
        places = np.concatenate([some for some, _, _ in near])
        sums = np.concatenate([some for _, some, _ in near])
        counts = np.concatenate([some for _, _, some in near])
        sigmas = [NEAR / (PLACE * cell * pixel) for cell, pixel in zip(self.cell, self.pixel, strict=True)]
        for index in range(len(LEVELS)):
            # One level at a time: of a large section all of them would not fit.
            both = (sums[:, index], counts[:, index])
            total, pixels = gathered(places, both, of_place.shape, sigmas)[:, *box[0]]
            mean = (total + PRIOR * curves.means[inside, index]) / (pixels + PRIOR)
            darker = mean < best
            best[darker] = mean[darker]
            darkest[darker] = index
        levels = np.full(of_place.shape, math.nan)
        levels[box[0]] = np.where((darkest > 0) & (darkest < len(LEVELS) - 1), LEVELS[darkest], math.nan)
        levels, same = (
            one.repeat(PLACE, 0).repeat(PLACE, 1)[: own.shape[0], : own.shape[1]]
            for one in (levels, of_place)
        )
        return np.where((same == component) & ~np.isnan(levels) & ~np.isnan(own), levels, own)

    def _near(self, section: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Places with their sums and counts, weighted, of the sections near one."""
        sigma = NEAR_SECTIONS / self.thickness
        reach = math.floor(2 * sigma)
        for number in range(max(section - reach, 0), min(section + reach + 1, len(self._places))):
            if number not in self._window:
                self._window[number] = self._places.read(number)
                if len(self._window) > 2 * reach + 1:
                    self._window.popitem(last=False)
            places, sums, counts = self._window[number]
            weight = np.float32(math.exp(-0.5 * ((number - section) / sigma) ** 2))
            yield places, sums * weight, counts * weight

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

    def _grey_at(self, grey: np.ndarray, rim: Rim) -> np.ndarray:
        """Grey values of a few pixels, a little blurred, on a scale on which sections of different contrast add up."""
        # Of mean and contrast a quarter of the pixels tells enough.
        sample = grey[::2, ::2].astype(np.float32)
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


def places_along(cells: int) -> int:
    """How many places so many grid cells in a row make."""
    return -(-cells // PLACE)


def gathered(
    places: np.ndarray, values: Sequence[np.ndarray], shape: tuple[int, ...], sigmas: Sequence[float]
) -> np.ndarray:
    """Sums of values scattered over a grid, at each of its places, those at a distance weighted by a Gaussian.

    Parameters
    ----------
    places : ndarray, shape (n,), int
        Where on the grid each value lies, rows first; a place may have several.
    values : arrays of shape (n,)
        Each is summed on its own.
    sigmas : sequence of float
        Standard deviations of the Gaussian along rows and columns, in places; its peak is 1.

    Returns
    -------
    ndarray, shape (values, rows, columns), float32
    """
    dense = np.stack([np.bincount(places, one, math.prod(shape)) for one in values], dtype=np.float32)
    dense = dense.reshape(-1, *shape)
    for axis, sigma in enumerate(sigmas, 1):
        reach = math.floor(2 * sigma)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        dense = ndimage.correlate1d(dense, kernel, axis, mode="constant")
    return dense


def ring_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean grey value on contours, infinite where there are too few pixels to tell."""
    return np.where(counts >= CONTOUR, sums / np.maximum(counts, 1), math.inf)


def ring_levels(means: np.ndarray) -> np.ndarray:
    """Find the level of each component whose contour is darkest; NaN where there is no clear minimum.

    No clear minimum: too few pixels, or the darkest contour is at either end of the levels.

    Parameters
    ----------
    means : ndarray, shape (components, levels)
        Of `ring_means`.

    Returns
    -------
    ndarray, shape (components,)
    """
    best = means.argmin(1)
    inside = (best > 0) & (best < len(LEVELS) - 1) & np.isfinite(means.min(1))
    return np.where(inside, LEVELS[best], math.nan)


def clear_level(means: np.ndarray) -> float | None:
    """The darkest level of all components together, (levels,), where it stands out by `FALL`."""
    level = float(ring_levels(means[None])[0])
    known = means[np.isfinite(means)]
    return None if math.isnan(level) or known[0] - known.min() < FALL else level
