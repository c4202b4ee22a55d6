"""The baselines of the benchmarks: what they compare with is what was published, and computes the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.evaluation import metrics
from mitoda.models.heads import PatchDiscriminator
from mitoda.models.normalisation import InstanceNorm
from tests.benchmarks.published import (
    PublishedNetwork,
    PublishedStep,
    mirrored,
    predict_pair,
    score_section,
)
from tests.fakes import tiny_network


def test_the_published_network_is_ours_without_what_makes_it_fast():
    """Same weights, same logits; contiguous, no channels-last layer, PyTorch's own normalisation."""
    network = tiny_network()
    published = PublishedNetwork(network).eval()
    assert not any(isinstance(module, InstanceNorm) for module in published.modules())
    assert all(weight.is_contiguous() for weight in published.parameters())
    images = torch.randn(1, 2, 48, 32)
    with torch.no_grad():
        ours, theirs = network(images), published(images)
    for name in ("first", "second", "residual"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)


def test_sections_are_mirrored_to_the_published_size():
    """768×1024 gets 176 rows and 48 columns on each side; the section lies in the middle, scaled to 0…1."""
    section = np.random.default_rng(0).integers(0, 256, (768, 1024), dtype=np.uint8)
    whole = mirrored(section)
    assert whole.shape == (1120, 1120)
    scaled = (section.astype(np.float32) - section.min()) / (section.max() - section.min())
    assert np.array_equal(whole[176 : 176 + 768, 48 : 48 + 1024].numpy(), scaled)


def test_a_pair_is_predicted_at_the_sections_own_size():
    """Two maps of probabilities."""
    sections = np.random.default_rng(1).integers(0, 256, (2, 64, 96), dtype=np.uint8)
    maps = predict_pair(PublishedNetwork(tiny_network()).eval(), *sections)
    assert [one.shape for one in maps] == [(64, 96)] * 2
    assert all(0 <= one.min() < one.max() <= 1 for one in maps)


def test_published_scores_are_ours():
    """scikit-learn's four numbers."""
    rng = np.random.default_rng(2)
    probability, label = rng.random((40, 50), np.float32), rng.random((40, 50)) < 0.2
    ours = metrics.rank_section(probability, label)[0]
    assert score_section(probability, label) == pytest.approx(
        [ours.average_precision, ours.f1, ours.mcc, ours.iou], abs=1e-9
    )


def test_a_published_step_moves_all_three_networks():
    """The pair network and both discriminators change, and stay finite."""
    networks = (
        PublishedNetwork(tiny_network()),
        *(PatchDiscriminator(2) for _ in range(2)),
    )
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    labels = (torch.rand(1, 2, 128, 128) > 0.8).long()
    PublishedStep(*networks)(torch.rand(1, 2, 128, 128), labels, torch.rand(1, 2, 128, 128))
    for network, old in zip(networks, before, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), old, strict=True))
        assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("name", ["segment", "score", "adapt", "padding"])
def test_each_benchmark_starts(name):
    """`python -m tests.benchmarks.NAME --help`."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", "--help"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--device" in done.stdout
