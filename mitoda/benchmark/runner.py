"""One method after another: trained or gone on with, scored, written down; what is done is never done again."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mitoda.benchmark.entry import Entry, Result, Selection, read_result, write_score
from mitoda.benchmark.evaluation import score_weights
from mitoda.benchmark.published import OURS, PAPER_ORDER
from mitoda.benchmark.tasks import HeldOut, Task, open_held_out
from mitoda.errors import InputError, MitodaError
from mitoda.evaluation.scoring import ScoredSection, summarise
from mitoda.inference.self_consistency import foreground_share, selection_scores
from mitoda.methods import METHODS, Arithmetic, method_named
from mitoda.methods.registry import NEED_RESIDUAL
from mitoda.models.backbones import backbone_named
from mitoda.models.device import choose_bfloat16
from mitoda.models.weights import load_weights, read_info
from mitoda.training import loop as training
from mitoda.training.domains import AdaptationPlan, Prepared, prepare
from mitoda.training.loop import Finished
from mitoda.training.settings import TrainingSettings


@dataclass(frozen=True)
class BenchSettings:
    """How a task is benched. What is None is the task's own."""

    methods: tuple[str, ...]
    seeds: int = 1
    """Number of seeds: 0, 1, …"""
    minutes: float | None = None
    steps: int | None = None
    patch: int | None = None
    backbone: str = "compact"
    """The same for every method."""
    keep: int = 0
    """Checkpoints to keep and score along each training, for the study of label-free selection."""
    dest: str | None = None
    """Where the fetched data sets lie."""
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds is a number of seeds, at least 1; got {self.seeds}")
        if not self.methods:
            raise InputError("no method was given; give --methods all or a list such as isc,source-only")
        if self.minutes is not None and self.steps is not None:
            raise InputError("give the length of each training either as --steps or as --minutes")
        for name in self.methods:
            method_named(name)


@dataclass(frozen=True)
class Started:
    """The training of an entry begins, or goes on."""

    entry: Entry
    position: int
    """From 1, among all entries."""
    entries: int
    resumed: bool


@dataclass(frozen=True)
class Trained:
    """Something happened in a training."""

    entry: Entry
    event: training.Event


@dataclass(frozen=True)
class ScoringSection:
    """One more section of the held-out half is scored."""

    entry: Entry
    step: int | None
    """Of the checkpoint; None for the last weights."""
    section: int
    sections: int


@dataclass(frozen=True)
class Scored:
    """An entry is finished."""

    entry: Entry
    result: Result
    known: bool
    """It was finished before."""


@dataclass(frozen=True)
class Skipped:
    """A method cannot run on this task."""

    method: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """An entry broke off, its training diverged for instance; the others go on."""

    entry: Entry
    reason: str


@dataclass(frozen=True)
class Stopped:
    """The person stopped; the same call goes on here."""

    entry: Entry


Event = Started | Trained | ScoringSection | Scored | Skipped | Failed | Stopped


def choose_methods(text: str) -> tuple[str, ...]:
    """Read `--methods`: a list with commas, or `all` for those of the paper's table that exist, then mitoda's.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    if text.strip() == "all":
        return tuple(name for name in (*PAPER_ORDER, OURS) if name in METHODS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        method_named(name)
    return tuple(dict.fromkeys(names))


def plan_entries(task: Task, settings: BenchSettings, folder: Path) -> tuple[list[Entry], list[Skipped]]:
    """List what is to be trained, all methods of one seed before the next seed; and what cannot be."""
    reasons = {method: _why_not(task, settings, method) for method in settings.methods}
    skipped = [Skipped(method, reason) for method, reason in reasons.items() if reason]
    runnable = [method for method, reason in reasons.items() if not reason]
    entries = [
        Entry(
            method,
            seed,
            folder / task.name / f"{method}-seed{seed}",
            plan_of(task, settings, method, seed),
        )
        for seed in range(settings.seeds)
        for method in runnable
    ]
    return entries, skipped


def _why_not(task: Task, settings: BenchSettings, method: str) -> str:
    """Why a method cannot be benched on a task; empty where it can."""
    if method in NEED_RESIDUAL and not backbone_named(settings.backbone).has_residual:
        return f"it needs the residual of a pair, which the backbone '{settings.backbone}' does not predict"
    if method_named(method)[0].labels_from != "target" or task.target_labelled is not None:
        return ""
    if task.is_transductive:
        return "it would learn from the labels it is scored on; give a held-out volume with --test"
    return f"it learns from labels of the adaptation half, and {task.target} has none here"


def length_of(task: Task, settings: BenchSettings) -> tuple[int | None, float | None]:
    """Steps or minutes of each training: the person's, or the task's own."""
    if settings.minutes is None and settings.steps is None:
        return task.steps, task.minutes
    return settings.steps, settings.minutes


def plan_of(task: Task, settings: BenchSettings, method: str, seed: int) -> AdaptationPlan:
    """Say how one method is trained: the same for all but in the method itself."""
    steps, minutes = length_of(task, settings)
    target = task.target
    if method_named(method)[0].labels_from == "target":
        target = task.target_labelled or task.target
    return AdaptationPlan(
        source=task.source,
        target=target,
        training=TrainingSettings(
            method=method,
            backbone=settings.backbone,
            steps=steps,
            minutes=minutes,
            patch=settings.patch or task.patch,
            ema_decay=task.ema_decay,
            seed=seed,
            keep=settings.keep,
        ),
        source_voxel_size=task.source_voxel_size,
        target_voxel_size=task.target_voxel_size,
        dest=settings.dest,
        precision=settings.precision,
    )


def run_bench(
    task: Task,
    settings: BenchSettings,
    folder: Path,
    device: torch.device,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train and score every method on a task, one after another, and yield what happens.

    Labels of the held-out half are read in scoring only. What can be refused is refused before the first training.

    Parameters
    ----------
    folder : Path
        Of all benches; entries lie in `folder/<task>/<method>-seed<k>`. A finished entry is read, not repeated; an
        interrupted training is gone on with.
    should_stop : callable
        True saves the training under way and ends.

    Raises
    ------
    FileError, InputError
        If a volume or its labels are missing, or an entry lies there that was made with other settings.
    """
    held_out = open_held_out(task, settings.dest)
    entries, skipped = plan_entries(task, settings, folder)
    for entry in entries:
        entry.check()
        if not entry.is_finished:
            prepare(entry.plan)
    yield from skipped
    for position, entry in enumerate(entries, 1):
        if entry.is_finished:
            yield Scored(entry, read_result(entry, task), known=True)
            continue
        if should_stop():
            yield Stopped(entry)
            return
        try:
            resumed = entry.is_begun
            yield Started(entry, position, len(entries), resumed)
            prepared = prepare(entry.plan)
            finished = yield from _train(entry, prepared, device, resumed, should_stop)
            if not finished.complete:
                yield Stopped(entry)
                return
            yield from _score(entry, task, prepared, held_out, device)
        except MitodaError as error:
            yield Failed(entry, str(error))
            continue
        yield Scored(entry, read_result(entry, task), known=False)


def _train(
    entry: Entry, prepared: Prepared, device: torch.device, resume: bool, should_stop: Callable[[], bool]
) -> Generator[Event, None, Finished]:
    """Train an entry to its end, from where it is; return the last event."""
    if not resume:
        entry.begin()
    plan = entry.plan
    bfloat16 = choose_bfloat16(plan.precision, device)
    events = training.adapt(
        plan.training,
        prepared.source,
        prepared.target,
        entry.run,
        prepared.info,
        Arithmetic(device, bfloat16),
        start=prepared.start,
        resume=resume,
        should_stop=should_stop,
    )
    for event in events:
        yield Trained(entry, event)
        if isinstance(event, Finished):
            return event
    raise RuntimeError("the training ended without an end")


def _score(
    entry: Entry, task: Task, prepared: Prepared, held_out: HeldOut, device: torch.device
) -> Iterator[Event]:
    """Score the checkpoints kept that are not scored yet, then the last weights."""
    logged = entry.logged_selection()
    waiting: dict[int | None, Path] = {
        step: path for step, path in entry.kept().items() if not entry.score_path(step).is_file()
    }
    waiting[None] = entry.run.weights
    for step, weights in waiting.items():
        info = read_info(weights)
        scored = []
        for section in score_weights(weights, held_out, device):
            scored.append(section)
            yield ScoringSection(entry, step, section.section, held_out.volume.shape[0])
        selection = logged.get(info.steps) or _select(weights, prepared, device)
        _write(entry, task, step, scored, selection)


def _write(
    entry: Entry, task: Task, step: int | None, scored: list[ScoredSection], selection: Selection
) -> None:
    info = read_info(entry.run.weights if step is None else entry.kept()[step])
    score = summarise(scored, "probability", info.threshold)
    about = {"step": info.steps, "seconds": info.seconds, "weights": asdict(info)}
    write_score(entry, task, step, score, selection, about)


def _select(weights: Path, prepared: Prepared, device: torch.device) -> Selection:
    """Label-free scores of weights for which the training logged none."""
    network, info = load_weights(weights)
    return selection_scores(
        network.to(device),
        backbone_named(info.backbone),
        prepared.target,
        device,
        source_foreground=foreground_share(prepared.source),
        bfloat16=choose_bfloat16("auto", device),
    )
