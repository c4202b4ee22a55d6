"""Discriminators: networks that tell the source domain from the target domain."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        Channels of the map that is judged: 2 for one softmax map, 4 for two.
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
    which ties it to 512×512 inputs and takes 56.7 M parameters. One logit stands for its two: their difference.

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
        """Return the features as they are."""
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return −factor times the gradient."""
        return -ctx.factor * gradient, None


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """Pass features on unchanged, and −factor times their gradient back."""
    return GradientReversal.apply(features, factor)


def weight_similarity(first: nn.Module, second: nn.Module) -> Tensor:
    """Mean cosine between the convolution weights of two networks of one shape, layer by layer; −1 to 1.

    DA-VSN adds 1 to it and minimises it, so that its two discriminators look at different things.
    """
    cosines = [
        F.cosine_similarity(a.weight.flatten(), b.weight.flatten(), dim=0)
        for a, b in zip(first.modules(), second.modules(), strict=True)
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.Conv2d)
    ]
    return torch.stack(cosines).mean()


def set_trainable(module: nn.Module, trainable: bool) -> None:
    """Freeze or unfreeze all parameters; gradients still flow through a frozen module to its input."""
    for parameter in module.parameters():
        parameter.requires_grad_(trainable)


def gradient_norm_clipped(module: nn.Module, limit: float = 1.0) -> Tensor:
    """Scale the gradients of a module to a norm of at most `limit`; return the norm before."""
    return torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
