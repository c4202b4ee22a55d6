"""Each mitochondrion's boundary on its own dark ring: found, moved there, and left where there is none."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.data.probability_volume import CoarseVolume
from mitoda.methods.mitoda import ImageBoundary
from mitoda.postprocessing.contours import LEVELS
from mitoda.postprocessing.mask import MaskFinalizer, move_boundary
from mitoda.postprocessing.membrane_snapping import (
    MIN_CONTOUR,
    MIN_CONTRAST,
    MembraneSnapping,
    clear_level,
    contour_means,
    darkest_levels,
    gather,
)
from mitoda.volumes import ArrayVolume

VOXEL = (5.0, 5.0, 5.0)


def world(levels: list[float], sections: int = 3, noise: float = 5.0, ring: bool = True):
    """Discs side by side, 300 nm in radius, whose membranes run where the probability has the levels given.

    Probability falls off linearly over 40 pixels around 0.5 at the radius; the membrane is a dark ring.
    """
    row, column = np.mgrid[:200, : 200 * len(levels)]
    probability = np.zeros(row.shape)
    grey = np.full(row.shape, 150.0)
    for index, level in enumerate(levels):
        distance = np.hypot(row - 100, column - 100 - 200 * index)
        probability = np.maximum(probability, np.clip(0.5 - (distance - 60) / 40, 0, 1))
        if ring:
            grey -= 80 * np.exp(-0.5 * ((distance - 60 - 40 * (0.5 - level)) / 2) ** 2)
    rng = np.random.default_rng(0)
    stack = np.stack([grey + rng.normal(0, noise, grey.shape) for _ in range(sections)])
    return stack.clip(0, 255).astype(np.uint8), np.repeat(probability[None].astype(np.float32), sections, 0)


def finish(images, probabilities, snap=True, min_size=0, threshold=0.5) -> np.ndarray:
    """The mask of a stack."""
    finalizer = MaskFinalizer(threshold, min_size, snap, VOXEL)
    waiting = [finalizer.pending(one) for one in probabilities]
    for grey, one in zip(images, waiting, strict=True):
        finalizer.add(one, grey)
    return np.stack([finalizer.finalize(k, one) for k, one in enumerate(waiting)])


def test_each_disc_ends_on_its_own_membrane():
    """Whatever the level of a membrane was, the mask ends there: a radius of 60 + 40 · (0.5 − level) pixels."""
    levels = [0.4, 0.6, 0.6, 0.8]
    images, probabilities = world(levels)
    mask = finish(images, probabilities)
    for index, level in enumerate(levels):
        area = mask[1][:, 200 * index : 200 * index + 200].sum()
        assert np.sqrt(area / np.pi) == pytest.approx(60 + 40 * (0.5 - level), abs=1.5)


def test_a_threshold_still_counts():
    """Above 0.5 the mask ends inside of the ring, below 0.5 outside, by as much as without one."""
    images, probabilities = world([0.6])
    radii = [
        np.sqrt(finish(images, probabilities, threshold=threshold)[1].sum() / np.pi)
        for threshold in (0.4, 0.5, 0.7)
    ]
    assert radii == pytest.approx([60, 56, 48], abs=1.5)


def test_without_a_ring_nothing_moves():
    """In noise alone the darkest contour is at neither end by chance only; where all are alike, the network's stays."""
    images, probabilities = world([0.5], ring=False, noise=0.0)
    assert np.array_equal(finish(images, probabilities), probabilities >= 0.5)
    assert np.array_equal(finish(images, probabilities, snap=False), probabilities >= 0.5)


def test_too_short_a_contour_and_the_ends_of_the_levels_tell_nothing():
    """The reference is kept; a minimum between is taken."""
    counts = np.full((3, len(LEVELS)), 500.0)
    means = np.stack(
        [np.arange(len(LEVELS)), abs(np.arange(len(LEVELS)) - 5), abs(np.arange(len(LEVELS)) - 5)]
    )
    counts[2] = 50.0
    found = darkest_levels(contour_means(means * counts, counts))
    assert found.tolist() == pytest.approx([np.nan, LEVELS[5], np.nan], nan_ok=True)


def test_all_together_need_a_level_that_stands_out():
    """By MIN_CONTRAST, inside of the levels, from enough pixels; otherwise no component is moved either."""
    means = np.full(len(LEVELS), 1.0)
    means[8] -= 1.2 * MIN_CONTRAST
    assert clear_level(means) == pytest.approx(LEVELS[8])
    assert clear_level(means * 0.5) is None
    assert clear_level(np.arange(len(LEVELS), dtype=float)) is None
    assert clear_level(-np.arange(len(LEVELS), dtype=float)) is None
    assert (
        clear_level(contour_means(means * (MIN_CONTOUR - 1), np.full(len(LEVELS), MIN_CONTOUR - 1.0))) is None
    )


def test_a_boundary_moves_place_by_place():
    """A disc whose membrane lies 8 pixels further out on the right than on the left is followed on both sides."""
    row, column = np.mgrid[:240, :240]
    distance, right = np.hypot(row - 120, column - 120), column > 120
    probability = np.clip(0.5 - (distance - 70) / 40, 0, 1).astype(np.float32)
    grey = 150 - 80 * np.exp(-0.5 * ((distance - np.where(right, 74, 66)) / 2) ** 2)
    images = np.stack([grey + np.random.default_rng(k).normal(0, 5, grey.shape) for k in range(5)])
    mask = finish(images.clip(0, 255).astype(np.uint8), np.repeat(probability[None], 5, 0))[2]
    # Radii of the two halves, without the 40 columns where one goes over into the other.
    for side, radius in ((slice(140, None), 74), (slice(None, 100), 66)):
        away = mask[:, side] & (abs(row - 120) < 40)[:, side]
        whole = (distance < radius)[:, side] & (abs(row - 120) < 40)[:, side]
        assert np.count_nonzero(away ^ whole) < 80 * 1.2


def test_values_are_gathered_from_near_places():
    """A Gaussian of peak 1, cut off at two standard deviations; two values in a place add up."""
    both = gather(np.array([3 * 9 + 4] * 2), [np.array([1.0, 2.0]), np.array([4.0, 5.0])], (7, 9), [1.0, 0.6])
    assert both[1, 3, 4] == pytest.approx(9.0)
    found = both[0]
    assert found[3, 4] == pytest.approx(3.0)
    assert found[3, 5] == pytest.approx(3.0 * np.exp(-0.5 / 0.36), rel=1e-5)
    assert found[5, 4] == pytest.approx(3.0 * np.exp(-2.0), rel=1e-5)
    assert found[6, 4] == 0
    assert found[3, 6] == 0


def test_sections_can_be_asked_for_in_any_order():
    """What waits on disk is found again, in sections that are no whole number of places large too."""
    images, probabilities = (one[:, :197, :391] for one in world([0.4, 0.8], sections=20))
    snapping = MembraneSnapping((1.0, 1.0), VOXEL)
    waiting = np.rint(probabilities * 255).astype(np.uint8)
    for grey, one in zip(images, waiting, strict=True):
        snapping.add(grey, one, one >= 128)
    ordered = [snapping.shifts(k, waiting[k] >= 128, 0.5) for k in range(20)]
    for section in (13, 2, 19, 3):
        assert np.array_equal(snapping.shifts(section, waiting[section] >= 128, 0.5), ordered[section])


@pytest.mark.parametrize("snap", [False, True])
def test_small_components_are_dropped_with_what_surrounds_them(snap):
    """Of two discs that end inside the stack the smaller, below the limit, leaves nothing."""
    images, probabilities = (np.pad(one, ((1, 1), (0, 0), (0, 0))) for one in world([0.625, 0.625]))
    images[[0, -1]] = images[[1, -2]]
    probabilities[:, :, 200:] = np.maximum(probabilities[:, :, 200:] - 0.6, 0) * 2  # 46 pixels in radius
    large = int((probabilities[:, :, :200] >= 0.5).sum())
    mask = finish(images, probabilities, snap=snap, min_size=int(0.7 * large))
    assert mask[:, :, :200].sum() > 0.8 * large
    assert not mask[:, :, 210:].any()
    assert finish(images, probabilities, snap=snap)[:, :, 210:].any()


def test_components_are_joined_through_sections():
    """A contour too short in one section counts with those of its neighbours."""
    images, probabilities = world([0.8], sections=6)
    small = np.rint(ndimage.zoom(probabilities, (1, 0.1, 0.1), order=1) * 255).astype(np.uint8)
    image = ndimage.zoom(images, (1, 0.1, 0.1), order=1)
    alone, together = (MembraneSnapping((1.0, 1.0), (5.0, 50.0, 50.0)) for _ in range(2))
    alone.add(image[0], small[0], small[0] >= 128)
    for grey, one in zip(image, small, strict=True):
        together.add(grey, one, one >= 128)
    assert alone.shifts(0, small[0] >= 128, 0.625).max() == 0.0
    assert together.shifts(0, small[0] >= 128, 0.625).min() < 0.0


def test_an_empty_stack_stays_empty():
    """No component, no shift, no error."""
    nothing = np.zeros((2, 40, 40), np.float32)
    assert not finish(np.full((2, 40, 40), 7, np.uint8), nothing, min_size=5).any()


def test_a_coarse_volume_is_moved_as_its_sections_are():
    """On the grid of a volume's prediction the membrane's level becomes the reference."""
    images, probabilities = world([0.4, 0.8])
    cells = probabilities.reshape(3, 50, 4, 100, 4).mean((2, 4))
    coarse = CoarseVolume((cells * 255).astype(np.uint8), 0, (4.0, 4.0), (5.0, 20.0, 20.0))
    moved = ImageBoundary(coarse, ArrayVolume(images, VOXEL)).snapped(0.7)
    for index, level in enumerate((0.4, 0.8)):
        part = slice(50 * index, 50 * index + 50)
        area = (moved.probabilities[1][:, part] >= 0.7 * 255).sum()
        assert np.sqrt(area / np.pi) * 4 == pytest.approx(60 + 40 * (0.5 - level), abs=2.5)
    assert (moved.probabilities[coarse.probabilities == 0] == 0).all()


@pytest.mark.parametrize("snap", [False, True])
def test_the_boundary_is_moved_by_nanometres(snap):
    """A disc of 60 pixels grows and shrinks by 4 when 20 nm are asked for, whatever rows and columns are long."""
    images, probabilities = world([0.625])
    radii = []
    for boundary in (0.0, 20.0, -20.0):
        finalizer = MaskFinalizer(0.5, 0, snap, VOXEL, boundary)
        waiting = [finalizer.pending(one) for one in probabilities]
        for grey, one in zip(images, waiting, strict=True):
            finalizer.add(one, grey)
        radii.append(np.sqrt(finalizer.finalize(1, waiting[1]).sum() / np.pi))
    assert radii[1] - radii[0] == pytest.approx(4, abs=0.6)
    assert radii[0] - radii[2] == pytest.approx(4, abs=0.6)
    square = np.zeros((40, 40), bool)
    square[:20, 10:30] = True  # cut off by the upper border
    assert move_boundary(square, 10.0, (5.0, 2.0)).sum() > square.sum()
    assert move_boundary(square, -10.0, (5.0, 2.0))[:18, 15:25].all()
    assert not move_boundary(square, -10.0, (5.0, 2.0))[18:].any()
    assert not move_boundary(square, -10.0, (5.0, 2.0))[:, :15].any()
