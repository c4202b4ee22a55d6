"""Blocks: the same bytes in any order, by any number of processes, and those of the whole stack."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import zarr

from mitoda.errors import FileError, InputError
from mitoda.inference import block_plan, block_run, blocks
from mitoda.inference.block_run import blocks_folder, segment_blocks
from mitoda.inference.events import AlreadyComplete, BlockDone, PartDone, Segmented
from mitoda.inference.segment import predict_masks, segment
from mitoda.inference.settings import BlockSettings, MaskSettings, SegmentSettings
from mitoda.models.model import Model
from mitoda.volumes import ArrayVolume, open_volume, zarr_pages
from tests.fakes import model_of, recipe, tiny_network
from tests.inference.test_segment import volume_of

SMALL = {"threshold": 0.56, "min_size": 12, "smoothing": 15.0}
"""Settings under which each section depends on three others, and components on many."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 4 sections, so that twenty make several blocks."""
    shrink_shards(monkeypatch, CHUNK=8, CHUNKS_ACROSS=2, COARSEST=16)


def shrink_shards(monkeypatch, **sides: int) -> None:
    """Give shards 4 sections, and chunks the sides that `zarr_pages` names so."""
    for module in (zarr_pages, blocks, block_plan):
        monkeypatch.setattr(module, "LAYER", 4)
    for name, side in sides.items():
        monkeypatch.setattr(zarr_pages, name, side)


def network() -> Model:
    """A tiny network with random weights, in which every pixel depends on the whole tile."""
    return model_of(tiny_network(), (5.0, 5.0), 20.0, recipe(whole=24 * 24))


def files_of(path) -> dict[str, bytes]:
    """All bytes of a folder."""
    return {str(one.relative_to(path)): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def whole(volume, path, **changes) -> np.ndarray:
    """The mask that one process writes as TIFF."""
    list(segment(volume, network(), SegmentSettings(output=path / "whole.tif", **SMALL | changes)))
    return read_tiff(path / "whole.tif")


def read_tiff(path) -> np.ndarray:
    """All sections of a stack."""
    written = open_volume(path)
    return np.stack([written.read(k) for k in range(written.shape[0])])


def run(volume, path, blocks=BlockSettings(block=(4, 32, 32)), **changes) -> list:
    """Segment in blocks, each of four whole sections."""
    settings = SegmentSettings(output=path / "mask.zarr", **SMALL | changes)
    return list(segment_blocks(lambda: volume, network(), settings, blocks))


def read(path) -> np.ndarray:
    """The full resolution."""
    return zarr.open_array(path / "0", mode="r")[:]


@pytest.mark.parametrize(
    "changes", [{}, {"min_size": 0, "mask_value": 1}, {"boundary": 6.0, "smoothing": 0.0}]
)
def test_blocks_of_whole_sections_are_the_whole_stack_to_the_bit(tmp_path, changes):
    """Masks and probabilities equal those of `segment`, whose tiles and pairs reach over the blocks."""
    volume = volume_of(19)
    changes |= {"probability": tmp_path / "p.tif"}
    expected = whole(volume, tmp_path, **changes)
    events = run(volume, tmp_path, **changes | {"probability": tmp_path / "p.zarr"})
    assert 0.01 < (expected > 0).mean() < 0.99
    assert np.array_equal(read(tmp_path / "mask.zarr"), expected)
    probability = open_volume(tmp_path / "p.tif")
    assert np.array_equal(read(tmp_path / "p.zarr"), [probability.read(k) for k in range(19)])
    assert isinstance(events[-1], Segmented)
    assert events[-1].foreground == pytest.approx((expected > 0).mean())
    told = any("of the volume is foreground" in warning for warning in events[-1].warnings)
    assert told == (events[-1].foreground > 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.zarr", "p.tif", "p.zarr", "whole.tif"]


def test_parts_in_any_order_a_resume_and_torn_files_give_the_same_bytes(tmp_path):
    """Two parts, the second first; a block's chunks torn, another's marker; the last call finishes."""
    volume = volume_of(19)
    run(volume, tmp_path)
    expected = files_of(tmp_path / "mask.zarr")
    shutil.rmtree(tmp_path / "mask.zarr")
    for part in (2, 1, 2):
        *_, done = run(volume, tmp_path, BlockSettings(block=(4, 32, 32), part=(part, 2)))
        assert isinstance(done, PartDone)
    assert done.missing == 0
    folder = blocks_folder(tmp_path / "mask.zarr")
    shard = folder / "predicted.zarr" / "0" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:20])
    marker = folder / "predict" / "0000" / "003.npz"
    marker.write_bytes(marker.read_bytes()[:100])
    with pytest.raises(FileError, match="left from an interrupted run; give --resume"):
        run(volume, tmp_path)
    events = run(volume, tmp_path, resume=True)
    predicted = [event for event in events if isinstance(event, BlockDone) and event.step == "predict"]
    assert [(event.done, event.resumed) for event in predicted] == [(5, 4)]
    assert files_of(tmp_path / "mask.zarr") == expected
    assert run(volume, tmp_path, resume=True)[1:] == [AlreadyComplete(tmp_path / "mask.zarr")]


def test_a_run_is_continued_only_as_what_it_was(tmp_path):
    """Other settings, blocks or stacks are refused."""
    volume = volume_of(9)
    run(volume, tmp_path, BlockSettings(block=(4, 32, 32), part=(1, 2)))
    for changes in ({"threshold": 0.57}, {"min_size": 3}, {"instances": tmp_path / "labels.zarr"}):
        with pytest.raises(FileError, match="another stack, weights or settings"):
            run(volume, tmp_path, resume=True, **changes)
    for other in (volume_of(9, seed=1), volume_of(8)):
        with pytest.raises(FileError, match="another stack, weights or settings"):
            run(other, tmp_path, resume=True)
    with pytest.raises(FileError, match="another stack, weights or settings"):
        run(volume, tmp_path, BlockSettings(block=(8, 32, 32)), resume=True)
    run(volume, tmp_path, overwrite=True)
    assert np.array_equal(read(tmp_path / "mask.zarr"), whole(volume, tmp_path))


def test_blocks_that_are_no_whole_files_are_refused(tmp_path):
    """Two blocks would write one file."""
    with pytest.raises(InputError, match=r"not whole files of the output, which are \(4, 16, 16\)"):
        run(volume_of(9), tmp_path, BlockSettings(block=(3, 16, 16)))
    assert list(tmp_path.iterdir()) == []


def test_labels_are_numbered_across_blocks(tmp_path):
    """Connected components by blocks, and split mitochondria section by section, equal those of `segment`."""
    volume = volume_of(19)
    changes = {"threshold": 0.59, "min_size": 3, "split": False}
    whole(volume, tmp_path, instances=tmp_path / "labels.tif", **changes)
    run(volume, tmp_path, instances=tmp_path / "labels.zarr", **changes)
    expected = open_volume(tmp_path / "labels.tif")
    assert np.array_equal(read(tmp_path / "labels.zarr"), [expected.read(k) for k in range(19)])
    assert read(tmp_path / "labels.zarr").max() > 3


def test_windows_of_large_sections_are_predicted_as_stacks_of_their_own(tmp_path, monkeypatch):
    """Above the limit of pixels; each window with its margin is cut back to its core."""
    volume = volume_of(9)
    monkeypatch.setattr(block_plan, "PIXELS", 16 * 16)
    run(volume, tmp_path, BlockSettings(), overlap=8, min_size=0)
    written = read(tmp_path / "mask.zarr")
    settings = MaskSettings(overlap=8, **SMALL | {"min_size": 0})
    for rows, columns, wide in (
        (slice(0, 16), slice(0, 16), (slice(0, 20), slice(0, 24))),
        (slice(16, 20), slice(16, 30), (slice(8, 20), slice(8, 30))),
    ):
        window = ArrayVolume(volume.array[:, *wide], volume.voxel_size, "window")
        expected = np.stack(list(predict_masks(window, network(), settings)))
        inner = tuple(
            slice(core.start - side.start, core.stop - side.start)
            for core, side in zip((rows, columns), wide, strict=True)
        )
        assert np.array_equal(written[:, rows, columns] > 0, expected[:, *inner])


@pytest.mark.parametrize("lost", [range(9, 17), range(5, 16), range(6), range(14, 19)])
def test_lost_sections_are_the_same_in_blocks(tmp_path, lost):
    """Blocks look as far for the section that takes the place of a lost one as the whole stack does."""
    stack = volume_of(19).array.copy()
    stack[lost] = 7
    volume = ArrayVolume(stack, volume_of().voxel_size, "lost")
    expected = whole(volume, tmp_path)
    run(volume, tmp_path)
    assert np.array_equal(read(tmp_path / "mask.zarr"), expected)
    assert expected[lost].any() == (lost.start > 0 and lost.stop < 19)


def test_constant_blocks_are_skipped(tmp_path, monkeypatch):
    """Their mask is 0, and the network does not see them."""
    stack = volume_of(40).array.copy()
    stack[14:] = 7
    seen = []
    original = blocks.predict

    def note(*arguments, **named):
        seen.append(arguments[3])
        return original(*arguments, **named)

    monkeypatch.setattr(blocks, "predict", note)
    run(ArrayVolume(stack, volume_of().voxel_size, "half"), tmp_path)
    assert seen == [0, 4, 8, 12, 16, 20]  # the last two depend on section 13
    assert not read(tmp_path / "mask.zarr")[24:].any()
    assert max(int(path.name) for path in (tmp_path / "mask.zarr" / "0" / "c").iterdir()) < 6


def test_running_out_of_memory_fails_instead_of_computing_one_block_in_another_way(tmp_path, monkeypatch):
    """Smaller tiles would change the result of that block only."""
    monkeypatch.setattr(blocks, "predict", partial(_short_of_memory))
    with pytest.raises(InputError, match="all blocks must be computed alike"):
        run(volume_of(9), tmp_path)


def _short_of_memory(volume, model, settings, start, announce, stop):
    announce("out of memory at section 3: continuing there with tiles of 64×64 pixels")
    yield


def test_an_unknown_voxel_size_is_found_once(tmp_path, monkeypatch):
    """It is in the record; parts and the last call read it there."""
    volume = volume_of(9)
    unknown = ArrayVolume(volume.array, None, "unknown")
    found = block_run.search_voxel_size
    monkeypatch.setattr(
        block_run, "search_voxel_size", lambda *_: replace(_found(), voxel_size=volume.voxel_size)
    )
    run(unknown, tmp_path, BlockSettings(block=(4, 32, 32), part=(1, 2)))
    monkeypatch.setattr(block_run, "search_voxel_size", lambda *_: pytest.fail("searched again"))
    run(unknown, tmp_path, resume=True)
    assert found is not None
    assert np.array_equal(read(tmp_path / "mask.zarr"), whole(volume, tmp_path))


def _found():
    from mitoda.inference.voxel_size import VoxelSizeFound

    return VoxelSizeFound((1.0, 1.0, 1.0), [])
