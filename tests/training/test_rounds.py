"""Rounds of a method that labels the target itself: the loop's side of it."""

import json
from dataclasses import replace

import pytest
import torch

from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.methods import Arithmetic
from mitoda.methods.mitoda import SelfTraining
from mitoda.models.weights import WeightsInfo, load_weights
from mitoda.training import loop, pseudo_labels
from mitoda.training.loop import Ended, RoundBegun, StepsDone
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import TrainingSettings
from mitoda.training.state import Run
from tests.fakes import compact_weights

CPU = Arithmetic(torch.device("cpu"), bfloat16=False)
INFO = WeightsInfo("compact", (5.0, 5.0), 50.0)


class Stop:
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def run(tmp_path, source_phantom, target_phantom):
    """Train mitoda's method for eight steps: two on the source, then three rounds of two."""
    (source, labels), (target, _) = source_phantom, target_phantom

    def train(name, resume=False, should_stop=lambda: False, start=None, stride=5, **more):
        assignments = {"supervised_share": "0.25", "rounds": "3", "smoothing": "15", **more}
        settings = TrainingSettings(
            method="mitoda",
            steps=8,
            patch=128,
            batch_size=1,
            assignments={name: value for name, value in assignments.items() if value is not None},
        )
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        state = Run(settings, CPU, INFO, RunFolder(folder), start=start)
        if resume:
            state.load()
        events = loop.train(
            state,
            LabelledPairs(source, 1, labels=labels),
            UnlabelledPairs(target, stride),
            should_stop=should_stop,
        )
        return folder, list(events)

    return train


def test_each_round_labels_the_target_anew(run):
    """Three rounds begin after a quarter of the run; what they taught is logged, and smoothing is saved."""
    folder, events = run("whole")
    begun = [event for event in events if isinstance(event, RoundBegun)]
    assert [(event.step, event.round) for event in begun] == [(2, 1), (4, 2), (6, 3)]
    assert all(0 <= event.foreground + event.ignored <= 1 for event in begun)
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["round"] for record in logged if "round" in record] == [1, 2, 3]
    assert load_weights(folder / "weights.safetensors")[1].smoothing == 15.0
    last = events[-1]
    assert isinstance(last, Ended)
    assert last.complete


def test_a_target_too_large_to_be_labelled_at_once_is_learnt_slab_by_slab(run, monkeypatch):
    """Each round says which sections it labels, and no step is spent on others; resumed, it ends the same."""
    whole, events = run("whole", stride=2)
    assert {event.sections for event in events if isinstance(event, RoundBegun)} == {None}
    monkeypatch.setattr(pseudo_labels, "VOXELS_LIMIT", 10)
    slabs, events = run("slabs", stride=2)
    places = [event.sections for event in events if isinstance(event, RoundBegun)]
    assert all(last - first == 3 for first, last in places)  # twice the distance of a pair
    assert len(set(places)) > 1
    run("broken", stride=2, should_stop=Stop(5))
    broken, _ = run("broken", stride=2, resume=True)
    all_of_it, expected, found = (
        load_weights(one / "weights.safetensors")[0].state_dict() for one in (whole, slabs, broken)
    )
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(expected[name], all_of_it[name]) for name in expected)


def test_rounds_after_those_of_the_source_learn_from_the_target_alone(run, monkeypatch):
    """Two steps on the source, two on both, four on the target alone; the log averages each loss over its own steps."""
    steps = []

    update = SelfTraining.update

    def note(self, *batches_and_progress):
        losses = update(self, *batches_and_progress)
        steps.append({key: float(value) for key, value in losses.items()})
        return losses

    monkeypatch.setattr(SelfTraining, "update", note)
    _, events = run("short", source_rounds="1")
    assert ["first" in losses for losses in steps] == [True] * 4 + [False] * 4
    assert ["target_first" in losses for losses in steps] == [False] * 2 + [True] * 6
    (report,) = [event for event in events if isinstance(event, StepsDone)]
    for name in ("first", "target_first"):
        values = [losses[name] for losses in steps if name in losses]
        assert report.losses[name] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_from_weights_the_rounds_begin_at_once_beside_the_source(run, tmp_path):
    """Nothing that the weights know is learnt anew, unless it is asked for; resumed, it is the same."""
    start = tmp_path / "start.safetensors"
    compact_weights(start, pixel=(5.0, 5.0), spacing=50.0)
    whole, events = run("whole", start=start, supervised_share=None)
    begun = [event.step for event in events if isinstance(event, RoundBegun)]
    (report,) = [event for event in events if isinstance(event, StepsDone)]
    assert begun == [0, 3, 6]
    assert {"first", "target_first"} <= set(report.losses)
    _, events = run("asked", start=start, source_rounds="0")
    assert [event.step for event in events if isinstance(event, RoundBegun)] == [2, 4, 6]
    broken, _ = run("broken", start=start, supervised_share=None, should_stop=Stop(4))
    run("broken", start=start, supervised_share=None, resume=True)
    expected, found = (load_weights(one / "weights.safetensors")[0].state_dict() for one in (whole, broken))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_without_a_source_the_first_round_begins_at_once(target_phantom, tmp_path):
    """Labelled by the weights it began from; every loss is the target's; other methods refuse."""
    start = tmp_path / "start.safetensors"
    info = compact_weights(start, pixel=(5.0, 5.0), spacing=50.0)
    pairs = UnlabelledPairs(target_phantom[0], 5)

    def events_of(method, assignments):
        settings = TrainingSettings(method=method, steps=4, patch=128, batch_size=1, assignments=assignments)
        state = Run(settings, CPU, info, RunFolder(tmp_path), start=start, source_free=True)
        return list(loop.train(state, None, pairs))

    events = events_of("mitoda", {"rounds": "2"})
    begun = [event for event in events if isinstance(event, RoundBegun)]
    assert [(event.step, event.round) for event in begun] == [(0, 1), (2, 2)]
    losses = [event.losses for event in events if isinstance(event, StepsDone)]
    assert losses
    assert all(name.startswith("target_") for one in losses for name in one)
    assert isinstance(events[-1], Ended)
    with pytest.raises(ValueError, match="without a source use the method"):
        events_of("isc", {})


@pytest.mark.parametrize(
    ("foreground", "warning"),
    [
        (0.0, "in round 2 almost nothing of the target is labelled as mitochondrion"),
        (0.7, "in round 2 70% of the target is labelled as mitochondrion, more than in any tissue"),
    ],
)
def test_rounds_that_teach_nothing_or_a_flood_are_warned_of(foreground, warning):
    """The sentence says what to check; between the two there is none."""
    begun = RoundBegun(5, 2, foreground, 0.1, 0.3, 0.6)
    assert begun.warning.startswith(warning)
    assert "check voxel size and contrast" in begun.warning
    assert replace(begun, foreground=0.06).warning == ""
    part = replace(begun, sections=(7, 31))
    assert part.warning == begun.warning.replace("of the target", "of sections 7 to 31 of the target")


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_resumed_in_any_round_it_ends_the_same_to_the_last_bit(run, steps):
    """Interrupted before the first round, within one, or at the start of one, nothing differs in the end."""
    whole, _ = run("whole")
    broken, _ = run("broken", should_stop=Stop(steps))
    run("broken", resume=True)
    expected = load_weights(whole / "weights.safetensors")[0].state_dict()
    found = load_weights(broken / "weights.safetensors")[0].state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
