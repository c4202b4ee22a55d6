"""Where each mitochondrion ends: on the dark membrane around it.

A network puts all boundaries at one level of probability, which is too wide for some mitochondria and too narrow for
others. Annotators draw along the outer membrane, where the image is darkest. So the level is found whose contour runs
where the image is darkest: for all mitochondria together, for each of them, and for each block of grid cells along its
boundary, from the contours within some 40 nm and a few sections; where these are short, the mitochondrion as a whole
decides. The probabilities are then shifted until that level is the reference. No label is read. A mitochondrion
without a clear membrane stays as it is, and so does a volume without one.

Every section is seen twice. The first look sums grey values on its contours (`SnappingGrid.gather`). Once components
are joined through all sections, their sums become `Curves`, and the second look returns what to add to the
probabilities (`MembraneShifts`). `MembraneSnapping` does both for sections that stream by, `block_summary` is for
blocks of sections.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mitoda.postprocessing.components import SizeLimit, StreamedComponents
from mitoda.postprocessing.contours import LEVELS
from mitoda.postprocessing.snapping_grid import BLOCK, SnappingGrid
from mitoda.postprocessing.spool import Spool

MIN_CONTOUR = 100
"""Pixels that a component's contour must have at a level, all its sections together, for that level to count."""
MIN_CONTRAST = 0.1
"""By how much, in standard deviations of the grey values, the darkest contour of all components together must be darker
than that at the lowest level; Lucchi: 0.6 to 0.8."""
NEAR_NM = 40.0
"""Standard deviation, within a section, of the Gaussian that weights contours near a block."""
NEAR_SECTIONS_NM = 15.0
"""The same across sections."""
PRIOR_PIXELS = 50.0
"""Pixels of contour that the whole component counts for at each of its blocks."""


class Curves(NamedTuple):
    """Mean grey value on the contour of each component at each of `LEVELS`; the first row is that of background."""

    means: np.ndarray
    """(components, levels), float32; infinite where the contour has too few pixels."""
    darkest: np.ndarray
    """(components,): level whose contour is darkest; NaN where there is no clear minimum."""
    kept: np.ndarray
    """(components,): False of what is removed: small components and, where these are removed, background."""
    overall: float | None
    """The darkest level of all components together; where None, no component has a level of its own either."""


class MembraneShifts:
    """The shifts of sections, from the curves of all components.

    Parameters
    ----------
    grid : SnappingGrid
    curves : Curves
    sections : int
        Of the stack.
    read : callable
        Returns what was gathered of the blocks of a section, by its number: `Gathered.blocks`, their sums and counts.
    """

    def __init__(
        self, grid: SnappingGrid, curves: Curves, sections: int, read: Callable[[int], Sequence[np.ndarray]]
    ) -> None:
        self.grid = grid
        self.curves = curves
        self._sections = sections
        self._read = read
        self._window: dict[int, Sequence[np.ndarray]] = {}

    def of(self, section: int, components: np.ndarray, reference: float) -> np.ndarray:
        """Return what to add to the probabilities of a section so that membranes lie at `reference`: (h, w), float32.

        It is −1 where a component is removed and, where small ones are removed, outside of all of them. `components`
        is the row of `curves` of each grid cell, (h, w). Sections are best asked for in order.
        """
        component = self.grid.regions(components)
        levels = self.curves.darkest[component]
        if not np.isnan(levels).all():
            levels = self._levels_of_blocks(section, component)
        shifts: np.ndarray = np.nan_to_num(reference - levels).astype(np.float32)
        shifts[~self.curves.kept[component]] = -1.0
        return shifts

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
        sigmas = [NEAR_NM / (BLOCK * cell) for cell in self.grid.cell_nm]
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
        sigma = NEAR_SECTIONS_NM / self.grid.voxel_size[0]
        reach = math.floor(2 * sigma)
        near = range(max(section - reach, 0), min(section + reach + 1, self._sections))
        self._window = {k: self._window.get(k) or self._read(k) for k in near}
        for k, (blocks, sums, counts) in self._window.items():
            weight = np.float32(math.exp(-0.5 * ((k - section) / sigma) ** 2))
            yield blocks, sums * weight, counts * weight


class MembraneSnapping:
    """Both looks at a stack that streams by; what was gathered of blocks waits in a temporary file.

    Memory grows with the number of components, not with the number of sections.

    Parameters
    ----------
    cell, voxel_size
        See `SnappingGrid`.
    min_cells : float
        Components of fewer grid cells, joined through sections, are removed; 0 keeps all.
    """

    def __init__(
        self, cell: tuple[float, float], voxel_size: tuple[float, float, float], min_cells: float = 0.0
    ) -> None:
        self.grid = SnappingGrid(cell, voxel_size)
        self.limit = SizeLimit.compact(min_cells, (voxel_size[0], *self.grid.cell_nm))
        """In grid cells."""
        self._components = StreamedComponents()
        self._sums: list[tuple[np.ndarray, np.ndarray]] = []
        self._blocks = Spool()

    def add(self, grey: np.ndarray, probability: np.ndarray, cells: np.ndarray) -> None:
        """Add the next section: its image, its probabilities × 255 as uint8, and its mask on the grid."""
        found = self.grid.gather(grey, probability, self._components.add(cells))
        self._sums.append((found.sums, found.counts))
        self._blocks.append(*found[2:])

    def shifts(self, section: int, cells: np.ndarray, reference: float) -> np.ndarray:
        """Return the shifts of a section, see `MembraneShifts.of`.

        `section` is the number in the order of `add`, `cells` what was given to it.
        """
        components = np.searchsorted(self._numbers, self._components.number(section, cells))
        return self._shifts.of(section, components, reference)

    @cached_property
    def curves(self) -> Curves:
        """Those of all components; ask once all sections were added."""
        found = self._components
        component = np.searchsorted(self._numbers, found.component_of_part[1:])
        of_sections = np.split(component, np.array(found.first_parts[1:], int) - 1)
        kept = found.is_large(self._numbers, self.limit)
        return join_curves(
            ((own, *sums) for own, sums in zip(of_sections, self._sums, strict=False)), kept, self.limit
        )

    @cached_property
    def _numbers(self) -> np.ndarray:
        """Number of the component of each row of `curves`."""
        return np.unique(self._components.component_of_part)

    @cached_property
    def _shifts(self) -> MembraneShifts:
        return MembraneShifts(self.grid, self.curves, len(self._blocks), self._blocks.read)


def join_curves(
    parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], large: np.ndarray, limit: SizeLimit
) -> Curves:
    """Join the contours of parts into those of components.

    Parameters
    ----------
    parts : iterable of (component, sums, counts)
        Row of the component of each part, from 1, and what was gathered of it, in the order of the sections: another
        order could change the last bit.
    large : ndarray, shape (components,)
        Whether each row's component is large enough; not background, the first one.
    limit : SizeLimit
        Where it is 0, nothing is removed.
    """
    total = np.zeros((len(large), len(LEVELS)))
    pixels = np.zeros_like(total)
    for component, sums, counts in parts:
        np.add.at(total, component, sums)
        np.add.at(pixels, component, counts)
    overall = clear_level(contour_means(total.sum(0), pixels.sum(0)))
    means = contour_means(total, pixels)
    darkest = np.full(len(large), math.nan) if overall is None else darkest_levels(means)
    return Curves(means.astype(np.float32), darkest, large | (limit.voxels == 0), overall)


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
