"""Where each mitochondrion ends: on the dark membrane around it.

A network puts all boundaries at one level of probability, which is too wide for some mitochondria and too narrow for
others. Annotators draw along the outer membrane, where the image is darkest. So the level is found whose contour runs
where the image is darkest: for all mitochondria together, for each of them, and for each block of grid cells along its
boundary, from the contours within some 40 nm and a few sections; where these are short, the mitochondrion as a whole
decides. The probabilities are then shifted until that level is the reference. No label is read. A mitochondrion
without a clear membrane stays as it is, and so does a volume without one.

Every section is seen twice: `add` sums grey values on its contours, `shifts` returns what to add to its probabilities.
Components and the regions around them are kept on a grid of about 20 nm; the sums of blocks are kept in a temporary
file, so memory grows with the number of components, not with the number of sections.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.components import SizeLimit, StreamedComponents
from mitoda.postprocessing.contours import LEVELS, Rim, blur_at, contour_sums, find_rim
from mitoda.postprocessing.spool import Spool

BLOCK = 2
"""Grid cells along rows and columns that make a block."""
REACH_NM = 200.0
"""Distance around a component that belongs to it, where no other is nearer."""
MIN_CONTOUR = 100
"""Pixels that a component's contour must have at a level, all its sections together, for that level to count."""
MIN_CONTRAST = 0.1
"""By how much, in standard deviations of the grey values, the darkest contour of all components together must be darker
than that at the lowest level; Lucchi: 0.6 to 0.8."""
BLUR_NM = 5.0
"""Standard deviation of the blur of the image before grey values are read, half a membrane."""
NEAR_NM = 40.0
"""Standard deviation, within a section, of the Gaussian that weights contours near a block."""
NEAR_SECTIONS_NM = 15.0
"""The same across sections."""
PRIOR_PIXELS = 50.0
"""Pixels of contour that the whole component counts for at each of its blocks."""


class Curves(NamedTuple):
    """Mean grey value on the contour of each component at each of `LEVELS`, by the component's number."""

    numbers: np.ndarray
    """(components,), ascending."""
    means: np.ndarray
    """(components, levels); infinite where the contour has too few pixels."""
    darkest: np.ndarray
    """(components,): level whose contour is darkest; NaN where there is no clear minimum."""
    overall: float | None
    """The same of all components together; where None, no component has a level of its own either."""


class MembraneSnapping:
    """Grey values on the contours of every component of a stack, and the shifts that follow from them.

    Parameters
    ----------
    cell : (float, float)
        Pixels per grid cell, along rows and columns.
    voxel_size : (float, float, float)
        Nanometres: section thickness, rows, columns.
    min_cells : float
        Components of fewer grid cells, joined through sections, are removed; 0 keeps all.
    """

    def __init__(
        self, cell: tuple[float, float], voxel_size: tuple[float, float, float], min_cells: float = 0.0
    ) -> None:
        self.cell = cell
        self.thickness_nm, *pixel = voxel_size
        self.pixel_nm = (pixel[0], pixel[1])
        self.cell_nm = (cell[0] * pixel[0], cell[1] * pixel[1])
        self._limit = SizeLimit.compact(min_cells, (self.thickness_nm, *self.cell_nm))
        self._components = StreamedComponents()
        self._parts = 0
        """Parts of components, each within a section, seen so far."""
        self._sums: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._blocks = Spool()
        """Numbers, sums and counts of the blocks of each section."""
        self._window: dict[int, list[np.ndarray]] = {}

    def add(self, grey: np.ndarray, probability: np.ndarray, cells: np.ndarray) -> None:
        """Add the next section: its image, its probabilities × 255 as uint8, and its mask on the grid."""
        parts = self._components.add(cells)
        count = int(parts.max(initial=self._parts)) - self._parts
        regions = self._regions(np.where(parts > 0, parts - self._parts, 0)).ravel()
        self._parts += count
        rim = find_rim(probability)
        rows, columns = self._cells_of_pixels(grey.shape, cells.shape)
        region = regions[rows[rim.rows] * cells.shape[1] + columns[rim.columns]]
        rim, region = Rim(*(values[region > 0] for values in rim)), region[region > 0]
        values = self._grey_at(grey, rim)
        sums, counts = contour_sums(values, rim, region, count)
        self._sums.append(sums.astype(np.float32))
        self._counts.append(counts.astype(np.float32))
        across = -(-cells.shape[1] // BLOCK)
        blocks, block = np.unique(
            rows[rim.rows] // BLOCK * across + columns[rim.columns] // BLOCK, return_inverse=True
        )
        sums, counts = contour_sums(values, rim, block + 1, len(blocks))
        self._blocks.append(blocks.astype(np.int32), sums.astype(np.float16), counts.astype(np.uint16))

    def shifts(self, section: int, cells: np.ndarray, reference: float) -> np.ndarray:
        """Return what to add to the probabilities of a section so that membranes lie at `reference`: (h, w), float32.

        It is −1 where a component is removed and, where small ones are removed, outside of all of them. `section` is
        the number in the order of `add`, `cells` what was given to it. Sections are best asked for in order.
        """
        regions = self._regions(self._components.number(section, cells))
        component = np.searchsorted(self.curves.numbers, regions)
        levels = self.curves.darkest[component]
        if not np.isnan(levels).all():
            levels = self._levels_of_blocks(section, component)
        shifts = np.nan_to_num(reference - levels).astype(np.float32)
        if self._limit.voxels:
            shifts[~self._components.is_large(regions, self._limit)] = -1.0
        return shifts

    def to_pixels(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Bring a map on the grid to the pixels of its section: each takes its grid cell's value."""
        rows, columns = self._cells_of_pixels(shape, values.shape)
        return values.take(rows, 0).take(columns, 1)

    @cached_property
    def curves(self) -> Curves:
        """Those of all components; ask once all sections were added. The first number, 0, is that of background."""
        numbers, component = np.unique(self._components.component_of_part, return_inverse=True)
        sums = np.zeros((len(numbers), len(LEVELS)))
        counts = np.zeros_like(sums)
        if self._parts:
            np.add.at(sums, component[1:], np.concatenate(self._sums))
            np.add.at(counts, component[1:], np.concatenate(self._counts))
        overall = clear_level(contour_means(sums.sum(0), counts.sum(0)))
        means = contour_means(sums, counts)
        levels = np.full(len(numbers), math.nan) if overall is None else darkest_levels(means)
        return Curves(numbers, means.astype(np.float32), levels, overall)

    def _levels_of_blocks(self, section: int, component: np.ndarray) -> np.ndarray:
        """The darkest level at each grid cell: its block's, or its component's where no level of the block stands out.

        `component`, (h, w), is the row of `curves` of each cell.
        """
        own: np.ndarray = self.curves.darkest[component]
        of_block = component[::BLOCK, ::BLOCK]
        box = ndimage.find_objects((~np.isnan(own))[::BLOCK, ::BLOCK].astype(np.int8))
        if not box:
            return own
        inside = of_block[box[0]]
        best = np.full(inside.shape, math.inf, np.float32)
        darkest = np.zeros(inside.shape, np.int8)
        blocks, sums, counts = (np.concatenate(some) for some in zip(*self._near(section), strict=True))
        sigmas = [NEAR_NM / (BLOCK * cell) for cell in self.cell_nm]
        for index in range(len(LEVELS)):
            # One level at a time: all of them would not fit in memory for a large section.
            both = (sums[:, index], counts[:, index])
            total, pixels = gather(blocks, both, of_block.shape, sigmas)[:, *box[0]]
            mean = (total + PRIOR_PIXELS * self.curves.means[inside, index]) / (pixels + PRIOR_PIXELS)
            darker = mean < best
            best[darker] = mean[darker]
            darkest[darker] = index
        levels = np.full(of_block.shape, math.nan)
        levels[box[0]] = np.where((darkest > 0) & (darkest < len(LEVELS) - 1), LEVELS[darkest], math.nan)
        levels, same = (
            one.repeat(BLOCK, 0).repeat(BLOCK, 1)[: own.shape[0], : own.shape[1]]
            for one in (levels, of_block)
        )
        return np.where((same == component) & ~np.isnan(levels) & ~np.isnan(own), levels, own)

    def _near(self, section: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks with their sums and counts, weighted, of the sections near one."""
        sigma = NEAR_SECTIONS_NM / self.thickness_nm
        reach = math.floor(2 * sigma)
        near = range(max(section - reach, 0), min(section + reach + 1, len(self._blocks)))
        self._window = {k: self._window.get(k) or self._blocks.read(k) for k in near}
        for k, (blocks, sums, counts) in self._window.items():
            weight = np.float32(math.exp(-0.5 * ((k - section) / sigma) ** 2))
            yield blocks, sums * weight, counts * weight

    def _regions(self, labels: np.ndarray) -> np.ndarray:
        """The label that each grid cell belongs to: the nearest within `REACH_NM`, 0 where there is none."""
        if not labels.any():
            return labels
        distance, nearest = ndimage.distance_transform_edt(labels == 0, self.cell_nm, return_indices=True)
        return np.where(distance <= REACH_NM, labels[tuple(nearest)], 0)

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
        """Blurred grey values at some pixels, in standard deviations from the section's mean."""
        sample = grey[::2, ::2].astype(np.float32)  # enough for mean and contrast
        values = blur_at(grey, rim, (BLUR_NM / self.pixel_nm[0], BLUR_NM / self.pixel_nm[1]))
        return np.asarray((values - sample.mean()) / max(float(sample.std()), 1e-6))


def gather(
    blocks: np.ndarray, values: Sequence[np.ndarray], shape: tuple[int, ...], sigmas: Sequence[float]
) -> np.ndarray:
    """Sums of values scattered over a grid, weighted at each of its points by a Gaussian of the distance.

    Each of `values`, (n,), lies at the flat indices `blocks`, of which several may be equal, and is summed on its own.
    The Gaussian's peak is 1; `sigmas` are along rows and columns, in grid points. Returns (values, rows, columns).
    """
    dense = np.stack([np.bincount(blocks, one, math.prod(shape)) for one in values], dtype=np.float32)
    dense = dense.reshape(-1, *shape)
    for axis, sigma in enumerate(sigmas, 1):
        reach = math.floor(2 * sigma)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        dense = ndimage.correlate1d(dense, kernel, axis, mode="constant")
    return dense


def contour_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean grey value on contours, infinite where there are fewer than `MIN_CONTOUR` pixels."""
    return np.where(counts >= MIN_CONTOUR, sums / np.maximum(counts, 1), math.inf)


def darkest_levels(means: np.ndarray) -> np.ndarray:
    """Level of each component, (components, levels), whose contour is darkest; NaN where it is the first or last."""
    best = means.argmin(1)
    inside = (best > 0) & (best < len(LEVELS) - 1) & np.isfinite(means.min(1))
    return np.where(inside, LEVELS[best], math.nan)


def clear_level(means: np.ndarray) -> float | None:
    """The darkest level of all components together, (levels,), where it stands out by `MIN_CONTRAST`."""
    level = float(darkest_levels(means[None])[0])
    known = means[np.isfinite(means)]
    return None if math.isnan(level) or known[0] - known.min() < MIN_CONTRAST else level
