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
from torch.optim import Adam

from mitoda.discriminators import PatchDiscriminator, gradient_norm_clipped, set_trainable
from mitoda.losses import (
    SOURCE,
    TARGET,
    coverage_to_labels,
    cross_entropy,
    domain_loss,
    pair_cross_entropy,
    probabilities,
    rampup,
    xor_pseudo_labels,
)
from mitoda.methods.method import Arithmetic, Method, MethodSettings, detached, target_of, total
from mitoda.networks import Backbone, PairNetwork, PairOutput
from mitoda.patches import LabelledBatch, UnlabelledBatch


@dataclass(frozen=True)
class IscSettings(MethodSettings):
    """Weights of the four losses; 0 switches one off. Defaults are the paper's for VNC III → Lucchi."""

    segmentation_adversarial: float = 0.001
    """Weight of L_seg."""
    residual_adversarial: float = 0.001
    """Weight of L_res."""
    consistency: float = 0.1
    """Weight of L_c once the ramp-up is done."""
    rampup: float = 0.25
    """Share of the run after which L_c has its full weight; 0 for at once."""
    discriminator_learning_rate: float = 1e-4
    """Of both discriminators."""


class Isc(Method):
    """DA-ISC (v); the paper's ablations (i) to (iv) are this with weights of 0."""

    Settings: ClassVar[type[MethodSettings]] = IscSettings
    title: ClassVar[str] = "DA-ISC: inter-section consistency (MICCAI 2022)"

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: IscSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, backbone, settings, arithmetic)
        self.settings = settings
        self.segmentation_discriminator = PatchDiscriminator(2)
        self.residual_discriminator = PatchDiscriminator(2)
        for name, discriminator in self.discriminators().items():
            self.optimizers[name] = Adam(
                discriminator.parameters(),
                lr=settings.discriminator_learning_rate,
                betas=(0.9, 0.99),
                fused=True,
            )

    def discriminators(self) -> dict[str, PatchDiscriminator]:
        """Those whose loss has a weight."""
        found = {}
        if self.settings.segmentation_adversarial:
            found["segmentation_discriminator"] = self.segmentation_discriminator
        if self.settings.residual_adversarial:
            found["residual_discriminator"] = self.residual_discriminator
        return found

    def update(
        self, source: LabelledBatch, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step: source, target, discriminators; then all optimisers."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        for discriminator in self.discriminators().values():
            set_trainable(discriminator, False)

        labels = coverage_to_labels(source.coverage, self.network.grid)
        source_output = self.predict(source.images)
        losses = pair_cross_entropy(source_output, labels)
        total(losses).backward()

        if self.discriminators() or self.settings.consistency:
            target_output = self.predict(target_of(target).images)
            target_losses = self.target_losses(target_output, progress)
            total(target_losses).backward()
            losses |= target_losses
            losses |= self.discriminate(source_output, target_output)

        gradient_norm_clipped(self.network, self.settings.gradient_norm)
        for discriminator in self.discriminators().values():
            gradient_norm_clipped(discriminator, self.settings.gradient_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return detached(losses)

    def target_losses(self, output: PairOutput, progress: float) -> dict[str, Tensor]:
        """L_seg, L_res and L_c of a target pair, weighted; only those that are on."""
        s = self.settings
        losses = {}
        if s.segmentation_adversarial:
            # The mean over both maps in one batch is half the sum of their losses.
            maps = torch.cat([output.first, output.second])
            losses["adversarial_segmentation"] = s.segmentation_adversarial * domain_loss(
                self.judge(self.segmentation_discriminator, maps), SOURCE
            )
        if s.residual_adversarial and output.residual is not None:
            losses["adversarial_residual"] = s.residual_adversarial * domain_loss(
                self.judge(self.residual_discriminator, output.residual), SOURCE
            )
        if s.consistency:
            pseudo = xor_pseudo_labels(output)
            weight = rampup(progress, s.rampup, s.consistency)
            losses["consistency"] = weight * (
                cross_entropy(output.first, pseudo[:, 0]) + cross_entropy(output.second, pseudo[:, 1])
            )
        return losses

    def discriminate(self, source: PairOutput, target: PairOutput) -> dict[str, Tensor]:
        """Gradients of both discriminators from detached maps; their losses, unweighted."""
        losses = {}
        for name, discriminator in self.discriminators().items():
            set_trainable(discriminator, True)
            maps = [
                [output.residual] if name == "residual_discriminator" else [output.first, output.second]
                for output in (source, target)
            ]
            judged = torch.cat(
                [logits.detach() for domain in maps for logits in domain if logits is not None]
            )
            from_source, from_target = self.judge(discriminator, judged).chunk(2)
            losses[name] = (domain_loss(from_source, SOURCE) + domain_loss(from_target, TARGET)) / 2
            losses[name].backward()
        return losses

    def judge(self, discriminator: PatchDiscriminator, logits: Tensor) -> Tensor:
        """Logits of a discriminator on softmax maps."""
        with self.autocast():
            return discriminator(probabilities(logits))
