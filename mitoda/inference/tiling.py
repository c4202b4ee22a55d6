"""Overlap geometry: which pairs cover a stack, which tiles a section, which blocks a volume. Pure integers, and the
blending window."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LEAST_DEPTH = 64
"""Sections of a block, at least, where the volume has as many."""


def plan_pairs(sections: int, stride: int) -> list[tuple[int, int]]:
    """List the pairs (first, second) that predict every section, in order of the second.

    Section k is in (k, k + stride) and (k − stride, k) where both exist. In a stack shorter than twice the stride some
    sections have neither; each of those is paired with the farther end of the stack, so that every section is
    predicted at least once.

        12 sections, stride 10:  0–10  1–11  and  2–11 3–11 4–11 5–11  0–6 0–7 0–8 0–9

    Parameters
    ----------
    sections : int
        At least 1. One section is paired with itself.
    stride : int
        From 0 to `sections` − 1; 0 pairs each section with itself.
    """
    pairs = [(k, k + stride) for k in range(sections - stride)]
    last = sections - 1
    for k in range(sections - stride, stride):
        pairs.append((k, last) if last - k >= k else (0, k))
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def tile_starts(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Place tiles along one axis.

    They start at 0, end at `length`, overlap by at least `overlap` and are spread evenly. Where `tile` − `overlap` is
    below `multiple` they are `multiple` apart, so the overlap is smaller than requested.

        length 10, tile 4, overlap 1:   |0--3|
                                           |3--6|
                                              |6--9|

    Parameters
    ----------
    length : int
        Divisible by `multiple`; not below `tile`.
    tile : int
        Divisible by `multiple`.
    multiple : int
        Every start is divisible by it.
    """
    if tile >= length:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    # Rounding starts down may widen one gap by less than `multiple`; one more tile then keeps the overlap.
    while True:
        even = ((index * (length - tile)) // (count - 1) for index in range(count))
        starts = sorted({start // multiple * multiple for start in even})
        gaps = [after - before for before, after in pairwise(starts)]
        if max(gaps) <= max(tile - overlap, multiple):
            return starts
        count += 1


def even_tile(length: int, largest: int, overlap: int) -> int:
    """Choose the side of the tiles that cover a length with the least overlap, as few as tiles of `largest` would be.

    Examples
    --------
    >>> even_tile(6554, 4096, 64), even_tile(4096, 4096, 64)
    (3309, 4096)
    """
    if length <= largest:
        return length
    overlap = min(overlap, largest // 2)
    count = -(-(length - overlap) // (largest - overlap))
    return -(-(length + (count - 1) * overlap) // count)


def blend_window(tile: int, overlap: int) -> np.ndarray:
    """Weights of a tile along one axis: 1 in the middle, a raised cosine over the overlap at both ends, never 0."""
    ramp = min(overlap, tile // 2)
    weights = np.ones(tile, np.float32)
    if ramp:
        rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
        weights[:ramp] = rise
        weights[tile - ramp :] = rise[::-1]
    return np.maximum(weights, 1e-3)


@dataclass(frozen=True)
class Tiling:
    """How a section of a given shape is cut into tiles, in working pixels."""

    padded: tuple[int, int]
    """Rows and columns after mirroring at the lower and right edges."""
    tile: tuple[int, int]
    overlap: int
    corners: tuple[tuple[int, int], ...]
    """First row and column of each tile."""


def plan_tiles(shape: tuple[int, int], tile: tuple[int, int] | None, overlap: int, multiple: int) -> Tiling:
    """Cover a section with equal tiles.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the section.
    tile : (int, int) or None
        Wanted size; rounded up to `multiple`, cut to the section. None is the whole section.
    overlap : int
        Pixels that neighbouring tiles share; at most half a tile is used.
    multiple : int
        What the network's input must be divisible by.
    """
    padded = tuple(_round_up(size, multiple) for size in shape)
    wanted = tuple(
        whole if tile is None else min(_round_up(tile[axis], multiple), whole)
        for axis, whole in enumerate(padded)
    )
    overlap = min(overlap, *(size // 2 for size in wanted))
    rows, columns = (
        tile_starts(padded[axis], wanted[axis], overlap if wanted[axis] < padded[axis] else 0, multiple)
        for axis in range(2)
    )
    corners = tuple((row, column) for row in rows for column in columns)
    return Tiling((padded[0], padded[1]), (wanted[0], wanted[1]), overlap, corners)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class Block:
    """A box of a volume that is predicted by itself: its core, and the window that is read for it."""

    core: tuple[slice, slice, slice]
    """Sections, rows and columns that are written."""
    window: tuple[slice, slice]
    """Rows and columns that are read."""

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the core lies in the window."""
        rows, columns = (
            slice(core.start - wide.start, core.stop - wide.start)
            for core, wide in zip(self.core[1:], self.window, strict=True)
        )
        return rows, columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sections, rows and columns of the core."""
        sections, rows, columns = (side.stop - side.start for side in self.core)
        return sections, rows, columns


@dataclass(frozen=True)
class BlockGrid:
    """A volume cut into blocks, numbered from 0: columns first, then rows, then sections.

    Sections have no margin here: what a section depends on before and after is read section by section.
    """

    shape: tuple[int, int, int]
    """Of the volume."""
    block: tuple[int, int, int]
    """Of a core; those at the far ends may be smaller."""
    margin: tuple[int, int] = (0, 0)
    """Rows and columns that are read around a core."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Blocks along each axis."""
        sections, rows, columns = (
            -(-size // side) for size, side in zip(self.shape, self.block, strict=True)
        )
        return sections, rows, columns

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(f"there are blocks 0 to {len(self) - 1}, but not {index}")
        place = (
            index // math.prod(self.counts[1:]),
            index // self.counts[2] % self.counts[1],
            index % self.counts[2],
        )
        sections, rows, columns = (
            slice(number * side, min(number * side + side, size))
            for number, side, size in zip(place, self.block, self.shape, strict=True)
        )
        window = tuple(
            slice(max(0, core.start - margin), min(core.stop + margin, size))
            for core, margin, size in zip((rows, columns), self.margin, self.shape[1:], strict=True)
        )
        return Block((sections, rows, columns), (window[0], window[1]))


def plan_blocks(
    shape: tuple[int, int, int], unit: tuple[int, int, int], reach: int, pixels: int, margin: tuple[int, int]
) -> BlockGrid:
    """Cut a volume into blocks: whole sections where they have at most `pixels`, equal windows of them otherwise.

    Parameters
    ----------
    unit : (int, int, int)
        Sides that two writers may not share: those of a shard or chunk of the output. Blocks are multiples of it.
    reach : int
        Sections before and after a block that are read for it. Blocks have at least eight times as many, so that the
        margin costs at most a quarter.
    pixels : int
        Of the rows and columns of a block, at most; one unit may have more.
    margin : (int, int)
        Rows and columns that are read around a window.
    """
    depth = _round_up(max(8 * reach, LEAST_DEPTH), unit[0])
    if shape[1] * shape[2] <= pixels:
        return BlockGrid(shape, (depth, _round_up(shape[1], unit[1]), _round_up(shape[2], unit[2])))
    side = math.isqrt(pixels)
    rows, columns = (
        _round_up(-(-size // -(-size // max(side // step * step, step))), step)
        for size, step in zip(shape[1:], unit[1:], strict=True)
    )
    return BlockGrid(shape, (depth, rows, columns), margin)
