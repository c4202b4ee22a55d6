"""What methods share: discriminators, gradient reversal, decoders, heads and loss terms."""

import pytest
import torch
from torch import nn

from mitoda.methods.losses import IGNORE, entropy, pair_cross_entropy, residual_labels, soft_dice
from mitoda.models.backbones import build_network
from mitoda.models.heads import (
    AuxiliaryHead,
    FeatureDiscriminator,
    PatchDiscriminator,
    ReconstructionDecoder,
    reverse_gradient,
    weight_similarity,
)
from mitoda.models.pair_networks import PairNetwork, PairOutput
from mitoda.models.section_networks import Rsunet
from tests.methods.method_helpers import TINY_WIDTHS, batches


def weights(module: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(grid: int = 2) -> PairNetwork:
    """A pair network of a few channels."""
    torch.manual_seed(0)
    return PairNetwork(TINY_WIDTHS, grid, affine=True, learnt_upsampling=False)


def test_the_patch_discriminator_has_the_size_of_the_paper():
    """2,763,713 parameters for one map and 2,765,761 for two; group normalisation adds none."""
    assert weights(PatchDiscriminator(2)) == 2_763_713
    assert weights(PatchDiscriminator(4)) == 2_765_761
    assert weights(PatchDiscriminator(2, normalised=True)) == 2_763_713


def test_the_patch_discriminator_sees_94_pixels():
    """One logit depends on 94×94 pixels of the map, and there is one for every 32×32."""
    torch.manual_seed(0)
    maps = torch.rand(1, 2, 256, 256, requires_grad=True)
    decision = PatchDiscriminator(2)(maps)
    assert decision.shape == (1, 1, 8, 8)
    decision[0, 0, 4, 4].backward()
    seen = maps.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 94
    assert int(columns.max() - columns.min()) + 1 == 94


def test_group_normalisation_follows_all_but_the_last_convolution():
    """DAMT-Net's label discriminator normalises 64, 128, 256 and 512 channels in 32 groups, without scale or offset."""
    found = [m for m in PatchDiscriminator(2, normalised=True) if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels, m.affine) for m in found] == [
        (32, channels, False) for channels in (64, 128, 256, 512)
    ]
    assert not any(isinstance(m, nn.GroupNorm) for m in PatchDiscriminator(2))


def test_the_feature_discriminator_takes_any_size_and_gives_one_logit():
    """The mean over pixels frees it of the patch size; 63,745 weights for 12 channels instead of 56.7 million."""
    network = FeatureDiscriminator(12)
    convolutions = 12 * 48 * 9 + 48 + 2 * (48 * 48 * 9 + 48)
    assert weights(network) == convolutions + (48 * 144 + 144) + (144 + 1)
    for side in (8, 40):
        assert network(torch.rand(3, 12, side, side)).shape == (3, 1)


def test_the_reversed_gradient_has_the_opposite_sign_and_the_factors_size():
    """Forward the identity; backward −factor times the gradient: of Σ 3x with factor 0.25 it is −0.75."""
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-0.75, -0.75]))


def test_weight_similarity_is_a_cosine_averaged_over_layers():
    """1 for equal weights, −1 for opposite ones, and a mean over the layers in between."""
    one, other = PatchDiscriminator(4), PatchDiscriminator(4)
    other.load_state_dict(one.state_dict())
    assert weight_similarity(one, other).item() == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        other[0].weight.neg_()
    assert weight_similarity(one, other).item() == pytest.approx((4 - 1) / 5, abs=1e-4)
    with torch.no_grad():
        for module in list(other)[1:]:
            if isinstance(module, nn.Conv2d):
                module.weight.neg_()
    assert weight_similarity(one, other).item() == pytest.approx(-1, abs=1e-4)


def test_the_reconstruction_decoder_is_that_of_damt_net():
    """9,402,305 parameters on the U-Net, 38,344,003 with it; 308.4 GMAC for a 512×512 section together."""
    with torch.device("meta"):
        network = build_network("unet")
        decoder = ReconstructionDecoder(network)
    assert weights(decoder) == 9_402_305
    assert weights(network) + weights(decoder) == 38_344_003
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        macs += output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    for module in (*network.modules(), *decoder.modules()):
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    features = network.encode(torch.zeros(1, 1, 512, 512, device="meta"))
    network.head(features.full)
    decoder.layers(features.bottleneck)
    assert macs / 1e9 == pytest.approx(308.4, abs=0.1)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_a_reconstruction_has_the_pixels_of_the_sections(grid):
    """Coarser networks give grid² images of each section that shuffle to the full one."""
    network = tiny(grid)
    images = torch.randn(2, 2, 16 * grid, 32 * grid)
    decoder = ReconstructionDecoder(network)
    assert decoder.layers[-1].out_channels == 2 * grid**2
    assert decoder(network(images).bottleneck).shape == images.shape


def test_sections_that_never_meet_are_reconstructed_on_their_own():
    """On a network of single sections, swapping the sections swaps the images."""
    torch.manual_seed(0)
    network = Rsunet()
    decoder = ReconstructionDecoder(network)
    images = torch.randn(1, 2, 32, 32)
    swapped = decoder(network(images.flip(1)).bottleneck)
    assert torch.allclose(decoder(network(images).bottleneck).flip(1), swapped, atol=1e-5)


def test_the_auxiliary_head_reads_the_half_resolution_of_each_branch():
    """Its first logits depend on the first branch's half-resolution features alone, and are on the output grid."""
    network = tiny()
    output = network(batches()[0].images)
    half = [features.detach().requires_grad_() for features in output.half]
    first, second = AuxiliaryHead(network)(output._replace(half=tuple(half)))
    assert first.shape == second.shape == output.first.shape
    first.sum().backward()
    assert half[0].grad is not None
    assert half[1].grad is None
    assert len(AuxiliaryHead(network).branches) == 2
    assert len(AuxiliaryHead(Rsunet()).branches) == 1


def test_the_residual_label_is_unknown_where_either_section_is():
    """XOR of known labels; IGNORE beats both."""
    labels = torch.tensor([[0, 0, 1, 1, IGNORE, 1], [0, 1, 0, 1, 1, IGNORE]]).reshape(1, 2, 1, 6)
    assert residual_labels(labels).flatten().tolist() == [0, 1, 1, 0, IGNORE, IGNORE]


def test_ignored_pixels_give_no_gradient():
    """In L_s neither mask nor residual learns at a pixel that is ignored."""
    logits = [torch.zeros(1, 2, 1, 3, requires_grad=True) for _ in range(3)]
    none = torch.zeros(0)
    labels = torch.tensor([[[[0, 1, IGNORE]], [[1, IGNORE, 1]]]])
    sum(pair_cross_entropy(PairOutput(*logits, none, (none, none), (none, none)), labels).values()).backward()
    grads = [(x.grad.abs().sum(1).flatten() > 0).tolist() for x in logits]
    assert grads == [[True, True, False], [True, False, True], [True, False, False]]


def test_soft_dice_by_hand():
    """Two pixels, p = (0.5, 0.5) everywhere, one of each class: 1 − (2·0.5 + 1) / (0.5 + 1 + 1) = 0.2 per class."""
    labels = torch.tensor([[[0, 1]]])
    assert float(soft_dice(torch.zeros(1, 2, 1, 2), labels)) == pytest.approx(0.2)
    sure = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    assert float(soft_dice(sure, labels)) == pytest.approx(0, abs=1e-6)
    ignored = torch.tensor([[[0, 1, IGNORE]]])
    assert float(soft_dice(torch.zeros(1, 2, 1, 3), ignored)) == pytest.approx(0.2)


def test_entropy_is_largest_where_nothing_is_known():
    """ln 2 for even odds, 0 for certainty."""
    p = torch.tensor([0.5, 1.0, 0.9]).reshape(1, 1, 1, 3)
    assert entropy(torch.cat([p, 1 - p], 1)).flatten().tolist() == pytest.approx(
        [0.6931, 0, 0.3251], abs=1e-4
    )
