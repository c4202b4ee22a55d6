"""DA-VSN: two neighbouring frames of the target must look and change as the source's do, and agree where one is surer.

Guan, Huang, Xiao, Lu, "Domain adaptive video segmentation via temporal consistency regularization", ICCV 2021,
arXiv 2107.11004; code Dayan-Guan/DA-VSN 5b79c5b. Here frames are sections and the optical flow is the
identity, as in the DA-ISC authors' rerun. With p the softmax map of the current section and q that of its key section
(no gradient), | joining channels, H the entropy of a pixel:

    L = L_s + 0.1 CE(a) + u [adv(D_x, p|q) + adv(D_i, p|p) + L_itcr] + u [0.2 adv(…) + 0.2 adv(…) + L_itcr] of a
    adv(D, m) = BCE(D(m), source)
    L_itcr = mean |p − q| · [H(q) < H(p)]                                   only where the key section is surer
    L_D = ½ BCE(source) + ½ BCE(target) for each D, + u (1 + mean over layers of cos(W_x, W_i))

D_x is the cross-section discriminator (STA), D_i the intra-section one (SA), and a the masks of the auxiliary head,
with discriminators of their own. u = 0.001.

Where this differs from the code: the softmax is over the classes of one section (the code takes it over the joined
channels of both, which makes them compete; `softmax_over_both`); each of the two sections is the current one once, with
the other as key, so that both branches of a pair network are adapted (`both_ways`; the code has the later one only).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mitoda.methods.adversarial import TwoLevelMethod, TwoLevelSettings
from mitoda.methods.base import MethodSettings, NotNegative
from mitoda.methods.losses import entropy, probabilities
from mitoda.models.heads import PatchDiscriminator, weight_similarity
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class DaVsnSettings(TwoLevelSettings):
    """Weights of the losses, from the code; 0 switches one off."""

    unsupervised: NotNegative = 0.001
    """u, which multiplies everything but the supervised losses."""
    intra_section: NotNegative = 1.0
    """Of the intra-section adversarial loss, times u (λ_sa 1)."""
    auxiliary_adversarial: NotNegative = 0.2
    """Of the auxiliary level's adversarial losses, times u (0.0002 / 0.001)."""
    consistency: NotNegative = 1.0
    """Of L_itcr on both levels, times u."""
    weight_discrepancy: NotNegative = 1.0
    """Of the similarity of both discriminators' weights, times u."""
    both_ways: bool = True
    """Each section is the current one once; false takes the second alone, as the code does."""
    softmax_over_both: bool = False
    """Softmax over the joined logits of both sections for the discriminators, as the code does."""


class DaVsn(TwoLevelMethod):
    """L_s on two levels, discriminators of pairs, and consistency where the key section is surer."""

    Settings: ClassVar[type[MethodSettings]] = DaVsnSettings
    title: ClassVar[str] = "DA-VSN: adversarial and consistent neighbouring sections (ICCV 2021)"
    settings: DaVsnSettings

    def build(self) -> None:
        """Add D_x and D_i for each level."""
        super().build()
        s = self.settings
        shares = {"main": 1.0, "auxiliary": s.auxiliary_adversarial}
        for level in self.levels:
            for kind, weight in {"cross": 1.0, "intra": s.intra_section}.items():
                self.add_discriminator(
                    f"{kind}_{level}",
                    PatchDiscriminator(4),
                    s.discriminator_learning_rate,
                    s.unsupervised * shares[level] * weight,
                )

    def ways(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the current sections and, without gradient, of their keys: (2B, 2, h, w), or B one way only."""
        if not self.settings.both_ways:
            return second, first.detach()
        return torch.cat([second, first]), torch.cat([first, second]).detach()

    def joined(self, one: Tensor, other: Tensor) -> Tensor:
        """What a discriminator sees of two sections: (N, 4, h, w) from two logits (N, 2, h, w)."""
        if self.settings.softmax_over_both:
            return probabilities(torch.cat([one, other], dim=1))
        return torch.cat([probabilities(one), probabilities(other)], dim=1)

    def judged(self, output: PairOutput) -> dict[str, Tensor]:
        """Current and key section, and the current one twice, on both levels."""
        maps = {}
        for level, logits in self.level_logits(output).items():
            current, key = self.ways(*logits)
            maps[f"cross_{level}"] = self.joined(current, key)
            maps[f"intra_{level}"] = self.joined(current, current)
        return maps

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """L_itcr on both levels."""
        weight = self.settings.unsupervised * self.settings.consistency
        if not weight:
            return {}
        return {
            f"consistency_{level}": weight * gated_consistency(*self.ways(*logits))
            for level, logits in self.level_logits(output).items()
        }

    def discriminator_penalties(self) -> dict[str, Tensor]:
        """The weight discrepancy of the two discriminators of each level."""
        weight = self.settings.unsupervised * self.settings.weight_discrepancy
        pairs = {level: (f"cross_{level}", f"intra_{level}") for level in self.levels}
        return {
            f"discrepancy_{level}": weight
            * (1 + weight_similarity(self.discriminators[cross], self.discriminators[intra]))
            for level, (cross, intra) in pairs.items()
            if weight and cross in self.discriminators and intra in self.discriminators
        }


def gated_consistency(current: Tensor, key: Tensor) -> Tensor:
    """L_itcr: mean of |p − q| over all pixels and classes, counting only pixels where q has less entropy than p.

    Parameters
    ----------
    current, key : Tensor, shape (N, 2, h, w)
        Logits; the key's are taken as they come, so detach them.
    """
    p, q = probabilities(current), probabilities(key)
    surer = (entropy(q) < entropy(p))[:, None]
    return ((p - q).abs() * surer).mean()
