"""Average precision, F1, MCC and IoU of one section: arrays in, numbers out.

All four agree with scikit-learn on every section whose label holds foreground. What they are where it holds
none, or where a formula is 0/0, is written at each of them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mitoda.errors import InputError

Kind = Literal["mask", "probability"]

BINS = 1 << 16
"""Bins of float scores: as many as 16 bits tell apart, which numpy counts five times as fast as 18 bits."""
FEW = 1 << 17
"""Up to this many scores are sorted without parting them once more, which is no slower."""
CHUNK = 1 << 21
"""Pixels counted at once, so that temporary arrays stay small on large sections."""


@dataclass(frozen=True)
class Confusion:
    """Pixels by prediction and label. Sums of confusions are confusions: add them to pool sections."""

    tp: int = 0
    """Foreground in both."""
    fp: int = 0
    """Foreground in the prediction only."""
    fn: int = 0
    """Foreground in the label only."""
    tn: int = 0
    """Background in both."""

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), equal to Dice; NaN where prediction and label are both empty."""
        return divide(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """tp / (tp + fp + fn), the Jaccard index; NaN where prediction and label are both empty."""
        return divide(self.tp, self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation (doi:10.1016/0005-2795(75)90109-9); NaN where the label is empty.

        0 where the prediction is constant, or the label all foreground, as in scikit-learn.

        Examples
        --------
        >>> Confusion(tp=2, fp=0, fn=0, tn=2).mcc, Confusion(tp=0, fp=0, fn=2, tn=2).mcc
        (1.0, 0.0)
        """
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        if tp + fn == 0:
            return math.nan
        squared = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(squared) if squared else 0.0


def divide(numerator: int, denominator: int) -> float:
    """The quotient, or NaN for 0/0."""
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class SectionScore:
    """How well one section was predicted."""

    average_precision: float
    """Step-wise average precision; NaN where the label is empty."""
    confusion: Confusion
    """Pixels at the threshold."""

    @property
    def f1(self) -> float:
        """See `Confusion.f1`."""
        return self.confusion.f1

    @property
    def mcc(self) -> float:
        """See `Confusion.mcc`."""
        return self.confusion.mcc

    @property
    def iou(self) -> float:
        """See `Confusion.iou`."""
        return self.confusion.iou

    @property
    def has_label(self) -> bool:
        """Whether the label holds any foreground. Means over sections take these sections only."""
        return self.confusion.tp + self.confusion.fn > 0


@dataclass(frozen=True)
class Ranking:
    """Histogram of the scores of many pixels, ascending. Those of one kind and type of map add up over
    sections.

    Scores of uint8 and uint16 maps have a bin each, so the result is exact; float scores are rounded down to
    multiples of 2⁻¹⁶, so the result is the exact average precision of the map so rounded.
    """

    totals: np.ndarray
    """Pixels in each bin, int64, shape (bins,)."""
    positives: np.ndarray
    """Those of them that the label calls foreground."""

    def __add__(self, other: "Ranking") -> "Ranking":
        return Ranking(self.totals + other.totals, self.positives + other.positives)

    @property
    def average_precision(self) -> float:
        """See `average_precision_of_counts`."""
        return average_precision_of_counts(self.totals, self.positives)


def score_section(
    prediction: np.ndarray, label: np.ndarray, threshold: float = 0.5, kind: Kind | None = None
) -> SectionScore:
    """Score one section.

    Parameters
    ----------
    prediction : ndarray, shape (rows, columns)
        A mask (bool, or any numbers of which 0 is background), or a foreground probability: float in [0, 1],
        uint8 read as value / 255, uint16 as value / 65535.
    label : ndarray, shape (rows, columns)
        Anything but 0 is foreground.
    threshold : float
        Probabilities from here on are foreground. Floats are compared in their own type, as numpy does.
    kind : {"mask", "probability"}, optional
        What the prediction is; by default a mask if it holds zero and at most one other value (see
        `looks_like_mask`). For several sections of one volume decide once for all: a section of a probability
        map may be empty.

    Raises
    ------
    InputError
        If shapes differ, a probability lies outside [0, 1] or is not a number, or the threshold outside (0,
        1].

    Examples
    --------
    >>> score = score_section(np.array([[0.9, 0.6, 0.2]]), np.array([[1, 0, 0]]))
    >>> score.average_precision, score.confusion
    (1.0, Confusion(tp=1, fp=1, fn=0, tn=1))
    """
    return rank_section(prediction, label, threshold, kind)[0]


def rank_section(
    prediction: np.ndarray, label: np.ndarray, threshold: float = 0.5, kind: Kind | None = None
) -> tuple[SectionScore, Ranking]:
    """Score one section as `score_section`, and return what is to be pooled over sections too."""
    if prediction.shape != label.shape:
        raise InputError(
            f"the prediction has shape {prediction.shape}, the label {label.shape}; expected equal shapes"
        )
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is {threshold}; expected more than 0 and at most 1")
    is_mask = prediction.dtype == bool or (looks_like_mask(prediction) if kind is None else kind == "mask")
    scores = np.ascontiguousarray(prediction).reshape(-1)
    truth = np.ascontiguousarray(label).reshape(-1)
    truth = truth if truth.dtype == bool else truth != 0
    if is_mask:
        return rank_mask(scores if scores.dtype == bool else scores != 0, truth)
    if scores.dtype in (np.uint8, np.uint16):
        return rank_integers(scores, truth, threshold)
    if scores.dtype.kind == "f":
        return rank_floats(scores, truth, threshold)
    raise InputError(
        f"a prediction of type {scores.dtype} with values besides 0 and one other is no mask or probability; "
        "expected uint8, uint16 or float"
    )


def looks_like_mask(prediction: np.ndarray) -> bool:
    """Whether an array holds zero and at most one other value, which is positive.

    An array of one value is a mask if that value is 0, or the largest of its type (1 for floats).
    """
    if prediction.size == 0 or prediction.dtype == bool:
        return True
    largest = prediction.max()
    if not largest > 0:
        return bool(prediction.min() == 0) and bool(largest == 0)
    background = prediction == 0
    if not background.any() and largest != full_scale(prediction.dtype):
        return False
    return bool((background | (prediction == largest)).all())


def full_scale(dtype: np.dtype) -> int:
    """The value that stands for probability 1: 255, 65535, or 1 for floats."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def rank_mask(mask: np.ndarray, truth: np.ndarray) -> tuple[SectionScore, Ranking]:
    """Score a boolean mask: a probability of 0 and 1."""
    tp = int(np.count_nonzero(mask & truth))
    predicted, positives = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    confusion = Confusion(tp, predicted - tp, positives - tp, mask.size - predicted - positives + tp)
    ranking = Ranking(np.array([mask.size - predicted, predicted]), np.array([positives - tp, tp]))
    return SectionScore(ranking.average_precision, confusion), ranking


def rank_integers(values: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[SectionScore, Ranking]:
    """Score a probability map of uint8 or uint16 from its histograms, without sorting."""
    bins = full_scale(values.dtype) + 1
    ranking = Ranking(count(values, bins), count(values[truth], bins))
    above = np.arange(bins) / (bins - 1) >= threshold
    return SectionScore(ranking.average_precision, confuse(ranking, above)), ranking


def confuse(ranking: Ranking, above: np.ndarray) -> Confusion:
    """Confusion where the bins marked `above` are foreground."""
    tp, predicted = int(ranking.positives[above].sum()), int(ranking.totals[above].sum())
    positives, total = int(ranking.positives.sum()), int(ranking.totals.sum())
    return Confusion(tp, predicted - tp, positives - tp, total - predicted - positives + tp)


def count(values: np.ndarray, bins: int) -> np.ndarray:
    """How often each of 0 … bins − 1 occurs, int64."""
    totals = np.bincount(values[:CHUNK], minlength=bins)
    for start in range(CHUNK, len(values), CHUNK):
        totals += np.bincount(values[start : start + CHUNK], minlength=bins)
    return totals


def average_precision_of_counts(totals: np.ndarray, positives: np.ndarray) -> float:
    """Average precision from pixels and foreground pixels per score, scores ascending.

        AP = Σ (recall_n − recall_n−1) · precision_n      over distinct scores n from the highest down,

    which is step-wise, without interpolation, as in scikit-learn. NaN if there is no positive.

    Examples
    --------
    >>> average_precision_of_counts(np.array([2, 2]), np.array([1, 1]))
    0.5
    """
    everything, found = totals[::-1].cumsum(), positives[::-1].cumsum()
    if len(found) == 0 or found[-1] == 0:
        return math.nan
    step = np.flatnonzero(positives[::-1])
    return float((positives[::-1][step] * (found[step] / everything[step])).sum() / found[-1])


def rank_floats(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[SectionScore, Ranking]:
    """Score a map of float probabilities; see `average_precision_of_floats` for how it is ranked."""
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):  # false for NaN too
        raise InputError(
            f"probabilities run from {np.nanmin(scores):g} to {np.nanmax(scores):g}"
            f"{', some are not numbers' if np.isnan(scores).any() else ''}; expected 0 to 1. "
            "Apply a sigmoid to logits, or pass a mask"
        )
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)
    found = scores[truth]
    tp, predicted = (int(np.count_nonzero(part >= threshold)) for part in (found, scores))
    confusion = Confusion(tp, predicted - tp, len(found) - tp, scores.size - predicted - len(found) + tp)
    bins = linear_bins(scores)
    ranking = Ranking(count(bins, BINS), count(bins[truth], BINS))
    return SectionScore(average_precision_of_floats(scores, truth, bins, ranking), confusion), ranking


def linear_bins(scores: np.ndarray) -> np.ndarray:
    """Bin of each score in [0, 1] among BINS equally wide ones, uint16; 1 is in the last."""
    return np.minimum(scores * scores.dtype.type(BINS), BINS - 1).astype(np.uint16)


def leading_bits(scores: np.ndarray) -> np.ndarray:
    """The 16 leading bits of each score, uint16: bins that are fine near 0.

    The bits of non-negative IEEE floats, read as integers, are in the order of the floats. `abs` turns −0 into 0.
    """
    unsigned = np.dtype(f"u{scores.itemsize}")
    return (abs(scores).view(unsigned) >> unsigned.type(8 * scores.itemsize - 16)).astype(np.uint16)


def average_precision_of_floats(
    scores: np.ndarray, truth: np.ndarray, bins: np.ndarray, ranking: Ranking
) -> float:
    """Exact average precision of float scores in [0, 1], without sorting most of them.

        AP = Σ positives(s) · found(s) / everything(s) / all positives      over the distinct scores s of positives,

    where found and everything count what scores s or more. Only the order around positives matters. Scores are parted
    into bins; a negative in a bin without any positive is counted and dropped, as it lies wholly above or below each
    positive. What is left is sorted:

        bins       | n n | p n p |  n  | n n | p |
        dropped      n n            n    n n             their numbers are added to what lies above a positive
        sorted             p n p               p

    Saturated maps crowd into the lowest bin, so many that are left are parted once more, finer near 0. On predictions
    of real sections 3 % are left, and all of this takes an eighth of one sort.

    Parameters
    ----------
    bins : ndarray
        `linear_bins` of the scores.
    ranking : Ranking
        Their histogram.
    """
    kept, above = with_positives(bins, ranking)
    dropped = [(linear_bins, above)]
    scores, truth = scores[kept], truth[kept]
    if len(scores) > FEW:
        bins = leading_bits(scores)
        kept, above = with_positives(bins, Ranking(count(bins, BINS), count(bins[truth], BINS)))
        dropped.append((leading_bits, above))
        scores, truth = scores[kept], truth[kept]
    ordered, found = np.sort(scores), np.sort(scores[truth])
    if len(found) == 0:
        return math.nan
    starts = np.concatenate([[0], np.flatnonzero(found[1:] != found[:-1]) + 1])
    distinct = found[starts]
    everything = len(ordered) - np.searchsorted(ordered, distinct)
    for binning, above in dropped:
        everything += above[binning(distinct)]
    return float(
        (np.diff(starts, append=len(found)) * ((len(found) - starts) / everything)).sum() / len(found)
    )


def with_positives(bins: np.ndarray, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels are in bins that hold a positive, and how many of the others lie in each bin or above it."""
    occupied = ranking.positives > 0
    return occupied.take(bins), np.where(occupied, 0, ranking.totals)[::-1].cumsum()[::-1]
