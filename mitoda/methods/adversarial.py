"""What the methods that learn from a source and a target patch in every step share: the order of a step.

    1. discriminators frozen          source forward    L_s and other source losses        backward
    2.                                target forward    adversarial and other losses       backward
    3. discriminators learn           from both domains' detached maps, each domain half   backward
    4. gradients of each network clipped on their own; all optimisers step

A method defines what its discriminators judge (`judged`), and which losses it adds. Heads are modules that learn
together with the segmentation network, by optimisers of their own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from mitoda.data.pairs import LabelledBatch, UnlabelledBatch
from mitoda.methods.base import Method, MethodSettings, NotNegative, Positive, detached, required, total
from mitoda.methods.losses import (
    SOURCE,
    TARGET,
    cross_entropy,
    domain_loss,
    pair_cross_entropy,
)
from mitoda.models.heads import AuxiliaryHead
from mitoda.models.pair_networks import PairOutput


@dataclass(frozen=True)
class AdversarialSettings(MethodSettings):
    """Settings of methods that have discriminators."""

    discriminator_learning_rate: Positive = 1e-4
    """Of all discriminators, with Adam; AdaptSegNet, DAMT-Net and DA-VSN alike."""


@dataclass(frozen=True)
class TwoLevelSettings(AdversarialSettings):
    """Settings of methods with masks on two levels of the decoder."""

    auxiliary: NotNegative = 0.1
    """Weight of the auxiliary head's cross-entropy (λ_seg 0.1 in AdaptSegNet and DA-VSN); 0 leaves the level out."""


class TwoDomainMethod(Method):
    """Source, target, discriminators, step; see the module's text."""

    source_answer: ClassVar[float] = SOURCE
    target_answer: ClassVar[float] = TARGET
    """What a discriminator should answer for each domain."""
    reads_residual: ClassVar[bool] = False
    """Whether a target loss or a discriminator looks at the residual of a target pair."""

    def build(self) -> None:
        """Start without heads and discriminators."""
        self.heads = nn.ModuleDict()
        self.discriminators = nn.ModuleDict()
        self.adversarial_weights: dict[str, float] = {}

    def add_head(self, name: str, module: nn.Module, learning_rate: float = 0.0) -> None:
        """Let a module learn with the network; a learning rate of 0 takes the network's."""
        self.heads[name] = module
        self.optimizers[name] = Adam(
            module.parameters(), lr=learning_rate or self.learning_rate, betas=(0.9, 0.99), fused=True
        )

    def add_discriminator(self, name: str, module: nn.Module, learning_rate: float, weight: float) -> None:
        """Add a discriminator whose adversarial loss has this weight; a weight of 0 leaves it out."""
        if weight:
            self.discriminators[name] = module
            self.adversarial_weights[name] = weight
            self.optimizers[name] = Adam(module.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True)

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step: source, target, discriminators; then all optimisers."""
        labelled = required(source)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.discriminators.requires_grad_(False)

        labels = labelled.labels(self.network.grid)
        source_output = self.predict(labelled.images)
        losses = self.source_losses(source_output, labels, labelled.images, progress)
        torch.autograd.backward(total(losses))

        if self.wants(progress).target:
            patches = required(target)
            target_output = self.predict(patches.images, residual=self.reads_residual)
            target_losses = self.adversarial_losses(target_output)
            target_losses |= self.target_losses(target_output, patches.images, progress)
            if target_losses:
                torch.autograd.backward(total(target_losses))
                losses |= target_losses

            self.discriminators.requires_grad_(True)
            losses |= self.discriminate(source_output, target_output)

        for network in (self.network, *self.heads.values(), *self.discriminators.values()):
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.gradient_norm)
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
            decision: Tensor = self.discriminators[name](maps)
            return decision

    def adversarial_losses(self, output: PairOutput) -> dict[str, Tensor]:
        """Weighted losses that are small where a target pair is taken for a source pair."""
        if not self.discriminators:
            return {}
        maps = self.judged(output)
        return {
            f"adversarial_{name}": self.adversarial_weights[name]
            * domain_loss(self.decide(name, maps[name]), self.source_answer)
            for name in self.discriminators
        }

    def discriminate(self, source: PairOutput, target: PairOutput) -> dict[str, Tensor]:
        """Gradients of all discriminators from detached maps, each domain counting half; their losses."""
        if not self.discriminators:
            return {}
        with torch.no_grad():
            from_source, from_target = self.judged(source), self.judged(target)
        losses = {}
        for name in self.discriminators:
            pair = (from_source[name], from_target[name])
            real, adapted = torch.split(self.decide(name, torch.cat(pair)), [len(maps) for maps in pair])
            losses[f"discriminator_{name}"] = (
                domain_loss(real, self.source_answer) + domain_loss(adapted, self.target_answer)
            ) / 2
        losses |= self.discriminator_penalties()
        torch.autograd.backward(total(losses))
        return losses

    def discriminator_penalties(self) -> dict[str, Tensor]:
        """Further losses of the discriminators' own weights."""
        return {}


class TwoLevelMethod(TwoDomainMethod):
    """Learns a second set of masks, from the half-resolution features."""

    settings: TwoLevelSettings

    def build(self) -> None:
        """Add the auxiliary head, unless its weight is 0."""
        super().build()
        self.levels = ("main", "auxiliary") if self.settings.auxiliary else ("main",)
        if self.settings.auxiliary:
            self.add_head("auxiliary_head", AuxiliaryHead(self.network))

    def level_logits(self, output: PairOutput) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits of both sections on each level."""
        found = {"main": (output.first, output.second)}
        if "auxiliary" in self.levels:
            with self.autocast():
                found["auxiliary"] = self.heads["auxiliary_head"](output)
        return found

    def source_losses(
        self, output: PairOutput, labels: Tensor, images: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """L_s, and the auxiliary head's cross-entropy of both sections."""
        losses = pair_cross_entropy(output, labels)
        if "auxiliary" in self.levels:
            first, second = self.level_logits(output)["auxiliary"]
            losses["auxiliary_masks"] = self.settings.auxiliary * (
                cross_entropy(first, labels[:, 0]) + cross_entropy(second, labels[:, 1])
            )
        return losses
