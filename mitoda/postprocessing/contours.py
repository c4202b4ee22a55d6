"""Grey values along the contours of a probability map, at many levels in one pass."""

import math
from typing import NamedTuple

import numpy as np

LEVELS = np.concatenate([np.arange(0.10, 0.901, 0.05), [0.925, 0.95, 0.975]])
"""Probabilities at which a boundary is looked for; overconfident networks have it near 1."""
LEVELS_REACHED = (np.arange(256)[:, None] >= LEVELS * 255 - 1e-6).sum(1).astype(np.int8)
"""How many of `LEVELS` a probability × 255 reaches."""


class Rim(NamedTuple):
    """Pixels of a section that lie on a contour at one or more of `LEVELS`; one entry for each.

    A contour is the pixels over a level that touch, along an edge, one that is not. A pixel over `own` of the levels
    whose lowest neighbour is over `lowest` lies on the contours lowest + 1 … own, so one pass serves all levels.
    """

    rows: np.ndarray
    columns: np.ndarray
    lowest: np.ndarray
    own: np.ndarray


def find_rim(probability: np.ndarray) -> Rim:
    """Find the pixels on contours of a section of probabilities × 255, uint8, shape (rows, columns)."""
    own = np.empty(probability.shape, np.int8)
    for row, values in enumerate(probability):  # by rows: numpy makes indices of 8 bytes
        own[row] = LEVELS_REACHED[values]
    lowest = own.copy()
    np.minimum(lowest[1:], own[:-1], out=lowest[1:])
    np.minimum(lowest[:-1], own[1:], out=lowest[:-1])
    np.minimum(lowest[:, 1:], own[:, :-1], out=lowest[:, 1:])
    np.minimum(lowest[:, :-1], own[:, 1:], out=lowest[:, :-1])
    index = np.flatnonzero(own > lowest)
    if own.size <= np.iinfo(np.int32).max:  # half the memory, of several arrays of this length
        index = index.astype(np.int32)
    rows, columns = np.divmod(index, index.dtype.type(probability.shape[1]))
    return Rim(rows, columns, lowest.ravel()[index], own.ravel()[index])


def blur_at(grey: np.ndarray, rim: Rim, sigma: tuple[float, float]) -> np.ndarray:
    """Gaussian blur of an image at some of its pixels, σ in pixels; its edge pixels are repeated outside.

    Contours are a few per cent of a section: to blur all of it takes ten times as long.
    """
    rows, columns = grey.shape
    result = np.zeros(len(rim.rows), np.float32)
    reaches = [math.ceil(2 * one) for one in sigma]
    total = 0.0
    for down in range(-reaches[0], reaches[0] + 1):
        for right in range(-reaches[1], reaches[1] + 1):
            weight = math.exp(-0.5 * ((down / sigma[0]) ** 2 + (right / sigma[1]) ** 2))
            total += weight
            near = (rim.rows + down).clip(0, rows - 1) * columns + (rim.columns + right).clip(0, columns - 1)
            result += weight * grey.ravel()[near].astype(np.float32)
    return result / total


def contour_sums(
    grey: np.ndarray, rim: Rim, regions: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of grey values, and numbers of pixels, on the contours at each of `LEVELS` by region: (count, levels) each.

    `grey` and `regions` are those of the rim's pixels, (n,); regions are numbered from 1 to `count`.
    """
    width = len(LEVELS) + 1
    row = (regions.astype(np.int64) - 1) * width
    first, after = row + rim.lowest, row + rim.own

    def summed(weights: np.ndarray | None) -> np.ndarray:
        steps = np.bincount(first, weights, count * width) - np.bincount(after, weights, count * width)
        return np.asarray(steps.reshape(count, width).cumsum(1)[:, :-1])

    return summed(grey.astype(np.float64)), summed(None)
