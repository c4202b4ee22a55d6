"""Pair networks: two sections in, two masks and their residual out.

The topology is that of DA-ISC (MICCAI 2022, Fig. 2): an encoder applied to each section, a joined body, a segmentation
decoder that ends in one branch per section, and a residual decoder that predicts the XOR of the two masks.

    section k   ──encode──┐            ┌─ branch ─> logits of k
                          ├─ body ─────┼─ branch ─> logits of k + stride
    section k+s ──encode──┘            └─ residual decoder ─> logits of the XOR

`codetection` is the paper's network at full resolution; `compact` works on a pixel-unshuffled input, on pixels four
times coarser (about 20 nm).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.errors import InputError
from mitoda.models.normalisation import InstanceNorm


class SectionFeatures(NamedTuple):
    """Output of the encoder for one section."""

    fine: Tensor
    """(B, C, h, w) on the network's output grid."""
    half: Tensor
    """(B, 2C, h/2, w/2)."""


class PairOutput(NamedTuple):
    """Logits over (background, mitochondrion) on the output grid, and features that some methods use."""

    first: Tensor
    """(B, 2, h, w) of section k."""
    second: Tensor
    """(B, 2, h, w) of section k + stride."""
    residual: Tensor | None
    """(B, 2, h, w) over (unchanged, changed); None if the residual decoder did not run."""
    bottleneck: Tensor
    """(B, C, h/16, w/16), coarsest features; of a network that does not join the sections, of the first and then of the
    second."""
    half: tuple[Tensor, Tensor]
    """(B, C, h/2, w/2) of each branch."""
    full: tuple[Tensor, Tensor]
    """(B, C, h, w) of each branch, before its last layers."""


class Channels(NamedTuple):
    """Channels of the features in `PairOutput`."""

    bottleneck: int
    """Of one section if the sections are not joined."""
    half: int
    full: int


@dataclass(frozen=True)
class Widths:
    """Channels of each stage of a pair network."""

    encoder: tuple[int, int]
    """Of one section, at 1 and 1/2 of the output grid."""
    body: tuple[int, int, int]
    """Of both sections, at 1/4, 1/8 and 1/16."""
    decoder: tuple[int, int, int, int]
    """At 1/8, 1/4, 1/2 and 1."""


class DoubleConvolution(nn.Sequential):
    """Twice (3×3 convolution, instance normalisation, ReLU)."""

    def __init__(self, inputs: int, outputs: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            InstanceNorm(outputs, affine),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            InstanceNorm(outputs, affine),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """Halve the resolution by max pooling, then convolve twice."""

    def __init__(self, inputs: int, outputs: int, affine: bool) -> None:
        super().__init__(nn.MaxPool2d(2), DoubleConvolution(inputs, outputs, affine))


class Up(nn.Module):
    """Double the resolution, by a transposed convolution if `learnt`; put the skips in front; convolve twice."""

    def __init__(self, inputs: int, skip: int, outputs: int, affine: bool, learnt: bool) -> None:
        super().__init__()
        self.upsample: nn.Module
        if learnt:
            self.upsample = nn.ConvTranspose2d(inputs, inputs, 2, stride=2)
        else:
            self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.convolve = DoubleConvolution(skip + inputs, outputs, affine)

    def forward(self, coarse: Tensor, *skips: Tensor) -> Tensor:
        convolved: Tensor = self.convolve(torch.cat([*skips, self.upsample(coarse)], dim=1))
        return convolved


class Head(nn.Sequential):
    """3×3 convolution, instance normalisation, ReLU, and a 3×3 convolution to two logits.

    With a `prior`, the offsets of the logits begin at that probability of the second class, as in Lin et al., "Focal
    loss for dense object detection", ICCV 2017. Without it, the weights must learn that mitochondria are rare: nearly
    all channels come to argue against them, and the probability of a mitochondrion stays low however clear it is.
    """

    def __init__(self, channels: int, affine: bool, prior: float | None) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            InstanceNorm(channels, affine),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2, 3, padding=1),
        )
        self.prior = prior
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the offsets of the logits to the prior; those of the layers before are drawn by themselves."""
        if self.prior is not None:
            odds = math.log(self.prior / (1 - self.prior))
            with torch.no_grad():
                self.get_parameter("3.bias").copy_(torch.tensor([-odds / 2, odds / 2]))


class PairNetwork(nn.Module):
    """The pair topology at given widths.

    Parameters
    ----------
    widths : Widths
    grid : int
        Side of an output pixel in input pixels. Above 1 the input is pixel-unshuffled.
    affine : bool
        Whether normalisation has a learnt scale and offset.
    learnt_upsampling : bool
        Transposed convolution instead of nearest neighbour.
    prior : float, optional
        Share of mitochondria, and of changed pixels, that a new network predicts everywhere; by default about a half.
    """

    joined: ClassVar[bool] = True
    """Whether the two sections meet in one bottleneck and have a residual decoder."""
    grid: int
    channels: Channels

    def __init__(
        self,
        widths: Widths,
        grid: int,
        affine: bool,
        learnt_upsampling: bool,
        prior: float | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        fine, half = widths.encoder
        quarter, eighth, sixteenth = widths.body
        up_eighth, up_quarter, up_half, up_full = widths.decoder
        self.channels = Channels(sixteenth, up_half, up_full)
        up = (affine, learnt_upsampling)

        self.encoder_fine = DoubleConvolution(grid * grid, fine, affine)
        self.encoder_half = Down(fine, half, affine)
        self.body_quarter = Down(2 * half, quarter, affine)
        self.body_eighth = Down(quarter, eighth, affine)
        self.body_sixteenth = Down(eighth, sixteenth, affine)

        self.up_eighth = Up(sixteenth, eighth, up_eighth, *up)
        self.up_quarter = Up(up_eighth, quarter, up_quarter, *up)
        self.up_half = nn.ModuleList(Up(up_quarter, half, up_half, *up) for _ in range(2))
        self.up_full = nn.ModuleList(Up(up_half, fine, up_full, *up) for _ in range(2))
        self.heads = nn.ModuleList(Head(up_full, affine, prior) for _ in range(2))

        self.residual_up_eighth = Up(sixteenth, eighth, up_eighth, *up)
        self.residual_up_quarter = Up(up_eighth, quarter, up_quarter, *up)
        self.residual_up_half = Up(up_quarter, 2 * half, up_half, *up)
        self.residual_up_full = Up(up_half, 2 * fine, up_full, *up)
        self.residual_head = Head(up_full, affine, prior)

    @property
    def multiple(self) -> int:
        """Number that both sides of an input, in pixels, must be divisible by."""
        return 16 * self.grid

    def check_size(self, section: Tensor) -> None:
        """Raise InputError if the sides of a section are not divisible by `multiple`."""
        if section.shape[-2] % self.multiple or section.shape[-1] % self.multiple:
            raise InputError(
                f"a section of {section.shape[-2]}×{section.shape[-1]} pixels does not fit the network; "
                f"both sides must be divisible by {self.multiple}"
            )

    def encode(self, section: Tensor) -> SectionFeatures:
        """Encode one section.

        Parameters
        ----------
        section : Tensor, shape (B, 1, H, W)
            Normalised grey values; H and W divisible by `multiple`.
        """
        self.check_size(section)
        if self.grid > 1:
            section = F.pixel_unshuffle(section, self.grid)  # (B, grid², H/grid, W/grid)
        fine = self.encoder_fine(section.contiguous(memory_format=torch.channels_last))
        return SectionFeatures(fine, self.encoder_half(fine))

    def decode(self, first: SectionFeatures, second: SectionFeatures, residual: bool = True) -> PairOutput:
        """Predict both masks from two encoded sections, and their residual if `residual`."""
        joined = torch.cat([first.half, second.half], dim=1)
        quarter = self.body_quarter(joined)
        eighth = self.body_eighth(quarter)
        bottleneck = self.body_sixteenth(eighth)

        trunk = self.up_quarter(self.up_eighth(bottleneck, eighth), quarter)
        half = [up(trunk, section.half) for up, section in zip(self.up_half, (first, second), strict=True)]
        full = [
            up(coarse, section.fine)
            for up, coarse, section in zip(self.up_full, half, (first, second), strict=True)
        ]
        logits = [head(features) for head, features in zip(self.heads, full, strict=True)]

        changed = None
        if residual:
            coarse = self.residual_up_quarter(self.residual_up_eighth(bottleneck, eighth), quarter)
            coarse = self.residual_up_half(coarse, second.half, first.half)
            changed = self.residual_head(self.residual_up_full(coarse, second.fine, first.fine))
        return PairOutput(logits[0], logits[1], changed, bottleneck, (half[0], half[1]), (full[0], full[1]))

    def forward(self, images: Tensor, residual: bool = True) -> PairOutput:
        """Predict a batch of pairs.

        Parameters
        ----------
        images : Tensor, shape (B, 2, H, W)
            Normalised grey values of sections k and k + stride.
        """
        B = images.shape[0]
        both = self.encode(torch.cat([images[:, :1], images[:, 1:]]))  # (2B, 1, H, W)
        first = type(both)(*(features[:B] for features in both))
        second = type(both)(*(features[B:] for features in both))
        return self.decode(first, second, residual)
