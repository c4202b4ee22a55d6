"""The only training loop: batches in, a method's steps, averaged weights, checkpoints and events out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from mitoda.data.augmentation import augmentation_named
from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.data.sampling import BatchSettings, BatchStream
from mitoda.errors import MitodaError
from mitoda.inference.self_consistency import EMPTY, FLOOD, consistency_scores, foreground_share
from mitoda.methods import SelfLabelling, Teacher
from mitoda.models.backbones import backbone_named
from mitoda.models.model import load_model
from mitoda.training.painting import HELD_BACK_UNTIL, HeldBackScore, score_held_back
from mitoda.training.pseudo_labels import predict_coarse
from mitoda.training.state import Run

LOG_EVERY = 20
"""Steps that one line of the log averages over."""


@dataclass(frozen=True)
class StepsDone:
    """Losses averaged over the last few steps."""

    step: int
    progress: float
    losses: dict[str, float]
    steps_per_second: float
    seconds_left: float
    learning_rate: float
    """Of the network, in the last step."""


@dataclass(frozen=True)
class RoundBegun:
    """The method has labelled the target."""

    step: int
    round: int
    foreground: float
    """Share of the volume labelled as mitochondrion."""
    ignored: float
    """Share without a label."""
    low: float
    high: float
    """Probabilities between which a pixel has no label."""
    sections: tuple[int, int] | None = None
    """First and last section that is labelled, where not all are."""

    @property
    def labelled(self) -> str:
        """What is labelled, for a person."""
        where = "" if self.sections is None else "sections {} to {} of ".format(*self.sections)
        return f"{where}the target"

    @property
    def warning(self) -> str:
        """Warning about implausible pseudo labels; empty if they are plausible."""
        if self.foreground < EMPTY:
            return (
                f"in round {self.round} almost nothing of {self.labelled} is labelled as mitochondrion: it has none, "
                "or the network does not recognise them; check voxel size and contrast (--voxel-size, --invert), or "
                "start from other weights (--start)"
            )
        if self.foreground > FLOOD:
            return (
                f"in round {self.round} {self.foreground:.0%} of {self.labelled} is labelled as mitochondrion, more "
                "than in any tissue; check voxel size and contrast (--voxel-size, --invert)"
            )
        return ""


@dataclass(frozen=True)
class Saved:
    """Weights are on disk: those of a checkpoint, or kept ones."""

    step: int
    path: Path


@dataclass(frozen=True)
class Ended:
    """Training is over: complete, or stopped by `should_stop`."""

    step: int
    seconds: float
    complete: bool


def train(
    run: Run,
    source: LabelledPairs | None,
    target: UnlabelledPairs,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_first_step: Callable[[], None] = lambda: None,
) -> Iterator[StepsDone | RoundBegun | HeldBackScore | Saved | Ended]:
    """Train from the state of a run to its end, and yield what happens.

    No label of the target is read but the painted ones, which are a source: target batches have no field for labels,
    and the weights saved are the last averaged ones, not the best of any. With `settings.steps`, on a CPU and the same
    number of threads, a resumed run equals one without a break to the last bit; with `settings.minutes` the clock
    decides the schedule.

    If the run has painted labels, a part of them is held back for the first `HELD_BACK_UNTIL` of it; then F1 is
    measured there, of the weights before and after and of their mean, and the rest of the run goes on from the best of
    them, with all labels.

    Parameters
    ----------
    run : Run
        Fresh or loaded.
    source : LabelledPairs or None
        None trains on the target alone.
    should_stop : callable
        Asked before every step; True saves and ends the run.
    on_first_step : callable
        Called after the first step of this call, before anything is written into the run's folder.

    Raises
    ------
    MitodaError
        If a loss is not finite. The last checkpoint stays.
    """
    settings, method = run.settings, run.method
    batches = BatchStream(
        source,
        target if method.needs_target else None,
        BatchSettings(
            settings.batch_size,
            settings.patch,
            augmentation_named(settings.augmentation),
            backbone_named(settings.backbone).normalisation,
            settings.histogram_matching,
            settings.seed,
            method.network.grid,
        ),
        method.arithmetic.device,
        lambda step: method.wants(run.progress_at(step)),
        settings.workers,
    )
    with batches:
        yield from _steps(run, batches, source, target, should_stop, on_first_step)


def _steps(
    run: Run,
    batches: BatchStream,
    source: LabelledPairs | None,
    target: UnlabelledPairs,
    should_stop: Callable[[], bool],
    on_first_step: Callable[[], None],
) -> Iterator[StepsDone | RoundBegun | HeldBackScore | Saved | Ended]:
    run.method.train()
    began = time.monotonic() - run.seconds
    first_step, last_save, tally, rate = run.step, run.seconds, Tally(run.seconds), 0.0
    while run.progress < 1.0 and not should_stop():
        if run.holds_back and run.progress >= HELD_BACK_UNTIL:
            yield _measure(run, target)
            run.seconds = time.monotonic() - began
        begun = None
        if run.labeller is not None and run.labeller.round_of(run.progress) > run.round:
            begun = _begin_round(run, run.labeller, target)
            yield begun
            run.seconds = time.monotonic() - began
            if tally.steps == 0:
                tally.since = run.seconds
        before = run.progress
        rate = run.set_learning_rates()
        patches = batches.batch(run.step, run.pseudo_labels, hold_back=run.holds_back)
        tally.add(run.method.update(*patches, before))
        run.step += 1
        run.update_average()
        run.seconds = time.monotonic() - began
        if run.step == first_step + 1:
            on_first_step()
        if begun is not None:
            run.folder.append_log(asdict(begun))
        if tally.steps == LOG_EVERY or run.progress >= 1.0:
            yield _report(run, tally, rate)
            tally = Tally(run.seconds)
        if int(run.progress * run.settings.keep) > int(before * run.settings.keep):
            yield _keep(run, source, target)
        if run.seconds - last_save > 60 * run.settings.checkpoint_minutes:
            check_finite(tally.means(), run.step)
            run.save()
            last_save = run.seconds
            yield Saved(run.step, run.folder.weights)
    if tally.steps:  # stopped between two lines of the log
        yield _report(run, tally, rate)
    if run.step > 0:
        run.save()
        yield Saved(run.step, run.folder.weights)
    yield Ended(run.step, run.seconds, run.progress >= 1.0)


def _begin_round(run: Run, labeller: SelfLabelling, target: UnlabelledPairs) -> RoundBegun:
    """Label the target with the averaged network, and continue from the averaged weights."""
    run.round = labeller.round_of(run.progress)
    predict = partial(
        predict_coarse,
        run.model,
        target.volume,
        target.stride,
        within=target.within,
        smoothing=labeller.mask_settings["smoothing"],
        seed=run.settings.seed + run.round,
    )
    labels = run.pseudo_labels = labeller.relabel(Teacher(run.average, predict), target.volume)
    run.go_on_from(run.average)
    foreground = float((labels.probabilities >= round(labels.high * 255)).mean())
    background = float((labels.probabilities < round(labels.low * 255)).mean())
    some = (labels.sections[0], labels.sections[-1])
    sections = None if len(labels.sections) == target.volume.shape[0] else some
    ignored = 1 - foreground - background
    return RoundBegun(run.step, run.round, foreground, ignored, labels.low, labels.high, sections)


def _measure(run: Run, target: UnlabelledPairs) -> HeldBackScore:
    """Measure F1 on the held-back part of the painted labels, and go on from the best weights with all of them."""
    if run.painted is None:
        raise ValueError("the run has no painted labels")
    arithmetic = run.method.arithmetic
    precision = "bfloat16" if arithmetic.bfloat16 else "float32"
    start = None if run.start is None else load_model(run.start, arithmetic.device, precision)
    model = replace(run.model, info=run.described)
    score, network = score_held_back(run.step, start, model, target.volume, run.painted)
    run.held_back_score = score
    run.go_on_from(network)
    run.folder.append_log({"step": run.step, "held_back": asdict(score)})
    return score


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
        """Return the mean of each loss over the steps that had it."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}


def check_finite(losses: dict[str, float], step: int) -> None:
    """Refuse to continue, or to save, with losses that are not finite."""
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


def _keep(run: Run, source: LabelledPairs | None, target: UnlabelledPairs) -> Saved:
    """Keep the averaged weights of this step, and log their label-free scores."""
    path = run.folder.kept_path(run.step)
    run.save_average(path)
    scores = consistency_scores(
        run.model, target, student=run.method.network, source_foreground=foreground_share(source)
    )
    run.folder.append_log({"step": run.step, "selection": scores})
    return Saved(run.step, path)
