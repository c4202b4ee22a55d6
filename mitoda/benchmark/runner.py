"""The benchmark runner: trains and scores one method after another; what is finished is never repeated.

OUT/<task>/<method>-seed<k>/   the run folder of an entry, see `mitoda adapt`, with
    score-<step>.json          scores of each checkpoint kept
    score.json                 scores of the last weights; written last: with it the entry is finished
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch

from mitoda.benchmark.left_out import Stage
from mitoda.benchmark.table import Checkpoint, NamedScores, Result
from mitoda.benchmark.tasks import BenchSettings, HeldOut, Task, open_held_out, plan_training, why_not
from mitoda.errors import InputError, MitodaError
from mitoda.evaluation.metrics import rank_mask, rank_section
from mitoda.evaluation.scoring import ScoredSection, summarise
from mitoda.inference.segment import predict_masks
from mitoda.inference.self_consistency import consistency_scores, foreground_share
from mitoda.models.model import Model, load_model
from mitoda.training import adapt as training
from mitoda.training.domains import Prepared, prepare
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, load_plan
from mitoda.volumes.records import read_record, write_record

INCIDENTAL = ("version", "dest", "workers", "checkpoint_minutes")
"""Settings that may differ between two calls of `bench` for the same entry."""


@dataclass(frozen=True)
class Entry:
    """A method with a seed, and its folder."""

    method: str
    seed: int
    run: RunFolder
    plan: Plan

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.run.path.name

    def score_path(self, step: int | None = None) -> Path:
        """Where the scores of a checkpoint are; None is the last weights."""
        return self.run.path / ("score.json" if step is None else f"score-{step}.json")

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return self.score_path().is_file()

    def logged_selection(self) -> dict[int, NamedScores]:
        """Label-free scores in the log of the training, by step."""
        return {
            record["step"]: record["selection"] for record in self.run.read_log() if "selection" in record
        }

    def kept(self) -> dict[int, Path]:
        """Checkpoints kept, by step, without those that the log does not have since the training was resumed."""
        logged = self.logged_selection()
        return {step: path for step, path in self.run.kept_weights().items() if step in logged or not logged}


Job = TypeVar("Job", Entry, Stage)
Progress = TypeVar("Progress")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Started(Generic[Job]):
    """An entry or a stage starts or resumes; the events of its training follow."""

    job: Job
    position: int
    """From 1, among all."""
    jobs: int
    resumed: bool


@dataclass(frozen=True)
class Failed(Generic[Job]):
    """An entry or a stage failed, for example because its training diverged; the others go on."""

    job: Job
    reason: str


@dataclass(frozen=True)
class ScoringSection:
    """One more section of the held-out volume is scored."""

    entry: Entry
    step: int
    """Of the checkpoint."""
    section: int
    sections: int


@dataclass(frozen=True)
class Scored:
    """An entry is finished."""

    entry: Entry
    result: Result
    known: bool
    """Whether an earlier call finished it."""


@dataclass(frozen=True)
class Skipped:
    """A method cannot run on this task."""

    method: str
    reason: str


Event = Started[Entry] | training.Event | ScoringSection | Scored | Skipped | Failed[Entry]


def run_bench(
    task: Task,
    settings: BenchSettings,
    folder: Path,
    device: torch.device,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train and score every method on a task, one after another, and yield what happens.

    Labels of the held-out volume are read for scoring only. Whatever can be refused is refused before the first
    training.

    Parameters
    ----------
    folder : Path
        Of all benchmarks. A finished entry is read, not repeated; an interrupted training is resumed.
    should_stop : callable
        True saves the current training and ends.

    Raises
    ------
    FileError, InputError
        If a volume or its labels are missing, or an entry in the folder was made with other settings.
    """
    held_out = open_held_out(task, settings.dest)
    reasons = {method: why_not(task, settings, method) for method in settings.methods}
    entries = [
        Entry(
            method,
            seed,
            RunFolder(folder / task.name / f"{method}-seed{seed}"),
            plan_training(task, settings, method, seed),
        )
        for seed in settings.seeds
        for method in settings.methods
        if not reasons[method]
    ]
    for entry in entries:
        check_settings(entry.run, entry.plan)
        if not entry.is_finished:
            prepare(entry.plan)
    yield from (Skipped(method, reason) for method, reason in reasons.items() if reason)

    def work(entry: Entry) -> Generator[Event, None, bool]:
        finished = yield from train_run(entry.run, entry.plan, device, should_stop)
        if finished.complete:
            yield from _score(entry, task, prepare(entry.plan), held_out, device)
        return finished.complete

    def outcome(entry: Entry, known: bool) -> Scored:
        return Scored(entry, read_result(entry, task), known)

    yield from run_jobs(entries, work, outcome, should_stop)


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], Generator[Progress, None, bool]],
    outcome: Callable[[Job, bool], Outcome],
    should_stop: Callable[[], bool],
) -> Iterator[Started[Job] | Progress | Outcome | Failed[Job]]:
    """Run entries or stages in order; one that fails does not stop the others.

    `work` returns whether it was not stopped; `outcome` gets the finished job, and whether an earlier call finished it.
    """
    for position, job in enumerate(jobs, 1):
        known = job.is_finished
        if not known:
            if should_stop():
                return
            try:
                yield Started(job, position, len(jobs), job.run.can_resume)
                if not (yield from work(job)):
                    return
            except MitodaError as error:
                yield Failed(job, str(error))
                continue
        yield outcome(job, known)


def check_settings(run: RunFolder, plan: Plan) -> None:
    """Refuse a folder that holds a run made with other settings."""

    def flat(plan: Plan) -> dict[str, object]:
        values = asdict(plan)
        values |= values.pop("training")
        return {name: value for name, value in values.items() if name not in INCIDENTAL}

    if not run.plan.is_file():
        return
    found, wanted = flat(load_plan(run)), flat(plan)
    for name in [name for name in wanted if found.get(name) != wanted[name]]:
        raise InputError(
            f"{run.path} was made with {name} {found.get(name)}, now it is {wanted[name]}; give the same "
            "settings again, or another folder with --out"
        )


def train_run(
    run: RunFolder, plan: Plan, device: torch.device, should_stop: Callable[[], bool]
) -> Generator[training.Event, None, training.Finished]:
    """Train to the end of a plan, from the last checkpoint; return the last event."""
    resume = run.can_resume
    if not resume:
        for path in run.path.glob("score*.json"):
            path.unlink()
    events = training.adapt(
        plan,
        run.path,
        device=str(device),
        resume=resume,
        overwrite=True,
        should_stop=should_stop,
    )
    for event in events:
        yield event
        if isinstance(event, training.Finished):
            return event
    raise RuntimeError("training stopped without a `Finished` event")


def _score(
    entry: Entry, task: Task, prepared: Prepared, held_out: HeldOut, device: torch.device
) -> Iterator[Event]:
    """Score the checkpoints kept that have no scores yet, then the last weights."""
    files = {entry.score_path(step): weights for step, weights in entry.kept().items()}
    files = {path: weights for path, weights in files.items() if not path.is_file()}
    for path, weights in (files | {entry.score_path(): entry.run.weights}).items():
        model = load_model(weights, device)
        info = model.info
        scored = []
        for section in score_sections(model, held_out):
            scored.append(section)
            yield ScoringSection(entry, info.steps, section.section, held_out.volume.shape[0])
        selection = entry.logged_selection().get(info.steps) or consistency_scores(
            model, prepared.target, source_foreground=foreground_share(prepared.source)
        )
        content = {
            "task": task.name,
            "test": [task.test, task.labels],
            "method": entry.method,
            "seed": entry.seed,
            "step": info.steps,
            "seconds": info.seconds,
            "weights": asdict(info),
            "selection": selection,
            "score": summarise(scored, "probability", info.threshold).to_dict(),
        }
        write_record(path, content)


def score_sections(model: Model, held_out: HeldOut) -> Iterator[ScoredSection]:
    """Yield the score of each section, of the mask that `mitoda segment` writes by default; no file is written.

    Average precision is of the probabilities.
    """
    scored: list[ScoredSection] = []

    def rank(section: int, probability: np.ndarray) -> None:
        label, seen = _label_of(held_out, section)
        score, ranking = rank_section(probability[seen], label[seen], model.info.threshold, "probability")
        scored.append(ScoredSection(section, score, ranking))

    for section, mask in enumerate(predict_masks(held_out.volume, model, observe=rank)):
        label, seen = _label_of(held_out, section)
        at_threshold, _ = rank_mask(mask[seen], label[seen] != 0)
        one = scored[section]
        yield replace(one, score=replace(one.score, confusion=at_threshold.confusion))


def _label_of(held_out: HeldOut, section: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a section, and where they are scored."""
    label = held_out.labels.read(section)
    if held_out.ignore is None:
        return label, np.ones(label.shape, bool)
    return label, held_out.ignore.read(section) == 0


@dataclass(frozen=True)
class _Means:
    mean: NamedScores
    pooled: NamedScores


@dataclass(frozen=True)
class _ScoreFile:
    """What is read back from a score file."""

    test: tuple[str, str | None]
    step: int
    seconds: float
    selection: NamedScores
    score: _Means


def read_result(entry: Entry, task: Task) -> Result:
    """Read the scores of a finished entry.

    Raises
    ------
    FileError, InputError
        If a file is damaged, or has scores on another volume.
    """
    paths = [entry.score_path(), *(entry.score_path(step) for step in entry.kept())]
    files = [read_record(path, _ScoreFile) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if file.test != (task.test, task.labels):
            raise InputError(
                f"{path} has scores on {file.test[0]} with labels {file.test[1]}, but this task is scored on "
                f"{task.test} with labels {task.labels}; give another folder with --out"
            )
    last, *kept = (Checkpoint(file.step, **asdict(file.score), selection=file.selection) for file in files)
    return Result(entry.method, entry.seed, files[0].seconds, last, tuple(kept))
