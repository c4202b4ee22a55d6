"""How well mitochondria are told apart: predicted instances matched with labelled ones by their overlap."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from mitoda.errors import InputError
from mitoda.evaluation.metrics import divide
from mitoda.evaluation.scoring import check_shapes, none_if_nan
from mitoda.volumes import Volume
from mitoda.volumes.opening import Source, as_volume, refuse_image

THRESHOLDS = (0.5, 0.75)
"""Values of IoU from which an instance counts as found; the two that the field reports (Wei et al. 2020, MitoEM,
doi:10.1007/978-3-030-59722-1_7)."""


@dataclass(frozen=True)
class Matched:
    """Matches of predicted with labelled instances at one IoU. Of no instances at all, every score is NaN."""

    iou: float
    tp: int
    fp: int
    fn: int
    total_iou: float
    """Sum over the matches."""

    @property
    def precision(self) -> float:
        """Matched share of the predicted instances."""
        return divide(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Matched share of the labelled instances."""
        return divide(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return divide(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as in Schmidt et al. 2018 (doi:10.1007/978-3-030-00934-2_30) and StarDist."""
        return divide(self.tp, self.tp + self.fp + self.fn)

    @property
    def panoptic_quality(self) -> float:
        """Sum of IoU / (TP + FP / 2 + FN / 2), equation 1 of Kirillov et al. 2019 (doi:10.1109/CVPR.2019.00963)."""
        return divide(self.total_iou, self.tp + self.fp / 2 + self.fn / 2)

    def to_dict(self) -> dict[str, float | None]:
        """Counts and scores for JSON."""
        names = ("precision", "recall", "f1", "average_precision", "panoptic_quality")
        return asdict(self) | {name: none_if_nan(getattr(self, name)) for name in names}


class Overlaps:
    """Voxels that each predicted and each labelled instance have in common, added up section by section."""

    def __init__(self) -> None:
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, predicted: np.ndarray, labelled: np.ndarray) -> None:
        """Count the voxels of a section; two arrays of one shape, whole numbers, 0 is background."""
        either = (predicted != 0) | (labelled != 0)
        pairs, counts = np.unique(
            # Together, uint64 and int64 would become floats, which lose large numbers.
            np.stack([one[either].astype(np.int64) for one in (predicted, labelled)]),
            axis=1,
            return_counts=True,
        )
        self._pairs.append((pairs, counts))

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers predicted, numbers labelled, and voxels of each pair, background included."""
        if not self._pairs:
            return (np.zeros(0, np.int64),) * 3
        pairs, inverse = np.unique(
            np.concatenate([pairs for pairs, _ in self._pairs], 1), axis=1, return_inverse=True
        )
        counts = np.bincount(inverse.ravel(), np.concatenate([counts for _, counts in self._pairs]))
        return pairs[0], pairs[1], counts.astype(np.int64)

    @cached_property
    def sizes(self) -> tuple[dict[int, int], dict[int, int]]:
        """Voxels of each predicted and of each labelled instance."""
        predicted, labelled, counts = self.table
        return _sizes(predicted, counts), _sizes(labelled, counts)

    @cached_property
    def common(self) -> list[tuple[int, int, int]]:
        """Predicted number, labelled number and common voxels of instances that overlap."""
        return [(p, t, n) for p, t, n in zip(*(part.tolist() for part in self.table), strict=True) if p and t]

    def match(self, iou: float) -> Matched:
        """Match instances of at least this IoU, one to one: as many as possible.

        From 0.5 on this is also the matching of the largest total IoU: an instance overlaps at most one other by more
        than half, and ties at exactly 0.5 are worth the same.
        """
        if not 0.5 <= iou <= 1:
            raise InputError(f"the IoU of a match is {iou}; expected 0.5 to 1")
        predicted_sizes, labelled_sizes = self.sizes
        rows, columns = ({number: index for index, number in enumerate(sizes)} for sizes in self.sizes)
        found = {}
        for predicted, labelled, voxels in self.common:
            value = voxels / (predicted_sizes[predicted] + labelled_sizes[labelled] - voxels)
            if value >= iou:
                found[rows[predicted], columns[labelled]] = value
        places = np.array(list(found), int).reshape(-1, 2).T
        candidates = coo_array(
            (np.ones(len(found), np.int8), places), (max(len(rows), 1), max(len(columns), 1))
        )
        partner = maximum_bipartite_matching(candidates.tocsr(), perm_type="column")
        values = [found[row, column] for row, column in enumerate(partner.tolist()) if column >= 0]
        tp = len(values)
        return Matched(iou, tp, len(rows) - tp, len(columns) - tp, float(sum(values)))

    @property
    def splits(self) -> int:
        """Labelled instances cut into pieces: two or more predicted ones lie in them with over half of their voxels."""
        return _holding_several((t, n / self.sizes[0][p]) for p, t, n in self.common)

    @property
    def merges(self) -> int:
        """Predicted instances that join several: two or more labelled ones lie in them with over half of theirs."""
        return _holding_several((p, n / self.sizes[1][t]) for p, t, n in self.common)


def _sizes(numbers: np.ndarray, counts: np.ndarray) -> dict[int, int]:
    found, inverse = np.unique(numbers, return_inverse=True)
    totals = np.bincount(inverse.ravel(), counts).astype(int)
    return {n: size for n, size in zip(found.tolist(), totals.tolist(), strict=True) if n}


def _holding_several(shares: Iterable[tuple[int, float]]) -> int:
    """How many numbers come with a share above one half more than once."""
    inside = Counter(number for number, share in shares if share > 0.5)
    return sum(count > 1 for count in inside.values())


@dataclass(frozen=True)
class InstanceScore:
    """How well the instances of a volume were predicted."""

    predicted: int
    labelled: int
    matched: tuple[Matched, ...]
    """At `THRESHOLDS`."""
    splits: int
    merges: int

    def to_dict(self) -> dict[str, object]:
        """All numbers for JSON; None if one does not exist."""
        return {
            "predicted": self.predicted,
            "labelled": self.labelled,
            "splits": self.splits,
            "merges": self.merges,
            "matched": [one.to_dict() for one in self.matched],
        }


def score_instances(
    prediction: Volume | Source,
    labels: Volume | Source,
    *,
    ignore: Volume | Source | None = None,
    ignore_value: int | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    progress: Callable[..., Iterable[int]] | None = None,
) -> InstanceScore:
    """Compare predicted instances with labelled ones.

    Parameters
    ----------
    prediction, labels : Volume, path or ndarray
        Whole numbers, one for each mitochondrion; 0 is background.
    ignore : Volume, path or ndarray, optional
        Voxels where it is not 0 are left out.
    ignore_value : int, optional
        Voxels with this label are left out.
    thresholds : sequence of float
        Values of IoU from which an instance counts as found, from 0.5 to 1.
    progress : callable
        Gets an iterable and `total`, returns an equal iterable; for example `rich.progress.track`.

    Raises
    ------
    InputError
        If shapes differ, or a volume does not hold instance numbers.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 1, 1, 0, 2, 2, 2]]])
    >>> result = score_instances(np.array([[[5, 5, 5, 0, 0, 7, 0, 0]]]), labels)
    >>> [(one.iou, one.tp, one.fp, one.fn) for one in result.matched]
    [(0.5, 1, 1, 1), (0.75, 1, 1, 1)]
    """
    predicted, labelled = as_volume(prediction), as_volume(labels)
    ignored = None if ignore is None else as_volume(ignore)
    check_shapes(predicted, labelled, ignored)
    for volume in (predicted, labelled):
        refuse_image(volume)
    overlaps = Overlaps()
    order: Iterable[int] = range(predicted.shape[0])
    for section in progress(order, total=predicted.shape[0]) if progress else order:
        one, other = read_instances(predicted, section), labelled.read(section)
        counts = np.ones(one.shape, bool) if ignore_value is None else other != ignore_value
        other = as_instances(np.where(counts, other, other.dtype.type(0)), section, labelled.name)
        if ignored is not None:
            counts &= ignored.read(section) == 0
        overlaps.add(one[counts], other[counts])
    for volume, sizes in zip((predicted, labelled), overlaps.sizes, strict=True):
        check_numbered(volume.name, sizes)
    return InstanceScore(
        len(overlaps.sizes[0]),
        len(overlaps.sizes[1]),
        tuple(overlaps.match(iou) for iou in thresholds),
        overlaps.splits,
        overlaps.merges,
    )


def read_instances(volume: Volume, section: int) -> np.ndarray:
    """Read a section of instance numbers; see `as_instances`."""
    return as_instances(volume.read(section), section, volume.name)


def as_instances(values: np.ndarray, section: int, name: str) -> np.ndarray:
    """Return the values of a section of a file as instance numbers.

    Raises
    ------
    InputError
        If it holds fractions or negative numbers.
    """
    if values.dtype.kind == "u":
        return values
    wrong = ~((values >= 0) & (values == np.rint(values)))
    if wrong.any():
        raise InputError(
            f"section {section} of {name} holds {values[wrong][0]:g}; instances are whole numbers from 1, and "
            "0 is background"
        )
    return values.astype(np.int64)


def check_numbered(name: str, numbers: Iterable[int]) -> None:
    """Refuse a mask in place of instance numbers: one number, 255.

    Raises
    ------
    InputError
    """
    if list(numbers) == [255]:
        raise InputError(
            f"{name} is a mask: its only value besides 0 is 255; number its mitochondria first: mitoda instances "
            f"{name} -o labels.tif"
        )
