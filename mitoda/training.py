"""The only training loop: batches in, a method's steps, EMA weights, checkpoints and events out."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mitoda.augment import augmentation_named
from mitoda.checkpoints import WeightsInfo, load_state, load_weights, save_state, save_weights
from mitoda.errors import InputError, MitodaError
from mitoda.geometry import Geometry
from mitoda.methods import Arithmetic, Method, build_method, check_backbone, method_named
from mitoda.networks import PairNetwork, backbone_named
from mitoda.patches import BatchSettings, BatchStream, LabelledPairs, PseudoLabels, UnlabelledPairs
from mitoda.relabelling import calibrate_level, predict_coarse
from mitoda.selection import foreground_share, selection_scores

LOG_EVERY = 20
"""Steps a line of the log averages over."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "poly": lambda progress: (1 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
"""Learning rate as a factor of its start, by the share of the run that is done."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a run is done. What it is done on are the pairs; what is saved with it is `checkpoints.WeightsInfo`."""

    method: str = "isc"
    backbone: str = "compact"
    steps: int | None = None
    """Length of the run in steps; a run of given steps is the same every time on the CPU."""
    minutes: float | None = None
    """Length of the run in minutes of training; used where `steps` is not given."""
    batch_size: int = 2
    patch: int = 512
    """Side of the square patches in working pixels."""
    schedule: str = "poly"
    ema_decay: float = 0.995
    """Of the averaged weights, which are the ones saved; young averages forget faster."""
    augmentation: str = "strong"
    histogram_matching: float = 0.0
    """Share of steps in which source patches take the target's grey-value distribution."""
    seed: int = 0
    workers: int = 2
    """Threads that read patches."""
    checkpoint_minutes: float = 3.0
    keep: int = 0
    """Averaged weights to keep along the way, evenly spaced, as `weights-STEP.safetensors`, each with its label-free
    scores in the log; for studying selection, never used to choose."""
    assignments: dict[str, str] = field(default_factory=dict)
    """Settings of the method, as `--set name=value` gives them."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("give the length of the run either as --steps or as --minutes")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise InputError("the run must be longer than nothing: --steps from 1, --minutes above 0")
        if self.schedule not in SCHEDULES:
            raise InputError(f"there is no schedule '{self.schedule}'; choose one of: {', '.join(SCHEDULES)}")
        if self.keep < 0:
            raise InputError(f"--keep is a number of checkpoints, 0 or more; got {self.keep}")
        if self.batch_size < 1:
            raise InputError(f"--batch-size must be at least 1; got {self.batch_size}")
        check_backbone(self.method, self.backbone)
        multiple = 16 * backbone_named(self.backbone).grid
        # Two pixels at the coarsest level: of one alone, normalisation and discriminators could make nothing.
        if self.patch < 2 * multiple or self.patch % multiple:
            raise InputError(
                f"--patch must be a multiple of {multiple}, at least {2 * multiple}, for the backbone "
                f"'{self.backbone}'; got {self.patch}"
            )
        if not 0 <= self.histogram_matching <= 1:
            raise InputError(f"--histogram-matching is a share from 0 to 1; got {self.histogram_matching}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"--ema must be at least 0 and below 1; got {self.ema_decay}")
        augmentation_named(self.augmentation)
        cls, implied = method_named(self.method)
        cls.Settings.parse({**implied, **self.assignments})


@dataclass(frozen=True)
class StepsDone:
    """The losses of the last few steps, averaged."""

    step: int
    progress: float
    losses: dict[str, float]
    steps_per_second: float
    seconds_left: float
    learning_rate: float


@dataclass(frozen=True)
class RoundBegun:
    """The method has labelled the target anew."""

    step: int
    round: int
    foreground: float
    """Share of the volume now taught as mitochondrion."""
    ignored: float
    """Share taught as neither."""
    low: float
    high: float
    """Probabilities between which a pixel is ignored."""


@dataclass(frozen=True)
class Saved:
    """Weights and state are on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The run is over, complete or stopped by the person; its weights are on disk."""

    step: int
    seconds: float
    complete: bool
    weights: Path


Event = StepsDone | RoundBegun | Saved | Finished


class Run:
    """State of a training between steps, and its folder on disk.

    Parameters
    ----------
    settings : TrainingSettings
    arithmetic : Arithmetic
    info : WeightsInfo
        Saved with the weights; steps and seconds are filled in.
    folder : Path
        Gets `weights.safetensors`, `state.pt` and `log.jsonl`.
    """

    def __init__(
        self, settings: TrainingSettings, arithmetic: Arithmetic, info: WeightsInfo, folder: Path
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.info = info
        self.folder = folder
        self.step = 0
        self.seconds = 0.0
        self.averaged = 0
        """Steps that the averaged weights have seen."""
        self.round = 0
        self.pseudo_labels: PseudoLabels | None = None
        self.method: Method = build_method(
            settings.method, settings.backbone, settings.assignments, arithmetic
        )
        self.average: PairNetwork = copy.deepcopy(self.method.network).requires_grad_(False).eval()
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]

    @property
    def weights_path(self) -> Path:
        """Where the averaged weights are."""
        return self.folder / "weights.safetensors"

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.settings.steps is not None:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.seconds / (60.0 * (self.settings.minutes or 1.0)))

    def set_learning_rates(self) -> float:
        """Schedule every optimiser; return the network's rate."""
        own = self.method.rate(self.progress)
        factor = SCHEDULES[self.settings.schedule](self.progress) if own is None else own
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return float(self.method.optimizers["network"].param_groups[0]["lr"])

    def update_average(self) -> None:
        """Move the averaged weights towards the current ones."""
        if self.method.restart_average:  # the method has begun a fresh network
            self.averaged = 0
            self.method.restart_average = False
        decay = (
            min(self.settings.ema_decay, (1 + self.averaged) / (10 + self.averaged)) if self.averaged else 0.0
        )
        self.averaged += 1
        averaged: list[torch.Tensor] = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.method.network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def begin_from(self, weights: Path) -> None:
        """Take weights instead of freshly drawn ones, for the network and for its average."""
        begun, _ = load_weights(weights)
        for network in (self.method.network, self.average):
            network.load_state_dict(begun.state_dict())

    @property
    def dated_info(self) -> WeightsInfo:
        """What is saved with the weights, as of now."""
        return replace(
            self.info,
            steps=self.step,
            seconds=round(self.seconds, 1),
            smoothing=self.method.smoothing,
        )

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to the log."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")

    def save(self) -> None:
        """Write weights and state."""
        save_weights(self.weights_path, self.average, self.dated_info)
        save_state(
            self.folder / "state.pt",
            {
                "step": self.step,
                "seconds": self.seconds,
                "method": self.method.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.method.optimizers.items()},
                "random": torch.get_rng_state(),
                "averaged": self.averaged,
                "round": self.round,
                "pseudo_labels": _packed(self.pseudo_labels),
            },
        )

    def load(self) -> None:
        """Go on from the state on disk; lines of the log written after it are dropped."""
        state = load_state(self.folder / "state.pt")
        self.step, self.seconds = state["step"], state["seconds"]
        self.method.load_state_dict(state["method"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.method.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        torch.set_rng_state(state["random"])
        self.averaged = state["averaged"]
        self.round = state["round"]
        self.pseudo_labels = _unpacked(state["pseudo_labels"])
        kept = [record for record in read_log(self.folder) if record["step"] <= self.step]
        (self.folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))


def _packed(pseudo: PseudoLabels | None) -> dict[str, Any] | None:
    """Pseudo labels as tensors and numbers, for the state."""
    if pseudo is None:
        return None
    return {**vars(pseudo), "probabilities": torch.from_numpy(pseudo.probabilities)}


def _unpacked(state: dict[str, Any] | None) -> PseudoLabels | None:
    if state is None:
        return None
    return PseudoLabels(**{**state, "probabilities": state["probabilities"].numpy()})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the log of a run; a last line cut short by a crash is left out."""
    path = folder / "log.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def adapt(
    settings: TrainingSettings,
    source: LabelledPairs | None,
    target: UnlabelledPairs | None,
    folder: Path,
    info: WeightsInfo,
    arithmetic: Arithmetic,
    *,
    start: Path | None = None,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train, and yield what happens.

    No target label is read at any point: target patches have no field for labels, and the weights kept are the last
    averaged ones, not the best of any.

    Parameters
    ----------
    source : LabelledPairs or None
        None adapts to the target alone, from `start`; see `Method.without_source`.
    folder : Path
        Of the run; must exist.
    start : Path, optional
        Weights of the same backbone to begin from, instead of from scratch.
    resume : bool
        Go on from the state in `folder`. With `settings.steps`, on the CPU with as many threads, the result is the
        same to the last bit as without the break; with `settings.minutes` the clock decides the schedule.
    should_stop : callable
        Asked after every step; True saves and ends the run.

    Raises
    ------
    MitodaError
        If a loss is no longer finite. What was last saved stays.
    """
    run = Run(settings, arithmetic, info, folder)
    if source is None:
        run.method.without_source()
    if resume:
        run.load()
    elif start is not None:
        run.begin_from(start)
    cls, _ = method_named(settings.method)
    stream = BatchStream(
        source,
        target if cls.needs_target else None,
        BatchSettings(
            settings.batch_size,
            settings.patch,
            augmentation_named(settings.augmentation),
            backbone_named(settings.backbone).normalisation,
            settings.histogram_matching,
            settings.seed,
            run.method.network.grid,
        ),
        arithmetic.device,
        settings.workers,
    )
    stream.pseudo_labels = run.pseudo_labels
    batches = stream.batches(run.step)
    try:
        yield from _loop(run, stream, batches, source, target, should_stop)
    finally:
        batches.close()  # type: ignore[attr-defined]


def _loop(
    run: Run,
    stream: BatchStream,
    batches: Iterator[Any],
    source_pairs: LabelledPairs | None,
    target: UnlabelledPairs | None,
    should_stop: Callable[[], bool],
) -> Iterator[Event]:
    """Step until the run is over."""
    run.method.train()
    began = time.monotonic() - run.seconds
    last_save = run.seconds
    tally = Tally(run.seconds)
    while run.progress < 1.0 and not should_stop():
        if target is not None and run.method.round_of(run.progress) > run.round:
            yield _begin_round(run, stream, target)
            run.seconds = time.monotonic() - began
            tally.since += run.seconds - tally.since if tally.steps == 0 else 0.0
        before = run.progress
        rate = run.set_learning_rates()
        source, patches = next(batches)
        if source is None:
            tally.add(run.method.update_alone(patches, before))
        else:
            tally.add(run.method.update(source, patches, before))
        run.step += 1
        run.update_average()
        run.seconds = time.monotonic() - began
        if tally.steps == LOG_EVERY or run.progress >= 1.0:
            yield _report(run, tally, rate)
            tally = Tally(run.seconds)
        if int(run.progress * run.settings.keep) > int(before * run.settings.keep):
            yield _keep(run, source_pairs, target)
        if run.seconds - last_save > 60 * run.settings.checkpoint_minutes:
            check_finite(tally.means(), run.step)
            run.save()
            last_save = run.seconds
            yield Saved(run.step, run.weights_path)
    if tally.steps:  # stopped between two lines of the log
        yield _report(run, tally, run.set_learning_rates())
    run.save()
    yield Saved(run.step, run.weights_path)
    yield Finished(run.step, run.seconds, run.progress >= 1.0, run.weights_path)


def _begin_round(run: Run, stream: BatchStream, target: UnlabelledPairs) -> RoundBegun:
    """Label the target anew with the averaged network, and go on from the averaged weights."""
    run.round = run.method.round_of(run.progress)
    arithmetic = run.method.arithmetic
    coarse = predict_coarse(
        run.average,
        backbone_named(run.settings.backbone),
        Geometry(run.info.pixel, run.info.spacing),
        target.volume,
        target.stride,
        arithmetic.device,
        smoothing=run.method.smoothing,
        bfloat16=arithmetic.bfloat16,
        seed=run.settings.seed + run.round,
    )
    labels = run.method.relabel(
        coarse, run.round, lambda fallback: calibrate_level(coarse, target.volume, fallback)
    )
    run.pseudo_labels = stream.pseudo_labels = labels
    run.method.network.load_state_dict(run.average.state_dict())
    foreground = float((labels.probabilities >= round(labels.high * 255)).mean())
    background = float((labels.probabilities < round(labels.low * 255)).mean())
    begun = RoundBegun(run.step, run.round, foreground, 1 - foreground - background, labels.low, labels.high)
    run.log(asdict(begun))
    return begun


class Tally:
    """Sums of losses since the last line of the log; they stay on the device until read."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.steps = 0
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Add the losses of one step."""
        self.steps += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps."""
        return {name: float(value) / self.steps for name, value in self._sums.items()}


def check_finite(losses: dict[str, float], step: int) -> None:
    """Refuse to go on, or to save, with losses that are not finite."""
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise MitodaError(
            f"training diverged: the loss '{bad[0]}' is not finite at step {step}; give a smaller "
            "--set learning_rate=…, or resume from the last checkpoint"
        )


def _report(run: Run, tally: Tally, rate: float) -> StepsDone:
    """Append a line to the log."""
    losses = tally.means()
    check_finite(losses, run.step)
    speed = tally.steps / max(run.seconds - tally.since, 1e-9)
    if run.settings.steps is not None:
        left = (run.settings.steps - run.step) / speed
    else:
        left = 60 * (run.settings.minutes or 0.0) - run.seconds
    record = {"step": run.step, "seconds": round(run.seconds, 2), "progress": run.progress, "lr": rate}
    run.log({**record, "losses": losses})
    return StepsDone(run.step, run.progress, losses, speed, max(left, 0.0), rate)


def _keep(run: Run, source: LabelledPairs | None, target: UnlabelledPairs | None) -> Saved:
    """Keep the averaged weights of this step, and log what can be said of them without labels."""
    path = run.folder / f"weights-{run.step}.safetensors"
    save_weights(path, run.average, run.dated_info)
    if target is not None:
        scores = selection_scores(
            run.average,
            backbone_named(run.settings.backbone),
            target,
            run.method.arithmetic.device,
            student=run.method.network,
            source_foreground=foreground_share(source),
            bfloat16=run.method.arithmetic.bfloat16,
        )
        run.log({"step": run.step, "selection": scores})
    return Saved(run.step, path)
