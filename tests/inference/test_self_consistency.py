"""Label-free scores: by hand-made arrays, and by networks whose answers are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.inference.self_consistency import (
    SCORES,
    consistency_scores,
    dice,
    diversity,
    entropy,
    foreground_is_plausible,
    foreground_share,
    iou,
    plan_samples,
)
from mitoda.models.backbones import build_network
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairOutput, SectionFeatures
from mitoda.models.weights import WeightsInfo
from mitoda.volumes import ArrayVolume
from tests.fakes import without_prior


def volume(sections: int = 7, side: int = 64, seed: int = 0) -> ArrayVolume:
    """Random grey values."""
    values = np.random.default_rng(seed).integers(0, 256, (sections, side, side), dtype=np.uint8)
    return ArrayVolume(values, (10.0, 5.0, 5.0), "random")


class Told(torch.nn.Module):
    """A network that says what it was told: `first` and `second` of every pair, and the residual."""

    grid, multiple, joined = 4, 64, True

    def __init__(self, first: Tensor, second: Tensor, residual: Tensor | None) -> None:
        super().__init__()
        self.told = (first, second, residual)

    def encode(self, section: Tensor) -> SectionFeatures:
        return SectionFeatures(section, section)

    def decode(self, first: object, second: object, residual: bool = True) -> PairOutput:
        logits = [None if maps is None else torch.stack([-maps, maps])[None] for maps in self.told]
        return PairOutput(*logits, torch.zeros(1), (torch.zeros(1),) * 2, (torch.zeros(1),) * 2)


def model(network: torch.nn.Module) -> Model:
    """A network that works at 5 nm."""
    return Model(network, WeightsInfo("compact", (5.0, 5.0), 20.0))


def half(rows: int) -> Tensor:
    """Logits: the upper rows of a 16 × 16 map are foreground for certain."""
    logits = torch.full((16, 16), -50.0)
    logits[:rows] = 50.0
    return logits


def test_dice_and_iou_by_hand():
    """Three and two pixels that share one: Dice 2/5, IoU 1/4."""
    one, other = np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 1, 1, 0], bool)
    assert dice(one, other) == pytest.approx(0.4)
    assert iou(one, other) == pytest.approx(0.25)


def test_two_empty_masks_agree_on_nothing():
    """The empty case is NaN, not perfect agreement, so that a collapsed network cannot win."""
    empty = np.zeros(4, bool)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(iou(empty, empty))


def test_entropy_and_diversity_by_hand():
    """A quarter: 0.811 bits. Certain pixels of both classes are diverse, certain pixels of one are not."""
    assert entropy(np.full((2, 2), 0.25)) == pytest.approx(0.811278, abs=1e-6)
    assert diversity(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.811278, abs=1e-6)
    assert entropy(np.array([0.0, 1.0])) == 0.0
    assert diversity(np.ones(5)) == 0.0


@pytest.mark.parametrize(
    ("share", "plausible"), [(0.0, False), (0.029, False), (0.031, True), (0.29, True), (0.31, False)]
)
def test_the_guard_holds_from_three_tenths_to_thrice_the_source(share, plausible):
    """A source of a tenth foreground allows 0.03 to 0.3."""
    assert foreground_is_plausible(share, 0.1) is plausible


def test_scores_of_a_network_that_says_what_it_was_told():
    """Upper half as first, upper quarter as second: every score follows by hand."""
    told = Told(half(8), half(4), residual=half(8))
    scores = consistency_scores(
        model(told), UnlabelledPairs(volume(), 2), student=Told(half(8), half(8), None),
        source_foreground=0.2, samples=2,
    )  # fmt: skip
    # the same section is 4 rows as second and 8 as first; the residual is rows 4 to 8, predicted as rows 0 to 8
    assert scores["two_context_dice"] == pytest.approx(2 * 4 / 12)
    assert scores["residual_iou"] == pytest.approx(4 / 8)
    assert scores["student_ema_dice"] == pytest.approx(2 * 12 / (12 + 16))
    assert scores["entropy"] == pytest.approx(0, abs=1e-9)
    assert scores["foreground"] == pytest.approx(12 / 32)
    assert scores["diversity"] == pytest.approx(0.954434, abs=1e-6)
    assert scores["foreground_ok"] is True


def test_an_empty_network_has_no_agreement_and_fails_the_guard():
    """All background: agreement does not exist, the guard says no."""
    empty = half(0)
    scores = consistency_scores(
        model(Told(empty, empty, empty)), UnlabelledPairs(volume(), 2), source_foreground=0.05
    )
    assert scores["two_context_dice"] is None
    assert scores["residual_iou"] is None
    assert scores["foreground_ok"] is False


@pytest.mark.parametrize("sections", [1, 2, 3])
def test_what_does_not_exist_is_none(sections):
    """Too few sections for two contexts, no residual, no student, no source: None, and the rest is there."""
    pairs = UnlabelledPairs(volume(sections), min(2, sections - 1))
    scores = consistency_scores(model(Told(half(8), half(8), None)), pairs)
    missing = {name for name, value in scores.items() if value is None}
    assert missing == {"two_context_dice", "residual_iou", "student_ema_dice", "foreground_ok"}
    assert set(scores) == {*SCORES, "foreground_ok"}


def test_a_real_network_keeps_its_mode_and_torch_its_random_state():
    """Scores are the same twice, and the training after them is what it would have been."""
    torch.manual_seed(3)
    network = without_prior(build_network("compact")).train()
    before = torch.get_rng_state()
    pairs = UnlabelledPairs(volume(9, 96), 2, (1.5, 1.5))
    twice = [consistency_scores(model(network), pairs, student=network, samples=3) for _ in range(2)]
    assert twice[0] == twice[1]
    assert twice[0]["student_ema_dice"] == 1.0
    assert 0 <= twice[0]["two_context_dice"] <= 1
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_places_are_spread_and_lie_inside():
    """One middle from each part of the volume, both neighbours inside it; another seed looks elsewhere."""
    places = plan_samples(165, 10, samples=12, seed=0)
    middles = [middle for _, middle, _ in places]
    assert len(set(middles)) == 12
    assert middles == sorted(middles)
    assert all(first == k - 10 >= 0 and last == k + 10 < 165 for first, k, last in places)
    assert places != plan_samples(165, 10, samples=12, seed=1)


def test_the_source_share_is_that_of_its_labels():
    """A quarter of every section is labelled."""
    labels = np.zeros((5, 64, 64), np.uint8)
    labels[:, :32, :32] = 255
    pairs = LabelledPairs(volume(5), 1, labels=ArrayVolume(labels))
    assert foreground_share(pairs, samples=3) == pytest.approx(0.25)
