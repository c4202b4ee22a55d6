"""The only training loop: batches in, a method's steps, EMA weights, checkpoints and events out."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mitoda.augment import augmentation_named
from mitoda.checkpoints import WeightsInfo, load_state, save_state, save_weights
from mitoda.errors import InputError, MitodaError
from mitoda.methods import Arithmetic, Method, build_method, method_named
from mitoda.networks import PairNetwork, backbone_named
from mitoda.patches import BatchSettings, BatchStream, LabelledPairs, UnlabelledPairs

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
    assignments: dict[str, str] = field(default_factory=dict)
    """Settings of the method, as `--set name=value` gives them."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("give the length of the run either as --steps or as --minutes")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise InputError("the run must be longer than nothing: --steps from 1, --minutes above 0")
        if self.schedule not in SCHEDULES:
            raise InputError(f"there is no schedule '{self.schedule}'; choose one of: {', '.join(SCHEDULES)}")
        if self.batch_size < 1:
            raise InputError(f"--batch-size must be at least 1; got {self.batch_size}")
        multiple = 16 * backbone_named(self.backbone).grid
        if self.patch < multiple or self.patch % multiple:
            raise InputError(
                f"--patch must be a multiple of {multiple} for the backbone '{self.backbone}'; got {self.patch}"
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


Event = StepsDone | Saved | Finished


def choose_bfloat16(precision: str, backbone: str, device: torch.device) -> bool:
    """Say whether to train in bfloat16: as asked, or where it is faster.

    Measured on two cores with AVX-512 bf16, batch 2 of 512×512 pairs, a supervised step: `compact` 0.33 s in float32
    against 0.44 s, so float32; `codetection` is bound by its convolutions and gains.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"--precision is auto, float32 or bfloat16; got '{precision}'")
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and backbone == "codetection" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


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
        factor = SCHEDULES[self.settings.schedule](self.progress)
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return float(self.method.optimizers["network"].param_groups[0]["lr"])

    def update_average(self) -> None:
        """Move the averaged weights towards the current ones."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        averaged = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.method.network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def save(self) -> None:
        """Write weights and state."""
        info = WeightsInfo(**{**asdict(self.info), "steps": self.step, "seconds": round(self.seconds, 1)})
        save_weights(self.weights_path, self.average, info)
        save_state(
            self.folder / "state.pt",
            {
                "step": self.step,
                "seconds": self.seconds,
                "method": self.method.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.method.optimizers.items()},
                "random": torch.get_rng_state(),
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
        kept = [record for record in read_log(self.folder) if record["step"] <= self.step]
        (self.folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))


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
    source: LabelledPairs,
    target: UnlabelledPairs | None,
    folder: Path,
    info: WeightsInfo,
    arithmetic: Arithmetic,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train, and yield what happens.

    No target label is read at any point: target patches have no field for labels, and the weights kept are the last
    averaged ones, not the best of any.

    Parameters
    ----------
    folder : Path
        Of the run; must exist.
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
    if resume:
        run.load()
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
        ),
        arithmetic.device,
        settings.workers,
    )
    batches = stream.batches(run.step)
    try:
        yield from _loop(run, batches, should_stop)
    finally:
        batches.close()  # type: ignore[attr-defined]


def _loop(run: Run, batches: Iterator[Any], should_stop: Callable[[], bool]) -> Iterator[Event]:
    """Step until the run is over."""
    run.method.train()
    began = time.monotonic() - run.seconds
    last_save = run.seconds
    sums: dict[str, torch.Tensor] = {}
    summed = 0
    log_start = run.seconds
    while run.progress < 1.0 and not should_stop():
        rate = run.set_learning_rates()
        source, target = next(batches)
        for name, loss in run.method.update(source, target, run.progress).items():
            sums[name] = sums[name] + loss if name in sums else loss
        run.step += 1
        summed += 1
        run.update_average()
        run.seconds = time.monotonic() - began
        if summed == LOG_EVERY or run.progress >= 1.0:
            yield _log(run, {name: float(value) / summed for name, value in sums.items()}, summed, log_start, rate)
            sums, summed, log_start = {}, 0, run.seconds
        if run.seconds - last_save > 60 * run.settings.checkpoint_minutes:
            run.save()
            last_save = run.seconds
            yield Saved(run.step, run.weights_path)
    run.save()
    yield Saved(run.step, run.weights_path)
    yield Finished(run.step, run.seconds, run.progress >= 1.0, run.weights_path)


def _log(run: Run, losses: dict[str, float], steps: int, since: float, rate: float) -> StepsDone:
    """Append to the log; refuse to go on with losses that are not finite."""
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise MitodaError(
            f"training diverged: the loss '{bad[0]}' is not finite at step {run.step}; give a smaller "
            "--set learning_rate=…, or resume from the last checkpoint"
        )
    speed = steps / max(run.seconds - since, 1e-9)
    if run.settings.steps is not None:
        left = (run.settings.steps - run.step) / speed
    else:
        left = 60 * (run.settings.minutes or 0.0) - run.seconds
    record = {"step": run.step, "seconds": round(run.seconds, 2), "progress": run.progress, "lr": rate}
    with (run.folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({**record, "losses": losses}) + "\n")
    return StepsDone(run.step, run.progress, losses, speed, max(left, 0.0), rate)
