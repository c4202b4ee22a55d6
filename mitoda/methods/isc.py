"""DA-ISC: inter-section consistency.

Huang, Liu, Cheng, Chen, Xiong, "Domain Adaptive Mitochondria Segmentation via Enforcing Inter-Section Consistency",
MICCAI 2022, doi 10.1007/978-3-031-16440-8_9. With s the softmax maps of both sections of a pair and r that of their
residual:

    L_s   = CE(s_i) + CE(s_i+m) + CE(r)                      source, unweighted                          (eq. 1)
    L_seg = w/2 [BCE(D_s(s_j), source) + BCE(D_s(s_j+n), source)]    target masks look like source masks  (eq. 2)
    L_res = w BCE(D_r(r), source)                            target residuals look like source residuals (eq. 3)
    L_c   = w(t) [CE(s_j, s_j+n XOR r) + CE(s_j+n, s_j XOR r)]       each section labels the other        (eq. 4)

The residual decoder gets no gradient of L_c; the discriminators are frozen while the network learns, and learn from
detached maps afterwards (per map a quarter of the cross-entropy for D_s, a half for D_r). Weights, order of backward
passes, clipping and optimisers are those of the published code; the ramp-up reaches w(t) = 0.1 after a quarter of the
run. For MitoEM-R → MitoEM-H the authors use 0.01 for both adversarial weights and no ramp-up: `--set
segmentation_adversarial=0.01 --set residual_adversarial=0.01 --set rampup=0`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mitoda.data.pairs import Wanted
from mitoda.methods.adversarial import AdversarialSettings, TwoDomainMethod
from mitoda.methods.base import MethodSettings, NotNegative, Share
from mitoda.methods.losses import cross_entropy, probabilities, rampup, xor_pseudo_labels
from mitoda.models.heads import PatchDiscriminator
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class IscSettings(AdversarialSettings):
    """Weights of the four losses; 0 switches one off. Defaults are the paper's for VNC III → Lucchi."""

    segmentation_adversarial: NotNegative = 0.001
    """Weight of L_seg."""
    residual_adversarial: NotNegative = 0.001
    """Weight of L_res."""
    consistency: NotNegative = 0.1
    """Weight of L_c once the ramp-up is done."""
    rampup: Share = 0.25
    """Share of the run after which L_c has its full weight; 0 for at once."""


class Isc(TwoDomainMethod):
    """DA-ISC (v); the paper's ablations (i) to (iv) are this with weights of 0."""

    Settings: ClassVar[type[MethodSettings]] = IscSettings
    title: ClassVar[str] = "DA-ISC: inter-section consistency (MICCAI 2022)"
    reads_residual: ClassVar[bool] = True
    settings: IscSettings

    def build(self) -> None:
        """Add D_s and D_r."""
        super().build()
        s, rate = self.settings, self.settings.discriminator_learning_rate
        self.add_discriminator("segmentation", PatchDiscriminator(2), rate, s.segmentation_adversarial)
        self.add_discriminator("residual", PatchDiscriminator(2), rate, s.residual_adversarial)

    def wants(self, progress: float) -> Wanted:
        """Both domains; the source alone in ablation (i), which has no loss of the target."""
        return Wanted(source=True, target=bool(self.discriminators) or bool(self.settings.consistency))

    def judged(self, output: PairOutput) -> dict[str, Tensor]:
        """Softmax maps of both masks for D_s, in one batch: its mean is half the sum of eq. 2; the residual for D_r."""
        maps = {"segmentation": probabilities(torch.cat([output.first, output.second]))}
        if output.residual is not None:
            maps["residual"] = probabilities(output.residual)
        return maps

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """L_c, ramped up."""
        if not self.settings.consistency:
            return {}
        pseudo = xor_pseudo_labels(output)
        weight = rampup(progress, self.settings.rampup, self.settings.consistency)
        each = cross_entropy(output.first, pseudo[:, 0]) + cross_entropy(output.second, pseudo[:, 1])
        return {"consistency": weight * each}
