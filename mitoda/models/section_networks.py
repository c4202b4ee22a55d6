"""Networks of other papers that see each section on its own, behind the interface of a pair network.

    section k   ──whole network── features ──head──> logits of k
    section k+s ──whole network── features ──head──> logits of k + stride        no residual

Both are U-Nets of five levels. `encode` computes all but the last layer, so that inference computes a section once
although it is in two pairs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.models.pair_networks import Channels, PairNetwork, PairOutput


class DecodedSection(NamedTuple):
    """All features of one section."""

    full: Tensor
    """(B, C, h, w), last features."""
    half: Tensor
    """(B, C, h/2, w/2) of the decoder."""
    bottleneck: Tensor
    """(B, C, h/16, w/16)."""


class SectionNetwork(PairNetwork):
    """Base of both: one set of weights for both sections, which never meet; `residual` is always None."""

    joined = False
    down: nn.ModuleList
    """Blocks of the encoder, from fine to coarse; 2×2 max pooling between them."""
    narrow: nn.ModuleList
    """1×1 convolutions after upsampling, from coarse to fine."""
    up: nn.ModuleList
    """Blocks of the decoder, from coarse to fine."""
    head: nn.Conv2d

    def __init__(self, widths: tuple[int, ...]) -> None:
        nn.Module.__init__(self)  # a pair network's interface without its layers
        self.grid = 1
        self.channels = Channels(widths[-1], widths[1], widths[0])

    def stem(self, section: Tensor) -> Tensor:
        """Layers before the first block of the encoder."""
        return section

    def merge(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Join the encoder's features to the upsampled ones."""
        raise NotImplementedError

    def encode(self, section: Tensor) -> DecodedSection:  # type: ignore[override]
        """Compute all but the logits of one section (B, 1, H, W); H and W divisible by 16."""
        self.check_size(section)
        x = self.stem(section.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        decoded = [skips.pop()]
        for narrow, block in zip(self.narrow, self.up, strict=True):
            coarse = F.interpolate(decoded[-1], scale_factor=2, mode="bilinear", align_corners=False)
            decoded.append(block(self.merge(skips.pop(), narrow(coarse))))
        return DecodedSection(decoded[-1], decoded[-2], decoded[0])

    def decode(  # type: ignore[override]
        self, first: DecodedSection, second: DecodedSection, residual: bool = True
    ) -> PairOutput:
        """Logits of both sections; `residual` changes nothing."""
        return PairOutput(
            self.head(first.full),
            self.head(second.full),
            None,
            torch.cat([first.bottleneck, second.bottleneck], dim=1),
            (first.half, second.half),
            (first.full, second.full),
        )


def _upward(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Input and output channels of the decoder's levels, from coarse to fine."""
    return list(zip(widths[:0:-1], widths[-2::-1], strict=True))


class ResidualBlock(nn.Module):
    """Three 3×3 convolutions with ELU; the first one's output is added before the last ELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.middle = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.leave = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        entered = F.elu(self.enter(x))
        return F.elu(self.leave(F.elu(self.middle(entered))) + entered)


class Rsunet(SectionNetwork):
    """Residual symmetric U-Net of UALR, in two dimensions; no normalisation, skips are added.

    567,314 parameters and 10.32 GMAC for a 512×512 section. Kaiming-normal weights, zero biases. The reference divides
    grey values by 255; here each section is stretched to 0…1.

    References
    ----------
    Wu, Chen, Xiong, Chen, Sun, "Uncertainty-aware label rectification for domain adaptive mitochondria
    segmentation", MICCAI 2021.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 80)) -> None:
        super().__init__(widths)
        self.enter = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            ResidualBlock(i, o) for i, o in zip((widths[0], *widths), widths, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in _upward(widths))
        self.up = nn.ModuleList(ResidualBlock(o, o) for _, o in _upward(widths))
        self.head = nn.Conv2d(widths[0], 2, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Kaiming-normal weights; set biases to zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def stem(self, section: Tensor) -> Tensor:
        """See `SectionNetwork.stem`."""
        return F.elu(self.enter(section))

    def merge(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """See `SectionNetwork.merge`."""
        return F.elu(coarse + skip)


class GroupedConvolution(nn.Sequential):
    """Twice (3×3 convolution, group normalisation without scale or offset, ReLU).

    32 groups as in DAMT-Net, or as many as divide the channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        groups = next(count for count in (32, 16, 8, 4, 2, 1) if outputs % count == 0)
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1),
                nn.GroupNorm(groups, outputs, affine=False),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Unet(SectionNetwork):
    """DAMT-Net's U-Net: encoder of 18,842,048 parameters, segmentation decoder of 10,099,650; skips are concatenated.

    References
    ----------
    Peng, Yi, Yuan, "Unsupervised mitochondria segmentation in EM images via domain adaptive multi-task learning", IEEE
    J-STSP 14(6), 2020, doi 10.1109/JSTSP.2020.3005317.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__(widths)
        self.down = nn.ModuleList(
            GroupedConvolution(i, o) for i, o in zip((1, *widths), widths, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in _upward(widths))
        self.up = nn.ModuleList(GroupedConvolution(2 * o, o) for _, o in _upward(widths))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def merge(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """See `SectionNetwork.merge`."""
        return torch.cat([skip, coarse], dim=1)
