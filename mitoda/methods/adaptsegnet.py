"""AdaptSegNet: target masks that discriminators take for source masks, on two levels of the decoder.

Tsai, Hung, Schulter, Sohn, Yang, Chandraker, "Learning to adapt structured output space for semantic segmentation",
CVPR 2018, arXiv 1802.10349; code wasidennis/AdaptSegNet fca9ff0. With s the softmax map of a section, a that
of the auxiliary head on half-resolution features (upsampled), and one discriminator D per level:

    L = L_s + 0.1 CE(a_source) + 0.001 BCE(D(s_target), source) + 0.0002 BCE(D_a(a_target), source)
    L_D = ½ [BCE(D(s_source), source) + BCE(D(s_target), target)]                     the same for D_a

The single level of the paper is `--set auxiliary=0`; DA-ISC's ablation (ii) is that too.

Where this differs from the code: its network (DeepLabv2 with ResNet-101) learns by SGD 2.5e-4 with momentum 0.9, where
the backbones here have optimisers of their own. Both sections of a pair are judged, in one batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mitoda.methods.adversarial import TwoLevelMethod, TwoLevelSettings
from mitoda.methods.base import MethodSettings, NotNegative
from mitoda.methods.losses import probabilities
from mitoda.models.heads import PatchDiscriminator
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class AdaptSegNetSettings(TwoLevelSettings):
    """Weights of the losses; all from the code's training script for two levels. 0 switches one off."""

    adversarial: NotNegative = 0.001
    """Weight of the adversarial loss on the main masks (λ_adv 1e-3)."""
    auxiliary_adversarial: NotNegative = 0.0002
    """Weight of the adversarial loss on the auxiliary masks (λ_adv 2e-4)."""


class AdaptSegNet(TwoLevelMethod):
    """L_s, its auxiliary twin, and a discriminator per level."""

    Settings: ClassVar[type[MethodSettings]] = AdaptSegNetSettings
    title: ClassVar[str] = "AdaptSegNet: adversarial masks on two levels (CVPR 2018)"
    settings: AdaptSegNetSettings

    def build(self) -> None:
        """Add a discriminator for each level."""
        super().build()
        s = self.settings
        weights = {"main": s.adversarial, "auxiliary": s.auxiliary_adversarial}
        for level in self.levels:
            self.add_discriminator(
                level, PatchDiscriminator(2), s.discriminator_learning_rate, weights[level]
            )

    def judged(self, output: PairOutput) -> dict[str, Tensor]:
        """Softmax maps of both sections on both levels."""
        return {
            level: probabilities(torch.cat(logits)) for level, logits in self.level_logits(output).items()
        }
