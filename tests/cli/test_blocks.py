"""Masks in OME-Zarr from the command line: in blocks, in parts, planned, or as a whole."""

import numpy as np
import pytest
import tifffile

from mitoda.inference import block_plan
from mitoda.synthetic import TARGET
from mitoda.volumes import open_labels, open_values, write_sections
from tests.commands import Commands
from tests.fakes import compact_weights


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    """Run commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture
def stack(tmp_path, target_phantom):
    """stack.zarr and stack.tif of the same four sections of 10 nm, and weights of the default behaviour."""
    image, _ = target_phantom
    for name in ("stack.zarr", "stack.tif"):
        write_sections(tmp_path / name, image.array[:4, :64, :96], (4, 64, 96), image.dtype, image.voxel_size)
    compact_weights(tmp_path / "random.safetensors", pixel=TARGET.voxel_size[1:], spacing=20.0)
    return tmp_path


def read(path) -> np.ndarray:
    """All sections of a mask."""
    mask = open_labels(path)
    return np.stack([mask.read(k) for k in range(mask.shape[0])])


def test_parts_and_the_last_call_give_the_mask_of_a_tiff(mitoda, stack):
    """Also `--plan` prints blocks, time, memory and disk, and writes nothing."""
    own = ["--weights", stack / "random.safetensors", "--no-snap"]
    assert mitoda("segment", stack / "stack.tif", "-o", stack / "mask.tif", *own).status == 0
    command = ["segment", stack / "stack.zarr", "-o", stack / "mask.zarr", *own]
    planned = mitoda(*command, "--plan")
    assert planned.status == 0, planned.err
    assert {"blocks", "time", "memory", "disk", "SLURM"} <= {
        line.split()[0] for line in planned.out.splitlines() if line
    }
    assert not (stack / "mask.zarr").exists()
    for part in ("2/2", "1/2"):
        done = mitoda(*command, "--part", part)
        assert done.status == 0, done.err
        assert not (stack / "mask.zarr").exists()
    assert mitoda(*command, "--resume").status == 0
    assert np.array_equal(read(stack / "mask.zarr"), read(stack / "mask.tif"))
    assert not (stack / "mask.zarr.blocks").exists()


def test_overwriting_in_parts_keeps_the_work_of_other_parts(mitoda, stack):
    """An earlier mask stays until the last call replaces it, whose command has --overwrite too."""
    command = ["segment", stack / "stack.zarr", "-o", stack / "mask.zarr", "--no-snap", "--overwrite"]
    command += ["--weights", stack / "random.safetensors", "--block", 16, 256, 256]
    assert mitoda(*command).status == 0
    before = read(stack / "mask.zarr")
    command += ["--threshold", 0.52]
    for part in ("1/2", "2/2"):
        done = mitoda(*command, "--part", part)
        assert done.status == 0, done.err
        assert np.array_equal(read(stack / "mask.zarr"), before)
    assert "all blocks are predicted" in done.err
    assert mitoda(*command, "--resume").status == 0
    assert not np.array_equal(read(stack / "mask.zarr"), before)


@pytest.mark.parametrize("split", [[], ["--no-split"]])
def test_other_formats_beside_a_mask_in_ome_zarr(mitoda, stack, split):
    """A probability map in HDF5 makes it one process; labels may be of any format in blocks too."""
    own = ["--weights", stack / "random.safetensors", "--no-snap", *split]
    files = [stack / "mask.zarr", "--probability", stack / "p.h5", "--instances", stack / "i.tif"]
    done = mitoda("segment", stack / "stack.tif", "-o", *files, *own)
    assert done.status == 0, done.err
    assert (stack / "p.h5").is_file()
    labels = tifffile.imread(stack / "i.tif")
    blocks = ["-o", stack / "b.zarr", "--instances", stack / "b.h5", "--block", 16, 256, 256]
    done = mitoda("segment", stack / "stack.tif", *blocks, *own)
    assert done.status == 0, done.err
    assert np.array_equal(read(stack / "b.zarr"), read(stack / "mask.zarr"))
    assert np.array_equal(open_values(stack / "b.h5").read(2) > 0, labels[2] > 0)
    refused = mitoda.refused(
        "segment", stack / "stack.tif", *blocks, *own, "--probability", stack / "q.h5", "--overwrite"
    )
    assert "ends in .zarr" in refused


def test_a_mask_that_is_no_tiff_and_not_in_blocks_is_not_resumed(mitoda, stack):
    """Whatever an interrupted run left; the message says what to do."""
    (stack / "mask.zarr.partial").mkdir()
    for name, files in (("mask.h5", []), ("mask.zarr", ["--probability", stack / "p.h5"])):
        command = ["segment", stack / "stack.tif", "-o", stack / name, *files, "--snap", "--resume"]
        assert "leave --resume out" in mitoda.refused(*command, "--weights", stack / "random.safetensors")


@pytest.mark.parametrize("own", [["--weights", "random.safetensors", "--snap"], []])
def test_boundaries_on_membranes_are_moved_in_blocks(mitoda, stack, own):
    """With --snap, and with the default weights, which snap in these sections of 10 nm; as in a TIFF."""
    own = [stack / one if one.endswith("safetensors") else one for one in own]
    done = mitoda("segment", stack / "stack.tif", "-o", stack / "mask.tif", *own)
    assert done.status == 0, done.err
    command = ["segment", stack / "stack.zarr", "-o", stack / "mask.zarr", *own]
    assert "blocks" in mitoda(*command, "--plan").out
    for last in (["--part", "1/1"], ["--resume"]):
        done = mitoda(*command, *last)
        assert done.status == 0, done.err
    assert np.array_equal(read(stack / "mask.zarr"), read(stack / "mask.tif"))
    done = mitoda(*command, "--overwrite")
    assert done.status == 0, done.err
    assert np.array_equal(read(stack / "mask.zarr"), read(stack / "mask.tif"))
    assert ("dark membrane" in done.err) == (own == [])


def test_boundaries_of_large_sections_are_moved_in_one_process(mitoda, stack, monkeypatch):
    """Where blocks would be windows; an option of blocks is refused with what to do."""
    monkeypatch.setattr(block_plan, "PIXELS", 64 * 96 - 1)
    own = ["--weights", stack / "random.safetensors", "--snap"]
    for name in ("mask.tif", "mask.zarr"):
        done = mitoda("segment", stack / "stack.zarr", "-o", stack / name, *own)
        assert done.status == 0, done.err
    assert np.array_equal(read(stack / "mask.zarr"), read(stack / "mask.tif"))
    command = ["segment", stack / "stack.zarr", "-o", stack / "b.zarr", *own]
    for option in (["--part", "1/2"], ["--plan"]):
        assert "give --block 64 64 96, or --no-snap" in mitoda.refused(*command, *option)


def test_options_of_blocks_need_an_ome_zarr(mitoda, stack):
    """And a part is K/N."""
    command = ["segment", stack / "stack.tif", "--weights", stack / "random.safetensors", "-o"]
    for name, options, text in (
        ("mask.tif", ("--workers", 2), "OUT.zarr"),
        ("mask.zarr", ("--part", "5/3"), "3/64"),
    ):
        done = mitoda(*command, stack / name, *options)
        assert (done.status, done.out) == (2, "")
        assert text in done.err
