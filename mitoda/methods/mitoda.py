"""mitoda's own method: volumetric self-training.

The network first learns from the source alone. Then, in rounds, its running average predicts the whole unlabelled
target; probabilities are averaged over both visits of a section (DA-ISC) and smoothed along the sections; sure pixels
become pseudo labels, the others are ignored, components too small for a mitochondrion become background; and the
network goes on with the labelled target. The loss is DA-ISC's L_s, on the source or on the target with pseudo labels p,

    L = CE(s_i) + CE(s_i+m) + CE(r)   or   w [CE(s_j, p_j) + CE(s_j+n, p_j+n) + CE(r_j, p_j XOR p_j+n)],

or both added, in the rounds that keep the source. Annotators draw along the outer membrane, where the image is darkest:
so the probability that counts as the boundary is the level whose contour is darkest in the target's images, for the
whole volume, for each mitochondrion and for each place along its boundary. No label of the target is read but painted
ones, which are a source.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mitoda.data.geometry import THIN_NM, voxels_in
from mitoda.data.pairs import IGNORE, LabelledBatch, PseudoLabels, UnlabelledBatch, Wanted
from mitoda.data.probability_volume import CoarseVolume, to_pixels
from mitoda.methods.base import (
    Count,
    MaskSettings,
    Method,
    MethodSettings,
    NotNegative,
    Share,
    Teacher,
    required,
)
from mitoda.methods.losses import pair_cross_entropy
from mitoda.models.pair_networks import PairOutput
from mitoda.postprocessing.components import SizeLimit, remove_small_components
from mitoda.postprocessing.membrane_snapping import MembraneSnapping
from mitoda.volumes import Volume

SMALLEST, SPECK = 3e6, 1e6
"""Cubic nanometres. Dropping specks lowered no F1 by more than 0.002; of 3·10⁶ it is known to help on Lucchi only."""
PAINTED_SHARE = 0.5
"""Share of a run with painted labels that learns from them alone, before the target is labelled."""
CORE = 128
"""Probability × 255 from which a grid voxel belongs to a component whose own boundary is sought."""


@dataclass(frozen=True)
class SelfTrainingSettings(MethodSettings):
    """Found on VNC III → Lucchi; `weights/README.md` has the log."""

    supervised_share: Share | None = None
    """Share of the run on the source alone: 0.6 from scratch, 0 from weights, 0.5 with painted labels."""
    rounds: Count | None = None
    """Times the target is labelled, 6 or, with painted labels, once; each round takes an equal share of the rest."""
    source_rounds: Annotated[int, Field(ge=0)] | None = None
    """Number of first rounds that learn from the source beside the target, in steps that take twice as long: none from
    scratch, all from weights or with painted labels, which would not be learnt otherwise."""
    round_rate: NotNegative = 0.5
    """Learning rate at the start of each round, as a factor of the first."""
    target_weight: NotNegative = 1.0
    """w, of the target's loss."""
    smoothing: NotNegative = 15.0
    """Standard deviation of the Gaussian along the sections, nanometres."""
    level: Share = 0.6
    """Probability from which a pixel is labelled mitochondrion if the images do not show the boundary."""
    snap: bool | None = None
    """Whether boundaries are moved to membranes, in the rounds and in `segment`; None: if sections are thin."""
    band: Share | None = None
    """Background lies this far below the level, pixels between are ignored; None: 0.25 if sections are thin, otherwise
    0.3."""
    smallest: NotNegative | None = None
    """Components below this many nm³ become background, in the rounds and in `segment`; None: 3·10⁶ (1,500 voxels of
    20 × 20 × 5 nm) if sections are thin, otherwise specks of 10⁶."""

    def resolve(
        self, *, from_weights: bool, source_free: bool, painted: bool = False, thickness_nm: float = 0.0
    ) -> Self:
        """Choose the share and the rounds of the source, and what the thickness of the target's sections decides."""
        share, source_rounds = self.supervised_share, self.source_rounds
        rounds = self.rounds or (1 if painted else 6)
        if source_free:
            share, source_rounds = 0.0, 0
        if share is None:
            share = PAINTED_SHARE if painted else 0.0 if from_weights else 0.6
        if source_rounds is None:
            source_rounds = rounds if from_weights or painted else 0
        thin = thickness_nm <= THIN_NM
        return replace(
            self,
            supervised_share=share,
            rounds=rounds,
            source_rounds=source_rounds,
            band=(0.25 if thin else 0.3) if self.band is None else self.band,
            snap=thin if self.snap is None else self.snap,
            smallest=(SMALLEST if thin else SPECK) if self.smallest is None else self.smallest,
        )


class SelfTraining(Method):
    """The default method."""

    Settings: ClassVar[type[MethodSettings]] = SelfTrainingSettings
    title: ClassVar[str] = "mitoda: volumetric self-training"
    settings: SelfTrainingSettings

    def build(self) -> None:
        """Resolve what is left open, for a run from scratch."""
        s = self.settings = self.settings.resolve(from_weights=False, source_free=False)
        self.supervised_share, self.source_rounds = s.supervised_share or 0.0, s.source_rounds or 0
        self.rounds = s.rounds or 1
        self.mask_settings: MaskSettings = {
            "smoothing": s.smoothing,
            "smallest": s.smallest or 0.0,
            "snap": bool(s.snap),
        }

    def round_of(self, progress: float) -> int:
        """Return 0 while only the source is learnt, then 1 to `rounds`."""
        if progress < self.supervised_share:
            return 0
        share = (progress - self.supervised_share) / max(1 - self.supervised_share, 1e-9)
        return min(self.rounds, 1 + math.floor(share * self.rounds))

    def wants(self, progress: float) -> Wanted:
        """The source alone, then both, then the target alone."""
        number = self.round_of(progress)
        return Wanted(source=number <= self.source_rounds, target=number > 0)

    def schedule(self, progress: float) -> float:
        """Poly over the supervised part, and again, from a lower start, over each round."""
        if progress < self.supervised_share:
            return float((1 - progress / self.supervised_share) ** 0.9)
        length = (1 - self.supervised_share) / self.rounds
        within = (progress - self.supervised_share) / length - (self.round_of(progress) - 1)
        return float(self.settings.round_rate * max(1 - within, 0.0) ** 0.9)

    def relabel(self, teacher: Teacher, images: Volume) -> PseudoLabels:
        """Label the target from its smoothed prediction and its images."""
        prediction = teacher.predict()
        s, boundary = self.settings, ImageBoundary(prediction, images)
        level, band = boundary.level(s.level) if s.snap else s.level, s.band or 0.0
        moved = boundary.snapped(level) if s.snap else prediction
        limit = SizeLimit.compact(voxels_in(s.smallest or 0.0, moved.voxel_size), moved.voxel_size)
        kept = remove_small_components(moved.probabilities, round(level * 255), limit)
        return PseudoLabels(kept, moved.first_section, moved.cell, level - band, level)

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """One step on the source, on the pseudo-labelled target, or on both in one batch."""
        patches = required(target) if self.wants(progress).target else None
        pseudo = None if patches is None else patches.pseudo_labels
        if source is None:
            if patches is None or pseudo is None:
                raise ValueError("there is neither a source nor a pseudo label to learn from")
            return self._learn({}, self.predict(patches.images), pseudo)
        labels = source.labels(self.network.grid)
        if patches is None or pseudo is None:
            return self.learn(pair_cross_entropy(self.predict(source.images), labels))
        output, B = self.predict(torch.cat([source.images, patches.images])), len(labels)
        losses = pair_cross_entropy(part(output, slice(0, B)), labels)
        return self._learn(losses, part(output, slice(B, None)), pseudo)

    def _learn(self, losses: dict[str, Tensor], output: PairOutput, pseudo: Tensor) -> dict[str, Tensor]:
        """One step on other losses and on those of the target; the share of ignored pixels is in the log."""
        taught = pair_cross_entropy(output, pseudo)
        losses |= {f"target_{name}": self.settings.target_weight * loss for name, loss in taught.items()}
        return self.learn(losses) | {"target_ignored": (pseudo == IGNORE).float().mean()}


def part(output: PairOutput, which: slice) -> PairOutput:
    """Logits of part of a batch."""
    residual = output.residual[which] if output.residual is not None else None
    return output._replace(first=output.first[which], second=output.second[which], residual=residual)


class ImageBoundary:
    """Where the images of a volume show that its prediction should end; they are read once, when first needed.

    Parameters
    ----------
    coarse : CoarseVolume
        Prediction of the volume.
    volume : Volume
    """

    def __init__(self, coarse: CoarseVolume, volume: Volume) -> None:
        self.coarse = coarse
        self.volume = volume

    @cached_property
    def snapping(self) -> MembraneSnapping:
        """Grey values along the contours of the prediction."""
        thickness, height, width = self.coarse.voxel_size
        pixel = (height / self.coarse.cell[0], width / self.coarse.cell[1])
        snapping = MembraneSnapping(self.coarse.cell, (thickness, *pixel))
        for index, one in enumerate(self.coarse.probabilities):
            grey = self.volume.read(self.coarse.first_section + index)
            levels = np.rint(to_pixels(self.coarse, index, grey.shape) * 255).astype(np.uint8)
            snapping.add(grey, levels, one >= CORE)
        return snapping

    def level(self, fallback: float) -> float:
        """Return the level whose contours, of all mitochondria together, are darkest; `fallback` if none clearly is."""
        level = self.snapping.curves.overall
        return fallback if level is None else level

    def snapped(self, reference: float) -> CoarseVolume:
        """Return the prediction, shifted so that the level of the darkest contour is `reference` at each place."""
        moved = np.empty_like(self.coarse.probabilities)
        for index, one in enumerate(self.coarse.probabilities):
            shifts = np.rint(self.snapping.shifts(index, one >= CORE, reference) * 255)
            moved[index] = np.where(one > 0, (one + shifts).clip(0, 255), 0)
        return replace(self.coarse, probabilities=moved)
