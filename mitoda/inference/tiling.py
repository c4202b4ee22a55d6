"""Overlap geometry: which pairs cover a stack, which tiles cover a section. Pure integers, and the blending window."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


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
    below `multiple` they are `multiple` apart, which overlaps less than asked for.

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
