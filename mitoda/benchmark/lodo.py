"""Leave one data set out: train on the others, adapt and paint, and score each on the data set that is left out.

OUT/lodo/rows.jsonl                     one line for each scored volume, see `LodoRow`
OUT/lodo/<left out>/painted-<k>.tif     labels of section k, as they are painted
OUT/lodo/<left out>/<stage>-seed<s>/    the run folder of a stage, see `mitoda adapt`, with
    mask-<n>.tif, probability-<n>.tif   of the volumes left out, in their order
    score.json                          written last: with it the stage is finished
"""

import hashlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mitoda.benchmark.left_out import GENERAL, LodoSettings, Stage, open_scored, paint, plan_stages
from mitoda.benchmark.lodo_table import LodoRow, score_volume, with_changes, write_rows
from mitoda.benchmark.runner import Failed, Started, check_settings, run_jobs, train_run
from mitoda.benchmark.tasks import LODO
from mitoda.errors import InputError
from mitoda.inference.events import SectionDone, Segmented
from mitoda.inference.segment import segment
from mitoda.inference.settings import Resolved, SegmentSettings
from mitoda.models.model import Model, load_model
from mitoda.models.weights import read_info
from mitoda.training import adapt as training
from mitoda.training.domains import prepare
from mitoda.volumes import open_volume
from mitoda.volumes.records import read_record, write_record

SECONDS_PER_STEP = 0.5
"""Assumed before anything is trained here; two cores with AVX2 need about as much."""
VOXELS_PER_SECOND = 5e6
"""Segmented, likewise."""


@dataclass(frozen=True)
class _ScoreFile:
    start_sha256: str | None
    rows: tuple[LodoRow, ...]


@dataclass(frozen=True)
class StageScored:
    """A stage is finished."""

    stage: Stage
    rows: tuple[LodoRow, ...]
    known: bool
    """Whether an earlier call finished it."""


Event = Started[Stage] | training.Event | SectionDone | StageScored | Failed[Stage]


def run_lodo(
    settings: LodoSettings,
    folder: Path,
    device: torch.device,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Run all stages one after another, and yield what happens.

    Labels of what is left out are read for scoring, and for the painted section. Whatever can be refused is refused
    before the first training.

    Parameters
    ----------
    folder : Path
        Of all benchmarks. A finished stage is read, not repeated; an interrupted training is resumed.
    should_stop : callable
        True saves the current training and ends.

    Raises
    ------
    FileError, InputError
        If a volume, its labels or given weights are missing, or a stage in the folder was made with other settings or
        from other weights.
    """
    stages = plan_stages(settings, folder)
    for stage in stages:
        _check(stage)

    def work(stage: Stage) -> Generator[training.Event | SectionDone, None, bool]:
        if stage.is_trained_here:
            paint(stage)
            finished = yield from train_run(stage.run, stage.plan, device, should_stop)
            if not finished.complete:
                return False
        yield from _score(stage, device)
        return True

    def outcome(stage: Stage, known: bool) -> StageScored:
        rows = read_rows(folder)
        write_rows(folder / LODO / "rows.jsonl", rows)
        own = (stage.left_out.name, stage.kind, stage.seed)
        return StageScored(
            stage, tuple(row for row in rows if (row.left_out, row.stage, row.seed) == own), known
        )

    yield from run_jobs(stages, work, outcome, should_stop)


def read_rows(folder: Path) -> list[LodoRow]:
    """Read the rows of all finished stages in the folder of all benchmarks."""
    paths = sorted((folder / LODO).glob("*/*-seed*/score.json"))
    return with_changes([row for path in paths for row in read_record(path, _ScoreFile).rows])


def _check(stage: Stage) -> None:
    """Refuse a stage whose volumes are missing, or that the folder holds with other settings or other weights."""
    if stage.is_trained_here:
        check_settings(stage.run, stage.plan)
    if stage.is_finished:
        if read_record(stage.score_path, _ScoreFile).start_sha256 != _fingerprint(stage.start):
            raise InputError(
                f"{stage.run.path} was made from other weights than {stage.start or 'random ones'}; give the same "
                "weights again with --start, or another folder with --out"
            )
        return
    for spec in stage.left_out.volumes:
        open_scored(spec, stage.plan.dest)
    if stage.kind == GENERAL and stage.is_trained_here:
        prepare(stage.plan)


def _fingerprint(weights: Path | None) -> str | None:
    """Hash of a weights file; None where there is none."""
    if weights is None or not weights.is_file():
        return None
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _score(stage: Stage, device: torch.device) -> Iterator[SectionDone]:
    """Segment and score every volume of what is left out, then write the scores of the stage."""
    stage.run.path.mkdir(parents=True, exist_ok=True)
    model = load_model(stage.weights, device)
    rows = []
    for number, spec in enumerate(stage.left_out.volumes):
        rows.append((yield from _score_volume(stage, model, number, spec)))
    write_record(stage.score_path, _ScoreFile(_fingerprint(stage.start), tuple(rows)))


def _score_volume(
    stage: Stage, model: Model, number: int, spec: str
) -> Generator[SectionDone, None, LodoRow]:
    """Segment and score one volume with the defaults of `segment`."""
    volume, labels = open_scored(spec, stage.plan.dest)
    mask, probability = (stage.run.path / f"{name}-{number}.tif" for name in ("mask", "probability"))
    settings = SegmentSettings(output=mask, probability=probability, overwrite=True)
    resolved, segmented = None, None
    for event in segment(volume, model, settings):
        if isinstance(event, SectionDone):
            yield event
        elif isinstance(event, Resolved):
            resolved = event
        elif isinstance(event, Segmented):
            segmented = event
    if resolved is None or segmented is None or volume.voxel_size is None:
        raise RuntimeError("segmenting ended without its events")
    painted = stage.painted if number == 0 else None
    scores = score_volume(
        open_volume(mask), open_volume(probability), labels, volume.voxel_size, resolved.threshold, painted
    )
    info = model.info
    return LodoRow(
        left_out=stage.left_out.name,
        stage=stage.kind,
        seed=stage.seed,
        volume=spec,
        sources=read_info(stage.start or stage.weights).source,
        steps=info.steps,
        seconds=info.seconds,
        painted=painted,
        threshold=resolved.threshold,
        min_size=resolved.min_size,
        snap=resolved.snap,
        warnings=segmented.warnings,
        scores=scores,
    )


@dataclass(frozen=True)
class Forecast:
    """The work and time that a stage would take."""

    stage: Stage
    state: str
    """`finished`, `score`, `resume` or `train`."""
    seconds: float


def forecast(settings: LodoSettings, folder: Path) -> tuple[list[Forecast], float]:
    """List what `run_lodo` would do with an estimated time, and the seconds a step that the estimate is made with.

    The time of a step is that of the trainings in the folder, if there is one, else `SECONDS_PER_STEP`.

    Raises
    ------
    FileError, InputError
        As `run_lodo`.
    """
    stages = plan_stages(settings, folder)
    for stage in stages:
        _check(stage)
    rows = [row for row in read_rows(folder) if row.steps]
    steps = sum(row.steps for row in rows)
    per_step = sum(row.seconds for row in rows) / steps if steps else SECONDS_PER_STEP
    return [_forecast(stage, per_step) for stage in stages], per_step


def _forecast(stage: Stage, per_step: float) -> Forecast:
    if stage.is_finished:
        return Forecast(stage, "finished", 0.0)
    shapes = [open_scored(spec, stage.plan.dest)[0].shape for spec in stage.left_out.volumes]
    scoring = sum(math.prod(shape) for shape in shapes) / VOXELS_PER_SECOND
    if not stage.is_trained_here:
        return Forecast(stage, "score", scoring)
    length = stage.plan.training
    seconds = 60 * length.minutes if length.minutes is not None else per_step * (length.steps or 0)
    if not stage.run.can_resume or not stage.weights.is_file():
        return Forecast(stage, "train", seconds + scoring)
    info = read_info(stage.weights)
    left = seconds - info.seconds if length.minutes is not None else seconds - per_step * info.steps
    return Forecast(stage, "resume", max(0.0, left) + scoring)
