"""Leave one data set out: what is left out is never learnt from, nothing runs twice, the numbers are the files'."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.benchmark import LodoSettings, run_lodo
from mitoda.benchmark import left_out as module
from mitoda.benchmark.left_out import LeftOut, plan_stages
from mitoda.benchmark.lodo import StageScored, forecast
from mitoda.benchmark.lodo_table import LodoRow, VolumeScores, score_volume, tabulate_lodo, with_changes
from mitoda.benchmark.runner import Failed, Started
from mitoda.errors import InputError, MitodaError
from mitoda.evaluation.objects import ObjectCount
from mitoda.evaluation.scoring import score
from mitoda.synthetic import SOURCE, TARGET, draw_phantom
from mitoda.training import adapt as training
from mitoda.volumes import ArrayVolume, open_volume, write_sections
from tests.commands import Commands

CPU = torch.device("cpu")


def short(**others: object) -> LodoSettings:
    """Leave out only "a", with trainings of two steps."""
    values = {"only": ("a",), "steps": 2, "adapt_steps": 2, "painted_steps": 2, "patch": 128}
    return LodoSettings(**values | others)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, LeftOut]:
    """Three small data sets, the last with two volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    specs = {}
    for index, (name, preset) in enumerate({"a": SOURCE, "b": TARGET, "c": SOURCE, "d": SOURCE}.items()):
        images, labels = draw_phantom(preset, (3, 128, 128), 5 + index)
        for path, array in ((folder / f"{name}.tif", images), (folder / f"{name}_mask.tif", labels)):
            write_sections(path, array, array.shape, array.dtype, preset.voxel_size)
        specs[name] = f"{folder / f'{name}.tif'}:{folder / f'{name}_mask.tif'}"
    return {
        "a": LeftOut("a", (specs["a"], specs["d"])),
        "b": LeftOut("b", (specs["b"],)),
        "c": LeftOut("c", (specs["c"],)),
    }


@pytest.fixture(autouse=True)
def left_out(drawn, monkeypatch) -> dict[str, LeftOut]:
    """What is left out in turn."""
    monkeypatch.setattr(module, "LEFT_OUT", drawn)
    return drawn


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory) -> tuple[Path, list[object]]:
    """The folder and the events of one complete run."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEFT_OUT", drawn)
        return folder, list(run_lodo(short(), folder, CPU))


def rows_of(events) -> list[LodoRow]:
    return [row for event in events if isinstance(event, StageScored) for row in event.rows]


def test_what_is_left_out_is_no_source(drawn, tmp_path):
    """Each general learns from the other two data sets and the further source, and none of its images are read."""
    settings = LodoSettings(more_sources=("drawn.tif:drawn_mask.tif",), seeds=(0, 3))
    stages = plan_stages(settings, tmp_path)
    assert [stage.name for stage in stages[:4]] == [
        "a/general-seed0",
        "a/adapt-seed0",
        "a/painted-seed0",
        "b/general-seed0",
    ]
    assert len(stages) == 18
    for stage in stages:
        own = {volume.split(":")[0] for volume in stage.left_out.volumes}
        if stage.kind == "general":
            sources = (stage.plan.source, *stage.plan.more_sources)
            assert len(sources) == 3
            assert not own & {part for spec in sources for part in (*spec.split(":"), stage.plan.target)}
            assert (stage.plan.training.method, stage.plan.training.augmentation) == ("source-only", "wide")
            assert (stage.plan.training.steps, stage.plan.start) == (1500, None)
        else:
            assert stage.plan.source_free
            assert stage.plan.start == str(
                tmp_path / "lodo" / stage.left_out.name / f"general-seed{stage.seed}" / "weights.safetensors"
            )
            assert stage.plan.training.minutes == {"adapt": 10, "painted": 3}[stage.kind]
        assert (stage.plan.labels is not None) == (stage.kind == "painted")


def test_every_stage_is_scored_on_every_volume(finished, drawn):
    """Three stages on two volumes; the painted section, the middle one of the first volume, is not scored."""
    folder, events = finished
    rows = rows_of(events)
    assert [(row.stage, row.volume, row.painted, row.scores.sections) for row in rows] == [
        (stage, volume, painted if stage == "painted" else None, 2 if stage == "painted" and painted else 3)
        for stage in ("general", "adapt", "painted")
        for volume, painted in zip(drawn["a"].volumes, (1, None), strict=True)
    ]
    assert 1 not in rows[4].scores.section_f1
    assert all(row.sources == f"{drawn['b'].volumes[0]} + {drawn['c'].volumes[0]}" for row in rows)
    lines = (folder / "lodo" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines].count("painted") == 2


def test_the_scores_are_those_of_the_written_mask(finished, drawn):
    """F1 and IoU equal what `score` gives for the files; the painted labels are 1 and 2 of the truth."""
    folder, events = finished
    row = rows_of(events)[0]
    labels = row.volume.split(":")[1]
    written = score(folder / "lodo" / "a" / "general-seed0" / "mask-0.tif", labels)
    assert row.scores.f1 == pytest.approx(written.mean.f1)
    assert row.scores.iou == pytest.approx(written.mean.iou)
    assert row.scores.pooled_f1 == pytest.approx(written.pooled.f1)
    painted = open_volume(folder / "lodo" / "a" / "painted-1.tif").read(0)
    assert np.array_equal(painted, 1 + (open_volume(labels).read(1) > 0))


def test_what_is_finished_is_not_run_again(finished, monkeypatch):
    """A second call trains nothing and gives equal rows; so does a dry run say."""
    folder, events = finished
    monkeypatch.setattr(training, "adapt", None)
    again = list(run_lodo(short(), folder, CPU))
    assert all(isinstance(event, StageScored) and event.known for event in again)
    assert [replace(row, change=None) for row in rows_of(again)] == [
        replace(row, change=None) for row in rows_of(events)
    ]
    assert {one.state for one in forecast(short(), folder)[0]} == {"finished"}


def test_an_interrupted_training_goes_on(tmp_path):
    """Stopped after a step of general, the same call resumes it and trains the rest."""
    settings, asked = short(stages=("general",), steps=3), []

    def stop_after_one() -> bool:
        asked.append(None)
        return len(asked) > 2

    assert not rows_of(run_lodo(settings, tmp_path, CPU, should_stop=stop_after_one))
    (one,), _ = forecast(settings, tmp_path)
    assert one.state == "resume"
    events = list(run_lodo(settings, tmp_path, CPU))
    assert [event.resumed for event in events if isinstance(event, Started)] == [True]
    assert rows_of(events)[0].steps == 3


def test_given_weights_take_the_place_of_general(finished, tmp_path, left_out):
    """With --start nothing is trained for general; its scores are those of the weights, other weights are refused."""
    weights = finished[0] / "lodo" / "a" / "general-seed{seed}"
    settings = short(stages=("general",), starts={"a": str(weights)})
    given = rows_of(run_lodo(settings, tmp_path, CPU))
    assert given[0].scores == rows_of(finished[1])[0].scores
    assert not (tmp_path / "lodo" / "a" / "general-seed0" / "run.json").exists()
    assert [stage.kind for stage in plan_stages(replace(settings, stages=("adapt",)), tmp_path)] == ["adapt"]
    other = replace(settings, starts={"a": "general"})
    with pytest.raises(InputError, match=r"general-seed0 was made from other weights than .*--start"):
        list(run_lodo(other, tmp_path, CPU))


def test_other_settings_are_refused_not_mixed(finished):
    """A folder with general of 2 steps is not taken for one of 4."""
    with pytest.raises(InputError, match=r"general-seed0 was made with steps 2, now it is 4;.*--out"):
        list(run_lodo(short(steps=4), finished[0], CPU))


def test_a_stage_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, finished):
    """adapt diverges, painted is scored."""
    original = training.adapt

    def adapt(plan, *arguments, **options):
        if plan.labels is None:
            raise MitodaError("training diverged")
        return original(plan, *arguments, **options)

    monkeypatch.setattr(training, "adapt", adapt)
    settings = short(
        stages=("adapt", "painted"), starts={"a": str(finished[0] / "lodo" / "a" / "general-seed0")}
    )
    events = list(run_lodo(settings, tmp_path, CPU))
    assert [event.job.kind for event in events if isinstance(event, Failed)] == ["adapt"]
    assert {row.stage for row in rows_of(events)} == {"painted"}


def test_levels_and_means_by_hand():
    """Two sections of four pixels, one painted: mask F1 2/3; the map has 2/3 at 0.5, and 1 at the level 100/255."""
    truth = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]], np.uint8)
    probability = np.array([[[200, 100, 50, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]], np.uint8)
    mask = (probability >= 128).astype(np.uint8)
    mask[2, 0, 0] = 1
    found = score_volume(*map(ArrayVolume, (mask, probability, truth)), (50.0, 100.0, 100.0), 0.5, painted=1)
    assert (found.sections, found.section_f1) == (2, {0: pytest.approx(2 / 3), 2: None})
    assert (found.f1, found.iou, found.map_f1) == (pytest.approx(2 / 3), 0.5, pytest.approx(2 / 3))
    assert (found.precision, found.recall) == (
        0.5,
        0.5,
    )  # all sections: the false pixel of the empty one counts
    assert found.best_f1 == 1
    assert 50 / 255 < found.best_level <= 100 / 255


def row(stage: str, seed: int, f1: dict[int, float | None], objects: ObjectCount) -> LodoRow:
    values = [x for x in f1.values() if x is not None]
    scores = VolumeScores(
        len(f1), sum(values) / len(values), 0.5, 0.6, 0.4, 0.5, 0.5, 0.6, 0.3, {"small": objects}, f1
    )
    return LodoRow("a", stage, seed, "a:b", "b", 1, 1.0, None, 0.5, 0, False, (), scores)


def test_changes_are_of_the_same_sections_and_seed():
    """Without the painted section: (0.8 + 0.6) / 2 − (0.5 + 0.4) / 2; the table has the lowest of the seeds."""
    rows = with_changes(
        [
            row("general", 0, {0: 0.5, 1: 0.9, 2: 0.4, 3: None}, ObjectCount(1, 4)),
            row("painted", 0, {0: 0.8, 2: 0.6, 3: None}, ObjectCount(2, 4)),
            row("general", 1, {0: 0.5, 1: 0.5, 2: 0.5, 3: None}, ObjectCount(0, 4)),
            row("painted", 1, {0: 0.4, 2: 0.5, 3: None}, ObjectCount(3, 4)),
        ]
    )
    assert [one.change for one in rows] == [None, pytest.approx(0.25), None, pytest.approx(-0.05)]
    general, painted = tabulate_lodo(rows)
    assert (general.stage, general.seeds, general.objects["small"]) == ("general", 2, 1 / 8)
    assert (painted.change, painted.objects["small"]) == (pytest.approx(-0.05), 5 / 8)
    assert painted.mean["f1"] == pytest.approx((0.7 + 0.45) / 2)
    assert painted.spread == pytest.approx(0.25 / 2**0.5)


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    return Commands(monkeypatch, capsys)


def test_the_command_prints_the_table_or_what_would_run(finished, tmp_path, mitoda):
    """From finished stages: a table with its protocol, or JSON; a dry run estimates and writes nothing."""
    text = "bench lodo --only a --steps 2 --adapt-steps 2 --painted-steps 2 --patch 128"
    arguments = text.split()
    shown = mitoda(*arguments, "-o", finished[0], "--device", "cpu")
    assert shown.status == 0, shown.err
    assert "F1 and IoU are unweighted means" in shown.out
    assert shown.err.count("finished before") == 6
    as_json = json.loads(mitoda(*arguments, "-o", finished[0], "--device", "cpu", "--json").out)
    assert [line["stage"] for line in as_json["table"]] == ["general", "adapt", "painted"] * 2
    dry = mitoda(*arguments, "-o", tmp_path / "none", "--dry-run", "--device", "cpu")
    assert dry.status == 0, dry.err
    assert dry.out.count("train") == 3
    assert "in all, at 0.5 s a step" in dry.out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "vnc4"], "there is no data set to leave out 'vnc4'; choose from a, b, c"),
        (["--stages", "adapted"], "there is no stage 'adapted'; choose from general, adapt, painted"),
        (["--start", "a=missing.safetensors"], "'missing.safetensors' is neither a weights file"),
        (["--steps", "3", "--minutes", "2"], "either as steps or as minutes"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, said, tmp_path, mitoda):
    """What is wrong, and what to give instead."""
    assert said in mitoda.refused("bench", "lodo", *arguments, "-o", tmp_path, "--device", "cpu")


def test_options_of_another_task_are_a_usage_error(mitoda):
    """--methods does nothing in lodo, --only nothing elsewhere; both are refused."""
    for arguments in (
        ("lodo", "--methods", "isc"),
        ("phantom", "--only", "vnc3"),
        ("lodo", "--start", "vnc3"),
    ):
        outcome = mitoda("bench", *arguments)
        assert outcome.status == 2
        assert arguments[1] in outcome.err
