"""What is particular to UALR: dropout, rectification, stages."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mitoda.data.pairs import IGNORE, UnlabelledBatch
from mitoda.data.probability_volume import CoarseVolume
from mitoda.methods import SelfLabelling, Teacher
from mitoda.methods.ualr import (
    BACKGROUND,
    MITOCHONDRION,
    SOURCE_WARM_UP,
    TARGET_WARM_UP,
    UNSURE,
    rectified_labels,
    spatial_dropout,
    stage_rate,
)
from mitoda.volumes import ArrayVolume
from tests.methods.method_helpers import batches, build

NO_IMAGES = ArrayVolume(np.zeros((1, 64, 64), np.uint8))


def labelled(seed: int = 0) -> UnlabelledBatch:
    """Target patches with pseudo labels, of which some are ignored."""
    images = batches(seed)[1].images
    return UnlabelledBatch(images, torch.arange(32 * 32 * 2).reshape(1, 2, 32, 32) % 2)


def teacher_of(method: nn.Module, images: Tensor) -> Teacher:
    """Predicts both sections of a pair on the output grid."""

    def predict() -> CoarseVolume:
        with torch.no_grad():
            output = method.network(images, residual=False)
        both = torch.cat([output.first, output.second]).softmax(1)[:, 1]
        return CoarseVolume((both * 255).round().byte().numpy(), 3, (2.0, 2.0), (50.0, 10.0, 10.0))

    return Teacher(method.network, predict)


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
    """Labels are mean ≥ 0.5; of each class the pixels above its own percentile are unsure."""
    mean = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 0.9])
    deviation = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.1])
    sure, wrong = [BACKGROUND, MITOCHONDRION], UNSURE
    assert rectified_labels(mean, deviation, 50.0).tolist() == [
        sure[0], sure[0], wrong, wrong, wrong, sure[1], sure[1],
    ]  # fmt: skip
    assert rectified_labels(mean, deviation, 100.0).tolist() == [sure[0]] * 4 + [sure[1]] * 3


def test_a_class_mostly_without_deviation_keeps_those_pixels():
    """As without dropout, or of a sure network; an absent class changes nothing."""
    deviation = np.zeros(100)
    deviation[:2] = 0.1
    labels = rectified_labels(np.full(100, 0.7), deviation, 95.0)
    assert (labels[2:] == MITOCHONDRION).all()
    assert (labels[:2] == UNSURE).all()


def test_about_the_percentile_of_each_class_is_kept():
    """Of twenty thousand pixels."""
    rng = np.random.default_rng(0)
    mean, deviation = rng.random(20_000), rng.random(20_000) ** 2
    labels = rectified_labels(mean, deviation, 95.0)
    for members in (mean < 0.5, mean >= 0.5):
        assert (labels[members] == UNSURE).mean() == pytest.approx(0.05, abs=0.002)


def test_labels_are_those_of_the_passes():
    """With dropout the passes differ and some pixels are unsure; without it all are labelled as predicted."""
    assert isinstance(build("ualr"), SelfLabelling)
    images = batches()[1].images
    method = build("ualr", dropout="0")
    labels = method.relabel(teacher_of(method, images), NO_IMAGES)
    assert (labels.first_section, labels.cell) == (3, (2.0, 2.0))
    predicted = teacher_of(method, images).predict().probabilities >= 128
    assert np.array_equal(labels.probabilities == MITOCHONDRION, predicted)
    assert not (labels.probabilities == UNSURE).any()
    method = build("ualr", percentile="80")
    torch.manual_seed(0)
    unsure = method.relabel(teacher_of(method, images), NO_IMAGES).probabilities == UNSURE
    assert 0.1 < unsure.mean() < 0.3


def test_the_three_stages():
    """The source until two thirds; then the target is labelled once, and a fresh network learns it alone."""
    method = build("ualr")
    assert [method.round_of(p) for p in (0.0, 0.66, 0.67, 1.0)] == [0, 0, 1, 1]
    assert method.wants(0.5) == (True, False)
    assert method.wants(0.7) == (False, True)
    method.update(*batches(0), progress=0.6)
    trained = copy.deepcopy(method.network.state_dict())
    with pytest.raises(ValueError, match="stage C needs the labels of stage B"):
        method.update(None, batches(1)[1], progress=0.67)

    assert set(method.update(None, labelled(1), progress=0.7)) == {"first", "second", "residual"}
    assert method.network_is_fresh
    assert float(method.target_began) == pytest.approx(0.7)
    weights = [key for key in trained if key.endswith("0.weight")]
    distances = [float((method.network.state_dict()[key] - trained[key]).abs().mean()) for key in weights]
    assert min(distances) > 0.01  # a step of Adam moves by 0.005 at most
    steps = {float(state["step"]) for state in method.optimizers["network"].state.values()}
    assert steps == {1.0}
    method.network_is_fresh = False
    method.update(None, labelled(1), progress=0.8)
    assert not method.network_is_fresh


@pytest.mark.parametrize("done", [1, 2])
def test_a_run_resumed_in_any_stage_goes_on_to_the_last_bit(done):
    """When stage C began is in the state."""
    progress = [0.5, 0.7, 0.8]

    def step(method, index):
        torch.manual_seed(index)
        method.update(batches(index)[0], labelled(index), progress[index])

    whole, broken, resumed = (build("ualr", seed=s) for s in (0, 0, 9))
    for index in range(3):
        step(whole, index)
    for index in range(done):
        step(broken, index)
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    resumed.optimizers["network"].load_state_dict(copy.deepcopy(broken.optimizers["network"].state_dict()))
    for index in range(done, 3):
        step(resumed, index)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_rates_of_both_stages():
    """Both rise from 0.1 to 1, in a twentieth of A and a tenth of C, and fall towards 0.1; or the loop's rate."""
    for warm_up in (SOURCE_WARM_UP, TARGET_WARM_UP):
        assert stage_rate(0.0, warm_up) == pytest.approx(0.1)
        assert stage_rate(warm_up / 2, warm_up) == pytest.approx(0.1 + 0.9 / 4)
        assert stage_rate(warm_up, warm_up) == pytest.approx(1.0)
        assert stage_rate(1.0, warm_up) == pytest.approx(0.1 + 0.9 * warm_up**2)
    method = build("ualr")
    assert method.schedule(2 / 3 * 0.025) == pytest.approx(0.325)
    assert method.schedule(0.7) == pytest.approx(0.1)
    method.update(None, labelled(), progress=0.7)
    assert method.schedule(0.85) == pytest.approx(stage_rate(0.5, TARGET_WARM_UP))
    assert build("ualr", own_schedule="false").schedule(0.3) is None


def test_pseudo_labels_of_a_learnt_patch_teach_a_fresh_network():
    """Stage A learns a patch; stage C, shown only its image, comes to the same mask from a fresh network."""
    method = build("ualr", passes="4", dropout="0.1")
    source, _ = batches()
    torch.manual_seed(0)
    for step in range(60):
        method.update(source, None, progress=step / 180)
    found = method.relabel(teacher_of(method, source.images), NO_IMAGES).probabilities
    labels = torch.from_numpy(found).long()[None] // MITOCHONDRION
    labels[torch.from_numpy(found)[None] == UNSURE] = IGNORE
    for step in range(60):
        method.update(None, UnlabelledBatch(source.images, labels), progress=0.67 + 0.3 * step / 60)
    with torch.no_grad():
        mask = method.predict(source.images).first.argmax(1)
    truth = source.coverage[:, 0, ::2, ::2].long()
    overlap = float((mask & truth).sum() / (mask | truth).sum())
    assert overlap > 0.8
