"""Two processes on one output: the second is told who holds it, and nothing is mixed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mitoda.errors import FileError
from mitoda.inference.segment import segment
from mitoda.inference.settings import SegmentSettings
from mitoda.training.adapt import StepsDone, adapt
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import load_plan
from mitoda.volumes.lock import locked
from tests.commands import ROOT
from tests.inference.test_segment import local, read, volume_of

HOLD = """
import sys
from pathlib import Path
from mitoda.volumes.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows locks open files by itself")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_lock_ends_with_its_process(tmp_path, end):
    """Another process names the holder while it lives, and takes its place when it is killed."""
    output = tmp_path / "mask.tif"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, output],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refusal = rf"mask.tif is being written by another mitoda \(process {holder.pid} on .*\); wait"
        with pytest.raises(FileError, match=refusal), locked(output):
            pass
        holder.send_signal(end)
    with locked(output):
        pass
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    """What it points to stays as it is."""
    (tmp_path / "thesis.txt").write_text("five years")
    (tmp_path / ".mask.tif.mitoda-lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(FileError, match=r"mask.tif cannot be written"), locked(tmp_path / "mask.tif"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "five years"


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
@pytest.mark.parametrize("options", [{}, {"min_size": 12}], ids=["one pass", "two passes"])
def test_a_second_segmentation_does_not_disturb_the_first(tmp_path, options, flag):
    """Refused whatever flags it has, from the first section on; the first ends with its own mask."""
    volume = volume_of(6)
    settings = SegmentSettings(output=tmp_path / "mask.tif", **options)
    alone = SegmentSettings(output=tmp_path / "alone.tif", **options)
    second = SegmentSettings(output=tmp_path / "mask.tif", **{flag: True}, **options)
    list(segment(volume, local(), alone))
    events = segment(volume, local(), settings)
    next(events)
    for _ in events:
        with pytest.raises(FileError, match="is being written by another mitoda"):
            list(segment(volume_of(6, seed=1), local(), second))
    assert read(tmp_path / "mask.tif").tolist() == read(tmp_path / "alone.tif").tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.tif", "mask.tif"]


def test_a_second_training_does_not_disturb_the_first(files, tmp_path):
    """Neither a new run with overwrite nor a resumed one takes the folder of one that is training."""
    plan = load_plan(RunFolder(files["run"]))
    folder = Path(tmp_path / "run")
    events = adapt(plan, folder, device="cpu")
    next(event for event in events if isinstance(event, StepsDone))
    for resume in (False, True):
        with pytest.raises(FileError, match=r"run.json is being written by another mitoda"):
            list(adapt(plan, folder, device="cpu", resume=resume, overwrite=True))
    list(events)
    expected = (files["run"] / "weights.safetensors").read_bytes()
    assert len((folder / "weights.safetensors").read_bytes()) == len(expected)
    list(adapt(load_plan(RunFolder(folder)).extended(2, None), folder, device="cpu", resume=True))
