"""Two volumes in, a table out: scores per section, their mean (the paper's protocol), and pooled over the
volume.

Sections without labelled foreground
    Average precision and MCC do not exist there, and F1 and IoU are 0 or 0/0, whatever the number of false
    alarms. So the means are taken over the sections with labelled foreground; on them they are
    scikit-learn's. How many sections were left out is part of every table (`VolumeScore.empty_sections`), and
    how much was wrongly found in them (`VolumeScore.false_share_in_empty`). The pooled numbers count every
    pixel of every section.
"""

import csv
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mitoda.errors import InputError
from mitoda.evaluation.metrics import Confusion, Kind, Ranking, SectionScore, looks_like_mask, rank_section
from mitoda.volumes.volume import Volume

METRICS = ("average_precision", "f1", "mcc", "iou")
"""The columns of a table, and the names of the attributes that hold them."""


@dataclass(frozen=True)
class Scores:
    """The four numbers of one row of the table; NaN where one does not exist."""

    average_precision: float
    f1: float
    mcc: float
    iou: float


@dataclass(frozen=True)
class ScoredSection:
    """The score of one section of a volume, and what of it is pooled."""

    section: int
    """Index in the volume, from 0."""
    score: SectionScore
    ranking: Ranking


@dataclass(frozen=True)
class VolumeScore:
    """How well a volume was predicted."""

    kind: Kind
    """What the prediction was read as."""
    threshold: float
    """Probabilities from here on were foreground."""
    sections: dict[int, SectionScore]
    """Score of each section that was scored, by index."""
    pooled_average_precision: float
    """Average precision of all pixels together; of float maps after rounding down to multiples of 2⁻¹⁶."""

    @property
    def confusion(self) -> Confusion:
        """Pixels of all sections together."""
        return sum((score.confusion for score in self.sections.values()), Confusion())

    @property
    def mean(self) -> Scores:
        """Unweighted mean over the sections with labelled foreground; NaN if there is none."""
        labelled = [score for score in self.sections.values() if score.has_label]
        return Scores(*(mean_of([getattr(score, name) for score in labelled]) for name in METRICS))

    @property
    def pooled(self) -> Scores:
        """Scores of all pixels of all sections together."""
        confusion = self.confusion
        return Scores(self.pooled_average_precision, confusion.f1, confusion.mcc, confusion.iou)

    @property
    def empty_sections(self) -> int:
        """How many sections have no labelled foreground, and are left out of the means."""
        return sum(not score.has_label for score in self.sections.values())

    @property
    def false_share_in_empty(self) -> float:
        """Share of the pixels of those sections predicted as foreground; NaN without such sections."""
        empty = sum((score.confusion for score in self.sections.values() if not score.has_label), Confusion())
        return empty.fp / (empty.fp + empty.tn) if empty.fp + empty.tn else math.nan

    @property
    def predicted_share(self) -> float:
        """Share of all pixels that was predicted as foreground."""
        pixels = self.confusion
        return (pixels.tp + pixels.fp) / total(pixels) if total(pixels) else math.nan

    @property
    def labelled_share(self) -> float:
        """Share of all pixels that is labelled as foreground."""
        pixels = self.confusion
        return (pixels.tp + pixels.fn) / total(pixels) if total(pixels) else math.nan

    def to_dict(self) -> dict[str, object]:
        """All numbers for JSON; None where one does not exist."""
        return {
            "kind": self.kind,
            "threshold": self.threshold,
            "sections": len(self.sections),
            "empty_sections": self.empty_sections,
            "false_share_in_empty": none_if_nan(self.false_share_in_empty),
            "predicted_share": none_if_nan(self.predicted_share),
            "labelled_share": none_if_nan(self.labelled_share),
            "mean": row_of(self.mean),
            "pooled": row_of(self.pooled) | pixels_of(self.confusion),
            "per_section": [
                {"section": section, **row_of(score), **pixels_of(score.confusion)}
                for section, score in self.sections.items()
            ],
        }

    def write_csv(self, path: Path | str) -> None:
        """Write one line per section: index, the four scores (empty where they do not exist), pixels."""
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        names = ["section", *METRICS, *pixels_of(Confusion())]
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for section, score in self.sections.items():
                writer.writerow({"section": section, **row_of(score), **pixels_of(score.confusion)})
        partial.replace(path)


def mean_of(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def total(pixels: Confusion) -> int:
    """All pixels of a confusion."""
    return pixels.tp + pixels.fp + pixels.fn + pixels.tn


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def row_of(score: Scores | SectionScore) -> dict[str, float | None]:
    """The four scores by name."""
    return {name: none_if_nan(getattr(score, name)) for name in METRICS}


def pixels_of(confusion: Confusion) -> dict[str, int]:
    """The four counts by name."""
    return {"tp": confusion.tp, "fp": confusion.fp, "fn": confusion.fn, "tn": confusion.tn}


def score_volumes(
    prediction: Volume,
    labels: Volume,
    *,
    threshold: float = 0.5,
    kind: Literal["auto", "mask", "probability"] = "auto",
    workers: int = 2,
    sections: Iterable[int] | None = None,
    ignore: Volume | None = None,
) -> VolumeScore:
    """Score a predicted volume against its labels.

    Parameters
    ----------
    prediction : Volume
        A mask, or foreground probabilities: float32 in [0, 1], uint8 / 255, uint16 / 65535.
    labels : Volume
        Anything but 0 is foreground.
    threshold : float
        Probabilities from here on are foreground.
    kind : {"auto", "mask", "probability"}
        What the prediction is; see `decide_kind` for "auto".
    workers : int
        Sections scored at the same time. Memory: about 20 bytes per pixel of each section in work.
    sections : iterable of int, optional
        Which to score; by default all.
    ignore : Volume, optional
        Where it is not 0, pixels are not scored.

    Returns
    -------
    VolumeScore

    Raises
    ------
    InputError
        If shapes differ, or a probability lies outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from mitoda.volumes.volume import ArrayVolume
    >>> mask = np.array([[[0, 255, 255, 0]], [[0, 0, 0, 0]]], np.uint8)
    >>> score = score_volumes(ArrayVolume(mask), ArrayVolume(mask))
    >>> score.kind, score.mean.f1, score.empty_sections
    ('mask', 1.0, 1)
    """
    chosen = list(range(prediction.shape[0])) if sections is None else sorted(set(sections))
    check_shapes(prediction, labels, ignore)
    decided = decide_kind(prediction, chosen) if kind == "auto" else kind
    return summarise(
        score_sections(prediction, labels, decided, threshold, workers, chosen, ignore), decided, threshold
    )


def score_sections(
    prediction: Volume,
    labels: Volume,
    kind: Kind,
    threshold: float = 0.5,
    workers: int = 2,
    sections: Iterable[int] | None = None,
    ignore: Volume | None = None,
) -> Iterator[ScoredSection]:
    """Yield the score of each section in order, so that a caller can show progress; see `score_volumes`."""
    check_shapes(prediction, labels, ignore)
    if workers < 1:
        raise InputError(f"workers is {workers}; expected 1 or more")

    def work(section: int) -> ScoredSection:
        predicted, label = prediction.read(section), labels.read(section)
        if ignore is not None:
            scored = ignore.read(section) == 0
            predicted, label = predicted[scored], label[scored]
        try:
            return ScoredSection(section, *rank_section(predicted, label, threshold, kind))
        except InputError as error:
            raise InputError(f"section {section} of {prediction.name}: {error}") from error

    numbers = iter(range(prediction.shape[0]) if sections is None else sections)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[ScoredSection]] = deque(
            pool.submit(work, number) for number in itertools.islice(numbers, workers)
        )
        try:
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(work, number) for number in itertools.islice(numbers, 1))
                yield done
        finally:
            for future in waiting:
                future.cancel()


def summarise(scored: Iterable[ScoredSection], kind: Kind, threshold: float) -> VolumeScore:
    """Collect scored sections into the score of a volume."""
    scores: dict[int, SectionScore] = {}
    pooled: Ranking | None = None
    for one in scored:
        scores[one.section] = one.score
        pooled = one.ranking if pooled is None else pooled + one.ranking
    return VolumeScore(kind, threshold, scores, math.nan if pooled is None else pooled.average_precision)


def decide_kind(prediction: Volume, sections: Iterable[int] | None = None) -> Kind:
    """Whether a predicted volume is a mask or a probability map.

    It is a mask if it holds 0 and at most one other value, the same in all sections. A probability map is
    recognised at its first section, as a rule; a mask is read to its end.
    """
    foreground = set()
    for section in range(prediction.shape[0]) if sections is None else sections:
        values = prediction.read(section)
        if not looks_like_mask(values):
            return "probability"
        if values.any():
            foreground.add(values.max())
        if len(foreground) > 1:
            return "probability"
    return "mask"


def check_shapes(prediction: Volume, labels: Volume, ignore: Volume | None = None) -> None:
    """Raise InputError unless the volumes have the same shape; say so if only the order of axes differs."""
    for other, noun in ((labels, "labels"), (ignore, "region to ignore")):
        if other is None or other.shape == prediction.shape:
            continue
        hint = "expected equal shapes (sections, rows, columns)"
        if sorted(other.shape) == sorted(prediction.shape):
            hint += "; the sizes are the same in another order, so one of them was read with its axes swapped"
        raise InputError(
            f"the prediction {prediction.name} has shape {prediction.shape}, "
            f"the {noun} {other.name} {other.shape}; {hint}"
        )
