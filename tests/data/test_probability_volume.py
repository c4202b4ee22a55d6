"""Coarse volumes: the boundary's level from the images, slabs of large volumes."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.data.probability_volume import CoarseVolume, to_pixels
from mitoda.methods.mitoda import ImageBoundary
from mitoda.training.pseudo_labels import VOXELS_LIMIT, choose_slab
from mitoda.volumes import ArrayVolume


def coarse(probabilities: np.ndarray, cell: float = 4.0) -> CoarseVolume:
    """A coarse volume of 20 × 20 × 5 nm voxels."""
    return CoarseVolume(probabilities, 0, (cell, cell), (5.0, 20.0, 20.0))


def ring_world(radius_of_dark_ring: float) -> tuple[np.ndarray, np.ndarray]:
    """Discs whose probability falls off linearly across 20 pixels, in an image with a dark ring."""
    row, column = np.mgrid[:200, :200]
    distance = np.hypot(row - 100, column - 100)
    probability = np.clip(0.5 - (distance - 60) / 40, 0, 1)
    grey = 150 - 80 * np.exp(-0.5 * ((distance - radius_of_dark_ring) / 3) ** 2)
    grey += np.random.default_rng(0).normal(0, 10, grey.shape)
    return grey.astype(np.float32), probability


@pytest.mark.parametrize("level", [0.4, 0.55, 0.7, 0.8])
def test_the_level_is_found_whose_contour_is_darkest(level):
    """With the dark membrane at the radius of a level, that level is found, within one step of the levels."""
    grey, probability = ring_world(60 + 40 * (0.5 - level))
    stack = np.repeat((probability * 255).astype(np.uint8)[None], 6, axis=0)
    volume = ArrayVolume(np.repeat(grey[None], 6, axis=0), (5, 5, 5))
    found = ImageBoundary(coarse(stack, cell=1.0), volume).level(fallback=0.123)
    assert found == pytest.approx(level, abs=0.051)


def test_without_a_dark_ring_the_fallback_stays():
    """Noise, or too little contour to tell: the level is not touched."""
    _, probability = ring_world(60.0)
    stack = np.repeat((probability * 255).astype(np.uint8)[None], 6, axis=0)
    noise = np.random.default_rng(3).normal(150, 20, stack.shape).astype(np.float32)
    assert ImageBoundary(coarse(stack, cell=1.0), ArrayVolume(noise, (5, 5, 5))).level(fallback=0.6) == 0.6
    nothing = ImageBoundary(coarse(np.zeros_like(stack), cell=1.0), ArrayVolume(noise, (5, 5, 5)))
    assert nothing.level(fallback=0.6) == 0.6


def test_maps_are_brought_to_pixels_in_place():
    """A coarse map interpolated to pixels has its structures where they were."""
    fine = np.zeros((64, 80), np.float32)
    fine[16:48, 24:60] = 1.0
    averaged = fine.reshape(16, 4, 20, 4).mean((1, 3))
    found = to_pixels(coarse((averaged * 255).astype(np.uint8)[None]), 0, (64, 80))
    assert found.shape == (64, 80)
    assert (
        np.count_nonzero((found > 0.5) != (fine > 0.5)) <= 4
    )  # at most the corners, which bilinear rounds off
    assert np.allclose(ndimage.center_of_mass(found), ndimage.center_of_mass(fine), atol=0.05)


def test_a_volume_beyond_the_limit_is_labelled_in_slabs_at_random_places():
    """All sections where they fit; otherwise a slab within the stack that depends on the seed."""
    assert choose_slab(165, 192 * 256, 1, seed=0, limit=VOXELS_LIMIT) == range(165)
    slabs = [choose_slab(100, 1000, 1, seed, limit=20_000) for seed in range(10)]
    assert all(len(slab) == 20 and slab.start >= 0 and slab.stop <= 100 for slab in slabs)
    assert len({slab.start for slab in slabs}) > 3
    assert (
        len(choose_slab(100, 1000, 10, seed=0, limit=5_000)) == 20
    )  # of large sections, too, there are pairs
    assert choose_slab(12, 1000, 10, seed=0, limit=5_000) == range(12)
