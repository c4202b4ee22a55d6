"""Components joined over the faces of blocks are those of the whole mask."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoda.inference.tiling import BlockGrid
from mitoda.postprocessing.components import SizeLimit, StreamedComponents
from mitoda.postprocessing.instances import instances
from mitoda.postprocessing.joining import FIELDS, BlockLabeller, BlockLabels, join_blocks


def label_blocks(mask: np.ndarray, grid: BlockGrid) -> list[BlockLabels]:
    """Each block by itself."""
    found = []
    for index in range(len(grid)):
        labeller = BlockLabeller(grid[index].core, grid.shape)
        for section in mask[grid[index].core]:
            labeller.add(section)
        found.append(labeller.finish())
    return found


def numbers_of(mask: np.ndarray, grid: BlockGrid, limit: SizeLimit) -> tuple[np.ndarray, int]:
    """The whole volume, numbered block by block."""
    blocks = label_blocks(mask, grid)
    joined = join_blocks(lambda block, name: getattr(blocks[block], name), grid.counts)
    large = joined.is_large(limit, len(mask))
    numbers = joined.renumbered(large)
    result = np.zeros(mask.shape, np.int64)
    for index, labels in enumerate(blocks):
        own = numbers[joined.offsets[index] : joined.offsets[index + 1]]
        core = grid[index].core
        result[core] = np.stack([labels.number(k, one, own) for k, one in enumerate(mask[core])])
    assert joined.voxels[large].sum() == np.count_nonzero(result)
    return result, np.count_nonzero(large)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    block=st.tuples(*[st.integers(1, 5)] * 3),
    share=st.sampled_from([0.0, 0.15, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_blocks_of_any_size_give_the_components_of_the_whole(shape, block, share, seed):
    """Numbers equal those of `instances` without splitting; the small ones are those that streaming removes."""
    mask = np.random.default_rng(seed).random(shape) < share
    grid = BlockGrid(shape, block)
    numbers, count = numbers_of(mask, grid, SizeLimit.compact(0, (5, 5, 5)))
    expected = instances(mask, split=False)
    assert count == expected.count
    assert np.array_equal(numbers, np.stack(list(expected)))
    limit = SizeLimit.compact(4, (5, 5, 5))
    whole = StreamedComponents()
    for section in mask:
        whole.add(section)
    kept = np.stack([whole.is_large(whole.number(k, one), limit) for k, one in enumerate(mask)])
    assert np.array_equal(numbers_of(mask, grid, limit)[0] > 0, kept)


@pytest.mark.parametrize("place", [(0, 1), (1, 0)])
def test_pixels_that_touch_at_the_corner_of_four_blocks_are_joined(place):
    """Both diagonals."""
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 1, 1 + place[0]] = mask[0, 2, 1 + place[1]] = True
    assert numbers_of(mask, BlockGrid(mask.shape, (1, 2, 2)), SizeLimit.compact(0, (5, 5, 5)))[1] == 1


def test_labels_of_a_block_are_arrays_only():
    """So that a file without pickles can hold them."""
    (labels,) = label_blocks(np.ones((2, 3, 4), bool), BlockGrid((2, 3, 4), (2, 3, 4)))
    assert all(isinstance(value, np.ndarray) for value in map(partial(getattr, labels), FIELDS))
    assert labels.places.tolist() == [0]
    assert labels.voxels.tolist() == [24]
