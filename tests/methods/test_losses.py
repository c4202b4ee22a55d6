"""Losses by hand-made cases."""

import math

import pytest
import torch
import torch.nn.functional as F

from mitoda.data.pairs import LabelledBatch
from mitoda.methods.losses import (
    IGNORE,
    SOURCE,
    TARGET,
    cross_entropy,
    domain_loss,
    pair_cross_entropy,
    rampup,
    xor_pseudo_labels,
)
from mitoda.models.pair_networks import PairOutput


def sure(labels: list[int]) -> torch.Tensor:
    """Logits (1, 2, 1, n) that are certain of the given classes."""
    return (F.one_hot(torch.tensor(labels), 2).T.float()[None, :, None, :] * 2 - 1) * 50


def pair(first: list[int], second: list[int], residual: list[int] | None) -> PairOutput:
    """A network's output that is certain of all three maps."""
    nothing = torch.zeros(1)
    changed = sure(residual) if residual is not None else None
    return PairOutput(sure(first), sure(second), changed, nothing, (nothing, nothing), (nothing, nothing))


def test_each_section_is_labelled_by_the_other_and_the_residual():
    """XOR truth table: where the residual says unchanged the other section's class, where changed its opposite."""
    output = pair(first=[0, 0, 1, 1], second=[0, 1, 0, 1], residual=[0, 1, 0, 1])
    pseudo = xor_pseudo_labels(output)
    assert pseudo[0, 0, 0].tolist() == [0, 0, 0, 0]  # second XOR residual
    assert pseudo[0, 1, 0].tolist() == [0, 1, 1, 0]  # first XOR residual
    assert not pseudo.requires_grad


def test_pseudo_labels_without_a_residual_are_refused():
    """A pair predicted without its residual cannot label itself."""
    with pytest.raises(ValueError, match="residual=True"):
        xor_pseudo_labels(pair([0], [1], None))


def test_the_residual_is_supervised_by_the_xor_of_the_masks():
    """Predictions equal to the labels cost nothing, and a wrong residual costs only in its own term."""
    labels = torch.tensor([[[[0, 1, 1, 0]], [[0, 0, 1, 1]]]])
    right = pair_cross_entropy(pair([0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1]), labels)
    assert all(float(loss) < 1e-6 for loss in right.values())
    wrong = pair_cross_entropy(pair([0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1]), labels)
    assert float(wrong["residual"]) == pytest.approx(100 / 4)
    assert float(wrong["first"]) < 1e-6


def test_ignored_pixels_do_not_count():
    """The mean is over the labelled pixels, and 0 where there are none."""
    logits = torch.randn(1, 2, 1, 4)
    labels = torch.tensor([[[1, IGNORE, 0, IGNORE]]])
    expected = F.cross_entropy(logits[..., [0, 2]], labels[..., [0, 2]])
    assert torch.allclose(cross_entropy(logits, labels), expected)
    assert float(cross_entropy(logits, torch.full((1, 1, 4), IGNORE))) == 0.0


def test_labels_on_a_coarse_grid_are_cut_at_half_coverage():
    """A coarse pixel is foreground when more than half of it is; exactly half is background."""
    coverage = torch.zeros(1, 2, 4, 4)
    coverage[0, 0, :2, :2] = 1.0  # all of the first 2×2 block
    coverage[0, 0, 0, 2:] = 1.0  # half of the second
    coverage[0, 0, 2:, 0], coverage[0, 0, 2, 1] = 1.0, 0.2  # 55 % of the third
    assert LabelledBatch(coverage, coverage).labels(2)[0, 0].tolist() == [[1, 0], [1, 0]]
    assert LabelledBatch(coverage, coverage).labels(1)[0, 0, 2].tolist() == [1, 0, 0, 0]


def test_domain_loss_is_small_for_the_right_domain():
    """Logit 3 says target: −log σ(3) against target, −log σ(−3) against source."""
    decision = torch.full((2, 1, 3, 3), 3.0)
    assert float(domain_loss(decision, TARGET)) == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)
    assert float(domain_loss(decision, SOURCE)) == pytest.approx(math.log1p(math.exp(3)), rel=1e-5)


def test_rampup_follows_the_published_values():
    """w = 6.74e-4 at the start, 4.08e-3 after 10,000 of 200,000 steps, .0449 after 30,000, .1 from 50,000 on."""
    for step, weight in ((1, 6.74e-4), (10_000, 4.08e-3), (30_000, 0.0449), (50_000, 0.1), (200_000, 0.1)):
        assert rampup(step / 200_000) == pytest.approx(weight, rel=2e-3)
    assert rampup(0.0, full_at=0.0) == 0.1
