"""DAMT-Net: masks, reconstruction, and discriminators of masks and of features.

Peng, Yi, Yuan, "Unsupervised mitochondria segmentation in EM images via domain adaptive multi-task learning", IEEE
J-STSP 14(6), 2020, doi 10.1109/JSTSP.2020.3005317; code Jiajin-Yi/DAMT-Net 7f6487b. With s the softmax map of a
section, f its last features and r the reconstruction (no skip connections) of its image x:

    L   = L_s + 5e-4 · ½ [MSE(r_source, x_source) + MSE(r_target, x_target)]      reconstruction after a warm-up
            + 1e-3 BCE(D_l(s_target), 1) + 1e-3 BCE(D_f(f_target), 1)
    L_D = ½ [BCE(D(source), 1) + BCE(D(target), 0)]                               for D_l and D_f

Here the source is 1 and the target 0, as in this code and unlike the other methods: the sign of the discriminators'
output is all that depends on it, and their decisions then read as the paper's. D_f learns in turns with the network,
without gradient reversal.

Where this differs from the code:
- It runs the target a second time for the adversarial losses. No weight changes in between, so one run serves both.
- Its D_l declares a wrong number of channels for the group normalisation, which today's PyTorch refuses; ours has the
  true one. Its D_f flattens to 56.7 M weights; ours takes the mean over pixels (`FeatureDiscriminator`).
- It first trains without reconstruction for a length nobody states; here for `warmup` of the run.
- Learning rates follow the loop's schedule, not steps of 0.9. There is no morphological post-processing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mitoda.methods.adversarial import AdversarialSettings, TwoDomainMethod
from mitoda.methods.base import MethodSettings, NotNegative, Share
from mitoda.methods.losses import pair_cross_entropy, probabilities
from mitoda.models.heads import FeatureDiscriminator, PatchDiscriminator, ReconstructionDecoder
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class DamtNetSettings(AdversarialSettings):
    """Weights of the losses, from the code; 0 switches one off."""

    reconstruction: NotNegative = 5e-4
    """Of the mean of both domains' reconstruction losses."""
    label_adversarial: NotNegative = 1e-3
    """Of the adversarial loss on masks."""
    feature_adversarial: NotNegative = 1e-3
    """Of the adversarial loss on features."""
    warmup: Share = 0.1
    """Share of the run without reconstruction; the README has such a stage but not its length, so this is ours."""


class DamtNet(TwoDomainMethod):
    """L_s, reconstruction, and adversarial masks and features."""

    Settings: ClassVar[type[MethodSettings]] = DamtNetSettings
    title: ClassVar[str] = "DAMT-Net: reconstruction, adversarial masks and features (J-STSP 2020)"
    settings: DamtNetSettings
    source_answer: ClassVar[float] = 1.0
    target_answer: ClassVar[float] = 0.0

    def build(self) -> None:
        """Add the decoder, D_l and D_f."""
        super().build()
        self.add_head("reconstruction", ReconstructionDecoder(self.network))
        s, rate = self.settings, self.settings.discriminator_learning_rate
        labels = PatchDiscriminator(2, normalised=True)
        self.add_discriminator("label", labels, rate, s.label_adversarial)
        features = FeatureDiscriminator(self.network.channels.full)
        self.add_discriminator("feature", features, rate, s.feature_adversarial)

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """L_s, and the reconstruction of the source after the warm-up."""
        return pair_cross_entropy(output, labels) | self.reconstruction(
            "reconstruction_source", output, images, progress
        )

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """The reconstruction of the target after the warm-up."""
        return self.reconstruction("reconstruction_target", output, images, progress)

    def reconstruction(
        self, name: str, output: PairOutput, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Half the weighted mean squared error of a reconstructed pair; nothing during the warm-up."""
        if progress < self.settings.warmup or not self.settings.reconstruction:
            return {}
        with self.autocast():
            reconstructed = self.heads["reconstruction"](output.bottleneck)
        return {name: self.settings.reconstruction / 2 * F.mse_loss(reconstructed, images)}

    def judged(self, output: PairOutput) -> dict[str, Tensor]:
        """Softmax maps for D_l, last features for D_f; both sections."""
        return {
            "label": probabilities(torch.cat([output.first, output.second])),
            "feature": torch.cat(output.full),
        }
