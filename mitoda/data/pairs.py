"""Pairs of sections: where they are read from, and the batches that methods learn from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mitoda.data.painted import PaintedLabels
from mitoda.errors import InputError
from mitoda.volumes import Volume

IGNORE = 255
"""Label of pixels that no loss counts."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of sections of one volume, `stride` sections apart."""

    volume: Volume
    stride: int
    """0 pairs each section with itself, for a volume of one section."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Section pixels per working pixel, along rows and columns."""

    def __post_init__(self) -> None:
        if not 0 <= self.stride < self.volume.shape[0]:
            raise InputError(
                f"{self.volume.name} has {self.volume.shape[0]} sections, too few for pairs "
                f"{self.stride} sections apart; give a smaller stride"
            )

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.volume.shape[0] - self.stride

    def sections(self, number: int) -> tuple[int, int]:
        """Return the two sections of a pair."""
        return number, number + self.stride


@dataclass(frozen=True)
class LabelledPairs(Pairs):
    """Pairs with labels, which are not 0 where there is mitochondrion."""

    labels: Volume | None = None
    others: tuple["LabelledPairs", ...] = ()
    """Further sources, each drawn from as often as this one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is None:
            raise InputError(f"{self.volume.name} needs labels to be a source; give IMAGES:LABELS")
        if self.labels.shape != self.volume.shape:
            raise InputError(
                f"labels and images differ in shape: {self.labels.name} is {self.labels.shape}, "
                f"{self.volume.name} is {self.volume.shape} (sections, rows, columns)"
            )

    def every(self) -> tuple["LabelledPairs", ...]:
        """Return this source and the others."""
        return (self, *self.others)


@dataclass(frozen=True)
class PaintedPairs(LabelledPairs):
    """Pairs of which a few places are labelled: `labels` is a `PaintedLabels`."""

    @property
    def painted(self) -> PaintedLabels:
        """The labels."""
        if not isinstance(self.labels, PaintedLabels):
            raise TypeError(f"labels are {type(self.labels).__name__}; expected PaintedLabels")
        return self.labels

    def pairs_of(self, section: int) -> list[tuple[int, int]]:
        """Return the pairs of a section, `stride` apart; in a stack too thin for one, it and the farther end."""
        last = self.volume.shape[0] - 1
        both = [(section, section + self.stride), (section - self.stride, section)]
        found = [pair for pair in both if pair[0] >= 0 and pair[1] <= last]
        return found or [(section, last) if 2 * section <= last else (0, section)]


@dataclass(frozen=True)
class UnlabelledPairs(Pairs):
    """Pairs without labels.

    `within` are the sections that they are drawn from; None is all.
    """

    within: range | None = None

    @property
    def count(self) -> int:
        """Number of pairs."""
        return super().count if self.within is None else len(self.within) - self.stride

    def sections(self, number: int) -> tuple[int, int]:
        """Return the two sections of a pair."""
        first = number if self.within is None else self.within[number]
        return first, first + self.stride


@dataclass(frozen=True)
class LabelledBatch:
    """Patches of the source domain."""

    images: Tensor
    """(B, 2, H, W), normalised grey values of sections k and k + stride."""
    coverage: Tensor
    """(B, 2, H, W), share of each pixel that is mitochondrion, 0 to 1."""
    known: Tensor | None = None
    """(B, 2, H, W), share of each pixel that is labelled, 0 to 1; None if all of them are."""

    def labels(self, grid: int) -> Tensor:
        """Return the labels on the network's output grid: (B, 2, H / grid, W / grid), int64.

        0, 1, or `IGNORE` where less than half of the pixel is labelled. A pixel exactly half covered is background.

        Parameters
        ----------
        grid : int
            Side of an output pixel in input pixels.
        """
        coverage, known = self.coverage, self.known
        if grid > 1:
            coverage = F.avg_pool2d(coverage, grid)
            known = None if known is None else F.avg_pool2d(known, grid)
        if known is None:
            return (coverage > 0.5).long()
        return (coverage > 0.5 * known).long().masked_fill(known < 0.5, IGNORE)


@dataclass(frozen=True)
class UnlabelledBatch:
    """Patches of the target domain. It has no field for labels, so none can reach a method."""

    images: Tensor
    """(B, 2, H, W), normalised grey values."""
    pseudo_labels: Tensor | None = None
    """(B, 2, h, w) on the network's output grid, int64: the method's own labels (0, 1 or `IGNORE`)."""


@dataclass(frozen=True)
class PseudoLabels:
    """A method's own labels of a slab of the target, as probabilities."""

    probabilities: np.ndarray
    """(sections, h, w), uint8, probability of mitochondrion × 255 on the network's output grid."""
    first_section: int
    """Number of the slab's first section in the volume."""
    cell: tuple[float, float]
    """Volume pixels per grid pixel, along rows and columns."""
    low: float
    """A pixel of lower probability is background."""
    high: float
    """A pixel of this probability or more is mitochondrion; between `low` and `high` it is ignored."""

    @property
    def sections(self) -> range:
        """Numbers of the slab's sections in the volume."""
        return range(self.first_section, self.first_section + len(self.probabilities))


class Wanted(NamedTuple):
    """The domains that a training step uses."""

    source: bool
    target: bool
