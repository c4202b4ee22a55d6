"""Boundaries on membranes in blocks: equal to the stream to the bit, whatever happens on the way."""

import os
import shutil
from functools import partial

import numpy as np
import pytest
from torch import Tensor, nn

from mitoda.errors import InputError
from mitoda.inference import block_plan, block_run
from mitoda.inference.block_run import blocks_folder, segment_blocks
from mitoda.inference.blocks import BlockWork
from mitoda.inference.events import PartDone, Segmented
from mitoda.inference.segment import segment
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.models.model import Model
from mitoda.models.pair_networks import SectionFeatures
from mitoda.volumes import ArrayVolume, open_volume
from tests.fakes import LocalNetwork, model_of
from tests.inference.test_blocks import files_of, read, read_tiff, shrink_shards
from tests.inference.test_cluster import DeadlyVolume, itself

SIZE = (5.0, 5.0, 5.0)
"""Nanometres; contours six sections away count, and blocks have four."""
ENDS = [(44 - 12, 94, 8), (44 + 12, 94, 8)]
"""Middle, centre and radius of two discs that are apart in one block and joined in the next."""
BLOCKS = BlockSettings(block=(4, 128, 192))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 4 sections."""
    shrink_shards(monkeypatch, CHUNK=64, COARSEST=80)


class BlurredNetwork(LocalNetwork):
    """Sees sections out of focus, so that its probability rises slowly from outside of a membrane to its inside."""

    def encode(self, section: Tensor) -> SectionFeatures:
        """The mean of the grey values around each pixel."""
        for _ in range(2):
            section = nn.functional.avg_pool2d(section, 7, 1, 3, count_include_pad=False)
        return super().encode(section)


def network() -> Model:
    """The blurred network, for pairs two sections apart."""
    return model_of(BlurredNetwork(), (5.0, 5.0), 10.0)


def tubes(sections: int = 19) -> ArrayVolume:
    """Bright bodies with dark membranes: one through all sections, one that has two ends side by side, a small one."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:80, :140]
    stack = np.full((sections, 80, 140), 90.0)
    for k in range(sections):
        bodies = [(30 + 0.6 * k, 34, 18), *([(44, 90 + 0.5 * k, 14)] if k >= 10 else ENDS if k >= 4 else [])]
        bodies += [(14, 122, 5)] if 5 <= k < 10 else []
        for middle, centre, radius in bodies:
            distance = np.hypot(row - middle, column - centre)
            inside = 1 / (1 + np.exp(distance - radius))
            stack[k] += 110 * inside - 60 * np.exp(-0.5 * (distance - radius - 2) ** 2)
    stack += rng.normal(0, 6, stack.shape)
    stack[11, :, :22] = 0  # padding that cuts a body, where the mask stays empty
    return ArrayVolume(stack.clip(0, 255).astype(np.uint8), SIZE, "tubes")


def settings_of(path, name: str, **changes) -> SegmentSettings:
    """Boundaries are moved, and the small body is removed."""
    return SegmentSettings(
        output=path / name, **{"threshold": 0.5, "snap": True, "min_size": 4000, "smoothing": 5.0} | changes
    )


def whole(path, **changes) -> tuple[np.ndarray, Segmented]:
    """The mask that one process writes as TIFF, and its last event."""
    *_, done = segment(tubes(), network(), settings_of(path, "whole.tif", **changes))
    return read_tiff(path / "whole.tif"), done


def run(path, how=BLOCKS, **changes) -> list:
    """Segment in blocks."""
    return list(segment_blocks(tubes, network(), settings_of(path, "mask.zarr", **changes), how))


@pytest.mark.parametrize(
    "changes",
    [{}, {"min_size": 0, "mask_value": 1, "threshold": 0.6}, {"boundary": 20.0}, {"boundary": -6.0}],
)
def test_blocks_of_whole_sections_are_the_stream_to_the_bit(tmp_path, changes):
    """With and without removing small components; contours of a body, and those near a place, reach over blocks."""
    expected, done = whole(tmp_path, **changes | {"probability": tmp_path / "p.tif"})
    events = run(tmp_path, **changes | {"probability": tmp_path / "p.zarr"})
    assert np.array_equal(read(tmp_path / "mask.zarr"), expected)
    assert np.array_equal(read(tmp_path / "p.zarr"), read_tiff(tmp_path / "p.tif"))
    assert events[-1].foreground == pytest.approx(done.foreground)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.zarr", "p.tif", "p.zarr", "whole.tif"]
    for other in ({"snap": False}, {"min_size": 4000 - changes.get("min_size", 4000)}):
        unlike, _ = whole(tmp_path, **changes | other, overwrite=True)
        assert np.mean((unlike > 0) != (expected > 0)) > 0.003  # so the test sees snapping and removal


def test_parts_in_any_order_a_resume_and_torn_files_give_the_same_bytes(tmp_path):
    """Markers and probabilities torn before the last call, and between its steps."""
    run(tmp_path)
    expected = files_of(tmp_path / "mask.zarr")
    shutil.rmtree(tmp_path / "mask.zarr")
    for part in (2, 1, 2):
        *_, done = run(tmp_path, BlockSettings(block=BLOCKS.block, part=(part, 2)))
        assert isinstance(done, PartDone)
    assert done.missing == 0
    folder = blocks_folder(tmp_path / "mask.zarr")
    for name in ("predict/0000/003.npz", "predicted.zarr/0/c/1/0/0"):
        torn = folder / name
        torn.write_bytes(torn.read_bytes()[:100])
    run(tmp_path, resume=True)
    assert files_of(tmp_path / "mask.zarr") == expected


@pytest.mark.parametrize("step", ["join", "finish"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_marker_that_is_lost_meanwhile_is_written_again(tmp_path, monkeypatch, step, whole):
    """Before components are joined, or while a neighbour is finished: gone, or zeros in its middle."""
    run(tmp_path)
    expected = files_of(tmp_path / "mask.zarr")
    shutil.rmtree(tmp_path / "mask.zarr")
    owner = block_run if step == "join" else BlockWork
    original, broken = getattr(owner, step), []

    def break_marker(work: BlockWork, *arguments):
        if not broken:
            marker = work.marker("predict", 1)
            content = bytearray(marker.read_bytes())
            broken.append(marker)
            marker.unlink()
            if not whole:
                content[len(content) // 8 : len(content) * 3 // 4] = bytes(len(content) * 5 // 8)
                marker.write_bytes(content)
        return original(work, *arguments)

    monkeypatch.setattr(owner, step, break_marker)
    run(tmp_path)
    assert broken
    assert files_of(tmp_path / "mask.zarr") == expected


def test_blocks_are_finished_in_any_order_and_again(tmp_path, monkeypatch):
    """A block depends on what all blocks predicted, and on nothing that another one finished."""
    run(tmp_path)
    expected = files_of(tmp_path / "mask.zarr")
    shutil.rmtree(tmp_path / "mask.zarr")

    def backwards_and_twice(work):
        return lambda step, indices: (getattr(work, step)(index) for index in [*indices, *indices][::-1])

    monkeypatch.setattr(block_run, "run_here", backwards_and_twice)
    run(tmp_path)
    assert files_of(tmp_path / "mask.zarr") == expected


def test_labels_are_those_of_the_moved_boundaries(tmp_path):
    """Connected components are numbered in the finished mask, as in a TIFF."""
    whole(tmp_path, instances=tmp_path / "labels.tif", split=False)
    run(tmp_path, instances=tmp_path / "labels.zarr", split=False)
    expected = open_volume(tmp_path / "labels.tif")
    assert np.array_equal(read(tmp_path / "labels.zarr"), [expected.read(k) for k in range(19)])
    assert read(tmp_path / "labels.zarr").max() > 1


def test_windows_of_sections_are_refused_with_what_to_do(tmp_path, monkeypatch):
    """Regions around bodies reach over windows; blocks of whole sections can be asked for."""
    with pytest.raises(InputError, match="give --block 64 80 140, or --no-snap"):
        run(tmp_path, BlockSettings(block=(4, 16, 160)))
    monkeypatch.setattr(block_plan, "PIXELS", 80 * 140 - 1)
    with pytest.raises(InputError, match="give --block 64 80 140, or --no-snap"):
        run(tmp_path, BlockSettings())
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, BlockSettings(block=(64, 80, 140)))
    assert np.array_equal(read(tmp_path / "mask.zarr"), whole(tmp_path)[0])


@pytest.mark.parametrize("first", [0, 8])
def test_constant_blocks_have_no_contours(tmp_path, first):
    """Their mask is 0, beside blocks with bodies and where there is nothing else."""
    stack = tubes().array.copy()
    stack[first:] = 7
    settings = settings_of(tmp_path, "mask.zarr", min_size=0)
    volume = ArrayVolume(stack, SIZE, "half")
    list(segment_blocks(lambda: volume, network(), settings, BLOCKS))
    found = read(tmp_path / "mask.zarr").any((1, 2))
    assert found[:first].all()
    assert not found[first + 8 :].any()  # a block between depends on bodies too


def test_where_no_membrane_stands_out_that_is_said(tmp_path):
    """As the stream says it, and the mask is that of the network."""
    noise = np.random.default_rng(0).normal(128, 30, (9, 80, 140)).clip(0, 255).astype(np.uint8)
    noise[:, 20:60, 20:60] //= 2
    events = list(
        segment_blocks(
            lambda: ArrayVolume(noise, SIZE, "noise"),
            network(),
            settings_of(tmp_path, "mask.zarr", min_size=0),
            BLOCKS,
        )
    )
    assert any("no dark membrane stands out" in warning for warning in events[-1].warnings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_changes_nothing(tmp_path):
    """One of two workers ends by SIGKILL in a block; the shards are those of one process."""
    deadly = DeadlyVolume(tubes(), 10, tmp_path / "killed")
    run(tmp_path)
    (tmp_path / "cluster").mkdir()
    settings = settings_of(tmp_path / "cluster", "mask.zarr")
    how = BlockSettings(block=BLOCKS.block, workers=2)
    *_, done = segment_blocks(partial(itself, deadly), network(), settings, how, "cpu")
    assert isinstance(done, Segmented)
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    assert files_of(settings.output) == files_of(tmp_path / "mask.zarr")
