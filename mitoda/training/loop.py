"""The only training loop: batches in, a method's steps, EMA weights, checkpoints and events out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mitoda.data.augmentation import augmentation_named
from mitoda.data.geometry import Geometry
from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.data.sampling import BatchSettings, BatchStream
from mitoda.errors import MitodaError
from mitoda.inference.self_consistency import EMPTY, FLOOD, foreground_share, selection_scores
from mitoda.methods import Arithmetic, method_named
from mitoda.models.backbones import backbone_named
from mitoda.models.weights import WeightsInfo, save_weights
from mitoda.training.pseudo_labels import ImageBoundary, predict_coarse
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import TrainingSettings
from mitoda.training.state import Run

LOG_EVERY = 20
"""Steps a line of the log averages over."""


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

    @property
    def warning(self) -> str:
        """What is wrong with what is taught; empty where nothing is."""
        if self.foreground < EMPTY:
            return (
                f"round {self.round} teaches next to nothing of the target as mitochondrion: there are none, or the "
                "network does not see them; check --voxel-size and --invert, or begin from other weights (--start)"
            )
        if self.foreground > FLOOD:
            return (
                f"round {self.round} teaches {self.foreground:.0%} of the target as mitochondrion, more than any "
                "tissue has; check --voxel-size and --invert"
            )
        return ""


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


def adapt(
    settings: TrainingSettings,
    source: LabelledPairs | None,
    target: UnlabelledPairs | None,
    folder: RunFolder,
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
    folder : RunFolder
        Must exist.
    start : Path, optional
        Weights of the same backbone to begin from, instead of from scratch; given again to resume such a run.
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
    run = Run(settings, arithmetic, info, folder, from_weights=start is not None)
    if source is None:
        run.method.without_source()
    if resume:
        run.load()
    elif start is not None:
        run.begin_from(start)
    cls, _ = method_named(settings.method)
    batches = BatchStream(
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
        lambda step: run.method.wants(run.progress_at(step)),
        settings.workers,
    )
    with batches:
        yield from _loop(run, batches, source, target, should_stop)


def _loop(
    run: Run,
    batches: BatchStream,
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
            yield _begin_round(run, target)
            run.seconds = time.monotonic() - began
            tally.since += run.seconds - tally.since if tally.steps == 0 else 0.0
        before = run.progress
        rate = run.set_learning_rates()
        source, patches = batches.batch(run.step, run.pseudo_labels)
        tally.add(run.method.step(source, patches, before))
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
            yield Saved(run.step, run.folder.weights)
    if tally.steps:  # stopped between two lines of the log
        yield _report(run, tally, run.set_learning_rates())
    run.save()
    yield Saved(run.step, run.folder.weights)
    yield Finished(run.step, run.seconds, run.progress >= 1.0, run.folder.weights)


def _begin_round(run: Run, target: UnlabelledPairs) -> RoundBegun:
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
    labels = run.method.relabel(coarse, ImageBoundary(coarse, target.volume))
    run.pseudo_labels = labels
    run.method.network.load_state_dict(run.average.state_dict())
    foreground = float((labels.probabilities >= round(labels.high * 255)).mean())
    background = float((labels.probabilities < round(labels.low * 255)).mean())
    begun = RoundBegun(run.step, run.round, foreground, 1 - foreground - background, labels.low, labels.high)
    run.folder.append_log(asdict(begun))
    return begun


class Tally:
    """Sums of losses since the last line of the log; they stay on the device until read."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.steps = 0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Add the losses of one step."""
        self.steps += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps that had it: rounds begin within a line of the log."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}


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
    run.folder.append_log({**record, "losses": losses})
    return StepsDone(run.step, run.progress, losses, speed, max(left, 0.0), rate)


def _keep(run: Run, source: LabelledPairs | None, target: UnlabelledPairs | None) -> Saved:
    """Keep the averaged weights of this step, and log what can be said of them without labels."""
    path = run.folder.kept_path(run.step)
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
        run.folder.append_log({"step": run.step, "selection": scores})
    return Saved(run.step, path)
