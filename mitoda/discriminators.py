"""Discriminators: networks that tell the source domain from the target domain."""

import torch
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
    """

    def __init__(self, channels: int = 2) -> None:
        widths = (channels, 64, 128, 256, 512)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def set_trainable(module: nn.Module, trainable: bool) -> None:
    """Freeze or unfreeze all parameters; gradients still flow through a frozen module to its input."""
    for parameter in module.parameters():
        parameter.requires_grad_(trainable)


def gradient_norm_clipped(module: nn.Module, limit: float = 1.0) -> Tensor:
    """Scale the gradients of a module to a norm of at most `limit`; return the norm before."""
    return torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
