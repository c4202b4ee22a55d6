"""One contract for all methods."""

import copy
import inspect
from dataclasses import fields

import pytest
import torch

from mitoda.errors import InputError
from mitoda.methods import METHODS, PRESETS, Arithmetic, build_method, method_named
from mitoda.methods.adversarial import TwoDomainMethod
from mitoda.methods.losses import pair_cross_entropy
from mitoda.methods.mitoda import SelfTraining
from mitoda.models.backbones import BACKBONES, backbone_named, build_network
from tests.methods.method_helpers import CPU, batches, build

NAMES = [*METHODS, *PRESETS]
TARGETED = [name for name in NAMES if method_named(name)[0].needs_target and name != "isc-i"]
"""The ablation isc-i has no target losses and reads no target."""


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_the_network_and_reports_finite_losses(name):
    """Every parameter of the network moves, and the losses are detached numbers."""
    method = build(name)
    before = copy.deepcopy(method.network.state_dict())
    losses = method.update(*batches(), progress=0.5)
    assert losses
    for value in losses.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)
    moved = [
        key for key, tensor in method.network.state_dict().items() if not torch.equal(tensor, before[key])
    ]
    assert len(moved) == len(before)


@pytest.mark.parametrize("name", NAMES)
def test_everything_a_method_trains_moves_in_a_step(name):
    """Each optimiser's parameters, discriminators and decoders included, change in a step."""
    method = build(name)
    before = {
        key: [p.detach().clone() for g in o.param_groups for p in g["params"]]
        for key, o in method.optimizers.items()
    }
    method.update(*batches(), progress=0.5)
    for key, optimizer in method.optimizers.items():
        after = [p for group in optimizer.param_groups for p in group["params"]]
        assert all(not torch.equal(a, b) for a, b in zip(before[key], after, strict=True)), key


@pytest.mark.parametrize("name", NAMES)
def test_seeded_steps_are_equal(name):
    """Two runs from one seed have the same state after two steps, to the last bit."""
    states = []
    for _ in range(2):
        method = build(name, seed=7)
        torch.manual_seed(1)
        for step in range(2):
            method.update(*batches(step), progress=0.1 * step)
        states.append(method.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", list(METHODS))
def test_bfloat16_changes_losses_by_rounding_alone(name):
    """Under autocast every loss is float32 and within a few per cent of its float32 value."""
    exact = build(name, learning_rate="1e-9")
    coarse = build(name, arithmetic=Arithmetic(CPU.device, bfloat16=True), learning_rate="1e-9")
    losses = []
    for method in (exact, coarse):
        torch.manual_seed(1)
        losses.append(method.update(*batches(), progress=0.5))
    for key, value in losses[0].items():
        assert losses[1][key].dtype == torch.float32
        assert float(losses[1][key]) == pytest.approx(float(value), rel=0.1), key


@pytest.mark.parametrize("name", list(METHODS))
def test_a_resumed_method_goes_on_to_the_last_bit(name):
    """Network, heads, discriminators, stages and optimisers are all in what the loop saves."""
    one = build(name)
    one.update(*batches(0), progress=0.3)
    saved = copy.deepcopy(one.state_dict())
    optimizers = {key: copy.deepcopy(optimizer.state_dict()) for key, optimizer in one.optimizers.items()}
    other = build(name, seed=99)
    other.load_state_dict(saved)
    for key, optimizer in other.optimizers.items():
        optimizer.load_state_dict(optimizers[key])
    for method in (one, other):
        torch.manual_seed(5)
        method.update(*batches(1), progress=0.4)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_overfitted_in_a_few_steps(name):
    """Each method learns one labelled patch by heart: its supervised loss falls to under a quarter."""
    method = build(name)
    source, target = batches()

    def supervised() -> float:
        with torch.no_grad():
            output = method.predict(source.images)
        losses = pair_cross_entropy(output, source.labels(method.network.grid))
        return float(losses["first"] + losses["second"])

    before = supervised()
    for step in range(100):
        method.update(source, target, progress=step / 200)
        if supervised() < before / 4:
            break
    assert supervised() < before / 4


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_target])
def test_methods_without_a_target_never_look_at_it(name):
    """The step is the same with any target or none."""
    one, other = build(name), build(name)
    source, target = batches()
    one.update(source, target, 0.5)
    other.update(source, None, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", TARGETED)
def test_methods_with_a_target_refuse_to_go_without(name):
    """A missing target is an error, not a silent source-only step."""
    with pytest.raises(ValueError, match="needs patches of a domain"):
        build(name).update(batches()[0], None, 0.9)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(method_named(name)[0], "discriminate")])
def test_discriminators_are_frozen_while_the_network_learns(name, monkeypatch):
    """When the discriminators' turn comes they have no gradient yet, and it changes none of the network's."""
    method = build(name)
    original = method.discriminate
    learner = [method.network, *getattr(method, "heads", torch.nn.ModuleDict()).values()]
    turns = []

    def gradients() -> list[torch.Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for module in learner for p in module.parameters()]

    def watched(source, target):
        judges = method.discriminators
        assert all(p.grad is None for judge in judges.values() for p in judge.parameters())
        before = gradients()
        losses = original(source, target)
        for a, b in zip(before, gradients(), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        assert all(p.grad is not None for judge in judges.values() for p in judge.parameters())
        turns.append(len(judges))
        return losses

    monkeypatch.setattr(method, "discriminate", watched)
    method.update(*batches(), progress=0.5)
    assert turns or name == "isc-i"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, method in METHODS.items()
        if issubclass(method, TwoDomainMethod) and not method.reads_residual
    ],
)
def test_target_losses_teach_no_residual_decoder(name):
    """Target terms that speak of sections leave the residual decoder to the source."""
    method = build(name)
    output = method.predict(batches()[1].images, residual=False)
    losses = method.adversarial_losses(output) | method.target_losses(output, batches()[1].images, 0.5)
    sum(losses.values()).backward()
    touched = {key for key, p in method.network.named_parameters() if p.grad is not None}
    assert touched
    assert not any(key.startswith("residual") for key in touched)


@pytest.mark.parametrize("backbone", list(BACKBONES))
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_builds_on_every_backbone_it_can(name, backbone):
    """On `meta` tensors no memory is needed; a method of residuals refuses networks that have none."""
    if name == "isc" and not backbone_named(backbone).has_residual:
        with pytest.raises(InputError, match=f"'isc' needs the residual.*'{backbone}'.*compact, codetection"):
            build_method(name, backbone, {}, CPU)
        return
    with torch.device("meta"):
        method = method_named(name)[0]
        built = method(build_network(backbone), backbone_named(backbone), method.Settings(), CPU)
    assert "network" in built.optimizers


@pytest.mark.parametrize(
    ("name", "backbone", "side"),
    [
        *((name, "compact", 128) for name in METHODS),
        ("adaptsegnet", "codetection", 32),
        *((name, "rsunet", 32) for name in METHODS if name != "isc"),
        ("damt-net", "unet", 32),
    ],
)
def test_methods_step_on_the_real_backbones(name, backbone, side):
    """A step on networks of full size gives finite losses."""
    torch.manual_seed(0)
    method = build_method(name, backbone, {}, CPU).train()
    losses = method.update(*batches(side=side), progress=0.5)
    assert all(torch.isfinite(value) for value in losses.values())
    assert ("residual" in losses) == backbone_named(backbone).has_residual


def test_unknown_names_are_refused_with_the_known_ones():
    """A misspelt method or setting lists what there is; a value of the wrong type says so."""
    with pytest.raises(InputError, match=r"isc.*source-only.*oracle.*da-vsn"):
        method_named("icc")
    with pytest.raises(InputError, match=r"no setting 'consistancy'.*consistency"):
        build("isc", consistancy="1")
    with pytest.raises(InputError, match="consistency=much: Input should be a valid number"):
        build("isc", consistency="much")
    with pytest.raises(InputError, match=r"rounds=2\.5: Input should be a valid integer"):
        build("mitoda", rounds="2.5")
    with pytest.raises(InputError, match="snap=perhaps: Input should be a valid boolean"):
        build("mitoda", snap="perhaps")


@pytest.mark.parametrize("name", list(METHODS))
def test_every_setting_says_what_it_is(name):
    """Each field of a method's settings, its own or inherited, is followed by a docstring."""
    cls = METHODS[name].Settings
    for owner in cls.__mro__[:-1]:
        source = inspect.getsource(owner)
        for field in set(inspect.get_annotations(owner)) & {one.name for one in fields(owner)}:
            after = source.split(f"    {field}:", 1)[1].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{owner.__name__}.{field}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "mitoda",
            {"level": ("nan", "5", "-1"), "rounds": ("0", "-1"), "supervised_share": ("2",), "band": ("9",)},
        ),
        ("mitoda", {"smallest": ("-1", "inf"), "learning_rate": ("nan", "-1"), "gradient_norm": ("0",)}),
        ("ualr", {"source_share": ("1",), "passes": ("1",), "percentile": ("0",), "dropout": ("1",)}),
        ("isc", {"rampup": ("2",), "segmentation_adversarial": ("-1",)}),
    ],
)
def test_settings_out_of_their_range_are_refused(name, values):
    """Not a number, infinite, negative or too large: the message names the setting and its range."""
    for setting, texts in values.items():
        for text in texts:
            with pytest.raises(InputError, match=rf"setting {setting}={text}: Input should be"):
                build(name, **{setting: text})


@pytest.mark.parametrize("name", NAMES)
def test_only_a_method_that_labels_the_target_trains_without_a_source(name):
    """The others say which method to use."""
    if issubclass(method_named(name)[0], SelfTraining):
        build_method(name, "compact", {}, CPU, from_weights=True, source_free=True)
    else:
        with pytest.raises(InputError, match="without a source use the method 'mitoda'"):
            build_method(name, "compact", {}, CPU, from_weights=True, source_free=True)
