"""NoAdapt and Oracle of DA-ISC's table: the supervised loss L_s alone.

Both run on the same network as every other method. In the paper's table they do not: its NoAdapt has 57.3 F1, and its
own network without adaptation has 68.0 (ablation i).
"""

from typing import ClassVar, Literal

from torch import Tensor

from mitoda.data.pairs import LabelledBatch, UnlabelledBatch
from mitoda.methods.base import Method, required
from mitoda.methods.losses import pair_cross_entropy


class SourceOnly(Method):
    """L_s on the source; the target is not read."""

    title: ClassVar[str] = "NoAdapt: trained on the source alone"
    needs_target: ClassVar[bool] = False

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step of supervised learning."""
        batch = required(source)
        labels = batch.labels(self.network.grid)
        return self.learn(pair_cross_entropy(self.predict(batch.images), labels))


class Oracle(SourceOnly):
    """L_s on the labels of the target's adaptation half: the upper bound, no adaptation."""

    title: ClassVar[str] = "Oracle: trained on the labels of the target's adaptation half"
    labels_from: ClassVar[Literal["source", "target"]] = "target"
