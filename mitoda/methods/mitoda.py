"""mitoda's own method: volumetric self-training.

Inter-section consistency enforced over the whole stack. A network learns from the source alone first. Then, in rounds,
its running average predicts the whole unlabelled volume; the probabilities are averaged over both visits of a section
(DA-ISC) and smoothed along the section axis; what is sure becomes a pseudo label, what is not is ignored, components
too small for a mitochondrion become background; and the network goes on with the labelled target, under strong draws.
The loss is the paper's L_s, on the source or on the target with its pseudo labels p,

    L = CE(s_i) + CE(s_i+m) + CE(r)   or   w [CE(s_j, p_j) + CE(s_j+n, p_j+n) + CE(r_j, p_j XOR p_j+n)],

with the residual taught only where both pseudo labels are known. The source can stay beside the target for some rounds
(both losses are then added); rounds without it measured as good, at twice the speed. The level of probability that
counts as the boundary is found in the target's own images: annotators draw along the outer membrane, where the image is
darkest, so the level is taken whose contour is darkest, for the whole volume, for each mitochondrion and for each place
along its boundary (`postprocessing.membrane_snapping`). No label of the target enters anywhere.

All lengths are nanometres: where sections are thick, smoothing fades out by itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mitoda.data.geometry import component_limit
from mitoda.data.pairs import LabelledBatch, PseudoLabels, UnlabelledBatch, Wanted
from mitoda.data.probability_volume import CoarseVolume
from mitoda.methods.base import (
    Arithmetic,
    Method,
    MethodSettings,
    TargetBoundary,
    detached,
    target_of,
    total,
)
from mitoda.methods.losses import IGNORE, coverage_to_labels, pair_cross_entropy
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork, PairOutput
from mitoda.postprocessing.components import remove_small_components


@dataclass(frozen=True)
class SelfTrainingSettings(MethodSettings):
    """Found on VNC III → Lucchi; `weights/README.md` has the log."""

    supervised_share: float = 0.6
    """Share of the run on the source alone; none in a run that begins from weights."""
    rounds: int = 6
    """Times the target is labelled anew; each round takes an equal share of the rest."""
    source_rounds: int = 0
    """The first so many of them learn from the source beside the target, in steps that take twice as long; six in a
    run that begins from weights, for which the source would be of no use otherwise."""
    round_rate: float = 0.5
    """Learning rate at the start of each round, as a factor of the first."""
    target_weight: float = 1.0
    """w, of the target's loss."""
    smoothing: float = 15.0
    """Standard deviation of the Gaussian along the sections, nanometres."""
    level: float = 0.6
    """Probability from which a pixel is taught as mitochondrion where the images do not tell."""
    snap: bool = True
    """Whether each place has a level of its own, in the rounds and in `segment`."""
    band: float = 0.25
    """Background lies this far below the level; what is between is taught as neither."""
    smallest: float = 3e6
    """Components below this many nm³ (1,500 voxels of 20 × 20 × 5 nm) become background, here and in `segment`."""


class SelfTraining(Method):
    """The default method."""

    Settings: ClassVar[type[MethodSettings]] = SelfTrainingSettings
    title: ClassVar[str] = "mitoda: volumetric self-training"
    can_go_without_source: ClassVar[bool] = True
    implied_by_start: ClassVar[Mapping[str, str]] = {"supervised_share": "0", "source_rounds": "6"}
    """What the weights know is not learnt anew: rounds at once, with the source beside the target to keep it."""

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: SelfTrainingSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, backbone, settings, arithmetic)
        self.settings = settings
        self.smoothing = settings.smoothing
        self.smallest = settings.smallest
        self.snap = settings.snap

    def round_of(self, progress: float) -> int:
        """0 while the source is learnt, then 1 to `rounds`."""
        s = self.settings
        if progress < s.supervised_share:
            return 0
        share = (progress - s.supervised_share) / max(1 - s.supervised_share, 1e-9)
        return min(s.rounds, 1 + math.floor(share * s.rounds))

    def wants(self, progress: float) -> Wanted:
        """The source alone, then both, then the target alone."""
        number = self.round_of(progress)
        return Wanted(source=number <= self.settings.source_rounds, target=number > 0)

    def rate(self, progress: float) -> float:
        """Poly over the supervised part, and again, from a lower start, over each round."""
        s = self.settings
        if progress < s.supervised_share:
            return (1 - progress / s.supervised_share) ** 0.9
        length = (1 - s.supervised_share) / s.rounds
        within = (progress - s.supervised_share) / length - (self.round_of(progress) - 1)
        return s.round_rate * max(1 - within, 0.0) ** 0.9

    def relabel(self, coarse: CoarseVolume, boundary: TargetBoundary) -> PseudoLabels:
        """Label the target anew from its smoothed prediction."""
        s = self.settings
        level = boundary.level(s.level)
        if s.snap:
            coarse = boundary.snapped(level)
        min_voxels = component_limit(s.smallest, coarse.voxel_size, len(coarse.probabilities))
        kept = remove_small_components(coarse.probabilities, round(level * 255), min_voxels)
        return PseudoLabels(kept, coarse.first_section, coarse.cell, level - s.band, level)

    def without_source(self) -> None:
        """The first round begins at once: there is nothing to learn from before it."""
        self.settings = replace(self.settings, supervised_share=0.0, source_rounds=0)

    def update(
        self, source: LabelledBatch, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step on the source and, once it has labels, on the target, in one batch."""
        labels = coverage_to_labels(source.coverage, self.network.grid)
        patches = target_of(target) if self.wants(progress).target else None
        if patches is None or patches.pseudo_labels is None:
            return self._learn(pair_cross_entropy(self.predict(source.images), labels))
        pseudo, B = patches.pseudo_labels, len(labels)
        output = self.predict(torch.cat([source.images, patches.images]))
        losses = pair_cross_entropy(part(output, slice(0, B)), labels)
        return self._learn(losses | self._taught(part(output, slice(B, None)), pseudo), pseudo)

    def update_alone(self, target: UnlabelledBatch | None, progress: float) -> dict[str, Tensor]:
        """One step on the target and its pseudo labels."""
        pseudo = target_of(target).pseudo_labels
        if pseudo is None:
            raise ValueError("there is neither a source nor a pseudo label to learn from")
        return self._learn(self._taught(self.predict(target_of(target).images), pseudo), pseudo)

    def _taught(self, output: PairOutput, pseudo: Tensor) -> dict[str, Tensor]:
        """The paper's L_s with pseudo labels, weighted."""
        losses = pair_cross_entropy(output, pseudo)
        return {f"target_{name}": self.settings.target_weight * loss for name, loss in losses.items()}

    def _learn(self, losses: dict[str, Tensor], pseudo: Tensor | None = None) -> dict[str, Tensor]:
        """Backward pass and step; the losses and the share of pixels left out, for the log."""
        self.optimizers["network"].zero_grad(set_to_none=True)
        total(losses).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimizers["network"].step()
        ignored = {} if pseudo is None else {"target_ignored": (pseudo == IGNORE).float().mean()}
        return detached(losses | ignored)


def part(output: PairOutput, which: slice) -> PairOutput:
    """Logits of part of a batch."""
    residual = output.residual[which] if output.residual is not None else None
    return output._replace(first=output.first[which], second=output.second[which], residual=residual)
