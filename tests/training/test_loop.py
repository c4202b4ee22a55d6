"""The training loop: what it leaves on disk, how it stops, and that a break changes nothing."""

import json

import pytest
import torch

from mitoda.data.geometry import shared_geometry
from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.errors import FileError, InputError, MitodaError
from mitoda.methods import Arithmetic
from mitoda.methods.isc import Isc
from mitoda.methods.ualr import Ualr
from mitoda.models.weights import WeightsInfo, load_weights
from mitoda.training import loop
from mitoda.training.loop import Ended, Saved, StepsDone
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import DEFAULT_MINUTES, SCHEDULES, Plan, TrainingSettings
from mitoda.training.state import Run

CPU = Arithmetic(torch.device("cpu"), bfloat16=False)
INFO = WeightsInfo("compact", (5.0, 5.0), 50.0)
TINY = {"batch_size": 1, "patch": 128, "workers": 1}


@pytest.fixture
def domains(source_phantom, target_phantom):
    """Pairs of both phantoms."""
    (image, label), (target, _) = source_phantom, target_phantom
    geometry = shared_geometry(image.voxel_size, target.voxel_size)
    return (
        LabelledPairs(image, 1, geometry.scale(image.voxel_size), labels=label),
        UnlabelledPairs(target, 5, geometry.scale(target.voxel_size)),
    )


def train(domains, folder, should_stop=lambda: False, resume=False, start=None, **changes):
    """Run the loop; return the events."""
    folder.mkdir(exist_ok=True)
    settings = TrainingSettings(**{"method": "isc", "steps": 6, **TINY, **changes})
    run = Run(settings, CPU, INFO, RunFolder(folder), start=start)
    if resume:
        run.load()
    return list(loop.train(run, *domains, should_stop=should_stop))


def stop_after(steps: int):
    """Ask to stop before step number `steps`."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def tensors(folder) -> dict[str, torch.Tensor]:
    """The weights of a run."""
    return load_weights(folder / "weights.safetensors")[0].state_dict()


def test_a_run_stopped_and_resumed_equals_one_without_a_break(domains, tmp_path):
    """Weights, optimisers, averages and random states: bit for bit after 6 steps, stopped after 2."""
    train(domains, tmp_path / "whole")
    first = train(domains, tmp_path / "parts", stop_after(2))
    assert first[-1] == Ended(2, first[-1].seconds, False)
    second = train(domains, tmp_path / "parts", resume=True)
    assert second[-1].complete
    assert second[-1].step == 6
    whole, parts = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")
    )
    for name in ("method", "average"):
        assert all(torch.equal(whole[name][key], parts[name][key]) for key in whole[name])
    for name, optimizer in whole["optimizers"].items():
        for index, values in optimizer["state"].items():
            for key, value in values.items():
                assert torch.equal(value, parts["optimizers"][name]["state"][index][key])
    assert torch.equal(whole["random"], parts["random"])
    a, b = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_begins_from_weights_and_is_resumed_from_its_own(domains, tmp_path):
    """With a learning rate of next to nothing they stay what they were; resuming does not go back to them."""
    train(domains, tmp_path / "begun", steps=2, seed=5)
    start = tmp_path / "begun" / "weights.safetensors"
    still = {"steps": 2, "assignments": {"learning_rate": "1e-12"}}
    train(domains, tmp_path / "still", start=start, **still)
    known, found = tensors(tmp_path / "begun"), tensors(tmp_path / "still")
    assert all(torch.allclose(known[key], found[key], atol=1e-6) for key in known)
    train(domains, tmp_path / "fresh", **still)
    fresh = tensors(tmp_path / "fresh")
    assert not all(torch.allclose(known[key], fresh[key], atol=1e-3) for key in known)
    train(domains, tmp_path / "whole", start=start)
    train(domains, tmp_path / "parts", stop_after(3), start=start)
    train(domains, tmp_path / "parts", resume=True, start=start)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_another_seed_is_another_run(domains, tmp_path):
    """And the same seed the same."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(domains, tmp_path / name, steps=2, seed=seed)
    a, b, c = (tensors(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_weights_log_and_events_tell_the_same_story(domains, tmp_path):
    """The weights hold the length of the run; the log has the losses of the last event."""
    events = train(domains, tmp_path / "run", steps=3)
    assert [type(event) for event in events] == [StepsDone, Saved, Ended]
    _, info = load_weights(tmp_path / "run" / "weights.safetensors")
    assert info.steps == 3
    assert info.seconds == pytest.approx(events[-1].seconds, abs=0.06)
    (record,) = RunFolder(tmp_path / "run").read_log()
    assert record["step"] == 3
    assert record["progress"] == 1.0
    assert record["losses"] == events[0].losses
    assert {"first", "second", "residual", "consistency"} <= set(record["losses"])


def test_the_weights_saved_are_averages(domains, tmp_path):
    """They are neither the start nor the last step's."""
    train(domains, tmp_path / "run", steps=4)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    last = {
        key.removeprefix("network."): t for key, t in state["method"].items() if key.startswith("network.")
    }
    saved = tensors(tmp_path / "run")
    assert all(torch.equal(saved[key], state["average"][key]) for key in saved)
    assert not all(torch.equal(saved[key], last[key]) for key in saved)


def test_a_run_can_be_extended(domains, tmp_path):
    """Resumed with more steps it goes on from the last; resumed when done it ends at once."""
    train(domains, tmp_path / "run", steps=2)
    assert train(domains, tmp_path / "run", steps=3, resume=True)[-1].step == 3
    assert train(domains, tmp_path / "run", steps=3, resume=True)[-1].step == 3


def test_lines_of_the_log_written_after_the_checkpoint_are_dropped(domains, tmp_path):
    """A crash after step 9 of a run saved at 2 leaves a line too many, and perhaps half a line."""
    train(domains, tmp_path / "run", steps=2)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 9, "losses": {}}) + '\n{"step": 1')
    train(domains, tmp_path / "run", steps=3, resume=True)
    assert [record["step"] for record in RunFolder(tmp_path / "run").read_log()] == [2, 3]


def test_a_loss_that_is_not_finite_ends_the_run_with_what_to_do(domains, tmp_path, monkeypatch):
    """The step is named, and a smaller learning rate."""
    update = Isc.update

    def diverge(self, source, target, progress):
        return {**update(self, source, target, progress), "first": torch.tensor(float("nan"))}

    monkeypatch.setattr(Isc, "update", diverge)
    with pytest.raises(
        MitodaError, match="the loss 'first' is not finite at step 2; give a smaller --set learning_rate"
    ):
        train(domains, tmp_path / "run", steps=2)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_nothing_of_the_target_is_read_where_a_method_wants_none(domains, tmp_path, monkeypatch):
    """Source-only trains beside a target that cannot be read."""
    target = domains[1]
    monkeypatch.setattr(type(target.volume), "read", forbid_of(target.volume))
    events = train(domains, tmp_path / "run", method="source-only", steps=1)
    assert events[-1].complete


def forbid_of(volume):
    """Reading as before, but not of one volume."""
    original = type(volume).read

    def read(self, *arguments):
        assert self is not volume
        return original(self, *arguments)

    return read


def test_the_log_has_the_learning_rate_that_was_used(domains, tmp_path, monkeypatch):
    """Also of a method with a schedule of its own."""
    used = []
    update = Ualr.update

    def note(self, source, target, progress):
        used.append(self.optimizers["network"].param_groups[0]["lr"])
        return update(self, source, target, progress)

    monkeypatch.setattr(Ualr, "update", note)
    train(domains, tmp_path / "run", method="ualr", steps=3)
    (record,) = [one for one in RunFolder(tmp_path / "run").read_log() if "lr" in one]
    assert record["lr"] == used[-1]
    assert used[0] == pytest.approx(1e-4)


def test_nothing_is_written_before_the_first_step(domains, tmp_path):
    """Stopped before it, a run leaves an empty folder; the callback comes before the first file."""
    assert train(domains, tmp_path / "none", stop_after(0))[-1] == Ended(0, 0.0, False)
    assert not list((tmp_path / "none").iterdir())
    folder, found = tmp_path / "run", []
    folder.mkdir()
    run = Run(TrainingSettings(method="isc", steps=2, **TINY), CPU, INFO, RunFolder(folder))
    list(loop.train(run, *domains, on_first_step=lambda: found.append((run.step, list(folder.iterdir())))))
    assert found == [(1, [])]


def test_there_is_nothing_to_resume_without_a_state(domains, tmp_path):
    """The message names the folder and what to do."""
    with pytest.raises(FileError, match=r"run cannot be resumed: it has no state.pt.*--overwrite"):
        train(domains, tmp_path / "run", resume=True)


def test_schedules_start_at_one_and_fall():
    """poly and cosine end at 0, constant stays."""
    for name, schedule in SCHEDULES.items():
        assert schedule(0.0) == 1.0
        assert schedule(1.0) == pytest.approx(1.0 if name == "constant" else 0.0)


def test_a_state_of_another_method_is_refused(domains, tmp_path):
    """The message says what does not fit, in one line."""
    train(domains, tmp_path / "run", steps=1)
    with pytest.raises(FileError, match=r"state.pt is not a state of this run .* --overwrite"):
        train(domains, tmp_path / "run", steps=2, method="dann", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 3.0}, "either as steps or as minutes"),
        ({"steps": 0}, "steps must be from 1 to 1,000,000,000; got 0"),
        ({"steps": None, "minutes": float("nan")}, "minutes must be from 0.001 to 1,000,000; got nan"),
        ({"seed": -1}, "seed must be from 0"),
        ({"workers": 10**22}, "workers must be from 1 to 256"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"batch_size": 10**22}, "batch_size must be from 1"),
        ({"schedule": "linear"}, "no schedule 'linear'; choose one of: poly, cosine, constant"),
        ({"patch": 100}, "patch must be a multiple of 64"),
        ({"patch": 0}, "patch must be a multiple of 64"),
        ({"backbone": "vnet9"}, "no backbone 'vnet9'"),
        ({"method": "magic"}, "no method 'magic'"),
        ({"histogram_matching": 1.5}, "histogram_matching must be from 0 to 1"),
        ({"ema_decay": 1.0}, "ema_decay must be from 0"),
        ({"augmentation": "weak"}, "no augmentation 'weak'"),
        ({"assignments": {"consistancy": "1"}}, "no setting 'consistancy'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    """Each names the parameter, its range and the value."""
    with pytest.raises(InputError, match=message):
        TrainingSettings(**{"steps": 1, **TINY, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"spacing": float("nan")}, {"pixel": float("inf")}, {"target_stride": 0}, {"source_stride": -1}],
)
def test_lengths_and_strides_out_of_range_are_refused(changes):
    """By the plan, before anything is opened."""
    (name,) = changes
    with pytest.raises(InputError, match=f"{name} must be from"):
        Plan("target.tif", **changes)


def test_a_run_takes_half_an_hour_unless_told_otherwise():
    """Neither steps nor minutes: the default in minutes."""
    assert TrainingSettings().minutes == DEFAULT_MINUTES
    assert TrainingSettings(steps=3).minutes is None


def test_a_run_made_longer_labels_the_target_anew(domains, tmp_path):
    """Its rounds begin again from the place where it now is."""
    method = {"method": "mitoda", "assignments": {"rounds": "3", "supervised_share": "0.25"}}
    train(domains, tmp_path / "run", steps=4, **method)
    events = train(domains, tmp_path / "run", steps=8, resume=True, **method)
    rounds = [event.round for event in events if isinstance(event, loop.RoundBegun)]
    assert rounds == [3]
