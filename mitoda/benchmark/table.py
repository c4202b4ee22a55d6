"""The table: ours beside the paper's, how it was made, and how far label-free scores rank as the labels do."""

import csv
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitoda.benchmark.entry import Checkpoint, Result
from mitoda.benchmark.published import PUBLISHED
from mitoda.benchmark.runner import BenchSettings, Failed, Skipped, length_of
from mitoda.benchmark.tasks import Task
from mitoda.evaluation.scoring import METRICS, Scores, mean_of, none_if_nan
from mitoda.inference.self_consistency import SCORES
from mitoda.methods import method_named

NOTHING = Scores(math.nan, math.nan, math.nan, math.nan)
ALIKE = 3
"""Checkpoints or entries below which no rank correlation is given."""


@dataclass(frozen=True)
class Row:
    """One method. Shares from 0 to 1; NaN where a number does not exist."""

    method: str
    title: str
    seeds: int
    """Finished; 0 where there are none."""
    steps: float
    """Mean over seeds of the steps taken: what the budget bought, and whether something slowed a run down."""
    ours: Scores
    """Mean over seeds of the last weights."""
    spread: Scores
    """Standard deviation over seeds (n − 1); NaN of one."""
    best: Scores
    """Mean over seeds of the checkpoint with the highest F1 on the test labels."""
    paper: Scores
    note: str = ""
    """Why a number is missing."""


@dataclass(frozen=True)
class Correlation:
    """How a label-free score ranks beside F1 on the held-out half. Spearman, from −1 to 1; NaN of too few."""

    score: str
    within: float
    """Among the checkpoints of a run, averaged over runs."""
    beyond_time: float
    """The same with the step partialled out, so that a common trend in time does not pass for insight."""
    runs: int
    across: float
    """Among the last weights of all methods and seeds."""
    entries: int


@dataclass(frozen=True)
class BenchTable:
    """All that a bench has to say."""

    task: str
    protocol: tuple[str, ...]
    rows: tuple[Row, ...]
    correlations: tuple[Correlation, ...]
    results: tuple[Result, ...]

    def to_dict(self, *, best: bool = False) -> dict[str, object]:
        """All numbers for JSON, shares from 0 to 1, None where one does not exist; `best` adds the labels' choice."""
        return {
            "task": self.task,
            "protocol": list(self.protocol),
            "rows": [
                {
                    "method": row.method,
                    "title": row.title,
                    "seeds": row.seeds,
                    "steps": none_if_nan(row.steps),
                    **{name: _named(scores) for name, scores in _columns(row, best)},
                    "note": row.note,
                }
                for row in self.rows
            ],
            "rank_correlation_with_f1": [
                {
                    "score": one.score,
                    "within_runs": none_if_nan(one.within),
                    "beyond_time": none_if_nan(one.beyond_time),
                    "runs": one.runs,
                    "across_entries": none_if_nan(one.across),
                    "entries": one.entries,
                }
                for one in self.correlations
            ],
            "entries": [
                {
                    "method": result.method,
                    "seed": result.seed,
                    "training_seconds": result.seconds,
                    "last": _checkpoint(result.last),
                    "kept": [_checkpoint(kept) for kept in result.kept],
                }
                for result in self.results
            ],
        }

    def write_csv(self, path: Path | str, *, best: bool = False) -> None:
        """Write one line per method, shares from 0 to 1, empty where a number does not exist."""
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            columns = [f"{group}_{name}" for group, _ in _columns(EMPTY_ROW, best) for name in METRICS]
            writer = csv.writer(file)
            writer.writerow(["task", "method", "seeds", "steps", *columns, "note"])
            for row in self.rows:
                values = [
                    none_if_nan(getattr(scores, name))
                    for _, scores in _columns(row, best)
                    for name in METRICS
                ]
                writer.writerow([self.task, row.method, row.seeds, none_if_nan(row.steps), *values, row.note])
        partial.replace(path)


EMPTY_ROW = Row("", "", 0, math.nan, NOTHING, NOTHING, NOTHING, NOTHING)


def _columns(row: Row, best: bool) -> Iterator[tuple[str, Scores]]:
    """The groups of numbers of a row; the labels' choice only where it was asked for."""
    yield "ours", row.ours
    yield "spread", row.spread
    if best:
        yield "best_by_test_labels", row.best
    yield "paper", row.paper


def _named(scores: Scores) -> dict[str, float | None]:
    return {name: none_if_nan(getattr(scores, name)) for name in METRICS}


def _checkpoint(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "step": checkpoint.step,
        "mean": _named(checkpoint.mean),
        "pooled": _named(checkpoint.pooled),
        "selection": checkpoint.selection,
    }


def tabulate(
    task: Task, settings: BenchSettings, results: Sequence[Result], missing: Iterable[Skipped | Failed] = ()
) -> BenchTable:
    """Make the table of what was scored.

    Parameters
    ----------
    results : sequence of Result
        In any order; rows come in the order of `settings.methods`.
    missing : iterable of Skipped or Failed
        What has no score, with the reason.
    """
    notes = {
        one.method if isinstance(one, Skipped) else one.entry.method: one.reason
        for one in missing
    }  # fmt: skip
    rows = tuple(
        _row(
            task.name,
            method,
            [result for result in results if result.method == method],
            notes.get(method, ""),
        )
        for method in settings.methods
    )
    correlations = tuple(correlate(score, results) for score in SCORES)
    return BenchTable(task.name, protocol(task, settings), rows, correlations, tuple(results))


def _row(task: str, method: str, results: Sequence[Result], note: str) -> Row:
    cell = PUBLISHED.get(task, {}).get(method)
    return Row(
        method,
        method_named(method)[0].title,
        len(results),
        mean_of([float(result.last.step) for result in results]),
        _over([result.last.mean for result in results], mean_of),
        _over([result.last.mean for result in results], spread_of),
        _over([result.best.mean for result in results], mean_of),
        NOTHING if cell is None else Scores(*(math.nan if x is None else x / 100 for x in cell)),
        note,
    )


def _over(scores: Sequence[Scores], reduce) -> Scores:  # type: ignore[no-untyped-def]
    return Scores(*(reduce([getattr(one, name) for one in scores]) for name in METRICS))


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation of a sample, n − 1 in the denominator; NaN of fewer than two.

    Examples
    --------
    >>> round(spread_of([0.7, 0.9]), 6), spread_of([0.7])
    (0.141421, nan)
    """
    return statistics.stdev(values) if len(values) > 1 else math.nan


def correlate(score: str, results: Sequence[Result]) -> Correlation:
    """Rank correlation of a label-free score with F1, within runs and across them."""
    within, beyond = [], []
    for result in results:
        known = [kept for kept in result.kept if _is_known(kept, score)]
        values = [float(kept.selection[score] or 0.0) for kept in known]
        truth = [kept.mean.f1 for kept in known]
        rho = spearman(values, truth)
        if not math.isnan(rho):
            within.append(rho)
            beyond.append(partial_spearman(values, truth, [float(kept.step) for kept in known]))
    last = [result.last for result in results if _is_known(result.last, score)]
    across = spearman([float(one.selection[score] or 0.0) for one in last], [one.mean.f1 for one in last])
    usable = [rho for rho in beyond if not math.isnan(rho)]
    return Correlation(score, mean_of(within), mean_of(usable), len(within), across, len(last))


def _is_known(checkpoint: Checkpoint, score: str) -> bool:
    return checkpoint.selection.get(score) is not None and not math.isnan(checkpoint.mean.f1)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN of fewer than three pairs, or where one side is constant.

    Examples
    --------
    >>> spearman([0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0])
    0.8
    """
    from scipy.stats import spearmanr

    if len(one) < ALIKE or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return round(float(spearmanr(one, other).statistic), 12)


def partial_spearman(one: Sequence[float], other: Sequence[float], given: Sequence[float]) -> float:
    """Spearman's correlation of two series with the ranks of a third held fixed.

    (r₁₂ − r₁₃ r₂₃) / √((1 − r₁₃²)(1 − r₂₃²)); NaN where a series is constant or follows the third exactly.
    """
    ranks = (spearman(one, other), spearman(one, given), spearman(other, given))
    squared = (1 - ranks[1] ** 2) * (1 - ranks[2] ** 2)
    if any(math.isnan(rank) for rank in ranks) or squared < 1e-9:
        return math.nan
    return (ranks[0] - ranks[1] * ranks[2]) / math.sqrt(squared)


def protocol(task: Task, settings: BenchSettings) -> tuple[str, ...]:
    """Say how the numbers came about: which labels were used, and what chose the checkpoint."""
    steps, minutes = length_of(task, settings)
    length = f"{steps} steps" if steps is not None else f"{minutes:g} minutes"
    where = (
        f"scored on the volume adapted to itself, {task.test}: its images were seen in training, its labels were not"
        if task.is_transductive
        else f"scored on {task.test}, which no training has seen"
    )
    lines = [
        f"labels in training: of the source {task.source}; of {task.target} only the images"
        + (
            ", but for the oracle, which learns from its labels and not from the source"
            if any(method_named(method)[0].labels_from == "target" for method in settings.methods)
            else ""
        ),
        f"{where}; unweighted mean over its sections with labelled foreground, as 'mitoda segment' predicts by "
        "default: threshold, smoothing, boundaries and smallest component of the weights, no mirrored views",
        f"checkpoint: the averaged weights at the end of {length}, a length fixed beforehand; no label and no score "
        "chose it",
        f"network: {settings.backbone} for every method, {settings.seeds} "
        + ("seed" if settings.seeds == 1 else "seeds"),
    ]
    if task.name in PUBLISHED:
        lines.append(
            "the paper's numbers: DA-ISC's checkpoints were chosen on the labelled test half; other rows have other "
            "networks"
            + (
                ", and Oracle, NoAdapt and UALR are figures over all pixels, not means over sections"
                if task.name.startswith("mitoem")
                else ""
            )
        )
    return tuple(lines)
