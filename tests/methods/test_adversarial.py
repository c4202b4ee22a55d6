"""What is particular to DANN, AdaptSegNet, DAMT-Net, Y-Net and DA-VSN."""

import math

import pytest
import torch

from mitoda.methods.da_vsn import gated_consistency
from mitoda.methods.dann import reversal_schedule
from mitoda.methods.losses import SOURCE, TARGET, domain_loss, probabilities
from tests.methods.method_helpers import batches, build, reached

SUPERVISED = {"first", "second", "residual"}


def test_the_reversal_grows_as_in_the_paper():
    """α is 0 at the start, tanh(2.5) half way and 0.99991 at the end."""
    assert reversal_schedule(0.0) == 0.0
    assert reversal_schedule(0.5) == pytest.approx(math.tanh(2.5))
    assert reversal_schedule(1.0) == pytest.approx(0.9999092, abs=1e-7)


@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
def test_dann_hands_the_network_the_reversed_gradient(progress):
    """The network's gradient of the domain loss is −α(p) times the true one; the classifier's is the true one."""
    method = build("dann")
    output = method.predict(batches()[1].images)
    classifier = method.heads["domain_classifier"]
    true = domain_loss(classifier(torch.cat(output.full)), TARGET)
    wanted = torch.autograd.grad(true, [*output.full, *classifier.parameters()], retain_graph=True)
    loss = method.classification_loss(output, TARGET, progress)
    assert torch.equal(loss, true)
    found = torch.autograd.grad(loss, [*output.full, *classifier.parameters()])
    factor = -reversal_schedule(progress)
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):
        assert torch.allclose(ours, factor * theirs, rtol=1e-4, atol=1e-12)
    for ours, theirs in zip(found[2:], wanted[2:], strict=True):
        assert torch.allclose(ours, theirs)


def test_dann_classifies_both_domains():
    """Both domain losses are near ln 2 at the start, and both are in the log."""
    losses = build("dann").update(*batches(), 0.5)
    assert set(losses) == SUPERVISED | {"domain_source", "domain_target"}
    assert float(losses["domain_source"] + losses["domain_target"]) == pytest.approx(2 * math.log(2), rel=0.2)


def test_adaptsegnet_weighs_its_two_levels_as_the_paper():
    """0.001 on the main masks, 0.0002 on the auxiliary ones, both of D's answer 'source'; 0.1 on the auxiliary CE."""
    method = build("adaptsegnet")
    output = method.predict(batches()[1].images)
    losses = method.adversarial_losses(output)
    logits = method.level_logits(output)
    for level, weight in {"main": 1e-3, "auxiliary": 2e-4}.items():
        judged = method.discriminators[level](probabilities(torch.cat(logits[level])))
        assert torch.allclose(losses[f"adversarial_{level}"], weight * domain_loss(judged, SOURCE))
    labels = torch.zeros(1, 2, 32, 32, dtype=torch.long)
    auxiliary = [torch.nn.functional.cross_entropy(x, labels[:, 0]) for x in logits["auxiliary"]]
    found = method.source_losses(output, labels, batches()[1].images, 0.5)["auxiliary_masks"]
    assert torch.allclose(found, 0.1 * sum(auxiliary))


def test_the_levels_of_adaptsegnet_reach_their_own_layers():
    """The auxiliary level teaches the half resolution and nothing finer; the main level does not teach its head."""
    for level, fine, head in (("auxiliary", False, True), ("main", True, False)):
        method = build("adaptsegnet")
        output = method.predict(batches()[1].images, residual=False)
        method.adversarial_losses(output)[f"adversarial_{level}"].backward()
        touched = reached(method.network)
        assert any(name.startswith("up_half") for name in touched)
        assert any(name.startswith(("up_full", "heads")) for name in touched) == fine
        assert bool(reached(method.heads["auxiliary_head"])) == head


def test_adaptsegnet_with_one_level_is_the_ablation_of_da_isc():
    """Without the auxiliary level its losses are those of isc-ii, term for term."""
    single = build("adaptsegnet", auxiliary="0").update(*batches(), 0.5)
    assert set(single) == SUPERVISED | {"adversarial_main", "discriminator_main"}
    ablation = build("isc-ii").update(*batches(), 0.5)
    assert torch.allclose(single["first"], ablation["first"])
    assert float(single["adversarial_main"]) == pytest.approx(
        float(ablation["adversarial_segmentation"]), rel=0.05
    )


def test_reconstruction_teaches_the_encoder_and_nothing_else_of_the_network():
    """From the target, Y-Net reaches shared encoder and body down to the bottleneck; no decoder, no head."""
    method = build("y-net")
    images = batches()[1].images
    method.target_losses(method.predict(images), images, 0.5)["reconstruction_target"].backward()
    expected = {name for name, _ in method.network.named_parameters() if name.startswith(("encoder", "body"))}
    # A bias before a normalisation that removes the mean has no gradient but rounding.
    weights = {name for name in expected if name.endswith("weight")}
    assert weights <= reached(method.network) <= expected
    assert len(reached(method.heads["reconstruction"])) > 0


def test_y_net_learns_to_reconstruct():
    """The mean squared error of one patch, 1 for a blank guess, falls to under 0.7 in sixty steps."""
    method = build("y-net")
    smooth = [
        type(b)(**{**vars(b), "images": torch.nn.functional.avg_pool2d(b.images, 9, 1, 4) * 9})
        for b in batches()
    ]
    losses = [method.update(*smooth, step / 60) for step in range(60)]
    assert float(losses[-1]["reconstruction_target"]) < 0.7 * float(losses[0]["reconstruction_target"])


def test_y_net_takes_soft_dice_where_asked():
    """The masks' losses change, the residual's does not."""
    plain, dice = build("y-net").update(*batches(), 0.5), build("y-net", dice="true").update(*batches(), 0.5)
    assert float(dice["first"]) != pytest.approx(float(plain["first"]), rel=1e-3)
    assert 0 < float(dice["first"]) < 1
    assert torch.equal(plain["residual"], dice["residual"])


def test_damt_net_reconstructs_only_after_its_warmup():
    """Before a tenth of the run there is no reconstruction loss and its decoder stays as it was."""
    method = build("damt-net")
    before = [p.detach().clone() for p in method.heads["reconstruction"].parameters()]
    early = method.update(*batches(), progress=0.09)
    assert all(
        torch.equal(a, b) for a, b in zip(before, method.heads["reconstruction"].parameters(), strict=True)
    )
    late = method.update(*batches(), progress=0.1)
    adversarial = {"adversarial_label", "adversarial_feature", "discriminator_label", "discriminator_feature"}
    assert set(early) == SUPERVISED | adversarial
    assert set(late) == set(early) | {"reconstruction_source", "reconstruction_target"}
    assert float(late["reconstruction_source"]) == pytest.approx(5e-4 / 2, rel=0.7)


def test_damt_net_calls_the_source_one():
    """Its adversarial losses want the answer 1 of the target, and its discriminators learn 1 for the source."""
    method = build("damt-net")
    source, target = (method.predict(batch.images) for batch in batches())
    losses = method.adversarial_losses(target)
    for name in ("label", "feature"):
        decision = method.discriminators[name](method.judged(target)[name])
        assert torch.allclose(losses[f"adversarial_{name}"], 1e-3 * domain_loss(decision, 1.0))
        real = method.discriminators[name](method.judged(source)[name])
        expected = (domain_loss(real, 1.0) + domain_loss(decision, 0.0)) / 2
        assert torch.allclose(
            method.discriminate(source, target)[f"discriminator_{name}"], expected, rtol=1e-4
        )


def test_the_consistency_of_da_vsn_counts_only_where_the_key_is_surer():
    """Three pixels: key surer (|p − q| 0.4), key less sure, both alike. Mean over 3 pixels × 2 classes: 0.8 / 6."""
    p = torch.tensor([0.5, 0.9, 0.7])
    q = torch.tensor([0.9, 0.5, 0.7])
    current, key = (torch.stack([x, 1 - x]).log().reshape(1, 2, 1, 3) for x in (p, q))
    current.requires_grad_()
    loss = gated_consistency(current, key)
    assert loss.item() == pytest.approx(0.8 / 6, rel=1e-5)
    loss.backward()
    assert (current.grad.abs().sum(1).flatten() > 0).tolist() == [True, False, False]


def test_the_key_section_of_da_vsn_gets_no_gradient():
    """One way only, all target losses reach the second section's logits and not the first's."""
    method = build("da-vsn", both_ways="false", auxiliary="0")
    output = method.predict(batches()[1].images, residual=False)
    first, second = (logits.detach().requires_grad_() for logits in (output.first, output.second))
    replaced = output._replace(first=first, second=second)
    losses = method.adversarial_losses(replaced) | method.target_losses(replaced, batches()[1].images, 0.5)
    assert set(losses) == {"adversarial_cross_main", "adversarial_intra_main", "consistency_main"}
    sum(losses.values()).backward()
    assert first.grad is None
    assert float(second.grad.abs().sum()) > 0


def test_both_sections_are_current_once():
    """By default both branches of a pair network are adapted, each as the current section."""
    method = build("da-vsn", auxiliary="0")
    output = method.predict(batches()[1].images, residual=False)
    current, key = method.ways(output.first, output.second)
    assert torch.equal(current, torch.cat([output.second, output.first]))
    assert torch.equal(key, torch.cat([output.first, output.second]))
    assert current.requires_grad
    assert not key.requires_grad


def test_what_the_discriminators_of_da_vsn_look_at():
    """Two softmax maps of four channels; the intra one shows a section twice; the quirk makes all four sum to 1."""
    method = build("da-vsn", both_ways="false", auxiliary="0")
    output = method.predict(batches()[1].images)
    maps = method.judged(output)
    assert torch.allclose(maps["cross_main"][:, :2], probabilities(output.second))
    assert torch.allclose(maps["cross_main"][:, 2:], probabilities(output.first))
    assert torch.equal(maps["intra_main"][:, :2], maps["intra_main"][:, 2:])
    assert torch.allclose(maps["cross_main"].sum(1), torch.tensor(2.0))
    quirk = build("da-vsn", softmax_over_both="true", both_ways="false", auxiliary="0").judged(output)
    assert torch.allclose(quirk["cross_main"].sum(1), torch.tensor(1.0))


def test_the_weights_of_da_vsn():
    """u = 0.001 on the main level, a fifth of it on the auxiliary one; the discrepancy is u (1 + cos)."""
    method = build("da-vsn")
    assert method.adversarial_weights == pytest.approx(
        {"cross_main": 1e-3, "intra_main": 1e-3, "cross_auxiliary": 2e-4, "intra_auxiliary": 2e-4}
    )
    method.discriminators["intra_main"].load_state_dict(method.discriminators["cross_main"].state_dict())
    assert method.discriminator_penalties()["discrepancy_main"].item() == pytest.approx(2e-3, rel=1e-4)
    losses = method.update(*batches(), 0.5)
    assert {"discrepancy_main", "discrepancy_auxiliary", "consistency_main", "consistency_auxiliary"} <= set(
        losses
    )
