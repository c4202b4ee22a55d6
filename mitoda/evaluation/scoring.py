"""Scores of a volume: per section, their mean (the protocol of the paper), and pooled over all pixels.

Means leave out sections without labelled foreground, where average precision and MCC do not exist, and F1 and IoU are
0 or 0/0 whatever the number of false positives. Every table states their number and their share of false positives.
"""

import csv
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mitoda.errors import InputError
from mitoda.evaluation.metrics import Confusion, Kind, Ranking, SectionScore, full_scale, rank_section
from mitoda.volumes import Volume
from mitoda.volumes.files import atomic_write
from mitoda.volumes.opening import Source, as_volume, refuse_image

METRICS = ("average_precision", "f1", "mcc", "iou")
"""The columns of a table, and the names of the attributes that hold them."""


@dataclass(frozen=True)
class Scores:
    """One row of a table; NaN where a score does not exist."""

    average_precision: float
    f1: float
    mcc: float
    iou: float


@dataclass(frozen=True)
class ScoredSection:
    """The score of one section of a volume, and its part of the pooled scores."""

    section: int
    score: SectionScore
    ranking: Ranking


@dataclass(frozen=True)
class VolumeScore:
    """How well a volume was predicted."""

    kind: Kind
    """How the prediction was read."""
    threshold: float
    sections: dict[int, SectionScore]
    """By index of the section."""
    pooled_average_precision: float
    """Of all pixels together; float maps are rounded down to multiples of 2⁻¹⁶ for it."""
    notes: tuple[str, ...] = ()
    """Assumptions about prediction and labels that a person should check."""

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
        """Number of sections without labelled foreground, which the means leave out."""
        return sum(not score.has_label for score in self.sections.values())

    @property
    def false_share_in_empty(self) -> float:
        """Predicted share of the pixels of those sections; NaN if there are none."""
        empty = sum((score.confusion for score in self.sections.values() if not score.has_label), Confusion())
        return _share(empty.fp, empty)

    @property
    def predicted_share(self) -> float:
        """Predicted foreground, as a share of all pixels."""
        return _share(self.confusion.tp + self.confusion.fp, self.confusion)

    @property
    def labelled_share(self) -> float:
        """Labelled foreground, as a share of all pixels."""
        return _share(self.confusion.tp + self.confusion.fn, self.confusion)

    def to_dict(self) -> dict[str, object]:
        """All numbers for JSON; None if one does not exist."""
        return {
            "kind": self.kind,
            "threshold": self.threshold,
            "notes": list(self.notes),
            "sections": len(self.sections),
            "empty_sections": self.empty_sections,
            "false_share_in_empty": none_if_nan(self.false_share_in_empty),
            "predicted_share": none_if_nan(self.predicted_share),
            "labelled_share": none_if_nan(self.labelled_share),
            "mean": _row(self.mean),
            "pooled": _row(self.pooled) | asdict(self.confusion),
            "per_section": self._rows(),
        }

    def write_csv(self, path: Path | str) -> None:
        """Write one line per section: index, the four scores (empty if they do not exist), numbers of pixels."""
        with atomic_write(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["section", *METRICS, *asdict(Confusion())])
            writer.writeheader()
            writer.writerows(self._rows())

    def _rows(self) -> list[dict[str, float | None]]:
        return [
            {"section": section, **_row(score), **asdict(score.confusion)}
            for section, score in self.sections.items()
        ]


def _share(part: int, confusion: Confusion) -> float:
    return part / confusion.pixels if confusion.pixels else math.nan


def mean_of(values: Sequence[float]) -> float:
    """The mean; NaN for an empty list."""
    return math.fsum(values) / len(values) if values else math.nan


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _row(score: Scores | SectionScore) -> dict[str, float | None]:
    return {name: none_if_nan(getattr(score, name)) for name in METRICS}


def score(
    prediction: Volume | Source,
    labels: Volume | Source,
    *,
    threshold: float = 0.5,
    kind: Literal["auto", "mask", "probability"] = "auto",
    ignore: Volume | Source | None = None,
    ignore_value: int | None = None,
    sections: Iterable[int] | None = None,
    workers: int = 2,
    progress: Callable[..., Iterable[ScoredSection]] | None = None,
) -> VolumeScore:
    """Score a predicted volume against its labels.

    Parameters
    ----------
    prediction : Volume, path or ndarray
        A mask, or foreground probabilities: float in [0, 1], uint8 / 255, uint16 / 65535.
    labels : Volume, path or ndarray
        Non-zero is foreground.
    threshold : float
        Probabilities of at least this are foreground.
    kind : {"auto", "mask", "probability"}
        What the prediction is; see `decide_kind` for "auto".
    ignore : Volume, path or ndarray, optional
        Pixels where it is not 0 are not scored.
    ignore_value : int, optional
        Pixels with this label are not scored.
    sections : iterable of int, optional
        By default all.
    workers : int
        Sections scored at the same time. Each needs about 20 bytes per pixel.
    progress : callable
        Gets an iterator and `total`, returns an equal iterator; for example `rich.progress.track`.

    Raises
    ------
    InputError
        If shapes differ, a probability is outside [0, 1], or the values do not tell what they mean.

    Examples
    --------
    >>> mask = np.array([[[0, 255, 255, 0]], [[0, 0, 0, 0]]], np.uint8)
    >>> result = score(mask, mask)
    >>> result.kind, result.mean.f1, result.empty_sections
    ('mask', 1.0, 1)
    """
    prediction, labels = as_volume(prediction), as_volume(labels)
    ignored = None if ignore is None else as_volume(ignore)
    check_shapes(prediction, labels, ignored)
    refuse_image(labels)
    if not 1 <= workers <= 256:
        raise InputError(f"workers is {workers}; expected 1 to 256")
    if not 0 <= threshold <= 1:  # false for NaN
        raise InputError(f"threshold is {threshold}; expected 0 to 1")
    chosen = list(range(prediction.shape[0])) if sections is None else sorted(set(sections))
    decided, note = decide_kind(prediction, chosen) if kind == "auto" else (kind, "")

    def work(section: int) -> ScoredSection:
        predicted, label = prediction.read(section), labels.read(section)
        counts = np.ones(label.shape, bool) if ignore_value is None else label != ignore_value
        if ignored is not None:
            counts &= ignored.read(section) == 0
        if not counts.all():
            predicted, label = predicted[counts], label[counts]
        _check_labels(label, f"section {section} of {labels.name}")
        try:
            return ScoredSection(section, *rank_section(predicted, label, threshold, decided))
        except InputError as error:
            raise InputError(f"section {section} of {prediction.name}: {error}") from error

    scored: Iterable[ScoredSection] = _in_threads(work, chosen, workers)
    result = summarise(progress(scored, total=len(chosen)) if progress else scored, decided, threshold)
    notes = [note] if note else []
    if result.labelled_share == 1:
        notes.append(f"all pixels of {labels.name} are labelled foreground; check that background is 0")
    return VolumeScore(decided, threshold, result.sections, result.pooled_average_precision, tuple(notes))


def _in_threads(
    work: Callable[[int], ScoredSection], sections: Iterable[int], workers: int
) -> Iterator[ScoredSection]:
    """Yield results in order, with at most `workers` computed ahead."""
    numbers = iter(sections)
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


def decide_kind(prediction: Volume, sections: Iterable[int]) -> tuple[Kind, str]:
    """Decide from the values of all sections whether a prediction is a mask or probabilities; also return a note.

    - 0 and one positive value, or only 0 or full scale: a mask.
    - Floats with fractions: probabilities.
    - Several values that mostly border on 0 rather than on each other: instance numbers or classes, a mask.
    - uint8 or uint16 up to at least half of full scale: probabilities.

    Raises
    ------
    InputError
        If it is none of these.
    """
    values: set[float] = set()
    several = False
    edges = edges_at_zero = saturated = foreground = 0
    for section in sections:
        array = prediction.read(section)
        if not array.size:
            continue
        ends = array.min(), array.max()
        values.update(map(float, ends))
        if not _holds_only(array, *ends):
            several = True
            if array.dtype.kind == "f" and not (array == np.rint(array)).all():
                return "probability", ""
        if several or len(values) > 2:
            part = array[::4]
            left, right = part[:, :-1], part[:, 1:]
            edges += int(np.count_nonzero(left != right))
            edges_at_zero += int(np.count_nonzero((left == 0) != (right == 0)))
            saturated += int(np.count_nonzero(part == full_scale(array.dtype)))
            foreground += int(np.count_nonzero(part))
    scale = full_scale(prediction.dtype)
    binary = values <= {0, scale} or (len(values) == 2 and 0 in values and max(values) > 0)
    if binary and not several:
        return "mask", ""
    if any(value % 1 for value in values):
        return "probability", ""
    if min(values) >= 0 and 2 * edges_at_zero > edges and 2 * saturated < foreground:
        return "mask", (
            f"{prediction.name} holds several values besides 0, read as instance numbers or classes: all are "
            "foreground; give --kind probability if they are probabilities"
        )
    wide = prediction.dtype in (np.uint8, np.uint16) and 2 * max(values) >= scale
    if min(values) >= 0 and (wide or prediction.dtype.kind == "f"):
        return "probability", ""
    raise InputError(
        f"{prediction.name} holds {prediction.dtype} values from {min(values):g} to {max(values):g}, which are neither "
        f"a mask nor probabilities up to {scale}; give --kind mask if all non-zero values are foreground, --kind "
        f"probability if {scale} means 1, or rescale it"
    )


def _holds_only(array: np.ndarray, low: float, high: float) -> bool:
    return bool(((array == low) | (array == high)).all())


def _check_labels(label: np.ndarray, name: str) -> None:
    """Refuse values that usually mark pixels not to be scored."""
    if not label.size or label.dtype == bool:
        return
    low, high = label.min(), label.max()
    negative = not low >= 0
    if negative or (high == 255 and not _holds_only(label, 0, 255) and set(np.unique(label)) <= {0, 1, 255}):
        value = low if negative else high
        raise InputError(
            f"{name} holds the label {value:g}, which often marks pixels to ignore; give --ignore-value {value:g}, or "
            "replace it"
        )


def check_shapes(prediction: Volume, labels: Volume, ignore: Volume | None = None) -> None:
    """Raise InputError unless the volumes have the same shape."""
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
