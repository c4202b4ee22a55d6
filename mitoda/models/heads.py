"""Networks that learn beside the segmentation network: an auxiliary head, and a decoder of images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.models.pair_networks import PairNetwork, PairOutput
from mitoda.models.section_networks import GroupedConvolution


class AuxiliaryHead(nn.Module):
    """Logits from the half-resolution features, upsampled bilinearly to the output grid: AdaptSegNet's second level.

    One 1×1 convolution for each branch; one for both sections where the network shares its weights between them.

    Parameters
    ----------
    network : PairNetwork
        Whose `PairOutput` it will read.
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
    """Images from the bottleneck, without skip connections, so that the bottleneck alone must describe them.

    Four times (bilinear upsampling, two 3×3 convolutions to half the channels) and a linear 1×1 convolution: DAMT-Net's
    decoder, with 9,402,305 parameters on its own U-Net. A network that works on coarser pixels gets grid² images of
    every section there, which shuffle to the full one.

        joined sections    (B, C, h/16, w/16) ─> (B, 2 grid², h, w) ─> (B, 2, H, W)
        sections apart     (B, 2C, …) ─> (2B, C, …) ─> (2B, 1, H, W) ─> (B, 2, H, W)

    Parameters
    ----------
    network : PairNetwork
        Whose bottleneck it will read.
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
        apart = self.layers(torch.cat(bottleneck.chunk(2, dim=1))).float()
        return torch.cat(F.pixel_shuffle(apart, self.grid).chunk(2), dim=1)
