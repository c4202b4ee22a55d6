"""Pair networks: sizes of the paper, sharing between sections, what runs and what does not."""

import pytest
import torch
from torch import nn

from mitoda.errors import InputError
from mitoda.models.backbones import BACKBONES, build_network, reinitialise
from mitoda.models.pair_networks import PairNetwork, Widths


def count_macs(network: nn.Module, images: torch.Tensor, **options: bool) -> int:
    """Multiply-accumulates of all convolutions in one forward pass, counted from their output shapes."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        elif isinstance(module, nn.ConvTranspose2d):
            total += inputs[0].numel() * module.out_channels * module.kernel_size[0] * module.kernel_size[1]

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        network(images, **options)
    for hook in hooks:
        hook.remove()
    return total


def tiny(grid: int = 1) -> PairNetwork:
    """A pair network of a few channels."""
    torch.manual_seed(0)
    return PairNetwork(
        Widths((4, 6), (8, 8, 8), (8, 6, 4, 4)), grid, affine=True, learnt_upsampling=grid == 1
    )


def test_codetection_has_the_parameters_and_operations_of_the_paper():
    """20,755,814 parameters (15,342,468 without the residual decoder) and 236.17 GMAC (171.33) for a 512×512 pair."""
    network = build_network("codetection")
    residual = sum(p.numel() for name, p in network.named_parameters() if name.startswith("residual"))
    everything = sum(p.numel() for p in network.parameters())
    assert everything == 20_755_814
    assert everything - residual == 15_342_468
    images = torch.zeros(1, 2, 64, 64)
    # Convolutions cost the same per pixel at any size.
    assert count_macs(network, images) * 64 / 1e9 == pytest.approx(236.17, abs=0.01)
    assert count_macs(network, images, residual=False) * 64 / 1e9 == pytest.approx(171.33, abs=0.01)


def test_compact_works_on_pixels_four_times_coarser_with_an_eighth_of_the_parameters():
    """compact has 2.5 M parameters and gives one logit pair for 4×4 pixels."""
    network = build_network("compact")
    assert sum(p.numel() for p in network.parameters()) == 2_524_146
    assert network.grid == 4
    output = network(torch.zeros(1, 2, 64, 128))
    for logits in (output.first, output.second, output.residual):
        assert logits.shape == (1, 2, 16, 32)


def test_encoding_sections_one_by_one_and_decoding_equals_the_pair():
    """What inference does (encode once, decode pairs) is the network that was trained."""
    network = tiny(grid=2).eval()
    images = torch.randn(2, 2, 32, 64)
    with torch.inference_mode():
        together = network(images)
        apart = network.decode(network.encode(images[:, :1]), network.encode(images[:, 1:]))
    for name in ("first", "second", "residual"):
        assert torch.allclose(getattr(together, name), getattr(apart, name), atol=1e-5)


def test_the_residual_decoder_runs_only_where_asked_for():
    """Inference does not pay for a residual nobody reads."""
    network = tiny()
    images = torch.zeros(1, 2, 32, 32)
    assert network(images, residual=False).residual is None
    assert count_macs(network, images, residual=False) < count_macs(network, images)


def test_both_sections_reach_each_mask():
    """The mask of one section depends on the other section too: the body is joined."""
    network = tiny()
    images = torch.randn(1, 2, 32, 32, requires_grad=True)
    network(images).first.sum().backward()
    assert images.grad[:, 0].abs().sum() > 0
    assert images.grad[:, 1].abs().sum() > 0


def test_a_section_of_the_wrong_size_is_refused_with_both_numbers():
    """Sides that the poolings cannot halve are an error that names them."""
    with pytest.raises(InputError, match=r"100×64.*divisible by 64"):
        build_network("compact").encode(torch.zeros(1, 1, 100, 64))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_backbones_are_reproducible_from_the_seed(name):
    """The same seed gives the same weights."""
    first, second = (torch.manual_seed(3) and build_network(name).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_new_compact_network_expects_few_mitochondria():
    """The offsets of its logits hold 0.1, also after `reinitialise`; those of the paper's network hold nothing."""
    network = build_network("compact")
    for _ in range(2):
        for head in (*network.heads, network.residual_head):
            assert torch.softmax(head[3].bias, 0).tolist() == pytest.approx([0.9, 0.1])
        reinitialise(network)
    assert all(abs(float(head[3].bias[1].detach())) < 0.1 for head in build_network("codetection").heads)
