"""UALR: pseudo labels of the target from a network under dropout, without the pixels it is unsure of.

Wu, Chen, Xiong, Chen, Sun, "Uncertainty-aware label rectification for domain adaptive mitochondria segmentation",
MICCAI 2021, doi 10.1007/978-3-030-87199-4_18; code ngchc/DA-MitoSeg 6d66579. Three stages of one run:

    A  two thirds   L_s on the source, with spatial dropout (p = 0.5) after each of the four poolings
    B  once         the network of A predicts the unlabelled target 10 times under dropout: mean m and deviation σ; of
                    each class (m ≥ 0.5 or not) the 95th percentile of all its σ becomes a threshold
    C  the rest     a fresh network without dropout learns L_s on target patches alone, from the labels m ≥ 0.5;
                    pixels whose σ is above their class's threshold are left out (rectification by masking)

Learning rates: A and C rise from 0.1 as 0.1 + 0.9 (t / w)² and fall as 0.1 + 0.9 (1 − (t − w))², t the share of the
stage and w its warm-up: 0.05 of A and 0.1 of C (code: 1,000 of 20,000 and of 10,000 steps). `--set own_schedule=false`
leaves them to `--schedule`.

Where this differs from the code:
- The labels are those of the averaged network, on its output grid; each pass takes the mean of both visits of a
  section, rounded to 1/255. Of a target too large for memory, a slab is labelled.
- The code's checkpoint of stage C is chosen with labels of the target; here the last one stands.
- On a pair network the residual is learnt too: XOR of both labels, left out where either is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mitoda.data.pairs import LabelledBatch, PseudoLabels, UnlabelledBatch, Wanted
from mitoda.methods.base import MaskSettings, Method, MethodSettings, Teacher, required
from mitoda.methods.losses import pair_cross_entropy
from mitoda.models.backbones import reinitialise
from mitoda.volumes import Volume

SOURCE_WARM_UP, TARGET_WARM_UP = 0.05, 0.1
"""Shares of stages A and C in which the learning rate rises."""
BACKGROUND, UNSURE, MITOCHONDRION = 0, 128, 255
"""Labels as probabilities × 255."""


@dataclass(frozen=True)
class UalrSettings(MethodSettings):
    """Stages, dropout and rectification, from the code."""

    source_share: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    """Share of the run that stage A takes (20,000 of 30,000 steps)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability that a channel is dropped after a pooling."""
    passes: Annotated[int, Field(ge=2)] = 10
    """Predictions under dropout that mean and deviation are taken over."""
    percentile: Annotated[float, Field(gt=0, le=100)] = 95.0
    """Of a class's deviations; pixels from there on are left out. The code also writes 80, 85 and 90."""
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


def rectified_labels(mean: np.ndarray, deviation: np.ndarray, percentile: float) -> np.ndarray:
    """Label means of at least 0.5, without the pixels of each class whose deviation is above its percentile.

    Returns
    -------
    ndarray of uint8
        `MITOCHONDRION`, `BACKGROUND` or `UNSURE`.
    """
    labels = np.full(mean.shape, UNSURE, np.uint8)
    for label, members in ((BACKGROUND, mean < 0.5), (MITOCHONDRION, mean >= 0.5)):
        if (
            members.any()
        ):  # most deviations of a sure network are 0 after rounding, and so may the percentile be
            threshold = np.percentile(deviation[members], percentile)
            labels[members & (deviation <= threshold)] = label
    return labels


def stage_rate(done: float, warm_up: float) -> float:
    """Factor of the learning rate at a share of a stage; see the module's text."""
    if done < warm_up:
        return 0.1 + 0.9 * (done / warm_up) ** 2
    return 0.1 + 0.9 * (1 - (done - warm_up)) ** 2


class Ualr(Method):
    """Source, labels of the target, target; when the last stage began is part of the state."""

    Settings: ClassVar[type[MethodSettings]] = UalrSettings
    title: ClassVar[str] = "UALR: pseudo labels without uncertain pixels (MICCAI 2021)"
    settings: UalrSettings
    target_began: Tensor
    mask_settings: MaskSettings = MaskSettings(smoothing=0.0, smallest=0.0, snap=False)

    def build(self) -> None:
        """Add the share of the run at which stage C began."""
        self.register_buffer("target_began", torch.tensor(1.0))

    def round_of(self, progress: float) -> int:
        """Return 0 in stage A, 1 from its end on."""
        return int(progress >= self.settings.source_share)

    def wants(self, progress: float) -> Wanted:
        """The source alone in stage A, then the target alone."""
        source = self.round_of(progress) == 0
        return Wanted(source=source, target=not source)

    def schedule(self, progress: float) -> float | None:
        """Return the factor of the stage, unless the run's schedule is to be used."""
        if not self.settings.own_schedule:
            return None
        if self.round_of(progress) == 0:
            return stage_rate(progress / self.settings.source_share, SOURCE_WARM_UP)
        began = self._target_beginning(progress)
        return stage_rate((progress - began) / (1 - began), TARGET_WARM_UP)

    def _target_beginning(self, progress: float) -> float:
        """Share of the run at which stage C began, or begins now; rounded to float32 as in the state."""
        began = float(self.target_began)
        return began if began < 1.0 else float(torch.tensor(min(progress, 0.999999)))

    def relabel(self, teacher: Teacher, images: Volume) -> PseudoLabels:
        """Stage B: label the target from its predictions under dropout; the images are not looked at again."""
        passes = self.settings.passes
        with spatial_dropout(teacher.network, self.settings.dropout):
            one = teacher.predict()
            total = one.probabilities.astype(np.int32)
            squared = total**2
            for _ in range(passes - 1):
                values = teacher.predict().probabilities.astype(np.int32)
                total += values
                squared += values**2
        deviation = np.sqrt(passes * squared.astype(np.int64) - total.astype(np.int64) ** 2, dtype=np.float32)
        labels = rectified_labels(total / np.float32(255 * passes), deviation, self.settings.percentile)
        return PseudoLabels(labels, one.first_section, one.cell, low=0.25, high=0.75)

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step of stage A or C."""
        if self.round_of(progress) == 0:
            batch = required(source)
            labels = batch.labels(self.network.grid)
            with spatial_dropout(self.network, self.settings.dropout):
                return self.learn(pair_cross_entropy(self.predict(batch.images), labels))
        patches = required(target)
        if patches.pseudo_labels is None:
            raise ValueError("stage C needs the labels of stage B; see relabel")
        if float(self.target_began) >= 1.0:
            self.begin_target_stage(progress)
        return self.learn(pair_cross_entropy(self.predict(patches.images), patches.pseudo_labels))

    def begin_target_stage(self, progress: float) -> None:
        """Replace the network by a fresh one, without memory in its optimiser or in the loop's average."""
        self.target_began.fill_(self._target_beginning(progress))
        reinitialise(self.network)
        self.optimizers["network"].state.clear()
        self.network_is_fresh = True
