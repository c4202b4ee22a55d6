"""Everything a person can get wrong: one line that says what and what to do, exit 1, nothing lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from mitoda.volumes import open_volume, write_sections
from tests.commands import Commands
from tests.fakes import compact_weights

SIZE = (10.0, 10.0, 10.0)


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    """Run commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights of the compact backbone."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    compact_weights(path)
    return path


def write(path: Path, array: np.ndarray, size=SIZE) -> Path:
    """A stack as a file."""
    write_sections(path, array, array.shape, array.dtype, size)
    return path


def noise(*shape: int) -> np.ndarray:
    """uint8."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_missing(path: Path) -> str:
    """Nothing there."""
    return "does not exist"


def make_text(path: Path) -> str:
    """A text file called .tif."""
    path.write_text("these are not the pixels you are looking for\n" * 9)
    return "TIFF"


def make_empty(path: Path) -> str:
    """A file of no bytes."""
    path.touch()
    return "empty|TIFF"


def make_truncated(path: Path) -> str:
    """A copy that stopped half way."""
    write(path, noise(6, 128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "damaged|cut off|truncated|incomplete"


def make_rgb(path: Path) -> str:
    """Colours."""
    tifffile.imwrite(path, noise(4, 64, 64, 3), photometric="rgb")
    return "colour|RGB"


def make_four_dimensions(path: Path) -> str:
    """Time or channels."""
    tifffile.imwrite(path, noise(2, 3, 40, 40), photometric="minisblack", metadata={"axes": "TZYX"})
    return "axes|axis|dimensions"


def make_nan(path: Path) -> str:
    """One value that is no number."""
    array = noise(3, 64, 64).astype(np.float32)
    array[1, 5, 5] = np.nan
    write(path, array)
    return "section 1 of .* NaN"


def make_complex(path: Path) -> str:
    """A type nobody takes pictures in."""
    tifffile.imwrite(path, noise(3, 40, 40).astype(np.complex64), photometric="minisblack")
    return "complex64"


BAD = [
    make_missing,
    make_text,
    make_empty,
    make_truncated,
    make_rgb,
    make_four_dimensions,
    make_nan,
    make_complex,
]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__.removeprefix("make_"))
def test_stacks_that_cannot_be_segmented(mitoda, weights, tmp_path, make):
    """Each is named in one line, and no mask appears."""
    stack = tmp_path / "stack.tif"
    import re

    expected = make(stack)
    message = mitoda.refused(
        "segment", stack, "-o", tmp_path / "mask.tif", "--weights", weights, "--voxel-size", 10, 10, 10
    )
    assert re.search(expected, message), message
    assert "stack.tif" in message
    assert not (tmp_path / "mask.tif").exists()


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__.removeprefix("make_"))
def test_stacks_that_cannot_be_adapted_to(mitoda, tmp_path, make):
    """The same for a training, which starts no run that is not there to be resumed, and replaces none."""
    stack = tmp_path / "stack.tif"
    make(stack)
    source, labels = (
        write(tmp_path / "s.tif", noise(3, 64, 64)),
        write(tmp_path / "m.tif", noise(3, 64, 64) // 128),
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("an earlier run")
    message = mitoda.refused(
        "adapt", "--source", f"{source}:{labels}", "--target", stack, "--voxel-size", 10, 10, 10, "--out", run,
        "--steps", 2, "--patch", 128, "--batch-size", 1, "--overwrite",
    )  # fmt: skip
    assert "stack.tif" in message
    if make is not make_nan:  # found only while training reads it
        assert (run / "run.json").read_text() == "an earlier run"


@pytest.mark.parametrize(
    ("array", "remark"),
    [
        (np.full((3, 70, 70), 80, np.uint8), "is constant"),
        (noise(1, 70, 70), "paired with itself"),
        (noise(3, 9, 7), None),
        (noise(2, 64, 64), None),
        (noise(3, 70, 70).astype(np.uint16) * 257, None),
    ],
    ids=["constant", "one section", "smaller than a tile", "one network step", "16 bit"],
)
def test_odd_stacks_work_with_a_warning_where_it_helps(mitoda, weights, tmp_path, array, remark):
    """They are segmented: a mask of the same shape and voxel size."""
    stack = write(tmp_path / "stack.tif", array)
    outcome = mitoda("segment", stack, "-o", tmp_path / "mask.tif", "--weights", weights)
    assert outcome.status == 0, outcome.err
    assert outcome.out == ""
    mask = open_volume(tmp_path / "mask.tif")
    assert mask.shape == array.shape
    assert mask.voxel_size == pytest.approx(SIZE)
    if remark:
        assert "warning: " in outcome.err
        assert remark in outcome.err


def test_odd_targets_can_be_adapted_to_with_a_warning(mitoda, tmp_path):
    """One section smaller than a patch."""
    source, labels = (
        write(tmp_path / "s.tif", noise(3, 64, 64)),
        write(tmp_path / "m.tif", noise(3, 64, 64) // 128),
    )
    target = write(tmp_path / "t.tif", noise(1, 30, 40))
    outcome = mitoda(
        "adapt", "--source", f"{source}:{labels}", "--target", target, "--out", tmp_path / "run", "--steps", 1,
        "--patch", 128, "--batch-size", 1,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "the target is a single section" in outcome.err
    assert "sections of the target are 30 × 40 working pixels, smaller than a patch of 128" in outcome.err


def test_labels_of_another_shape(mitoda, tmp_path):
    """For a source and for a score: both shapes are named."""
    images, labels = (
        write(tmp_path / "s.tif", noise(3, 64, 64)),
        write(tmp_path / "m.tif", noise(3, 64, 60) // 128),
    )
    message = mitoda.refused(
        "adapt", "--source", f"{images}:{labels}", "--target", images, "--out", tmp_path / "run", "--steps", 1
    )
    assert "(3, 64, 60)" in message
    assert "(3, 64, 64)" in message
    assert not (tmp_path / "run").exists()
    message = mitoda.refused("score", images, labels)
    assert "(3, 64, 60)" in message


@pytest.mark.parametrize("kind", ["pickle", "text", "architecture", "missing", "folder"])
def test_weights_that_are_none(mitoda, weights, tmp_path, kind):
    """A pickle is never opened; another architecture names the tensor."""
    stack, path = write(tmp_path / "stack.tif", noise(2, 64, 64)), tmp_path / "w.safetensors"
    expected = {
        "pickle": "a pickled PyTorch checkpoint",
        "text": "not a safetensors file",
        "architecture": "does not fit its backbone 'compact'",
        "missing": "neither a weights file, nor the folder of a run",
        "folder": "neither a weights file, nor the folder of a run",
    }[kind]
    if kind == "pickle":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "text":
        path.write_text("hello" * 100)
    elif kind == "architecture":
        from mitoda.models.weights import WeightsInfo, save_weights
        from tests.fakes import tiny_network

        save_weights(path, tiny_network(), WeightsInfo("compact", (5.0, 5.0), 50.0))
    elif kind == "folder":
        path.mkdir()
    message = mitoda.refused("segment", stack, "-o", tmp_path / "mask.tif", "--weights", path)
    assert expected in message
    assert not (tmp_path / "mask.tif").exists()


def test_outputs_that_cannot_be_written(mitoda, weights, tmp_path):
    """A folder that does not exist, an existing file, a folder, another format."""
    stack = write(tmp_path / "stack.tif", noise(2, 64, 64))

    def refused(output: Path) -> str:
        return mitoda.refused("segment", stack, "-o", output, "--weights", weights)

    assert "does not exist; create it first: mkdir -p" in refused(tmp_path / "gone" / "mask.tif")
    assert "is a folder" in refused(Path(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}.tif")))
    assert "mitoda writes TIFF" in refused(tmp_path / "mask.png")
    (tmp_path / "taken.tif").write_bytes(b"")
    assert "exists; give another name, or --overwrite to replace it" in refused(tmp_path / "taken.tif")


@pytest.mark.parametrize("option", ["-o", "--probability"])
@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_what_is_read_is_never_replaced(mitoda, weights, tmp_path, option, flag):
    """Neither stack nor weights, under any name, even if existing files may be replaced."""
    stack = write(tmp_path / "stack.tif", noise(2, 64, 64))
    own_weights = Path(shutil.copy(weights, tmp_path / "weights.tif"))
    (tmp_path / "link.tif").symlink_to(stack)
    (tmp_path / "hard.tif").hardlink_to(stack)
    before = {path: path.read_bytes() for path in (stack, own_weights)}
    for name in ("stack.tif", "../" + tmp_path.name + "/stack.tif", "link.tif", "hard.tif", "weights.tif"):
        outputs = [option, tmp_path / name] + (["-o", tmp_path / "mask.tif"] if option != "-o" else [])
        message = mitoda.refused("segment", stack, *outputs, "--weights", own_weights, flag)
        assert "would replace or join the input" in message
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "mask.tif").exists()


def test_a_benchmark_does_not_replace_its_volumes(mitoda, tmp_path):
    """--csv and --figure under the names of a source's labels."""
    stack = write(tmp_path / "stack.tif", noise(2, 64, 64))
    labels = tmp_path / "labels.csv"
    labels.write_text("kept")
    message = mitoda.refused(
        "bench", "--source", f"{stack}:{labels}", "--target", stack, "--labels", labels, "--csv", labels
    )
    assert "would replace or join the input" in message
    assert labels.read_text() == "kept"


def test_a_full_disk_while_segmenting_keeps_what_is_done(mitoda, weights, tmp_path, monkeypatch):
    """The fourth section does not fit: one line, the first three stay, and --resume goes on to the same mask.

    Later sections that wait to be written must not follow the third, even if there is room again.
    """
    stack = write(tmp_path / "stack.tif", noise(6, 64, 64))
    whole, mask = tmp_path / "whole.tif", tmp_path / "mask.tif"
    assert mitoda("segment", stack, "-o", whole, "--weights", weights).status == 0
    original = tifffile.TiffWriter.write
    written = 0

    def fill(self, *arguments, **options):
        nonlocal written
        written += 1
        if written == 4:
            raise OSError(28, "No space left on device")
        return original(self, *arguments, **options)

    monkeypatch.setattr(tifffile.TiffWriter, "write", fill)
    message = mitoda.refused("segment", stack, "-o", mask, "--weights", weights)
    assert "the disk is full: 3 of 6 sections were written" in message
    assert "--resume" in message
    assert not mask.exists()
    monkeypatch.setattr(tifffile.TiffWriter, "write", original)
    outcome = mitoda("segment", stack, "-o", mask, "--weights", weights, "--resume")
    assert outcome.status == 0
    assert "continuing the interrupted run" in outcome.err
    assert np.array_equal(tifffile.imread(mask), tifffile.imread(whole))
    assert not list(tmp_path.glob("*.partial*"))


def test_a_full_disk_while_training_keeps_the_last_checkpoint(mitoda, tmp_path, monkeypatch):
    """The state cannot be written: one line, and the state before is there to resume."""
    source, labels = (
        write(tmp_path / "s.tif", noise(3, 64, 64)),
        write(tmp_path / "m.tif", noise(3, 64, 64) // 128),
    )
    arguments = ["adapt", "--source", f"{source}:{labels}", "--target", source, "--out", tmp_path / "run"]
    arguments += ["--steps", 1, "--patch", 128, "--batch-size", 1, "--method", "source-only"]
    assert mitoda(*arguments).status == 0
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def fill(state, path):
        path.write_bytes(b"torso")
        raise RuntimeError(
            "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nand more lines"
        )

    with monkeypatch.context() as full:
        full.setattr("mitoda.models.weights.torch.save", fill)
        message = mitoda.refused("adapt", "--resume", tmp_path / "run", "--steps", 2)
    assert "its earlier content is unchanged" in message
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert mitoda("adapt", "--resume", tmp_path / "run", "--steps", 2).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", 2], "threshold must lie between 0 and 1; got 2.0"),
        (["--min-size", -3], "min_size must be from 0 to"),
        (["--mask-value", 300], "mask_value must be from 1 to 255"),
        (["--tile", 0, 64], "tile is rows and columns"),
        (["--overlap", -1], "overlap must be from 0 to 1,000,000"),
        (["--voxel-size", 10, 0, 10], "three positive lengths"),
        (["--voxel-size", 0.01, 0.01, 0.01], "from 0.1 to 10000 nm"),
        (["--voxel-size", 50, 400, 400], "give voxel sizes in nanometres"),
        (["--device", "gpu"], "no device 'gpu'; give auto, cpu, cuda"),
        (["--device", "cuda:99"], "'cuda:99' is not available"),
        (["--precision", "half"], "precision is auto, float32 or bfloat16"),
        (["--axes", "QQQ"], "QQQ"),
        (["--probability", "p.png"], "mitoda writes TIFF"),
    ],
)
def test_options_that_cannot_be(mitoda, weights, tmp_path, monkeypatch, arguments, message):
    """In the words of the option, with what was given."""
    monkeypatch.chdir(tmp_path)
    stack = write(tmp_path / "stack.tif", noise(2, 64, 64))
    found = mitoda.refused("segment", stack, "-o", "mask.tif", "--weights", weights, *arguments)
    assert message in found
    assert not (tmp_path / "mask.tif").exists()


def test_a_voxel_size_nobody_said(mitoda, weights, tmp_path):
    """Where it cannot be searched the option is named; a data set that was not fetched says how to fetch it."""
    stack = write(tmp_path / "stack.tif", noise(2, 64, 64), None)
    message = mitoda.refused("segment", stack, "-o", tmp_path / "mask.tif", "--weights", weights)
    assert "takes three sections" in message
    assert "in nanometres: --voxel-size Z Y X" in message
    message = mitoda.refused("segment", "lucchi", "-o", tmp_path / "mask.tif", "--dest", tmp_path)
    assert "run: mitoda fetch lucchi" in message
