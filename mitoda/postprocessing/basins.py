"""Splitting touching mitochondria: a watershed on the distance to the background, in slabs of a coarse grid.

The mask is reduced to cells of about 20 nm; a cell counts if all its voxels are foreground. The height of a cell is its
distance to the nearest other cell in nanometres, times its mean probability where a map is given.

    height    2 4 6 5 3 2 4 7 4 2
    basin     a a a a a b b b b b     each cell belongs to the peak that it reaches by steepest ascent
    neck                ^^            the highest pass between a and b: 2, of peaks 6 and 7

Two basins become one unless the neck between them is thin; see `MIN_NECK`. Steepest ascent (the drop of water
principle of Cousty et al. 2009, doi:10.1109/TPAMI.2008.173) looks at a cell and its neighbours only, and passes are
joined afterwards in a graph of basins (as in Zlateski and Seung 2015, arXiv:1505.00249). So slabs of any height give
the same basins.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from mitoda.postprocessing.cells import DEEPEST_NM, PER_NM, Grid, heights
from mitoda.postprocessing.components import DisjointSets
from mitoda.postprocessing.spool import Spool

MIN_NECK = 0.6
"""Two bodies are one mitochondrion if the neck between them is at least this wide, relative to the thinner of them."""
SHALLOW_NM = 30.0
"""A peak that rises above its neck by less is not a separate mitochondrion: surfaces are rough, and ends taper."""
SLAB = 8
"""Layers of cells computed together. On Lucchi's masks 32 take the same time and a third more memory."""

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pairs of numbers, the smaller first, and a value of each pair."""


def group(one: np.ndarray, other: np.ndarray, values: np.ndarray, ufunc: np.ufunc) -> Edges:
    """Reduce the values of equal pairs, in either order, to one; pairs of a number with itself are left out."""
    keep = one != other
    low, high, values = np.minimum(one, other)[keep], np.maximum(one, other)[keep], values[keep]
    if not len(values):
        return low, high, values
    order = np.lexsort((high, low))
    low, high, values = low[order], high[order], values[order]
    starts = np.flatnonzero(np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0)))
    return low[starts], high[starts], ufunc.reduceat(values, starts)


class Basins:
    """Basins of all layers, and which of them are one mitochondrion.

    Parameters
    ----------
    layers : iterable of ndarray
        See `layers`.
    grid : Grid
    min_neck : float
        See `MIN_NECK`.
    slab : int
        Layers computed together; the result does not depend on it.

    Attributes
    ----------
    peaks : ndarray
        Height in nanometres of each body, by its number; that of 0 is 0.
    """

    def __init__(
        self, layers: Iterable[np.ndarray], grid: Grid, min_neck: float = MIN_NECK, slab: int = SLAB
    ) -> None:
        self.grid = grid
        self._sets = DisjointSets()
        self._peaks: list[int] = [0]
        self._places: list[int] = [0]
        """Where the peak of each number is, counted through the stack: a name that no slab changes."""
        self._edges: list[Edges] = []
        self._above = np.zeros(0, np.int64)
        """Numbers of the last layer so far, with a border of 0."""
        self._expected: dict[int, int] = {}
        """Numbers by their cell in the next layer, which steepest ascent leads to."""
        self._layers = Spool()
        for first, window, core in windows(layers, math.ceil(DEEPEST_NM / grid.spacing[0]), slab):
            inside = slice(max(core.start, 0), min(core.stop, len(window)))
            ends = (inside.start - core.start, core.stop - inside.stop)
            self._add(first, np.pad(heights(window, grid.spacing, inside), (ends, (0, 0), (0, 0))))
        self._join(min_neck)

    def read(self, layer: int) -> np.ndarray:
        """Number of the body of each cell of a layer, from 1 in the order of peaks in the stack; 0 is none."""
        return np.asarray(self._numbers[self._layers.read(layer)[0]])

    def _add(self, first: int, height: np.ndarray) -> None:
        """Add a slab. Its heights have a layer more on both sides, of 0 at the ends of the stack."""
        padded = np.pad(height, ((0, 0), (1, 1), (1, 1)))
        size, width = padded[0].size, padded.shape[2]
        flat = padded.ravel()
        cells = np.flatnonzero(flat)
        inner = cells[(cells >= size) & (cells < flat.size - size)]
        back = np.array([-size, -width - 1, -width, -width + 1, -1])
        best = inner.copy()
        for step in (*back, *-back):
            near = inner + step
            higher = (flat[near] > flat[best]) | ((flat[near] == flat[best]) & (near > best))
            best = np.where(higher, near, best)
        target = np.arange(len(cells))
        target[np.searchsorted(cells, inner)] = np.searchsorted(cells, best)
        while (target[target] != target).any():
            target = target[target]
        numbers = np.zeros(flat.size, np.int32)
        numbers[cells] = self._number(first, cells, target, flat, size)
        labels = numbers.reshape(padded.shape)[1:-1]
        for layer in labels:
            self._layers.append(layer[1:-1, 1:-1])
        one = np.concatenate([inner] * len(back))
        other = one + np.repeat(back, len(inner))
        both = flat[other] > 0
        one, other = one[both], other[both]
        self._edges.append(
            group(numbers[one], numbers[other], np.minimum(flat[one], flat[other]), np.maximum)
        )
        self._above = labels[-1].ravel().astype(np.int64)

    def _number(
        self, first: int, cells: np.ndarray, target: np.ndarray, flat: np.ndarray, size: int
    ) -> np.ndarray:
        """Number the ends of steepest ascent: peaks, and cells of the layers before and after the slab."""
        of_cell = np.zeros(len(cells), np.int64)
        below = flat.size - size
        is_above, is_below = cells < size, cells >= below
        ends = np.unique(target[~is_above & ~is_below])
        fresh = ends[~is_above[ends]]
        start = self._sets.add(len(fresh))
        of_cell[fresh] = np.arange(start, start + len(fresh))
        own = ~is_below[fresh]
        self._peaks.extend(np.where(own, flat[cells[fresh]], 0).tolist())
        self._places.extend((cells[fresh] + (first - 1) * size).tolist())
        of_cell[is_above] = self._above[cells[is_above]] if len(self._above) else 0
        numbers = of_cell[target]
        for cell, number in self._expected.items():
            place = np.searchsorted(cells, cell + size)
            self._sets.join(number, int(numbers[place]))
        self._expected = dict(
            zip((cells[fresh[~own]] - below).tolist(), of_cell[fresh[~own]].tolist(), strict=True)
        )
        return np.where(is_below, 0, numbers)

    def _join(self, min_neck: float) -> None:
        """Join basins over passes, highest first, and number what is left."""
        roots = self._sets.roots()
        peaks, places = np.array(self._peaks), np.array(self._places)
        is_peak = peaks > 0
        place_of, peak_of = np.zeros_like(places), np.zeros_like(peaks)
        place_of[roots[is_peak]], peak_of[roots[is_peak]] = places[is_peak], peaks[is_peak]
        low, high, passes = (np.concatenate(part) for part in zip(*self._edges, strict=True))
        low, high, passes = group(roots[low], roots[high], passes, np.maximum)
        first, second = np.sort([place_of[low], place_of[high]], axis=0)
        bodies = peak_of.tolist()
        for edge in np.lexsort((second, first, -passes)).tolist():
            one, other = self._sets.root(int(low[edge])), self._sets.root(int(high[edge]))
            lower, neck = min(bodies[one], bodies[other]), int(passes[edge])
            if one != other and (neck >= min_neck * lower or lower - neck < SHALLOW_NM * PER_NM):
                self._sets.join(one, other)
                bodies[self._sets.root(one)] = max(bodies[one], bodies[other])
        roots = self._sets.roots()
        body_place = np.full(len(roots), np.iinfo(np.int64).max)
        np.minimum.at(body_place, roots[is_peak], places[is_peak])
        kept = np.flatnonzero(body_place < np.iinfo(np.int64).max)
        kept = kept[np.argsort(body_place[kept])]
        ranks = np.zeros(len(roots), np.int32)
        ranks[kept] = np.arange(1, len(kept) + 1)
        self._numbers = ranks[roots]
        self.peaks = np.array([0, *(bodies[root] for root in kept)]) / PER_NM


def windows(layers: Iterable[np.ndarray], margin: int, slab: int) -> Iterator[tuple[int, np.ndarray, slice]]:
    """Yield slabs with a margin: the number of the first layer, the window, and where the core lies in it.

    The core has one layer more on both sides, which reaches out of the window at the ends of the stack.
    """
    kept: list[np.ndarray] = []
    start, first, source, ended = 0, 0, iter(layers), False
    while True:
        while not ended and start + len(kept) < first + slab + 1 + margin:
            layer = next(source, None)
            if layer is None:
                ended = True
            else:
                kept.append(layer)
        end = start + len(kept)
        last = min(first + slab, end)
        if first >= last:
            return
        window = np.stack(kept)
        yield first, window, slice(first - 1 - start, last + 1 - start)
        if last == end:
            return
        first = last
        dropped = max(0, first - 1 - margin - start)
        del kept[:dropped]
        start += dropped
