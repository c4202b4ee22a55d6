"""What is particular to DA-ISC."""

import pytest
import torch
from method_helpers import CPU, batches, build

from mitoda.losses import SOURCE, domain_loss, probabilities
from mitoda.methods import build_method
from mitoda.patches import LabelledBatch


def test_the_consistency_loss_gives_the_residual_decoder_no_gradient():
    """In L_c the residual is only read: its decoder is taught by the source and by L_res."""
    method = build("isc", segmentation_adversarial="0", residual_adversarial="0")
    _, target = batches()
    sum(method.target_losses(method.predict(target.images), target.images, 0.9).values()).backward()
    for name, parameter in method.network.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached != name.startswith("residual"), name


@pytest.mark.parametrize(
    ("preset", "terms"),
    [
        ("isc-i", set()),
        ("isc-ii", {"adversarial_segmentation", "discriminator_segmentation"}),
        ("isc-iii", {"adversarial_residual", "discriminator_residual"}),
        (
            "isc-iv",
            {
                "adversarial_segmentation",
                "discriminator_segmentation",
                "adversarial_residual",
                "discriminator_residual",
            },
        ),
    ],
)
def test_presets_switch_the_losses_of_the_ablation(preset, terms):
    """(i) L_s, (ii) + L_seg, (iii) L_s + L_res, (iv) both; (v) adds L_c to (iv)."""
    supervised = {"first", "second", "residual"}
    assert set(build(preset).update(*batches(), 0.5)) == supervised | terms
    if preset == "isc-iv":
        assert set(build("isc-v").update(*batches(), 0.5)) == supervised | terms | {"consistency"}


def test_one_batch_of_two_maps_is_the_mean_of_the_two_losses():
    """Judging both maps in one batch is w/2 of the sum of eq. 2."""
    method = build("isc")
    _, target = batches()
    output = method.predict(target.images)
    judged = [
        domain_loss(method.decide("segmentation", probabilities(logits)), SOURCE)
        for logits in (output.first, output.second)
    ]
    expected = 0.001 / 2 * (judged[0] + judged[1])
    assert torch.allclose(method.adversarial_losses(output)["adversarial_segmentation"], expected, rtol=1e-4)


def test_the_start_of_isc_on_codetection_is_that_of_the_published_logs():
    """First step of the published runs (four tasks): L_s 1.96–1.99, raw L_c 1.44, adversarial 0.687–0.689; within 5 %.

    Masks of the logs are empty or full at random initialisation, so any image serves.
    """
    torch.manual_seed(555)
    method = build_method("isc", "codetection", {"consistency": "1", "rampup": "0"}, CPU)
    source, target = batches(side=128)
    coverage = source.coverage * 0
    losses = method.update(LabelledBatch(source.images, coverage), target, progress=0.5)
    assert float(losses["adversarial_segmentation"]) / 0.001 == pytest.approx(0.689, rel=0.05)
    assert float(losses["adversarial_residual"]) / 0.001 == pytest.approx(0.687, rel=0.05)
    assert float(losses["first"] + losses["second"] + losses["residual"]) == pytest.approx(1.96, rel=0.15)
