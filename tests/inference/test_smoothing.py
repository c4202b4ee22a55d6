"""Smoothing along the sections: equal to scipy's, in a stream, from any section on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitoda.inference.streaming import smooth_along_sections, smoothing_reach


def stream(volume: np.ndarray, sigma: float, first: int = 0, start: int = 0) -> np.ndarray:
    """What comes out of the stream, as an array."""
    maps = (torch.from_numpy(section) for section in volume[first:])
    return np.stack([one.numpy() for one in smooth_along_sections(maps, sigma, first, start)])


def test_inside_the_stack_it_is_a_gaussian():
    """Away from the ends it equals scipy's Gaussian filter cut at three standard deviations."""
    volume = np.random.default_rng(0).random((25, 3, 4), dtype=np.float32)
    expected = ndimage.gaussian_filter1d(volume, 2.0, axis=0, truncate=3.0)
    assert np.allclose(stream(volume, 2.0)[6:-6], expected[6:-6], atol=1e-6)


def test_at_the_ends_weights_still_sum_to_one():
    """A constant stack stays what it is, up to its first and last section, however short."""
    for depth in (1, 2, 5, 30):
        assert np.allclose(stream(np.full((depth, 2, 2), 0.7, np.float32), 3.0), 0.7)


@settings(max_examples=40, deadline=None)
@given(depth=st.integers(1, 20), start=st.integers(0, 19), sigma=st.floats(0.0, 3.0))
def test_a_late_start_gives_the_same_sections(depth, start, sigma):
    """Read with its margin, the rest of a stack comes out as it would from the whole."""
    start = min(start, depth - 1)
    volume = np.random.default_rng(depth).random((depth, 2, 2), dtype=np.float32)
    first = max(0, start - smoothing_reach(sigma))
    assert np.allclose(stream(volume, sigma, first, start), stream(volume, sigma)[start:], atol=1e-6)


def test_thick_sections_are_not_smoothed():
    """15 nm are 3 sections of 5 nm, half a section of 30 nm, and nothing at 100 nm."""
    assert smoothing_reach(15 / 5) == 9
    assert smoothing_reach(15 / 30) == 2
    assert smoothing_reach(15 / 100) == 0
    volume = np.random.default_rng(1).random((4, 2, 2), dtype=np.float32)
    assert np.array_equal(stream(volume, 0.15), volume)


def test_no_more_sections_are_kept_than_the_window_needs():
    """The stream runs at most `reach` sections ahead of what it gives."""
    given_out = 0

    def maps():
        for number in range(40):
            assert number - given_out <= smoothing_reach(1.0) + 1
            yield torch.zeros(1)

    for _ in smooth_along_sections(maps(), 1.0, 0, 0):
        given_out += 1
    assert given_out == 40


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_every_section_comes_out_once(sigma):
    """As many maps come out as went in."""
    assert len(stream(np.zeros((7, 1, 1), np.float32), sigma)) == 7


def test_a_sigma_beyond_the_stack_is_its_mean():
    """However long the smoothing, no more than the stack is kept and all sections count alike."""
    volume = np.random.default_rng(2).random((5, 2, 2), dtype=np.float32)
    assert np.allclose(stream(volume, 1e9), volume.mean(0), atol=1e-6)
