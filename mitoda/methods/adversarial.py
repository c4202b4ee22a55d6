"""What the methods that learn from a source and a target patch in every step share: the order of a step.

    1. discriminators frozen          source forward    L_s and other source losses        backward
    2.                                target forward    adversarial and other losses       backward
    3. discriminators learn           from both domains' detached maps, each domain half   backward
    4. gradients of each network clipped on their own; all optimisers step

A method says what its discriminators look at (`judged`), and which losses it adds. Companions are networks that learn
together with the segmentation network (a decoder, a head).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from mitoda.data.pairs import LabelledBatch, UnlabelledBatch
from mitoda.methods.base import Arithmetic, Method, MethodSettings, detached, target_of, total
from mitoda.methods.losses import (
    SOURCE,
    TARGET,
    coverage_to_labels,
    cross_entropy,
    domain_loss,
    pair_cross_entropy,
)
from mitoda.models.backbones import Backbone
from mitoda.models.heads import AuxiliaryHead
from mitoda.models.pair_networks import PairNetwork, PairOutput


@dataclass(frozen=True)
class AdversarialSettings(MethodSettings):
    """Settings of methods that have discriminators."""

    discriminator_learning_rate: float = 1e-4
    """Of all discriminators, with Adam; AdaptSegNet, DAMT-Net and DA-VSN alike."""


@dataclass(frozen=True)
class TwoLevelSettings(AdversarialSettings):
    """Settings of methods with masks on two levels of the decoder."""

    auxiliary: float = 0.1
    """Weight of the auxiliary head's cross-entropy (λ_seg 0.1 in AdaptSegNet and DA-VSN); 0 leaves the level out."""


class TwoDomainMethod(Method):
    """Source, target, discriminators, step; see the module's text."""

    source_answer: ClassVar[float] = SOURCE
    target_answer: ClassVar[float] = TARGET
    """What a discriminator should answer for each domain."""
    reads_residual: ClassVar[bool] = False
    """Whether a target loss or a discriminator looks at the residual of a target pair."""

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: MethodSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, backbone, settings, arithmetic)
        self.gradient_norm = settings.gradient_norm
        self.network_learning_rate = settings.learning_rate or backbone.learning_rate
        self.companions = nn.ModuleDict()
        self.judges = nn.ModuleDict()
        self.adversarial_weights: dict[str, float] = {}

    def add_companion(self, name: str, module: nn.Module, learning_rate: float = 0.0) -> None:
        """Let a network learn with the segmentation network; a rate of 0 takes that network's."""
        self.companions[name] = module
        self.optimizers[name] = Adam(
            module.parameters(), lr=learning_rate or self.network_learning_rate, betas=(0.9, 0.99), fused=True
        )

    def add_discriminator(self, name: str, module: nn.Module, learning_rate: float, weight: float) -> None:
        """Add a discriminator whose adversarial loss has this weight; a weight of 0 leaves it out."""
        if weight:
            self.judges[name] = module
            self.adversarial_weights[name] = weight
            self.optimizers[name] = Adam(module.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True)

    def discriminators(self) -> dict[str, nn.Module]:
        """Those that are on, by name."""
        return dict(self.judges.items())

    def update(
        self, source: LabelledBatch, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step: source, target, discriminators; then all optimisers."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.judges.requires_grad_(False)

        labels = coverage_to_labels(source.coverage, self.network.grid)
        source_output = self.predict(source.images)
        losses = self.source_losses(source_output, labels, source.images, progress)
        total(losses).backward()

        if self.wants(progress).target:
            patches = target_of(target)
            target_output = self.predict(patches.images, residual=self.reads_residual)
            target_losses = self.adversarial_losses(target_output)
            target_losses |= self.target_losses(target_output, patches.images, progress)
            if target_losses:
                total(target_losses).backward()
                losses |= target_losses

            self.judges.requires_grad_(True)
            losses |= self.discriminate(source_output, target_output)

        for network in (self.network, *self.companions.values(), *self.judges.values()):
            nn.utils.clip_grad_norm_(network.parameters(), self.gradient_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return detached(losses)

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Losses of a source pair, weighted; L_s unless the method says more."""
        return pair_cross_entropy(output, labels)

    def target_losses(self, output: PairOutput, images: Tensor, progress: float) -> dict[str, Tensor]:
        """Losses of a target pair other than the adversarial ones, weighted."""
        return {}

    def judged(self, output: PairOutput) -> dict[str, Tensor]:
        """What each discriminator looks at, by its name; both sections in one batch."""
        return {}

    def decide(self, name: str, maps: Tensor) -> Tensor:
        """Logits of a discriminator, in the method's precision."""
        with self.autocast():
            return self.judges[name](maps)

    def adversarial_losses(self, output: PairOutput) -> dict[str, Tensor]:
        """Weighted losses that are small where a target pair is taken for a source pair."""
        if not self.judges:
            return {}
        maps = self.judged(output)
        return {
            f"adversarial_{name}": self.adversarial_weights[name]
            * domain_loss(self.decide(name, maps[name]), self.source_answer)
            for name in self.judges
        }

    def discriminate(self, source: PairOutput, target: PairOutput) -> dict[str, Tensor]:
        """Gradients of all discriminators from detached maps, each domain counting half; their losses."""
        if not self.judges:
            return {}
        with torch.no_grad():
            from_source, from_target = self.judged(source), self.judged(target)
        losses = {}
        for name in self.judges:
            pair = (from_source[name], from_target[name])
            real, adapted = self.decide(name, torch.cat(pair)).split([len(maps) for maps in pair])
            losses[f"discriminator_{name}"] = (
                domain_loss(real, self.source_answer) + domain_loss(adapted, self.target_answer)
            ) / 2
        losses |= self.discriminator_penalties()
        total(losses).backward()
        return losses

    def discriminator_penalties(self) -> dict[str, Tensor]:
        """Further losses of the discriminators' own weights."""
        return {}


class TwoLevelMethod(TwoDomainMethod):
    """A second set of masks, from the half-resolution features, learns with the first."""

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: TwoLevelSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, backbone, settings, arithmetic)
        self.auxiliary_weight = settings.auxiliary
        self.levels = ("main", "auxiliary") if settings.auxiliary else ("main",)
        if settings.auxiliary:
            self.add_companion("auxiliary_head", AuxiliaryHead(network))

    def level_logits(self, output: PairOutput) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits of both sections on each level."""
        found = {"main": (output.first, output.second)}
        if "auxiliary" in self.levels:
            with self.autocast():
                found["auxiliary"] = self.companions["auxiliary_head"](output)
        return found

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """L_s, and the auxiliary head's cross-entropy of both sections."""
        losses = pair_cross_entropy(output, labels)
        if "auxiliary" in self.levels:
            first, second = self.level_logits(output)["auxiliary"]
            losses["auxiliary_masks"] = self.auxiliary_weight * (
                cross_entropy(first, labels[:, 0]) + cross_entropy(second, labels[:, 1])
            )
        return losses
