"""UALR: pseudo labels of the target from a network under dropout, without the pixels it is unsure of.

Wu, Chen, Xiong, Chen, Sun, "Uncertainty-aware label rectification for domain adaptive mitochondria segmentation",
MICCAI 2021, doi 10.1007/978-3-030-87199-4_18; code ngchc/DA-MitoSeg 6d66579. Three stages of one run:

    A  two thirds   L_s on the source, with spatial dropout (p = 0.5) after each of the four poolings
    B  20 patches   the network of A, frozen, predicts target patches 10 times under dropout: mean m and deviation σ;
                    of each class (m ≥ 0.5 or not) the 95th percentile of all its σ becomes a threshold
    C  the rest     a fresh network without dropout learns L_s on target patches alone, from the labels m ≥ 0.5;
                    pixels whose σ is not under their class's threshold are left out (rectification by masking)

Learning rates: A rises from 0.1 as 0.1 + 0.9 (t / 0.05)² and falls as 0.1 + 0.9 (1 − (t − 0.05))², t the share of the
stage (code: 1,000 and 20,000 of 20,000 steps); C falls as 0.1 + 0.9 (1 − t)². `--set own_schedule=false` leaves them to
`--schedule`.

Where this differs from the code:
- It predicts the whole target volume once, stores labels, and takes percentiles over all of it. Here thresholds come
  from the first patches (histograms of σ with 1,000 bins) and then stay; labels are predicted anew for every patch of
  stage C, by the frozen network, on the patch as it was augmented for the learner. So memory is bounded and nothing is
  stored, at the price of ten forward passes per step; the ten draws differ from visit to visit.
- The code's checkpoint of stage C is chosen with labels of the target; here the last one stands.
- On a pair network the residual is learnt too: XOR of both labels, left out where either is.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mitoda.data.pairs import IGNORE, LabelledBatch, UnlabelledBatch, Wanted
from mitoda.methods.base import Count, Method, MethodSettings, required
from mitoda.methods.losses import pair_cross_entropy, probabilities
from mitoda.models.backbones import reinitialise

BINS = 1000
"""Of the histograms of σ, which lies between 0 and 0.5: a threshold is exact to 0.0005."""

SOURCE_STAGE, LABEL_STAGE, TARGET_STAGE = 0, 1, 2


@dataclass(frozen=True)
class UalrSettings(MethodSettings):
    """Stages, dropout and rectification; from the code unless said otherwise."""

    source_share: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    """Share of the run that stage A takes (20,000 of 30,000 steps)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability that a channel is dropped after a pooling."""
    passes: Annotated[int, Field(ge=2)] = 10
    """Predictions under dropout that mean and deviation are taken over."""
    percentile: Annotated[float, Field(gt=0, le=100)] = 95.0
    """Of a class's deviations; pixels from there on are left out. The code also writes 80, 85 and 90."""
    patches: Count = 20
    """Target patches that the thresholds are estimated from; ours, see the module's text."""
    own_schedule: bool = True
    """Learning rates of each stage as in the code rather than those of `--schedule`."""


@contextmanager
def spatial_dropout(network: nn.Module, probability: float) -> Iterator[None]:
    """Within this context drop whole channels after every max pooling of a network, in training and evaluation."""
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pooled: F.dropout2d(pooled, probability))
        for module in network.modules()
        if isinstance(module, nn.MaxPool2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def deviation_histogram(mean: Tensor, deviation: Tensor) -> Tensor:
    """Count deviations of background (mean < 0.5) and of mitochondrion in bins from 0 to 0.5: (2, BINS), int64."""
    bins = (deviation * 2 * BINS).long().clamp(0, BINS - 1)
    index = bins + BINS * (mean >= 0.5).long()
    return torch.bincount(index.flatten(), minlength=2 * BINS).reshape(2, BINS)


def percentile_thresholds(histogram: Tensor, percentile: float) -> Tensor:
    """Upper edge of the bin in which each class reaches the percentile: (2,); infinite for a class never seen."""
    counts = histogram.cpu().double().cumsum(1)
    wanted = counts[:, -1:] * (percentile / 100)
    edges = ((counts < wanted).sum(1) + 1) / (2 * BINS)
    return torch.where(counts[:, -1] > 0, edges, math.inf).float()


def rectified_labels(mean: Tensor, deviation: Tensor, thresholds: Tensor) -> Tensor:
    """Labels mean ≥ 0.5, and `IGNORE` where the deviation is not under the threshold of that label's class."""
    labels = (mean >= 0.5).long()
    return labels.masked_fill(deviation >= thresholds[labels], IGNORE)


def stage_rate(stage: int, done: float) -> float:
    """Factor of the learning rate at a share of stage A or C; see the module's text."""
    if stage == SOURCE_STAGE and done < 0.05:
        return 0.1 + 0.9 * (done / 0.05) ** 2
    start = 0.05 if stage == SOURCE_STAGE else 0.0
    return 0.1 + 0.9 * (1 - (done - start)) ** 2


class Ualr(Method):
    """Three stages; the stage, the frozen network and the thresholds are part of the state."""

    Settings: ClassVar[type[MethodSettings]] = UalrSettings
    title: ClassVar[str] = "UALR: pseudo labels without uncertain pixels (MICCAI 2021)"
    settings: UalrSettings
    stage: Tensor
    patches_seen: Tensor
    target_began: Tensor
    histogram: Tensor
    thresholds: Tensor

    def build(self) -> None:
        """Add the frozen network and the state of the stages."""
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("stage", torch.tensor(SOURCE_STAGE))
        self.register_buffer("patches_seen", torch.tensor(0))
        self.register_buffer("target_began", torch.tensor(1.0))
        self.register_buffer("histogram", torch.zeros(2, BINS, dtype=torch.int64))
        self.register_buffer("thresholds", torch.full((2,), math.inf))

    def _learns_source(self, progress: float) -> bool:
        """Whether the step at this share of the run belongs to stage A."""
        return int(self.stage) == SOURCE_STAGE and progress < self.settings.source_share

    def _target_beginning(self, progress: float) -> float:
        """Share of the run at which stage C began, or begins now; rounded to float32 as in the state."""
        began = float(self.target_began)
        return began if began < 1.0 else float(torch.tensor(min(progress, 0.999999)))

    def wants(self, progress: float) -> Wanted:
        """The source alone in stage A, then the target alone."""
        source = self._learns_source(progress)
        return Wanted(source=source, target=not source)

    def schedule(self, progress: float) -> float | None:
        """Return the factor of the stage, unless the run's schedule is to be used."""
        if not self.settings.own_schedule:
            return None
        if self._learns_source(progress):
            return stage_rate(SOURCE_STAGE, progress / self.settings.source_share)
        began = self._target_beginning(progress)
        return stage_rate(TARGET_STAGE, (progress - began) / (1 - began))

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step of the current stage."""
        if self._learns_source(progress):
            batch = required(source)
            labels = batch.labels(self.network.grid)
            with spatial_dropout(self.network, self.settings.dropout):
                return self.learn(pair_cross_entropy(self.predict(batch.images), labels))
        if int(self.stage) == SOURCE_STAGE:
            self.teacher.load_state_dict(self.network.state_dict())
            self.stage.fill_(LABEL_STAGE)
        images = required(target).images
        mean, deviation = self.predict_under_dropout(images)
        if int(self.stage) == LABEL_STAGE:
            self.collect(mean, deviation)
            return {"deviation": deviation.mean()}
        if float(self.target_began) >= 1.0:
            self.begin_target_stage(progress)
        labels = rectified_labels(mean, deviation, self.thresholds)
        return self.learn(pair_cross_entropy(self.predict(images), labels))

    @torch.no_grad()
    def predict_under_dropout(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the passes of the frozen network: (B, 2, h, w) each, of both sections."""
        foreground = []
        with spatial_dropout(self.teacher, self.settings.dropout), self.autocast():
            for _ in range(self.settings.passes):
                output = self.teacher(images, residual=False)
                foreground.append(
                    torch.stack([probabilities(logits)[:, 1] for logits in (output.first, output.second)], 1)
                )
        stacked = torch.stack(foreground)
        return stacked.mean(0), stacked.std(0, correction=0)

    def collect(self, mean: Tensor, deviation: Tensor) -> None:
        """Add a batch's deviations to the histograms; after enough patches fix the thresholds and end stage B."""
        self.histogram += deviation_histogram(mean, deviation)
        self.patches_seen += len(mean)
        if int(self.patches_seen) >= self.settings.patches:
            self.thresholds.copy_(percentile_thresholds(self.histogram, self.settings.percentile))
            self.stage.fill_(TARGET_STAGE)

    def begin_target_stage(self, progress: float) -> None:
        """Replace the network by a fresh one, without memory in its optimiser or in the loop's average."""
        self.target_began.fill_(self._target_beginning(progress))
        reinitialise(self.network)
        self.optimizers["network"].state.clear()
        self.network_is_fresh = True
