"""What is particular to UALR: dropout, rectification, stages."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mitoda.methods.losses import IGNORE
from mitoda.methods.ualr import (
    BINS,
    LABEL_STAGE,
    TARGET_STAGE,
    deviation_histogram,
    percentile_thresholds,
    rectified_labels,
    spatial_dropout,
    stage_rate,
)
from tests.methods.method_helpers import batches, build


def test_dropout_drops_whole_channels_after_each_of_four_poolings():
    """About half of the channels are zero after every pooling, the others doubled; afterwards nothing is left of it."""
    method = build("ualr")
    pools = [module for module in method.network.modules() if isinstance(module, nn.MaxPool2d)]
    assert len(pools) == 4
    torch.manual_seed(0)
    pooled = torch.ones(64, 8, 4, 4)
    with spatial_dropout(method.network, 0.5):
        for pool in pools:
            dropped = pool(pooled)
            channels = dropped.flatten(2)
            assert torch.equal(channels.amin(2), channels.amax(2))
            assert set(channels.unique().tolist()) == {0.0, 2.0}
            assert float((channels[..., 0] == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert all(not pool._forward_hooks for pool in pools)
    assert torch.equal(pools[0](pooled), torch.ones(64, 8, 2, 2))


def test_rectified_pixels_of_a_hand_made_case():
    """Labels are mean ≥ 0.5; each class has its own threshold, and a pixel at it is masked."""
    mean = torch.tensor([0.1, 0.2, 0.49, 0.5, 0.8, 0.9])
    deviation = torch.tensor([0.05, 0.10, 0.20, 0.30, 0.25, 0.05])
    thresholds = torch.tensor([0.20, 0.30])
    assert rectified_labels(mean, deviation, thresholds).tolist() == [0, 0, IGNORE, IGNORE, 1, 1]


def test_thresholds_are_each_classes_percentile():
    """From the histograms they agree with numpy on all values to the width of a bin; a class never seen keeps all."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(20_000, generator=generator)
    deviation = torch.rand(20_000, generator=generator) ** 2 / 2 * (0.5 + mean / 2)
    half = [
        deviation_histogram(mean[part], deviation[part]) for part in (slice(0, 7_000), slice(7_000, None))
    ]
    histogram = half[0] + half[1]
    assert int(histogram.sum()) == 20_000
    for percentile in (80.0, 95.0, 100.0):
        found = percentile_thresholds(histogram, percentile)
        for label, threshold in enumerate(found.tolist()):
            expected = np.percentile(deviation[(mean >= 0.5) == bool(label)].numpy(), percentile)
            assert expected <= threshold + 1e-6
            assert threshold == pytest.approx(expected, abs=1.5 * 0.5 / BINS)
    histogram[1] = 0
    assert percentile_thresholds(histogram, 95.0)[1] == math.inf
    labels = rectified_labels(mean, deviation, percentile_thresholds(half[0] + half[1], 95.0))
    assert float((labels == IGNORE).float().mean()) == pytest.approx(0.05, abs=0.003)


def test_mean_and_deviation_are_those_of_the_passes():
    """With dropout the passes differ; without it the deviation is 0 and the mean the plain prediction."""
    images = batches()[1].images
    method = build("ualr")
    mean, deviation = method.predict_under_dropout(images)
    assert mean.shape == deviation.shape == (1, 2, 32, 32)
    assert 0 < float(deviation.max()) <= 0.5
    method = build("ualr", dropout="0")
    mean, deviation = method.predict_under_dropout(images)
    assert float(deviation.max()) < 1e-6
    with torch.no_grad():
        plain = method.predict(images, residual=False).first.softmax(1)[:, 1]
    assert torch.allclose(mean[:, 0], plain, atol=1e-5)


def test_the_three_stages():
    """Source until two thirds; then the thresholds from `patches` patches; then a fresh network on the target alone."""
    method = build("ualr", patches="2", passes="3")
    method.update(*batches(0), progress=0.6)
    trained = copy.deepcopy(method.network.state_dict())
    source, target = batches(1)

    for patch in range(2):  # one pair each
        assert set(method.update(source, target, progress=0.67)) == {"deviation"}
        assert int(method.stage) == (LABEL_STAGE if patch == 0 else TARGET_STAGE)
    assert all(torch.equal(trained[key], tensor) for key, tensor in method.teacher.state_dict().items())
    assert all(torch.equal(trained[key], tensor) for key, tensor in method.network.state_dict().items())
    assert torch.isfinite(method.thresholds).any()
    assert not method.network_is_fresh

    assert set(method.update(source, target, progress=0.7)) == {"first", "second", "residual"}
    assert method.network_is_fresh
    assert float(method.target_began) == pytest.approx(0.7)
    weights = [key for key in trained if key.endswith("0.weight")]
    distances = [float((method.network.state_dict()[key] - trained[key]).abs().mean()) for key in weights]
    assert min(distances) > 0.01  # a step of Adam moves by 0.005 at most
    steps = {float(state["step"]) for state in method.optimizers["network"].state.values()}
    assert steps == {1.0}
    method.network_is_fresh = False
    method.update(source, target, progress=0.8)
    assert not method.network_is_fresh
    assert all(torch.equal(trained[key], tensor) for key, tensor in method.teacher.state_dict().items())


def test_the_last_stage_looks_at_no_source():
    """In stage C the step is the same with any source, and labels in it."""
    results = []
    for seed in (1, 2):
        method = build("ualr", patches="1", passes="2")
        target = batches(0)[1]
        for progress in (0.67, 0.7, 0.8):
            torch.manual_seed(3)
            method.update(batches(seed)[0], target, progress)
        results.append(method.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_run_resumed_in_any_stage_goes_on_to_the_last_bit(done):
    """Stage, thresholds, histograms and the frozen network are in the state."""
    progress = [0.5, 0.67, 0.7, 0.8]

    def step(method, index):
        torch.manual_seed(index)
        method.update(*batches(index), progress[index])

    whole, broken, resumed = (build("ualr", seed=s, patches="1", passes="2") for s in (0, 0, 9))
    for index in range(4):
        step(whole, index)
    for index in range(done):
        step(broken, index)
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    resumed.optimizers["network"].load_state_dict(copy.deepcopy(broken.optimizers["network"].state_dict()))
    for index in range(done, 4):
        step(resumed, index)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_rates_of_both_stages():
    """A: 0.1, up to 1 after a twentieth, down towards 0.1; C: from 1 to 0.1; the loop's rate where asked for."""
    assert stage_rate(0, 0.0) == pytest.approx(0.1)
    assert stage_rate(0, 0.025) == pytest.approx(0.1 + 0.9 / 4)
    assert stage_rate(0, 0.05) == pytest.approx(1.0)
    assert stage_rate(0, 1.0) == pytest.approx(0.1 + 0.9 * 0.05**2)
    assert stage_rate(TARGET_STAGE, 0.0) == pytest.approx(1.0)
    assert stage_rate(TARGET_STAGE, 1.0) == pytest.approx(0.1)
    method = build("ualr", patches="1", passes="2")
    assert method.schedule(2 / 3 * 0.025) == pytest.approx(0.325)
    method.update(*batches(), progress=0.67)  # stage B
    assert method.schedule(0.7) == pytest.approx(1.0)
    method.update(*batches(), progress=0.7)
    assert method.schedule(0.85) == pytest.approx(stage_rate(TARGET_STAGE, 0.5))
    assert build("ualr", own_schedule="false").schedule(0.3) is None


def test_only_the_domain_of_the_stage_is_read():
    """The source in stage A; the target from the step on that predicts it."""
    method = build("ualr")
    assert tuple(method.wants(0.66)) == (True, False)
    assert tuple(method.wants(0.67)) == (False, True)
    method.update(None, batches()[1], progress=0.67)
    assert tuple(method.wants(0.1)) == (False, True)


def test_pseudo_labels_of_a_learnt_patch_teach_a_fresh_network():
    """Stage A learns a patch; stage C, shown only its image, comes to the same mask from a fresh network."""
    method = build("ualr", patches="1", passes="4", dropout="0.1")
    source, _ = batches()
    from mitoda.data.pairs import UnlabelledBatch

    target = UnlabelledBatch(source.images)
    torch.manual_seed(0)
    for step in range(120):
        method.update(source, target, progress=step / 180 if step < 60 else 0.67 + 0.3 * (step - 60) / 60)
    with torch.no_grad():
        mask = method.predict(source.images).first.argmax(1)
    truth = source.coverage[:, 0, ::2, ::2].long()
    overlap = float((mask & truth).sum() / (mask | truth).sum())
    assert overlap > 0.8
