"""NoAdapt and Oracle of the paper's table: the supervised loss alone.

Source-only learns from the source's labels and never sees the target; the oracle learns from the labels of the target's
adaptation half, and shows what the backbone could do if somebody had labelled it. Both are the paper's ablation (i),
L_s = CE + CE + CE of the residual, on the same network as every other method, which the paper's table is not: its
NoAdapt has 57.3 F1 where DA-ISC's own network without adaptation has 68.0 (its ablation).
"""

from typing import ClassVar

from torch import Tensor, nn

from mitoda.data.pairs import LabelledBatch, UnlabelledBatch
from mitoda.methods.base import Arithmetic, Method, MethodSettings, detached, total
from mitoda.methods.losses import coverage_to_labels, pair_cross_entropy
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork


class SourceOnly(Method):
    """L_s on the source; the target is not looked at."""

    title: ClassVar[str] = "NoAdapt: trained on the source alone"
    needs_target: ClassVar[bool] = False

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: MethodSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, backbone, settings, arithmetic)
        self.settings = settings

    def update(
        self, source: LabelledBatch, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step of supervised learning."""
        self.optimizers["network"].zero_grad(set_to_none=True)
        labels = coverage_to_labels(source.coverage, self.network.grid)
        losses = pair_cross_entropy(self.predict(source.images), labels)
        total(losses).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimizers["network"].step()
        return detached(losses)


class Oracle(SourceOnly):
    """L_s on the labels of the target's adaptation half: the upper bound, not an adaptation."""

    title: ClassVar[str] = "Oracle: trained on the labels of the target's adaptation half"
    labels_from: ClassVar[str] = "target"
