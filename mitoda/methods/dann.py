"""DANN: a domain classifier on the last features, whose gradient is reversed on its way into the network.

Ganin, Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015; Ganin et al., JMLR 17(59), 2016; code
fungtion/DANN 476147f. With C the classifier on features f of a section, and GRL the identity whose gradient is
multiplied by −λ α(p) at the share p of the run:

    L = L_s + BCE(C(GRL(f_source)), source) + BCE(C(GRL(f_target)), target)
    α(p) = 2 / (1 + exp(−10 p)) − 1                                                  from 0 to 1

There is no alternation: classifier and network take one step together, the classifier with the unreduced gradient.

The reference is for digits. Its form for sections follows two EM codes: the classifier is DAMT-Net's feature
discriminator with a mean over pixels instead of 57 M weights tied to one patch size (`FeatureDiscriminator`). λ is 1,
as in paper and code; 'dat' in JorisRoels/domain-adaptive-segmentation 900698b has 0.01 (`--set reversal=0.01`), with
which the reversed gradient is 0.4 % of that of L_s.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mitoda.methods.adversarial import TwoDomainMethod
from mitoda.methods.base import MethodSettings, NotNegative, Positive
from mitoda.methods.losses import SOURCE, TARGET, domain_loss, pair_cross_entropy
from mitoda.models.heads import FeatureDiscriminator, reverse_gradient
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class DannSettings(MethodSettings):
    """The reversal and the classifier."""

    reversal: NotNegative = 1.0
    """λ: size of the reversed gradient once α has reached 1."""
    steepness: Positive = 10.0
    """γ of the schedule α(p) = 2 / (1 + exp(−γ p)) − 1 (paper and code: 10)."""
    classifier_learning_rate: Positive = 1e-3
    """Of the domain classifier (code: Adam 1e-3)."""


def reversal_schedule(progress: float, steepness: float = 10.0) -> float:
    """α(p) = 2 / (1 + exp(−γ p)) − 1: 0 at the start, 0.99991 at the end with γ = 10."""
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0


class Dann(TwoDomainMethod):
    """L_s and the domain classifier behind a gradient reversal."""

    Settings: ClassVar[type[MethodSettings]] = DannSettings
    title: ClassVar[str] = "DANN: reversed gradient of a domain classifier (ICML 2015)"
    settings: DannSettings

    def build(self) -> None:
        """Add the domain classifier."""
        super().build()
        classifier = FeatureDiscriminator(self.network.channels.full)
        self.add_head("domain_classifier", classifier, self.settings.classifier_learning_rate)

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """L_s and the classification of the source."""
        losses = pair_cross_entropy(output, labels)
        return losses | {"domain_source": self.classification_loss(output, SOURCE, progress)}

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """The classification of the target."""
        return {"domain_target": self.classification_loss(output, TARGET, progress)}

    def classification_loss(self, output: PairOutput, domain: float, progress: float) -> Tensor:
        """Cross-entropy of the classifier on both sections, behind the reversal."""
        factor = self.settings.reversal * reversal_schedule(progress, self.settings.steepness)
        features = reverse_gradient(torch.cat(output.full), factor)
        with self.autocast():
            decision = self.heads["domain_classifier"](features)
        return domain_loss(decision, domain)
