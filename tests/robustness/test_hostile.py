"""Hostile inputs: whatever is given, a line that says what to do, within seconds, and no file of others touched."""

import itertools

import pytest

from tests.robustness.judging import Verdict, judge
from tests.robustness.mutations import (
    claim_cases,
    png_cases,
    png_originals,
    run_cases,
    tiff_cases,
    tiff_originals,
    weights_cases,
)
from tests.robustness.options import option_cases, setting_cases

FAMILIES = ("options", "settings", "claims", "tiff", "png", "weights", "runs")
EVERY = {"options": 6, "settings": 5, "claims": 1, "tiff": 9, "png": 4, "weights": 20, "runs": 29}
"""Of so many inputs the quick suite takes one."""
STACKS, SECTIONS = 450, 150


def made(family: str, files, work, every: int):
    """The cases of a family; every so-many-th."""
    if family == "tiff":
        originals = tiff_originals(work / "originals")
        return tiff_cases(originals, files["weights"], work, STACKS // every)
    if family == "claims":
        return claim_cases(work)
    if family == "png":
        return png_cases(png_originals(work / "originals"), work, SECTIONS // every)
    if family == "weights":
        return weights_cases(files["weights"].read_bytes(), files["stack"], work, every)
    if family == "runs":
        return run_cases(files["run"], work, files["bystander"], every)
    cases = option_cases(files, work) if family == "options" else setting_cases(files, work)
    return itertools.islice(cases, 0, None, every)


@pytest.mark.parametrize(
    "family", [one if one == "png" else pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES]
)
def test_a_sample_of_hostile_inputs(files, tmp_path, monkeypatch, family):
    """No traceback, no hang over 20 s, no gigabyte, no file destroyed, and nothing accepted that means nothing."""
    monkeypatch.chdir(tmp_path)
    verdict = judge(made(family, files, tmp_path, EVERY[family]), files["folder"])
    assert not verdict.found, str(verdict)


@pytest.mark.slow
def test_all_hostile_inputs(files, tmp_path_factory, monkeypatch):
    """The same for all of them: at least 1,000."""
    total = Verdict()
    for family in FAMILIES:
        work = tmp_path_factory.mktemp(family)
        monkeypatch.chdir(work)
        verdict = judge(made(family, files, work, 1), files["folder"])
        print(f"{family}: {verdict}")
        total.add(verdict)
    assert total.inputs >= 1000
    assert not total.found, str(total)
