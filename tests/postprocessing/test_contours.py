"""Contours: at many levels at once what they are one by one, and grey values read off there alone."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.postprocessing.contours import LEVELS, Rim, blur_at, contour_sums, find_rim


def eroded_sums(grey, probability, levels) -> tuple[np.ndarray, np.ndarray]:
    """Sum of grey values and number of pixels on each contour, from the mask of each level."""
    rims = []
    for level in levels:
        inside = probability >= level
        rims.append(inside & ~ndimage.binary_erosion(inside, border_value=1))
    return np.array([grey[rim].sum() for rim in rims]), np.array([rim.sum() for rim in rims])


def test_sums_of_all_levels_at_once_are_those_of_contours_one_by_one():
    """The same numbers as eroding the mask of each level, for each region on its own."""
    rng = np.random.default_rng(1)
    probability = ndimage.gaussian_filter(rng.random((60, 80)), 3)
    probability = (probability - probability.min()) / np.ptp(probability)
    grey = rng.normal(size=probability.shape)
    regions = np.where(np.arange(80)[None] < 40, 1, 2) * np.ones((60, 1), int)
    regions[:, 38:42] = 0
    levels = np.rint(probability * 255).astype(np.uint8)
    rim = find_rim(levels)
    near = regions[rim.rows, rim.columns]
    rim = Rim(*(values[near > 0] for values in rim))
    sums, counts = contour_sums(grey[rim.rows, rim.columns], rim, near[near > 0], 2)
    for index in (1, 2):
        # all grey values outside of the region set to 0
        expected, _ = eroded_sums(np.where(regions == index, grey, 0), levels / 255, LEVELS - 1e-6)
        pixels, _ = eroded_sums(np.where(regions == index, 1.0, 0), levels / 255, LEVELS - 1e-6)
        assert sums[index - 1] == pytest.approx(expected, abs=1e-6)
        assert counts[index - 1] == pytest.approx(pixels)


def test_blur_at_a_few_pixels_is_the_blur_of_all():
    """scipy reaches as far for these two; edge pixels go on outside."""
    rng = np.random.default_rng(2)
    grey = rng.normal(0, 1, (30, 40)).astype(np.float32)
    levels = np.rint(ndimage.gaussian_filter(rng.random((30, 40)), 2) * 255).astype(np.uint8)
    rim = find_rim(levels)
    assert len(rim.rows) > 50
    expected = ndimage.gaussian_filter(grey, (1.0, 1.5), mode="nearest", truncate=2.0)[rim.rows, rim.columns]
    assert blur_at(grey, rim, (1.0, 1.5)) == pytest.approx(expected, abs=1e-4)


def test_a_contour_is_the_foreground_that_touches_background():
    """A square of 5 × 5 in which one of 3 × 3 is more probable: 16 pixels and 8, along edges and not corners."""
    levels = np.zeros((9, 9), np.uint8)
    levels[2:7, 2:7] = 0.6 * 255
    levels[3:6, 3:6] = 0.9 * 255 + 1
    rim = find_rim(levels)
    _, counts = contour_sums(np.ones(len(rim.rows)), rim, np.ones(len(rim.rows), int), 1)
    by_level = dict(zip(LEVELS.round(2), counts[0], strict=True))
    assert (by_level[0.5], by_level[0.8]) == (16, 8)


def test_a_map_without_contours_sums_to_nothing():
    """Nothing but background, and nothing to count by."""
    rim = find_rim(np.zeros((4, 5), np.uint8))
    sums, counts = contour_sums(np.zeros(0), rim, np.zeros(0, int), 0)
    assert sums.shape == counts.shape == (0, len(LEVELS))
