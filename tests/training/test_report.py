"""The end of a run: checks that need no labels, and the page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.data.geometry import Geometry
from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.inference.streaming import neighbourhood, predict, predict_section
from mitoda.models.model import load_model
from mitoda.models.weights import load_weights, save_weights
from mitoda.training.domains import Prepared
from mitoda.training.loop import Ended
from mitoda.training.report import Check, Checks, check_result, write_run_report
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import ArrayVolume
from tests.fakes import compact_weights, model_of, tiny_network

CPU = torch.device("cpu")
PLAN = Plan(
    "target.tif", "source.tif", TrainingSettings(method="isc", steps=3, assignments={"consistency": "0.2"})
)


@pytest.fixture
def prepared(source_phantom, target_phantom, tmp_path) -> Prepared:
    """Both phantoms, with weights in the run's folder."""
    info = compact_weights(tmp_path / "weights.safetensors", seed=1, pixel=(5.0, 5.0), spacing=50.0)
    (image, label), (target, _) = source_phantom, target_phantom
    return Prepared(
        LabelledPairs(image, 1, labels=label), UnlabelledPairs(target, 3), Geometry((5.0, 5.0), 50.0), info
    )


def test_a_sentence_has_the_numbers_now_and_before():
    """From scratch there is no before; an agreement that does not exist is a dash."""
    now, before = Check(0.0631, 0.9234), Check(0.051, None)
    assert Checks(now, None, 0.06).sentence == (
        "checks without labels, on 12 samples of the target: foreground 6.31%; "
        "agreement of a section's two predictions (Dice) 0.923"
    )
    both = Checks(now, before, 0.06).sentence
    assert "6.31% (before the run 5.10%)" in both
    assert "0.923 (before the run –)" in both


@pytest.mark.parametrize(
    ("share", "warning"),
    [
        (0.0, "the result is almost empty: 0.00% of 12 samples"),
        (0.6, "60.00% of 12 samples of the target is predicted as mitochondrion, more than in any tissue"),
        (0.01, "1.00% of 12 samples of the target is predicted as mitochondrion, but 6.00% of the source"),
        (0.3, "30.00% of 12 samples of the target is predicted as mitochondrion, but 6.00% of the source"),
    ],
)
def test_empty_flooded_and_implausible_results_are_warned_of(share, warning):
    """One warning with the numbers and what to check."""
    (found,) = Checks(Check(share, 0.9), None, 0.06).warnings
    assert found.startswith(warning)
    assert "check --voxel-size and --invert" in found


def test_a_plausible_result_has_no_warning():
    """Between a third and three times the source's share."""
    assert Checks(Check(0.05, 0.9), None, 0.06).warnings == []


@pytest.mark.parametrize(
    ("now", "before", "worse"),
    [
        (Check(0.05, 0.90), Check(0.06, 0.91), False),
        (Check(0.03, 0.95), Check(0.06, 0.80), True),  # half of what was found is lost
        (Check(0.06, 0.80), Check(0.06, 0.85), True),  # the two predictions of a section agree less
        (Check(0.12, 0.90), Check(0.06, 0.80), False),
        (Check(0.06, None), Check(0.06, None), False),  # a single section has one prediction
        (Check(0.03, None), Check(0.06, None), True),
        (Check(0.01, 0.50), None, False),  # from scratch
    ],
)
def test_a_result_is_worse_if_it_lost_or_contradicts_more_than_its_start(now, before, worse):
    """Losing two fifths of the foreground, or 0.02 of agreement, is worse."""
    assert Checks(now, before, 0.06).is_worse == worse


@pytest.mark.parametrize(("bias", "share"), [(-50.0, 0.0), (50.0, 1.0)])
def test_a_collapsed_network_is_found_by_its_share_of_foreground(bias, share, prepared, tmp_path):
    """Weights that predict nothing, or everything, as mitochondrion: the share is that, now and before the run."""
    path = tmp_path / "collapsed.safetensors"
    network, info = load_weights(tmp_path / "weights.safetensors")
    with torch.no_grad():
        for head in network.heads:
            head[-1].bias += torch.tensor([0.0, bias])
    save_weights(path, network, info)
    checks = check_result(PLAN, replace(prepared, start=path), path, CPU)
    assert checks.now.foreground == share
    assert checks.before == checks.now
    assert checks.source_foreground == pytest.approx(np.mean(prepared.source.labels.array != 0))
    assert len(checks.warnings) == 1


def test_a_single_section_is_predicted_as_in_the_whole_volume(target_phantom):
    """Section k with its two partners gives k the same probability as streaming the whole stack."""
    volume, _ = target_phantom
    geometry = Geometry(volume.voxel_size[1:], 3 * volume.voxel_size[0])
    model = model_of(tiny_network(), geometry.pixel, geometry.spacing)
    whole = list(predict(volume, model))
    for k in (0, 4, 7):
        near, index = neighbourhood(volume, k, 3, geometry.spacing)
        part = list(predict(near, model))
        assert np.allclose(part[index], whole[k], atol=1e-6)


def test_partners_outside_the_stack_are_left_out():
    """Without a voxel size none is made up."""
    volume = ArrayVolume(np.arange(5, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2))
    near, index = neighbourhood(volume, 1, 2, 50.0)
    assert near.array[:, 0, 0].tolist() == [1, 3]
    assert index == 0
    assert near.voxel_size is None


def sections_of(page: Path) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def test_the_page_has_settings_geometry_curves_and_sections(prepared, tmp_path):
    """Without checks nothing is predicted and there are no pictures."""
    lines = [
        {"step": s, "seconds": 1.0, "progress": 0.5, "lr": 1e-3, "losses": {"first": 1 / s}}
        for s in (1, 2, 3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = PLAN, prepared, RunFolder(tmp_path), Ended(3, 1.0, True), CPU
    path = write_run_report(*arguments, checks=Checks(Check(0.0012, 0.9), None, 0.06))
    page = path.read_text()
    for text in (
        "isc",
        "assignments: consistency",
        "50 nm",
        "stride",
        "3 steps",
        "foreground of 12 samples</th><td>0.12%",
        "0.12% of 12 samples",
    ):
        assert text in page
    assert page.count("data:image/png;base64") == 1
    assert [frame["section"] for frame in sections_of(path)["frames"]] == list(range(8))
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert sections_of(write_run_report(*arguments)) is None


def test_the_page_of_a_run_that_began_from_weights_shows_what_changed(prepared, tmp_path):
    """Sections have both masks; a source that was not read is not named."""
    start = tmp_path / "start.safetensors"
    compact_weights(start, seed=0, pixel=(5.0, 5.0), spacing=50.0)
    finished = Ended(3, 1.0, True)
    arguments = replace(prepared, start=start), RunFolder(tmp_path), finished, CPU
    checks = Checks(Check(0.07, 0.9), Check(0.05, None), 0.06)
    path = write_run_report(PLAN, *arguments, checks=checks)
    assert "foreground before the run</th><td>5.00%<" in path.read_text()
    model = load_model(start, CPU)
    for section, share in sections_of(path)["before"]:
        mask = predict_section(prepared.stack, model, section) >= model.info.threshold
        assert share == pytest.approx(mask.mean(), abs=1e-6)
    alone = replace(PLAN, start=str(start), source="unread.tif", source_free=True)
    assert "unread.tif" not in write_run_report(alone, *arguments).read_text()
