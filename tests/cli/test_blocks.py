"""Masks in OME-Zarr from the command line: in blocks, in parts, planned, or as a whole."""

import numpy as np
import pytest
import tifffile

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
    for name in ("mask.zarr", "mask.h5"):
        command = ["segment", stack / "stack.tif", "-o", stack / name, "--snap", "--resume"]
        assert "leave --resume out" in mitoda.refused(*command, "--weights", stack / "random.safetensors")


def test_boundaries_on_membranes_are_found_in_the_whole_stack(mitoda, stack):
    """So the mask in OME-Zarr is that of a TIFF; an option of blocks is refused with what to do."""
    own = ["--weights", stack / "random.safetensors", "--snap"]
    for name in ("mask.tif", "mask.zarr"):
        done = mitoda("segment", stack / "stack.zarr", "-o", stack / name, *own)
        assert done.status == 0, done.err
    assert np.array_equal(read(stack / "mask.zarr"), read(stack / "mask.tif"))
    line = mitoda.refused("segment", stack / "stack.zarr", "-o", stack / "b.zarr", *own, "--part", "1/2")
    assert "--no-snap" in line


def test_weights_that_snap_in_thin_stacks_only_take_the_whole_stack_there(mitoda, stack):
    """The default weights do so; these sections have 10 nm."""
    done = mitoda("segment", stack / "stack.zarr", "-o", stack / "mask.zarr")
    assert done.status == 0, done.err
    assert "membrane" in done.err
    assert "--no-snap" in mitoda.refused(
        "segment", stack / "stack.zarr", "-o", stack / "b.zarr", "--part", "1/2"
    )


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
