"""The plan of a run in blocks, also of a volume of 10 TB."""

import math

import pytest

from mitoda.inference.block_plan import plan_segmentation
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.inference.tiling import BlockGrid, plan_blocks
from tests.fakes import ComputedVolume, model_of, recipe, tiny_network
from tests.inference.test_blocks import network

HUGE = (25_000, 20_000, 20_000)
"""10 TB."""


def test_a_volume_of_ten_terabytes_is_planned_from_a_few_megabytes(tmp_path):
    """Blocks cover it once, in whole files of the output; no section is read whole."""
    volume = ComputedVolume(HUGE, (8.0, 5.0, 5.0))
    model = model_of(tiny_network(), (5.0, 5.0), 50.0, recipe())
    plan = plan_segmentation(volume, model, SegmentSettings(output=tmp_path / "out.zarr"), BlockSettings())
    grid = plan.record.grid
    assert len(grid) == math.prod(grid.counts) == 39_100
    assert all(side % step == 0 for side, step in zip(grid.block, plan.record.unit, strict=True))
    assert grid[len(grid) - 1].core[0].stop == 25_000
    assert volume.total < 60e6
    assert volume.most <= 2**23
    assert plan.parts == min(1000, math.ceil(plan.hours / 2))
    assert plan.memory_bytes < 1.5e9
    assert plan.seconds_per_block > 0


def test_a_small_volume_is_a_few_blocks_of_whole_sections():
    """At least 64 sections each, and eight times what is read around them."""
    assert plan_blocks((500, 1000, 900), (16, 1024, 1024), 3, 2**23, (128, 128)) == BlockGrid(
        (500, 1000, 900), (64, 1024, 1024)
    )
    assert plan_blocks((500, 1000, 900), (16, 1024, 1024), 19, 2**23, (128, 128)).block[0] == 160


@pytest.mark.parametrize("shape", [(70, 5000, 3000), (1, 9000, 9000), (300, 2100, 30000)])
def test_windows_of_large_sections_cover_them_once(shape):
    """Cores touch without a gap; windows lie in the section, with their margin where there is one."""
    grid = plan_blocks(shape, (16, 1024, 1024), 2, 2**23, (128, 128))
    assert sum(math.prod(grid[index].shape) for index in range(len(grid))) == math.prod(shape)
    for block in map(grid.__getitem__, range(len(grid))):
        assert block.shape[1] * block.shape[2] <= 2**23
        for core, window, size in zip(block.core[1:], block.window, shape[1:], strict=True):
            assert window.start == max(0, core.start - 128)
            assert window.stop == min(size, core.stop + 128)


def test_the_network_of_the_other_tests_plans_too(tmp_path):
    """A stack smaller than the measured piece."""
    volume = ComputedVolume((9, 40, 50), (10.0, 5.0, 5.0))
    plan = plan_segmentation(
        volume, network(), SegmentSettings(output=tmp_path / "out.zarr"), BlockSettings()
    )
    assert (len(plan.record.grid), plan.parts) == (1, 1)
