"""Components that stream by: equal to labelling the whole volume at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitoda.postprocessing.components import SizeLimit, StreamedComponents, remove_small_components

THROUGH = np.zeros((3, 3, 3), bool)
THROUGH[1] = True
THROUGH[:, 1, 1] = True
"""Within a section edges and corners join; between sections only pixels that lie on each other."""


def whole(voxels: int) -> SizeLimit:
    """A limit that does not depend on where a component lies."""
    return SizeLimit(voxels, depth=0)


def streamed(mask: np.ndarray, limit: SizeLimit) -> np.ndarray:
    """Both passes."""
    components = StreamedComponents()
    for section in mask:
        components.add(section)
    kept = [components.is_large(components.number(k, section), limit) for k, section in enumerate(mask)]
    return np.where(kept, mask, np.zeros_like(mask))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.floats(0.05, 0.7),
    st.integers(0, 40),
    st.sampled_from([1, 255]),
)
def test_streaming_equals_labelling_in_three_dimensions(seed, sections, density, minimum, value):
    """On random masks the same voxels stay as with scipy.ndimage.label over the whole volume."""
    mask = (np.random.default_rng(seed).random((sections, 11, 9)) < density).astype(np.uint8) * np.uint8(
        value
    )
    labels, _ = ndimage.label(mask, THROUGH)
    sizes = np.bincount(labels.ravel())
    sizes[0] = minimum
    expected = np.where(sizes[labels] >= minimum, mask, 0)
    result = streamed(mask, whole(minimum))
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected)


def test_a_component_that_joins_two_sections_later_counts_as_one():
    """Two arms of a U: 3 + 3 voxels and a bridge of 3 in the last section are one component of 9."""
    mask = np.zeros((4, 1, 3), np.uint8)
    mask[:3, 0, 0] = mask[:3, 0, 2] = mask[3, 0] = 255
    assert np.array_equal(streamed(mask, whole(9)), mask)
    assert not streamed(mask, whole(10)).any()


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks(value):
    """Nothing stays nothing; a full stack is one component."""
    mask = np.full((3, 4, 5), value, np.uint8)
    assert np.array_equal(streamed(mask, whole(60)), mask)
    assert not streamed(mask, whole(61)).any()


def test_small_components_of_an_array_become_background():
    """Of components of 8 and 3 voxels a limit of 5 leaves the first; what is below the threshold is untouched."""
    volume = np.zeros((4, 10, 10), np.uint8)
    volume[0:2, 0:2, 0:2] = 200
    volume[0, 6, 6] = volume[1, 7, 7] = volume[2, 8, 8] = 200  # corners touch
    volume[3, 0, 9] = 90
    kept = remove_small_components(volume, threshold=128, limit=whole(5))
    assert (kept[0:2, 0:2, 0:2] == 200).all()
    assert kept.sum() == 8 * 200 + 90
    assert np.array_equal(remove_small_components(volume, threshold=128, limit=whole(3)), volume)


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_component_cut_by_an_end_is_judged_by_its_visible_sections(first):
    """A limit of 64 voxels spans 4 sections: 2 sections of 20 voxels stay at the ends of the stack, not inside."""
    mask = np.zeros((8, 10, 10), np.uint8)
    mask[first : first + 2, 2:6, 2:7] = 1
    limit = SizeLimit.compact(64, (5, 5, 5))
    assert limit.depth == pytest.approx(4)
    kept = streamed(mask, limit)
    assert np.array_equal(kept, mask if first in (0, 6) else np.zeros_like(mask))
    assert np.array_equal(remove_small_components(mask, 1, limit), kept)


def test_a_single_section_keeps_what_covers_the_middle_of_a_compact_component():
    """Of 1,000 voxels (10 × 10 × 10) one section shows 100; of sections ten times as thick, all."""
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, :10, :10] = 1
    assert streamed(mask, SizeLimit.compact(990, (5, 5, 5))).any()
    assert not streamed(mask, SizeLimit.compact(1040, (5, 5, 5))).any()
    assert not streamed(mask, SizeLimit.compact(200, (500, 5, 5))).any()
