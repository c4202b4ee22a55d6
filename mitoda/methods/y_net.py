"""Y-Net: a second decoder reconstructs the images of both domains from the bottleneck.

Roels, Hennies, Saeys, Philips, Kreshuk, "Domain adaptive segmentation in volume electron microscopy imaging", ISBI
2019, arXiv 1810.09734; code JorisRoels/domain-adaptive-segmentation 900698b, which is newer than the paper. With
r the reconstruction, without skip connections, of images x:

    L = L_s + λ [MSE(r_source, x_source) + MSE(r_target, x_target)]

so that the shared encoder must describe the target too. The target touches neither the skip connections' way to the
masks nor the segmentation decoder.

Where this differs from the code: L_s is the cross-entropy that all methods here learn (`--set dice=true` takes the
code's soft Dice for the masks; the residual keeps its cross-entropy); optimiser, schedule and network are the
backbone's, not Adam 1e-3 with a decay of 0.95 every five epochs and batch normalisation. The code's images lie between
0 and 1; where the backbone's are standardised, errors are multiplied by the variance that such images have, so that λ
means the same.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mitoda.methods.adversarial import TwoDomainMethod
from mitoda.methods.base import MethodSettings, NotNegative
from mitoda.methods.losses import pair_cross_entropy, soft_dice
from mitoda.models.heads import ReconstructionDecoder
from mitoda.models.pair_networks import PairOutput

UNIT_VARIANCE = 0.04
"""Mean variance of the grey values in patches of 512×512 pixels of sections stretched to 0…1: 0.046 in VNC III, 0.028
in Lucchi, 0.039 in CDeep3M."""


@dataclass(frozen=True)
class YNetSettings(MethodSettings):
    """Weights of the losses."""

    reconstruction: NotNegative = 1.0
    """λ of the reconstruction losses, on grey values from 0 to 1: 1 in the code's YAML files (0.1 in its experiment
    builder)."""
    dice: bool = False
    """Soft Dice instead of cross-entropy for the two masks, as in the code."""


class YNet(TwoDomainMethod):
    """L_s and the reconstruction of both domains."""

    Settings: ClassVar[type[MethodSettings]] = YNetSettings
    title: ClassVar[str] = "Y-Net: reconstruction of both domains (ISBI 2019)"
    settings: YNetSettings

    def build(self) -> None:
        """Add the decoder."""
        super().build()
        self.add_head("reconstruction", ReconstructionDecoder(self.network))
        self.weight = self.settings.reconstruction
        if self.backbone.normalisation == "standard":
            self.weight *= UNIT_VARIANCE

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """L_s and the reconstruction of the source."""
        losses = pair_cross_entropy(output, labels)
        if self.settings.dice:
            losses["first"] = soft_dice(output.first, labels[:, 0])
            losses["second"] = soft_dice(output.second, labels[:, 1])
        return losses | {"reconstruction_source": self.reconstruction_loss(output, images)}

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """The reconstruction of the target."""
        return {"reconstruction_target": self.reconstruction_loss(output, images)}

    def reconstruction_loss(self, output: PairOutput, images: Tensor) -> Tensor:
        """Weighted mean squared error of the reconstructed pair."""
        with self.autocast():
            reconstructed = self.heads["reconstruction"](output.bottleneck)
        return self.weight * F.mse_loss(reconstructed, images)
