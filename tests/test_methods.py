"""One contract for all methods, and what is particular to each."""

import copy

import pytest
import torch

from mitoda.errors import InputError
from mitoda.losses import coverage_to_labels, pair_cross_entropy
from mitoda.methods import METHODS, PRESETS, Arithmetic, build_method, method_named
from mitoda.methods.isc import Isc
from mitoda.patches import LabelledBatch, UnlabelledBatch

CPU = Arithmetic(torch.device("cpu"), bfloat16=False)
NAMES = [*METHODS, *PRESETS]


def batches(seed: int = 0, side: int = 128) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Random patches with a blob as label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, 2, side, side, generator=generator)
    coverage = torch.zeros_like(images)
    coverage[..., 32:96, 16:80] = 1.0
    coverage[:, 1, 32:64, 16:80] = 0.0
    return LabelledBatch(images, coverage), UnlabelledBatch(torch.randn(1, 2, side, side, generator=generator))


def build(name: str, seed: int = 0, **settings: str):
    """A method on compact, built from a seed."""
    torch.manual_seed(seed)
    return build_method(name, "compact", settings, CPU).train()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_the_network_and_reports_finite_losses(name):
    """Every trainable parameter that a loss reaches moves, and the losses are detached numbers."""
    method = build(name)
    before = copy.deepcopy(method.network.state_dict())
    losses = method.update(*batches(), progress=0.5)
    assert losses
    for value in losses.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)
    moved = [key for key, tensor in method.network.state_dict().items() if not torch.equal(tensor, before[key])]
    assert len(moved) == len(before)


@pytest.mark.parametrize("name", NAMES)
def test_seeded_steps_are_equal(name):
    """Two runs from one seed have the same weights after two steps, to the last bit."""
    states = []
    for _ in range(2):
        method = build(name, seed=7)
        torch.manual_seed(1)
        for step in range(2):
            method.update(*batches(step), progress=0.1 * step)
        states.append(method.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_overfitted_in_a_few_steps(name):
    """Each method learns one labelled patch by heart: its supervised loss falls to under a quarter."""
    method = build(name)
    source, target = batches()

    def supervised() -> float:
        with torch.no_grad():
            output = method.predict(source.images)
        losses = pair_cross_entropy(output, coverage_to_labels(source.coverage, method.network.grid))
        return float(losses["first"] + losses["second"])

    before = supervised()
    for step in range(25):
        method.update(source, target, progress=step / 25)
    assert supervised() < before / 4


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_target])
def test_methods_without_a_target_never_look_at_it(name):
    """The step is the same with any target or none."""
    one, other = build(name), build(name)
    source, target = batches()
    one.update(source, target, 0.5)
    other.update(source, None, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_discriminators_are_frozen_while_the_network_learns_and_learn_afterwards():
    """The adversarial losses give the discriminators no gradient; their own losses do, and the network none."""
    method = build("isc")
    assert isinstance(method, Isc)
    source, target = batches()
    for discriminator in method.discriminators().values():
        for parameter in discriminator.parameters():
            parameter.requires_grad_(False)
    output = method.predict(target.images)
    sum(method.target_losses(output, 0.5).values()).backward()
    assert all(parameter.grad is None for d in method.discriminators().values() for parameter in d.parameters())
    method.network.zero_grad(set_to_none=True)
    method.discriminate(method.predict(source.images), method.predict(target.images))
    assert all(parameter.grad is None for parameter in method.network.parameters())
    assert all(parameter.grad is not None for d in method.discriminators().values() for parameter in d.parameters())


def test_the_consistency_loss_gives_the_residual_decoder_no_gradient():
    """In L_c the residual is only read: its decoder is taught by the source and by L_res."""
    method = build("isc", segmentation_adversarial="0", residual_adversarial="0")
    _, target = batches()
    sum(method.target_losses(method.predict(target.images), 0.9).values()).backward()
    for name, parameter in method.network.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached != name.startswith("residual"), name


@pytest.mark.parametrize(
    ("preset", "terms"),
    [
        ("isc-i", set()),
        ("isc-ii", {"adversarial_segmentation", "segmentation_discriminator"}),
        ("isc-iii", {"adversarial_residual", "residual_discriminator"}),
        (
            "isc-iv",
            {
                "adversarial_segmentation",
                "segmentation_discriminator",
                "adversarial_residual",
                "residual_discriminator",
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
    from mitoda.losses import SOURCE, domain_loss

    judged = [
        domain_loss(method.judge(method.segmentation_discriminator, logits), SOURCE)
        for logits in (output.first, output.second)
    ]
    expected = 0.001 / 2 * (judged[0] + judged[1])
    assert torch.allclose(method.target_losses(output, 0.5)["adversarial_segmentation"], expected, rtol=1e-4)


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


def test_unknown_names_are_refused_with_the_known_ones():
    """A misspelt method or setting lists what there is; a value of the wrong type says so."""
    with pytest.raises(InputError, match="isc.*source-only.*oracle"):
        method_named("icc")
    with pytest.raises(InputError, match="no setting 'consistancy'.*consistency"):
        build("isc", consistancy="1")
    with pytest.raises(InputError, match="'much' is not a float"):
        build("isc", consistency="much")
