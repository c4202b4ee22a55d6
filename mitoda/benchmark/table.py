"""The table: measured scores beside the paper's, the protocol, and how well label-free scores rank checkpoints."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mitoda.benchmark.published import PUBLISHED
from mitoda.benchmark.tasks import BenchSettings, Task
from mitoda.evaluation.scoring import METRICS
from mitoda.inference.self_consistency import SCORES
from mitoda.methods import method_named
from mitoda.volumes.files import atomic_write

NamedScores = dict[str, float | None]
"""Shares from 0 to 1 by the names in `METRICS` (or label-free scores by theirs); None where one does not exist."""


@dataclass(frozen=True)
class Checkpoint:
    """Scores of the weights after a step."""

    step: int
    mean: NamedScores
    """Over the sections with labelled foreground, the paper's protocol."""
    pooled: NamedScores
    """Of all pixels together."""
    selection: NamedScores
    """Label-free scores."""


@dataclass(frozen=True)
class Result:
    """Scores of one method with one seed."""

    method: str
    seed: int
    training_seconds: float
    last: Checkpoint
    kept: tuple[Checkpoint, ...] = field(default=())


@dataclass(frozen=True)
class Row:
    """Scores of one method."""

    method: str
    seeds: int
    """Number of finished seeds."""
    steps: float | None
    """Mean over seeds of the steps that the training took."""
    ours: NamedScores
    """Mean over seeds of the last weights."""
    spread: NamedScores
    """Standard deviation over seeds (n − 1); None for one seed."""
    paper: NamedScores
    note: str
    """Why a number is missing."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of a label-free score with F1 on the held-out volume; None for fewer than three pairs."""

    score: str
    within_runs: float | None
    """Between the checkpoints of a run, averaged over runs."""
    beyond_time: float | None
    """The same with the step held fixed, so that a common trend in time does not count."""
    runs: int
    across_entries: float | None
    """Between the last weights of all methods and seeds."""
    entries: int


@dataclass(frozen=True)
class BenchTable:
    """Results of a benchmark. The names of the fields are those of the JSON."""

    task: str
    protocol: tuple[str, ...]
    rows: tuple[Row, ...]
    rank_correlation_with_f1: tuple[Correlation, ...]
    entries: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as it is written to JSON."""
        return asdict(self)

    def write_csv(self, path: Path) -> None:
        """Write one line per method, empty where a number does not exist."""
        lines: list[dict[str, object]] = [
            {"task": self.task, "method": row.method, "seeds": row.seeds, "steps": row.steps}
            | {
                f"{group}_{name}": getattr(row, group)[name]
                for group in ("ours", "spread", "paper")
                for name in METRICS
            }
            | {"note": row.note}
            for row in self.rows
        ]
        with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)


def tabulate(
    task: Task, settings: BenchSettings, results: Sequence[Result], notes: Mapping[str, str]
) -> BenchTable:
    """Make the table, with a row for each method of the settings; `notes` say why a method has no score."""
    rows = []
    for method in settings.methods:
        own = [result for result in results if result.method == method]
        means = [result.last.mean for result in own]
        cell = PUBLISHED.get(task.name, {}).get(method, (None,) * len(METRICS))
        rows.append(
            Row(
                method,
                len(own),
                mean_of([result.last.step for result in own]),
                {name: mean_of(_present(means, name)) for name in METRICS},
                {name: spread_of(_present(means, name)) for name in METRICS},
                {name: None if x is None else x / 100 for name, x in zip(METRICS, cell, strict=True)},
                notes.get(method, ""),
            )
        )
    correlations = tuple(correlate(score, results) for score in SCORES)
    longest = max((result.last.step for result in results), default=None)
    return BenchTable(task.name, protocol(task, settings, longest), tuple(rows), correlations, tuple(results))


def _present(scores: Sequence[NamedScores], name: str) -> list[float]:
    return [value for one in scores if (value := one[name]) is not None]


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None for an empty list."""
    return statistics.fmean(values) if values else None


def spread_of(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample, n − 1 in the denominator; None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def correlate(score: str, results: Sequence[Result]) -> Correlation:
    """Rank correlation of a label-free score with F1, within runs and across them."""

    def series(checkpoints: Sequence[Checkpoint]) -> np.ndarray:
        """Score, F1 and step of the checkpoints that have both scores: (3, checkpoints)."""
        every = ((one.selection.get(score), one.mean["f1"], one.step) for one in checkpoints)
        return np.array([one for one in every if None not in one], float).reshape(-1, 3).T

    runs = [series(result.kept) for result in results]
    within = [rho for values, f1, _ in runs if (rho := spearman(values, f1)) is not None]
    beyond = [rho for values, f1, step in runs if (rho := partial_spearman(values, f1, step)) is not None]
    values, f1, _ = series([result.last for result in results])
    return Correlation(
        score, mean_of(within), mean_of(beyond), len(within), spearman(values, f1), len(values)
    )


def spearman(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs, or where one side is constant.

    Examples
    --------
    >>> spearman([0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0])
    0.8
    """
    from scipy.stats import spearmanr

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return round(float(spearmanr(one, other).statistic), 12)


def partial_spearman(
    one: Sequence[float] | np.ndarray,
    other: Sequence[float] | np.ndarray,
    given: Sequence[float] | np.ndarray,
) -> float | None:
    """Spearman's correlation of two series with the ranks of a third held fixed.

    (r₁₂ − r₁₃ r₂₃) / √((1 − r₁₃²)(1 − r₂₃²)); None where a series is constant or follows the third exactly.
    """
    r12, r13, r23 = spearman(one, other), spearman(one, given), spearman(other, given)
    if r12 is None or r13 is None or r23 is None:
        return None
    squared = (1 - r13**2) * (1 - r23**2)
    return None if squared < 1e-9 else (r12 - r13 * r23) / math.sqrt(squared)


FIRST_GAIN = 5_000
"""Steps before which the validation log of DA-ISC's reference run shows no gain over its first thousand; the whole run
has 200,000."""


def protocol(task: Task, settings: BenchSettings, longest: int | None = None) -> tuple[str, ...]:
    """Say how the numbers were made: which labels were read, what was scored, and what chose the checkpoint.

    `longest` is the number of steps of the longest training; where the paper's own run has not improved yet, the text
    says so.
    """
    length = f"{task.steps} steps" if task.steps is not None else f"{task.minutes:g} minutes"
    oracle = any(method_named(method)[0].labels_from == "target" for method in settings.methods)
    seeds = "1 seed" if len(settings.seeds) == 1 else f"{len(settings.seeds)} seeds"
    lines = [
        f"Training reads the labels of the source, {task.source}, and only the images of the target, {task.target}."
        + (" The oracle alone reads the target's labels, and not the source." if oracle else ""),
        f"Scores are of {task.test}, "
        + (
            "the target itself: training reads its images, but not its labels."
            if task.is_transductive
            else "which no training reads."
        ),
        "Each score is the unweighted mean over the sections with labelled foreground, of the mask that 'mitoda "
        "segment' writes by default; AP is of the probabilities.",
        f"The weights are the averaged ones after {length}, a length fixed beforehand; no label and no score chooses "
        "the checkpoint.",
        f"Every method has the backbone {settings.backbone}, and {seeds}.",
    ]
    if task.name in PUBLISHED:
        pixels = ", and Oracle, NoAdapt and UALR are scores of all pixels, not means over sections"
        lines.append(
            "The paper's numbers: the checkpoints of DA-ISC were chosen on the labelled test half; other rows have "
            f"other networks{pixels if task.name.startswith('mitoem') else ''}."
        )
        if longest is not None and longest < FIRST_GAIN:
            lines.append(
                f"No training here has more than {longest:,} steps. DA-ISC's own run shows no gain before "
                f"{FIRST_GAIN:,} of its 200,000, so differences between the adversarial methods mean little."
            )
    return tuple(lines)
