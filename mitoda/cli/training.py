"""A training on the terminal: its messages and its progress."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mitoda.cli.terminal import Ticker, duration, say, stderr, stopping_politely, warn

if TYPE_CHECKING:
    from rich.console import Group

    from mitoda.training.adapt import Event, Finished, Started
    from mitoda.training.loop import StepsDone
    from mitoda.training.settings import Plan


def run_adaptation(
    plan: "Plan", folder: Path, *, device: str, resume: bool = False, overwrite: bool = False
) -> None:
    """Adapt, draw the progress, and say what to do next; exit with 1 if it was stopped."""
    from mitoda.training.adapt import Finished, adapt

    go_on = f"continue with: mitoda adapt --resume {folder}"
    with (
        stopping_politely("stopping after this step, then saving … (Ctrl-C again to stop at once)") as stop,
        TrainingDisplay() as display,
    ):
        events = adapt(plan, folder, device=device, resume=resume, overwrite=overwrite, should_stop=stop)
        try:
            for event in events:
                display.show(event)
                if isinstance(event, Finished) and not event.complete:
                    raise typer.Exit(1)
        except KeyboardInterrupt:
            say(f"stopped at once; if there is a checkpoint, {go_on}")
            raise typer.Exit(1) from None


class TrainingDisplay:
    """Events of a training: lines, and a live table on a terminal or a plain line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = (
            Live(console=stderr, refresh_per_second=4, transient=True) if stderr.is_terminal else None
        )
        self._ticker = Ticker()

    def __enter__(self) -> "TrainingDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, event: "Event") -> None:
        """Draw an event."""
        from mitoda.training.adapt import Finished, Notice, Started
        from mitoda.training.loop import RoundBegun, StepsDone
        from mitoda.training.painting import HeldBackScore

        if isinstance(event, Started):
            _say_start(event)
        elif isinstance(event, Notice):
            (warn if event.is_warning else say)(event.text)
        elif isinstance(event, StepsDone):
            self._show_steps(event)
        elif isinstance(event, RoundBegun):
            say(
                f"step {event.step}: round {event.round} begins; {event.foreground:.2%} of the target is labelled as "
                f"mitochondrion (probability from {event.high:.2f}), {event.ignored:.2%} has no label"
            )
            if event.warning:
                warn(event.warning)
        elif isinstance(event, HeldBackScore):
            say(event.sentence)
            if event.warning:
                warn(event.warning)
        elif isinstance(event, Finished):
            _say_end(event)

    def _show_steps(self, event: "StepsDone") -> None:
        if self._live:
            self._live.update(_table(event))
        elif self._ticker.due() or event.progress >= 1.0:
            losses = "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            say(
                f"step {event.step}  {event.progress:.0%}  {event.steps_per_second:.2f} steps/s  "
                f"{duration(event.seconds_left)} left  {losses}"
            )


def _say_start(event: "Started") -> None:
    """Say what is trained on which volumes, and what was derived."""
    plan, prepared = event.plan, event.prepared
    pixel = prepared.geometry.pixel
    say(
        f"{plan.training.method} on {plan.training.backbone}, {event.device}, "
        f"{'bfloat16' if event.bfloat16 else 'float32'}; working pixel {pixel[0]:g} × {pixel[1]:g} nm, "
        f"pairs {prepared.info.spacing:g} nm apart"
    )
    if prepared.info.start:
        instead = "" if plan.source_free else " (--from-scratch starts without)"
        say(f"starting from the weights '{prepared.info.start}'{instead}")
    if prepared.painted is not None:
        painted = prepared.painted
        sections = ", ".join(map(str, list(painted.index)[:6])) + (", …" if len(painted.index) > 6 else "")
        say(f"labels: {painted.name}, painted sections {sections}")
    for name, pairs in prepared.domains():
        scale = "" if pairs.scale == (1.0, 1.0) else f", resampled ×{1 / pairs.scale[0]:.3f}"
        shape = " × ".join(map(str, pairs.volume.shape))
        say(f"{name}: {pairs.volume.name}, {shape}, stride {pairs.stride}{scale}")


def _say_end(event: "Finished") -> None:
    """Say how the run ended, and what to do next."""
    done = f"{event.step} steps in {duration(event.seconds)}"
    if event.checks is None:
        next_step = (
            "nothing was written"
            if event.step == 0
            else (f"continue with: mitoda adapt --resume {event.weights.parent}")
        )
        say(f"stopped after {done}; {next_step}")
        return
    say(
        f"done: {done}; averaged weights of the last step: {event.weights}; losses and pictures: {event.report}"
    )
    say(event.checks.sentence)
    for warning in event.checks.warnings:
        warn(warning)
    say(f"next: mitoda segment {event.target} -o mask.tif --weights {event.weights.parent}")
    if event.labels is not None:
        say(
            f"to improve it, paint more: mitoda suggest {event.target} -o more.tif --labels {event.labels} "
            f"--weights {event.weights.parent}, then adapt with --labels more.tif --start {event.weights.parent}"
        )


def _table(event: "StepsDone") -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=1.0, completed=event.progress, width=30),
        f"{event.progress:.0%}",
        f"step {event.step}",
        f"{event.steps_per_second:.2f} steps/s",
        f"{duration(event.seconds_left)} left",
        f"lr {event.learning_rate:.2g}",
    )
    losses = Table.grid(padding=(0, 2))
    for name, value in event.losses.items():
        losses.add_row(name.replace("_", " "), f"{value:.4g}")
    return Group(head, losses)
