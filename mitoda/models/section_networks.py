"""Networks of other papers that see each section on its own, behind the interface of a pair network.

    section k   ──whole network── features ──head──> logits of k
    section k+s ──whole network── features ──head──> logits of k + stride        no residual

So losses, inference and the training loop work unchanged. `encode` does all but the last layer: a section that is in
two pairs is computed once where its features are kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.models.pair_networks import Channels, DecodedSection, PairNetwork, PairOutput


class SectionNetwork(PairNetwork):
    """Base of both: weights shared between the sections, which never meet; `residual` is always None.

    Children have `features`, which maps a section (B, 1, H, W) to a `DecodedSection`, and a `head`.

    Parameters
    ----------
    channels : Channels
    """

    joined = False
    head: nn.Conv2d

    def __init__(self, channels: Channels) -> None:
        nn.Module.__init__(self)  # a pair network's interface without its layers
        self.grid = 1
        self.channels = channels

    def features(self, section: Tensor) -> DecodedSection:
        """All features of a section, at its own size."""
        raise NotImplementedError

    def encode(self, section: Tensor) -> DecodedSection:  # type: ignore[override]
        """Compute all but the logits of one section (B, 1, H, W); H and W divisible by 16."""
        self.check_size(section)
        return self.features(section.contiguous(memory_format=torch.channels_last))

    def decode(  # type: ignore[override]
        self, first: DecodedSection, second: DecodedSection, residual: bool = True
    ) -> PairOutput:
        """Logits of both sections; there is no residual to ask for."""
        return PairOutput(
            self.head(first.full),
            self.head(second.full),
            None,
            torch.cat([first.bottleneck, second.bottleneck], dim=1),
            (first.half, second.half),
            (first.full, second.full),
        )


def upsampled(coarse: Tensor) -> Tensor:
    """Double the resolution bilinearly."""
    return F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)


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

    567,314 parameters and 10.32 GMAC for a 512×512 section. Kaiming-normal weights, zero biases. The reference reads
    grey values divided by 255, where this network gets them stretched to 0…1 section by section.

    References
    ----------
    Wu, Chen, Xiong, Chen, Sun, "Uncertainty-aware label rectification for domain adaptive mitochondria
    segmentation", MICCAI 2021.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 80)) -> None:
        super().__init__(Channels(widths[-1], widths[1], widths[0]))
        self.enter = nn.Conv2d(1, widths[0], 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(
            ResidualBlock(i, o) for i, o in zip((widths[0], *widths), widths, strict=False)
        )
        upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # from coarse to fine
        self.narrow = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in upward)
        self.up = nn.ModuleList(ResidualBlock(o, o) for _, o in upward)
        self.head = nn.Conv2d(widths[0], 2, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal weights, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, section: Tensor) -> DecodedSection:
        """See `SectionNetwork.features`."""
        x = F.elu(self.enter(section))
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        climbed = [skips.pop()]
        for narrow, block in zip(self.narrow, self.up, strict=True):
            climbed.append(block(F.elu(narrow(upsampled(climbed[-1])) + skips.pop())))
        return DecodedSection(climbed[-1], climbed[-2], climbed[0])


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
    """DAMT-Net's U-Net: encoder of 18,842,048 parameters, segmentation decoder of 10,099,650.

    Upwards: bilinear, 1×1 convolution to half the channels, concatenated with the skip, convolved twice.

    References
    ----------
    Peng, Yi, Yuan, "Unsupervised mitochondria segmentation in EM images via domain adaptive multi-task learning", IEEE
    J-STSP 14(6), 2020, doi 10.1109/JSTSP.2020.3005317.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__(Channels(widths[-1], widths[1], widths[0]))
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(
            GroupedConvolution(i, o) for i, o in zip((1, *widths), widths, strict=False)
        )
        upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in upward)
        self.up = nn.ModuleList(GroupedConvolution(2 * o, o) for _, o in upward)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def features(self, section: Tensor) -> DecodedSection:
        """See `SectionNetwork.features`."""
        x = section
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        climbed = [skips.pop()]
        for narrow, block in zip(self.narrow, self.up, strict=True):
            climbed.append(block(torch.cat([skips.pop(), narrow(upsampled(climbed[-1]))], dim=1)))
        return DecodedSection(climbed[-1], climbed[-2], climbed[0])


SECTION_NETWORKS: dict[str, type[Rsunet] | type[Unet]] = {"rsunet": Rsunet, "unet": Unet}
"""By the `architecture` of a backbone."""
