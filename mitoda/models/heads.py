"""Networks that train beside the segmentation network: discriminators, an auxiliary head and an image decoder."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.models.pair_networks import PairNetwork, PairOutput
from mitoda.models.section_networks import GroupedConvolution


class PatchDiscriminator(nn.Sequential):
    """Fully convolutional discriminator of AdaptSegNet and DA-ISC.

    Five convolutions of kernel 4, stride 2, padding 1 with leaky ReLU (0.2) between; one logit per 32×32 input pixels,
    each with a receptive field of 94 pixels. 2,763,713 parameters for two input channels.

    References
    ----------
    Tsai et al., "Learning to Adapt Structured Output Space for Semantic Segmentation", CVPR 2018.

    Parameters
    ----------
    channels : int
        Channels of the input: 2 for one softmax map, 4 for two.
    normalised : bool
        Group normalisation of 32 groups without scale or offset after all but the last convolution (DAMT-Net).
    """

    def __init__(self, channels: int = 2, normalised: bool = False) -> None:
        widths = (channels, 64, 128, 256, 512)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
            if normalised:
                layers.append(nn.GroupNorm(32, outputs, affine=False))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class FeatureDiscriminator(nn.Sequential):
    """Domain classifier on the last features: one logit for each section.

    Three times (3×3 convolution to 48 channels, group normalisation of 4 groups without scale or offset, ReLU, 2×2 max
    pooling) as in DAMT-Net; then the mean over all pixels and two linear layers (144 wide). DAMT-Net flattens instead,
    which ties it to 512×512 inputs and takes 56.7 M parameters. Its two logits become one: their difference.

    References
    ----------
    Peng, Yi, Yuan, "Unsupervised mitochondria segmentation in EM images via domain adaptive multi-task learning", 2020.

    Parameters
    ----------
    channels : int
        Channels of the features; their sides must be at least 8.
    """

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, 48, 48):
            layers += [
                nn.Conv2d(inputs, 48, 3, padding=1),
                nn.GroupNorm(4, 48, affine=False),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        super().__init__(
            *layers,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(48, 144),
            nn.ReLU(inplace=True),
            nn.Linear(144, 1),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class GradientReversal(torch.autograd.Function):
    """The identity forward; backward the gradient times a negative factor (Ganin and Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """Return the features unchanged; their gradient is multiplied by −factor."""
    apply: Callable[[Tensor, float], Tensor] = GradientReversal.apply
    return apply(features, factor)


def weight_similarity(first: nn.Module, second: nn.Module) -> Tensor:
    """Mean cosine between the convolution weights of two networks of one shape, layer by layer; −1 to 1.

    DA-VSN adds 1 to it and minimises it, so that its two discriminators differ.
    """
    cosines = [
        F.cosine_similarity(a.weight.flatten(), b.weight.flatten(), dim=0)
        for a, b in zip(first.modules(), second.modules(), strict=True)
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.Conv2d)
    ]
    return torch.stack(cosines).mean()


class AuxiliaryHead(nn.Module):
    """Logits from the half-resolution features, upsampled bilinearly to the output grid: AdaptSegNet's second level.

    One 1×1 convolution for each branch; one for both sections where the network shares its weights between them.
    """

    def __init__(self, network: PairNetwork) -> None:
        super().__init__()
        branches = 2 if network.joined else 1
        self.branches = nn.ModuleList(nn.Conv2d(network.channels.half, 2, 1) for _ in range(branches))

    def forward(self, output: PairOutput) -> tuple[Tensor, Tensor]:
        """Logits (B, 2, h, w) of both sections."""
        first, second = (
            F.interpolate(branch(features).float(), scale_factor=2.0, mode="bilinear", align_corners=False)
            for branch, features in zip((self.branches[0], self.branches[-1]), output.half, strict=True)
        )
        return first, second


class ReconstructionDecoder(nn.Module):
    """Images from the bottleneck, without skip connections.

    Four times (bilinear upsampling, two 3×3 convolutions to half the channels) and a linear 1×1 convolution: DAMT-Net's
    decoder, with 9,402,305 parameters on its own U-Net. On a network with coarser output pixels, it predicts grid²
    images of each section on the output grid, which are shuffled to one at full resolution.

        joined sections      (B, C, h/16, w/16) ─> (B, 2 grid², h, w) ─> (B, 2, H, W)
        separate sections    (B, 2C, …) ─> (2B, C, …) ─> (2B, 1, H, W) ─> (B, 2, H, W)
    """

    def __init__(self, network: PairNetwork) -> None:
        super().__init__()
        self.joined = network.joined
        self.grid = network.grid
        channels = network.channels.bottleneck
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                GroupedConvolution(channels, channels // 2),
            ]
            channels //= 2
        sections = 2 if self.joined else 1
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, sections * self.grid**2, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Images (B, 2, H, W) of both sections, in normalised grey values."""
        if self.joined:
            return F.pixel_shuffle(self.layers(bottleneck).float(), self.grid)
        separate = self.layers(torch.cat(bottleneck.chunk(2, dim=1))).float()
        return torch.cat(F.pixel_shuffle(separate, self.grid).chunk(2), dim=1)
