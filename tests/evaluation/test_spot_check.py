"""The sample of a spot check: who is in it, with which probability, and where boxes lie."""

import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.evaluation.spot_check import BOX_CLASS, draw_boxes, draw_objects
from mitoda.volumes import ArrayVolume

VOXELS = np.concatenate([np.full(300, 10), np.full(40, 300), np.full(30, 9000)])
PLACES = np.repeat(np.arange(len(VOXELS))[:, None], 3, 1)


def draw(count: int, seed: int = 0):
    return draw_objects(np.arange(1, len(VOXELS) + 1), VOXELS, PLACES, PLACES + 1, count, seed)


def test_small_and_large_objects_are_drawn_alike():
    """Of 300 small, 40 medium and 30 large objects, 36 draws take 12 each; each knows its probability."""
    classes, items = draw(36)
    assert [(one.name, one.found) for one in classes] == [("small", 300), ("medium", 40), ("large", 30)]
    drawn = {one.name: [item for item in items if item.size_class == one.name] for one in classes}
    assert {name: len(rows) for name, rows in drawn.items()} == {"small": 12, "medium": 12, "large": 12}
    assert {item.probability for item in drawn["small"]} == {12 / 300}
    assert {item.probability for item in drawn["large"]} == {12 / 30}
    for item in items:
        assert item.voxels == VOXELS[item.label - 1]
        assert item.start == (item.label - 1,) * 3


def test_every_object_of_a_class_is_drawn_as_often():
    """Over 2,000 seeds each of the 300 small objects is in the sample in 10 of 300 draws, within four deviations."""
    times = np.zeros(300)
    for seed in range(2000):
        for item in draw(30, seed)[1]:
            if item.size_class == "small":
                times[item.label - 1] += 1
    expected = 2000 * 10 / 300
    assert times.sum() == 2000 * 10
    assert np.abs(times - expected).max() < 4 * np.sqrt(expected)


def test_a_larger_sample_contains_the_smaller_one():
    """With the same seed, so that its answers can be kept; another seed draws others."""
    small, large = ({item.number for item in draw(count)[1]} for count in (30, 90))
    assert small < large
    assert small != {item.number for item in draw(30, seed=1)[1]}


def test_a_sample_that_is_larger_than_the_mask_takes_all():
    """Each object once, with probability 1."""
    _, items = draw(10_000)
    assert len({item.label for item in items}) == len(items) == len(VOXELS)
    assert {item.probability for item in items} == {1.0}


def test_boxes_tile_the_stack():
    """All boxes together cover every voxel once; they are about 0.6 × 2 × 2 µm."""
    rng = np.random.default_rng(0)
    stack = ArrayVolume(rng.integers(0, 255, (25, 90, 130), np.uint8), (50, 50, 50))
    items = draw_boxes(stack, 1000, 0)
    times = np.zeros(stack.shape, int)
    for item in items:
        times[tuple(slice(*ends) for ends in zip(item.start, item.stop, strict=True))] += 1
    assert (times == 1).all()
    assert len(items) == 2 * 2 * 3
    assert {(item.total, item.drawn, item.size_class) for item in items} == {(12, 12, BOX_CLASS)}
    few = draw_boxes(stack, 5, 0)
    assert few == [item for item in few if item.number in {one.number for one in items}]
    assert {item.probability for item in few} == {5 / 12}


def test_boxes_without_tissue_are_left_out():
    """Half of the stack is padding: only boxes of the other half are counted."""
    rng = np.random.default_rng(0)
    grey = rng.integers(1, 255, (2, 160, 160), np.uint8)
    grey[:, :, :80] = 0
    items = draw_boxes(ArrayVolume(grey, (50, 25, 25)), 10, 0)
    assert {item.start[2] for item in items} == {80}


def test_what_cannot_be_drawn_is_refused():
    """No objects, no boxes, no voxel size, no tissue."""
    with pytest.raises(InputError, match="objects is a number of 1 or more; got 0"):
        draw(0)
    with pytest.raises(InputError, match="voxel size of array is unknown"):
        draw_boxes(ArrayVolume(np.zeros((2, 20, 20), np.uint8)), 5, 0)
