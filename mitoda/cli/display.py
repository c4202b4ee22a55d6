"""What the commands share in drawing: where messages go, errors in one line, progress of a training."""

import errno
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, Group
from rich.markup import escape

from mitoda.cli.stopping import say_how_to_continue, stopping_after_step
from mitoda.errors import MitodaError, is_out_of_memory

if TYPE_CHECKING:
    from rich.table import Table

    from mitoda.training.adapt import Event, Finished, Started
    from mitoda.training.loop import StepsDone
    from mitoda.training.settings import Plan

stdout = Console(soft_wrap=True, highlight=False, emoji=False)
"""Results."""
stderr = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
"""Progress, warnings and logs."""
LONGEST_MESSAGE = 1200
"""Characters; a name in a message may have any length."""
WIDEST_TABLE = 1000
"""Characters."""


def say(message: str) -> None:
    """Print a progress message."""
    stderr.print(message, markup=False)


def warn(message: str) -> None:
    """Print a warning."""
    stderr.print(f"[yellow]warning:[/yellow] {escape(message)}")


def explain(error: Exception) -> str | None:
    """Say in one line what went wrong, or return None where only a traceback can tell.

    Examples
    --------
    >>> explain(MitodaError("the stack\\nis broken"))
    'the stack is broken'
    >>> explain(PermissionError(13, "Permission denied", "mask.tif"))
    'mask.tif: Permission denied'
    >>> explain(ZeroDivisionError()) is None
    True
    """
    if isinstance(error, MitodaError):
        text = " ".join(str(error).split("\n"))
        return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"
    if is_out_of_memory(error):
        first = (str(error).splitlines() or [""])[0]
        return (
            "out of memory; segment with smaller tiles (--tile 512 512), train with a smaller --patch or "
            f"--batch-size, or give --device cpu ({first or type(error).__name__})"
        )
    if isinstance(error, OSError):
        where = f"{str(error.filename)[:LONGEST_MESSAGE]}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}the disk is full; free some space and continue with --resume"
        return f"{where}{error.strerror or error}"
    return None


class Ticker:
    """Limits how often progress lines are printed without a terminal."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `seconds` have gone by since it last said yes."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def counting(description: str, quiet: bool = False) -> Callable[..., Iterable[Any]]:
    """A bar on a terminal for what goes through an iterable of known length; elsewhere nothing."""
    from functools import partial

    from rich.progress import track

    hidden = quiet or not stderr.is_terminal
    return partial(track, description=description, console=stderr, transient=True, disable=hidden)


def counted(count: int, one: str, several: str = "") -> str:
    """Write how many of something there are; by default the plural has an s.

    Examples
    --------
    >>> counted(1, "section"), counted(3, "section"), counted(0, "mitochondrion", "mitochondria")
    ('1 section', '3 sections', '0 mitochondria')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def duration(seconds: float) -> str:
    """Write a duration for a person.

    Examples
    --------
    >>> duration(8.41), duration(75), duration(4000)
    ('8.4 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(value: float | None) -> str:
    """Write a share in per cent; a dash where there is none.

    Examples
    --------
    >>> percent(0.9337), percent(None)
    ('93.4', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}"


def print_table(table: "Table") -> None:
    """Print a table as wide as the terminal, or wider where numbers would be cut; whole lines without a terminal."""
    from rich.measure import Measurement

    for column in table.columns:
        column.no_wrap = column.no_wrap or column.justify == "right"
    needed = Measurement.get(stdout, stdout.options.update(max_width=WIDEST_TABLE), table)
    width = max(stdout.width, needed.minimum if stdout.is_terminal else needed.maximum)
    Console(width=width, highlight=False, emoji=False).print(table)


def draw_training(adapting: "Callable[..., Iterator[Event]]", folder: Path) -> None:
    """Draw a training, stop it after its step at Ctrl-C, and exit with 1 if it was stopped.

    Parameters
    ----------
    adapting : callable
        `mitoda.adapt` with all arguments but `should_stop`.
    folder : Path
        Of the run.
    """
    from mitoda.training.adapt import Finished
    from mitoda.training.run_folder import RunFolder

    def continuation() -> str:
        if RunFolder(folder).can_resume:
            return f"from the last checkpoint, continue with: {command('adapt', '--resume', folder)}"
        return "there is no checkpoint yet; give the same command again"

    say_how_to_continue(continuation)
    with stopping_after_step(announce_stop) as stop, TrainingDisplay() as display:
        for event in adapting(should_stop=stop):
            display.show(event)
            if isinstance(event, Finished) and not event.complete:
                raise typer.Exit(1)


def announce_stop() -> None:
    """Say what happens after the first Ctrl-C of a training."""
    say("stopping after this step, then saving … (Ctrl-C again to stop at once)")


class TrainingDisplay:
    """Events of a training: lines, and a live table on a terminal or a plain line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = (
            Live(console=stderr, refresh_per_second=4, transient=True) if stderr.is_terminal else None
        )
        self._ticker = Ticker()
        self._plan: Plan | None = None

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
            self._plan = event.plan
            _say_start(event)
        elif isinstance(event, Notice):
            (warn if event.is_warning else say)(event.text)
        elif isinstance(event, StepsDone):
            self._show_steps(event)
        elif isinstance(event, RoundBegun):
            say(
                f"step {event.step}: round {event.round} begins; {event.foreground:.2%} of {event.labelled} is "
                f"labelled as mitochondrion (probability from {event.high:.2f}), {event.ignored:.2%} has no label"
            )
            if event.warning:
                warn(event.warning)
        elif isinstance(event, HeldBackScore):
            say(event.sentence)
            if event.warning:
                warn(event.warning)
        elif isinstance(event, Finished):
            _say_end(event, self._plan)

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
        instead = " (use --from-scratch to start from random weights)" if not plan.source_free else ""
        say(f"starting from the weights '{prepared.info.start}'{instead}")
    if prepared.painted is not None:
        painted = prepared.painted
        sections = ", ".join(map(str, list(painted.index)[:6])) + (", …" if len(painted.index) > 6 else "")
        say(f"labels: {painted.name}, painted sections {sections}")
    for name, pairs in prepared.domains():
        scale = "" if pairs.scale == (1.0, 1.0) else f", resampled ×{1 / pairs.scale[0]:.3f}"
        shape = " × ".join(map(str, pairs.volume.shape))
        say(f"{name}: {pairs.volume.name}, {shape}, stride {pairs.stride}{scale}")


def _say_end(event: "Finished", plan: "Plan | None") -> None:
    """Say how the run ended, and what to do next."""
    done = f"{event.step} steps in {duration(event.seconds)}"
    if event.checks is None:
        next_step = (
            "nothing was written"
            if event.step == 0
            else f"continue with: {command('adapt', '--resume', event.weights.parent)}"
        )
        say(f"stopped after {done}; {next_step}")
        return
    say(
        f"done: {done}; averaged weights of the last step: {event.weights}; losses and pictures: {event.report}"
    )
    say(event.checks.sentence)
    for warning in event.checks.warnings:
        warn(warning)
    if plan is None:
        return
    run, size = event.weights.parent, plan.target_voxel_size
    known = stack_options(size, plan.invert_target, plan.dest)
    say(f"next: {command('segment', plan.target, '-o', 'mask.tif', *known, '--weights', run)}")
    if plan.labels is not None:
        section = [] if plan.label_section is None else ["--label-section", plan.label_section]
        painted = ["--labels", plan.labels, *section]
        suggestion = command("suggest", plan.target, "-o", "more.tif", *painted, *known, "--weights", run)
        say(f"to improve it, paint more: {suggestion}, then adapt with --labels more.tif --start {run}")


def stack_options(size: Sequence[float] | None, invert: bool, dest: str | None) -> list[str]:
    """Options of a stack that are given again in a command to type next."""
    known = [] if size is None else ["--voxel-size", *(f"{length:g}" for length in size)]
    return [*known, *(["--invert"] if invert else []), *([] if dest is None else ["--dest", dest])]


def command(*words: object) -> str:
    """Write a command as it is typed.

    Examples
    --------
    >>> command("segment", "my stack.tif", "--tile", 512)
    "mitoda segment 'my stack.tif' --tile 512"
    """
    return shlex.join(["mitoda", *map(str, words)])


def _table(event: "StepsDone") -> Group:
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
