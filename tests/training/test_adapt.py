"""One function from a plan to weights, checks and a report: its events, and when an earlier run is replaced."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mitoda.errors import FileError, InputError, MitodaError
from mitoda.methods.supervised import SourceOnly
from mitoda.models.weights import load_weights
from mitoda.training.adapt import Finished, Started, adapt
from mitoda.training.report import Check, Checks
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings, load_plan
from mitoda.volumes import write_sections
from tests.fakes import compact_weights

TINY = TrainingSettings(method="source-only", steps=1, patch=128, batch_size=1, workers=1)


@pytest.fixture
def plan(tmp_path, source_phantom, target_phantom) -> Plan:
    """From the source phantom to the target phantom."""
    for name, (image, label) in (("source", source_phantom), ("target", target_phantom)):
        for path, volume in ((f"{name}.tif", image), (f"{name}_mask.tif", label)):
            write_sections(tmp_path / path, volume.array, volume.shape, volume.dtype, volume.voxel_size)
    return Plan(
        str(tmp_path / "target.tif"), f"{tmp_path / 'source.tif'}:{tmp_path / 'source_mask.tif'}", TINY
    )


def earlier_run(folder: Path) -> Path:
    """A folder with the files of a run."""
    folder.mkdir()
    for name in ("run.json", "state.pt", "log.jsonl"):
        (folder / name).write_text("{}")
    compact_weights(folder / "weights.safetensors", pixel=(5.0, 5.0), spacing=50.0)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_events_begin_with_the_plan_and_end_with_weights_checks_and_report(plan, tmp_path):
    """The plan on disk is the one announced, with its start decided."""
    events = list(adapt(plan, tmp_path / "run", device="cpu"))
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert started.plan.start is None
    assert load_plan(RunFolder(tmp_path / "run")) == started.plan
    assert isinstance(finished, Finished)
    assert finished.weights.is_file()
    assert finished.report.is_file()
    assert 0 <= finished.checks.now.foreground <= 1


def test_a_run_is_replaced_only_after_the_first_step_of_the_new_one(plan, tmp_path, monkeypatch):
    """Out of memory in that step, or stopped before it, every byte of the earlier run stays."""
    folder = earlier_run(tmp_path / "run")
    before = contents(folder)
    with pytest.raises(FileError, match="holds a run already"):
        list(adapt(plan, folder, device="cpu"))

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(SourceOnly, "update", fail)
        with pytest.raises(MemoryError):
            list(adapt(plan, folder, device="cpu", overwrite=True))
    stopped = list(adapt(plan, folder, device="cpu", overwrite=True, should_stop=lambda: True))[-1]
    assert (stopped.step, stopped.complete, stopped.report) == (0, False, None)
    assert contents(folder) == before
    assert list(adapt(plan, folder, device="cpu", overwrite=True))[-1].complete


def test_the_weights_to_start_from_are_not_replaced(plan, tmp_path):
    """A run cannot overwrite the run that it starts from."""
    folder = earlier_run(tmp_path / "run")
    before = contents(folder)
    begun = Plan(plan.target, plan.source, TINY, start=str(folder))
    with pytest.raises(InputError, match="holds the weights to start from"):
        list(adapt(begun, folder, device="cpu", overwrite=True))
    assert contents(folder) == before


def test_a_diverging_run_is_an_error(plan, tmp_path, monkeypatch):
    """It passes through; nothing is checked or reported."""
    monkeypatch.setattr("mitoda.training.loop.check_finite", diverged)
    with pytest.raises(MitodaError, match="diverged"):
        list(adapt(plan, tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run" / "report.html").exists()


def diverged(*arguments):
    raise MitodaError("training diverged")


def test_training_on_the_source_alone_is_not_judged_by_the_target(plan, tmp_path, monkeypatch):
    """Such a run keeps what it ended with, whatever it finds in a target that it did not learn from."""
    start = tmp_path / "start.safetensors"
    compact_weights(start, pixel=(5.0, 5.0), spacing=50.0)
    worse = Checks(Check(0.01, 0.5), Check(0.06, 0.9), None)
    monkeypatch.setattr("mitoda.training.adapt.check_result", lambda *arguments: worse)
    *_, finished = adapt(replace(plan, start=str(start)), tmp_path / "run", device="cpu")
    assert not finished.checks.kept_start
    assert "kept" not in load_weights(finished.weights)[1].notes


def test_a_worse_result_leaves_the_start_as_the_runs_weights(plan, tmp_path, monkeypatch):
    """`weights.safetensors` predicts as the start does, says so, and what the run ended with lies beside it."""
    start = tmp_path / "start.safetensors"
    compact_weights(start, pixel=(5.0, 5.0), spacing=50.0)
    settings = TrainingSettings(steps=2, patch=128, batch_size=1, workers=1, assignments={"rounds": "1"})
    begun = replace(plan, start=str(start), source_free=True, training=settings)
    worse = Checks(Check(0.01, 0.5), Check(0.06, 0.9), None)
    monkeypatch.setattr("mitoda.training.adapt.check_result", lambda *arguments: worse)
    *_, finished = adapt(begun, tmp_path / "run", device="cpu")
    assert "adapting did not help" in finished.checks.warnings[0]
    kept, info = load_weights(finished.weights)
    for name, tensor in load_weights(start)[0].state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor)
    assert "less credible" in info.notes["kept"]
    assert list(RunFolder(tmp_path / "run").kept_weights()) == [2]
