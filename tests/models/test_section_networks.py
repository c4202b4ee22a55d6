"""Networks that see one section at a time, behind the interface of a pair network."""

import numpy as np
import pytest
import torch
from torch import nn

from mitoda.errors import InputError
from mitoda.inference.streaming import predict
from mitoda.models.backbones import build_network, reinitialise
from mitoda.models.model import Model
from mitoda.models.section_networks import GroupedConvolution, ResidualBlock, Rsunet, Unet
from mitoda.models.weights import WeightsInfo, load_weights, save_weights
from mitoda.volumes import ArrayVolume

SMALL = {"rsunet": Rsunet((4, 6, 8, 10, 12)), "unet": Unet((4, 6, 8, 10, 12))}
"""The same shapes with few channels."""


def convolution_macs(network: nn.Module, side: int) -> int:
    """Multiply-accumulates of all convolutions for one section, from their output shapes."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network.head(network.encode(torch.zeros(1, 1, side, side, device="meta")).full)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("name", "parameters", "giga"), [("rsunet", 567_314, 10.32), ("unet", 28_941_698, 192.38)]
)
def test_sizes_are_those_of_the_papers_networks(name, parameters, giga):
    """RSUNet: 567,314 parameters, 10.32 GMAC for 512×512. U-Net: DAMT-Net's without its reconstruction decoder."""
    with torch.device("meta"):
        network = build_network(name)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert convolution_macs(network, 512) / 1e9 == pytest.approx(giga, abs=0.01)


def test_encoder_and_decoder_of_the_unet():
    """18,842,048 parameters down, 10,099,650 up."""
    with torch.device("meta"):
        network = build_network("unet")
    down = sum(p.numel() for p in network.down.parameters())
    assert down == 18_842_048
    assert sum(p.numel() for p in network.parameters()) - down == 10_099_650


def test_a_residual_block_adds_its_first_output():
    """With the last convolution at zero the block is its first convolution, activated twice."""
    torch.manual_seed(0)
    block = ResidualBlock(3, 5)
    nn.init.zeros_(block.leave.weight)
    nn.init.zeros_(block.leave.bias)
    x = torch.randn(1, 3, 6, 6)
    assert torch.allclose(block(x), nn.functional.elu(nn.functional.elu(block.enter(x))))


@pytest.mark.parametrize("channels", [(64, 32), (48, 16), (24, 8), (1, 1)])
def test_grouped_convolutions_have_32_groups_or_as_many_as_divide(channels):
    """Channels of any number can be normalised."""
    outputs, groups = channels
    assert GroupedConvolution(2, outputs)[1].num_groups == groups


@pytest.mark.parametrize("name", list(SMALL))
def test_the_interface_of_a_pair_network(name):
    """Logits of both sections on the input's own pixels, no residual, features of the sizes promised."""
    network = SMALL[name]
    output = network(torch.randn(2, 2, 32, 48))
    assert output.first.shape == output.second.shape == (2, 2, 32, 48)
    assert output.residual is None
    assert output.bottleneck.shape == (2, 2 * network.channels.bottleneck, 2, 3)
    assert [x.shape for x in output.half] == [(2, network.channels.half, 16, 24)] * 2
    assert [x.shape for x in output.full] == [(2, network.channels.full, 32, 48)] * 2


@pytest.mark.parametrize("name", list(SMALL))
def test_sections_never_meet(name):
    """The mask of a section is the same beside any other, first or second, encoded alone or in a pair."""
    network = SMALL[name].eval()
    one, two, three = torch.randn(3, 1, 1, 32, 32)
    with torch.inference_mode():
        beside_two = network(torch.cat([one, two], 1)).first
        beside_three = network(torch.cat([three, one], 1)).second
        apart = network.decode(network.encode(one), network.encode(two)).first
    assert torch.allclose(beside_two, beside_three, rtol=1e-4, atol=1e-4)
    assert torch.allclose(beside_two, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(SMALL))
def test_every_weight_learns(name):
    """The masks' gradient reaches every parameter."""
    network = SMALL[name]
    network.zero_grad(set_to_none=True)
    output = network(torch.randn(1, 2, 32, 32))
    (output.first[:, 1].sum() + (output.second[:, 1] ** 2).sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_rsunet_starts_with_kaiming_weights_also_when_begun_afresh():
    """Zero biases and weights of variance 2 / inputs, from the start and after `reinitialise`."""
    torch.manual_seed(0)
    network = build_network("rsunet")
    first = network.down[4].leave.weight.detach().clone()
    reinitialise(network)
    again = network.down[4].leave.weight.detach()
    assert not torch.equal(first, again)
    for weight in (first, again):
        assert float(weight.var()) == pytest.approx(2 / (80 * 9), rel=0.05)
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d))


def test_a_section_of_the_wrong_size_is_refused():
    """Sides must be divisible by 16."""
    with pytest.raises(InputError, match=r"40×32.*divisible by 16"):
        SMALL["rsunet"].encode(torch.zeros(1, 1, 40, 32))


def test_weights_go_to_disk_and_come_back_and_predict_a_volume(tmp_path):
    """Checkpoints and streaming inference take the network as any other: both visits give the section's own mask."""
    torch.manual_seed(0)
    network = build_network("rsunet").eval()
    save_weights(tmp_path / "w.safetensors", network, WeightsInfo("rsunet", (5.0, 5.0), 50.0))
    loaded, info = load_weights(tmp_path / "w.safetensors")
    volume = ArrayVolume(
        np.random.default_rng(0).integers(0, 255, (3, 32, 48), dtype=np.uint8), (50.0, 5.0, 5.0)
    )
    predicted = list(predict(volume, Model(loaded, info)))
    assert len(predicted) == 3
    section = volume.read(1).astype(np.float32)
    section = (section - section.min()) / (section.max() - section.min())
    with torch.inference_mode():
        image = torch.from_numpy(section)[None, None]
        direct = network(torch.cat([image, image], 1)).first.softmax(1)[0, 1].numpy()
    np.testing.assert_allclose(predicted[1], direct, atol=1e-5)
