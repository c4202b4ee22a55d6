"""Overlap geometry: every section in a pair, every pixel in a tile."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoda.inference.tiling import blend_window, even_tile, plan_pairs, plan_tiles, tile_starts

STACKS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))
"""Number of sections, and a stride that fits."""


def test_the_example_of_the_documentation():
    """12 sections, stride 10: two pairs of the stride; the middle with the farther end."""
    expected = {(0, 10), (1, 11), (2, 11), (3, 11), (4, 11), (5, 11), (0, 6), (0, 7), (0, 8), (0, 9)}
    assert set(plan_pairs(12, 10)) == expected
    assert plan_pairs(4, 1) == [(0, 1), (1, 2), (2, 3)]
    assert plan_pairs(1, 0) == [(0, 0)]


@given(STACKS)
def test_every_section_is_in_a_pair_and_pairs_come_in_order_of_their_second(stack):
    """Whatever the stack and the stride: all sections are covered, no pair twice, all in the stack, first ≤ second."""
    sections, stride = stack
    pairs = plan_pairs(sections, stride)
    assert {k for pair in pairs for k in pair} == set(range(sections))
    assert len(set(pairs)) == len(pairs)
    assert all(0 <= first <= second < sections for first, second in pairs)
    assert [second for _, second in pairs] == sorted(second for _, second in pairs)


@given(STACKS)
def test_in_a_deep_stack_pairs_are_the_stride_apart_and_inner_sections_are_in_two(stack):
    """With at least twice the stride, section k is in (k − stride, k) and (k, k + stride), where they exist."""
    sections, stride = stack
    if stride == 0 or sections < 2 * stride:
        return
    pairs = plan_pairs(sections, stride)
    assert all(second - first == stride for first, second in pairs)
    for k in range(sections):
        visits = sum(k in pair for pair in pairs)
        assert visits == (k >= stride) + (k + stride < sections)
        assert visits == 2 or k < stride or k >= sections - stride


@given(STACKS)
def test_features_of_at_most_a_stride_of_sections_wait(stack):
    """Going through the pairs in order, no more than stride + 1 sections are between first and last use."""
    sections, stride = stack
    pairs = plan_pairs(sections, stride)
    last = {k: second for first, second in pairs for k in (first, second)}
    for now in range(sections):
        assert sum(k <= now <= last[k] for k in range(sections)) <= stride + 1


TILINGS = st.tuples(
    st.sampled_from([1, 4, 16, 64]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 200)
).map(lambda d: (max(d[1], d[2]) * d[0], min(d[1], d[2]) * d[0], d[3], d[0]))
"""Length, tile, overlap, multiple; as plan_tiles calls tile_starts."""


@given(TILINGS)
def test_tiles_cover_an_axis_overlap_and_start_at_multiples(tiling):
    """Tiles begin at 0, end at the end, start at multiples, and overlap as asked (or are one multiple apart)."""
    length, tile, overlap, multiple = tiling
    overlap = min(overlap, tile // 2)
    starts = tile_starts(length, tile, overlap, multiple)
    assert starts[0] == 0
    assert starts[-1] + tile == length
    assert all(start % multiple == 0 for start in starts)
    assert all(0 < after - before <= max(tile - overlap, multiple) for before, after in pairwise(starts))


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.none() | st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.integers(0, 100),
    st.sampled_from([1, 16, 64]),
)
def test_every_pixel_lies_in_a_tile_with_a_weight_above_0(shape, tile, overlap, multiple):
    """Any section, tile and overlap: the padded section is divisible, and tiles blend everywhere."""
    tiling = plan_tiles(shape, tile, overlap, multiple)
    assert all(p % multiple == 0 and s <= p < s + multiple for p, s in zip(tiling.padded, shape, strict=True))
    assert all(t % multiple == 0 and t <= p for t, p in zip(tiling.tile, tiling.padded, strict=True))
    weight = np.zeros(tiling.padded)
    rows, columns = tiling.tile
    window = np.outer(blend_window(rows, tiling.overlap), blend_window(columns, tiling.overlap))
    for row, column in tiling.corners:
        weight[row : row + rows, column : column + columns] += window
    assert weight.min() > 0


def test_a_wanted_tile_is_rounded_up_and_never_larger_than_the_section():
    """A tile of 100×1000 of a section of 300×300 with multiples of 64 is 128×320."""
    tiling = plan_tiles((300, 300), (100, 1000), 32, 64)
    assert tiling.padded == (320, 320)
    assert tiling.tile == (128, 320)
    assert tiling.corners == ((0, 0), (64, 0), (128, 0), (192, 0))


def test_blend_weights_rise_as_a_raised_cosine_and_sum_to_one_where_two_tiles_overlap():
    """Overlap 4: the ramp of one tile and the falling end of the other add up to 1 at each pixel."""
    weights = blend_window(10, 4)
    assert weights[4:6] == pytest.approx(1)
    assert weights[:4] == pytest.approx(0.5 - 0.5 * np.cos(np.pi * (np.arange(4) + 0.5) / 4))
    assert weights[:4] + weights[-4:] == pytest.approx(np.ones(4), abs=1e-6)
    assert np.array_equal(blend_window(8, 0), np.ones(8))
    assert blend_window(1000, 500).min() >= 1e-3


@given(st.integers(1, 3000), st.integers(32, 1000), st.integers(0, 300))
def test_even_tiles_are_as_few_as_the_largest_ones_and_overlap_least(length, largest, overlap):
    """They are as small as covering the length allows, but for rounding."""
    tile = even_tile(length, largest, overlap)
    overlap = min(overlap, largest // 2)
    assert tile <= largest
    count = math.ceil((length - overlap) / (largest - overlap)) if length > largest else 1
    covered = count * tile - (count - 1) * overlap
    assert length <= covered < length + count
