"""A training on the terminal: its folder, what it says before and after, and its progress."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mitoda.cli.terminal import Ticker, duration, say, stderr, stopping_politely, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from rich.console import Group

    from mitoda.data.pairs import Pairs
    from mitoda.training.domains import AdaptationPlan, Prepared
    from mitoda.training.loop import Event, Finished, StepsDone


def run_plan(
    plan: "AdaptationPlan", folder: Path, device_name: str, *, resume: bool = False, overwrite: bool = False
) -> "Finished":
    """Train a plan in its folder and draw the progress."""
    from mitoda.methods import Arithmetic
    from mitoda.models.device import choose_bfloat16, choose_device, describe_device
    from mitoda.training.domains import prepare
    from mitoda.training.loop import adapt
    from mitoda.training.run_folder import RunFolder

    run = RunFolder(folder)
    if not resume:
        run.check_free(overwrite)
    device = choose_device(device_name)
    bfloat16 = choose_bfloat16(plan.precision, device)
    if not resume:
        plan = with_voxel_size(plan, device, bfloat16)
    prepared = prepare(plan)
    if not resume:  # an earlier run is replaced only once the new one is known to begin
        folder.mkdir(parents=True, exist_ok=True)
        run.remove_run()
    _announce(plan, prepared, describe_device(device), bfloat16)
    with stopping_politely(
        "stopping after this step, then saving … (Ctrl-C again to stop at once)"
    ) as should_stop:
        plan.save(run)
        events = adapt(
            plan.training,
            prepared.source,
            prepared.target,
            run,
            prepared.info,
            Arithmetic(device, bfloat16),
            start=prepared.start,
            resume=resume,
            should_stop=should_stop,
        )
        try:
            finished = _draw_training(events, folder)
        except KeyboardInterrupt:
            say(f"stopped at once; go on from the last checkpoint with: mitoda adapt --resume {folder}")
            raise typer.Exit(1) from None
    _conclude(plan, prepared, folder, finished, device)
    return finished


def with_voxel_size(plan: "AdaptationPlan", device: "torch.device", bfloat16: bool) -> "AdaptationPlan":
    """Search the target's voxel size where nobody has said it, with the weights that the run begins from."""
    from mitoda.inference.voxel_size import search_voxel_size
    from mitoda.models.weights import find_weights, load_weights
    from mitoda.training.domains import open_domain

    if plan.start is None or plan.target_voxel_size is not None:
        return plan
    target = open_domain(plan.target, labelled=False, invert=plan.invert_target, dest=plan.dest).volume
    if target.voxel_size is not None:
        return plan
    network, info = load_weights(find_weights(plan.start))
    found = search_voxel_size(network.to(device), info, target, device, bfloat16=bfloat16)
    say(found.sentence)
    return replace(plan, target_voxel_size=found.voxel_size)


def _draw_training(events: "Iterator[Event]", folder: Path) -> "Finished":
    """Draw the events of a training; return its last."""
    from mitoda.training.loop import Finished, RoundBegun, Saved, StepsDone
    from mitoda.training.report import draw_curves

    with TrainingDisplay() as display:
        for event in events:
            if isinstance(event, StepsDone):
                display.show(event)
            elif isinstance(event, RoundBegun):
                say(
                    f"step {event.step}: round {event.round} begins; of the target {event.foreground:.2%} is taught as "
                    f"mitochondrion (probability from {event.high:.2f}), {event.ignored:.2%} is left open"
                )
                if event.warning:
                    warn(event.warning)
            elif isinstance(event, Saved):
                draw_curves(folder)
            elif isinstance(event, Finished):
                return event
    raise RuntimeError("the training ended without an end")


def _announce(plan: "AdaptationPlan", prepared: "Prepared", device: str, bfloat16: bool) -> None:
    """Say what is about to happen, and what was derived."""
    geometry = prepared.geometry
    say(
        f"{plan.training.method} on {plan.training.backbone}, {device}, {'bfloat16' if bfloat16 else 'float32'}; "
        f"working pixel {geometry.pixel[0]:g} × {geometry.pixel[1]:g} nm, pairs {prepared.info.spacing:g} nm apart"
    )
    if prepared.info.start:
        instead = "" if plan.source_free else " (--from-scratch begins without)"
        say(f"beginning from the weights '{prepared.info.start}'{instead}")
    for name, pairs in prepared.domains():
        scale = "" if pairs.scale == (1.0, 1.0) else f", resampled ×{1 / pairs.scale[0]:.3f}"
        say(
            f"{name}: {pairs.volume.name}, {' × '.join(map(str, pairs.volume.shape))}, stride {pairs.stride}{scale}"
        )
        rows, columns = (
            side / factor for side, factor in zip(pairs.volume.shape[1:], pairs.scale, strict=True)
        )
        if min(rows, columns) < plan.training.patch:
            warn(
                f"sections of the {name} are {rows:.0f} × {columns:.0f} working pixels, smaller than a patch of "
                f"{plan.training.patch}; what is outside is mirrored. A smaller --patch trains faster"
            )
        _warn_of_spacing(name, pairs, prepared.info.spacing)


def _warn_of_spacing(name: str, pairs: "Pairs", spacing: float) -> None:
    """Say where the sections of a pair cannot be as far apart as they should."""
    if pairs.stride == 0:
        warn(f"the {name} is a single section: it is paired with itself, so sections cannot teach each other")
        return
    apart = pairs.stride * (pairs.volume.voxel_size or (spacing,))[0]
    if not 0.5 <= apart / spacing <= 2:
        warn(f"pairs of the {name} are {apart:g} nm apart, not {spacing:g} nm")


def _conclude(
    plan: "AdaptationPlan",
    prepared: "Prepared",
    folder: Path,
    finished: "Finished",
    device: "torch.device",
) -> None:
    """Write the report, say how it ended and what to do next."""
    from mitoda.training.report import check_result, write_run_report

    checks = check_result(plan, prepared, finished.weights, device) if finished.complete else None
    report = write_run_report(plan, prepared, folder, finished, device, checks)
    done = f"{finished.step} steps in {duration(finished.seconds)}"
    if checks is None:
        say(f"stopped after {done}; go on with: mitoda adapt --resume {folder}")
        raise typer.Exit(1)
    say(
        f"done: {done}; the averaged weights of the last step are {finished.weights}; losses and pictures: {report}"
    )
    say(checks.sentence)
    for warning in checks.warnings:
        warn(warning)
    say(f"next: mitoda segment STACK.tif -o mask.tif --weights {finished.weights}")


class TrainingDisplay:
    """Progress of a training: a live table on a terminal, a plain line now and then elsewhere."""

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

    def show(self, event: "StepsDone") -> None:
        """Show the losses of the last steps."""
        if self._live:
            self._live.update(self._table(event))
        elif self._ticker.due() or event.progress >= 1.0:
            losses = "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            say(
                f"step {event.step}  {event.progress:.0%}  {event.steps_per_second:.2f} steps/s  "
                f"{duration(event.seconds_left)} left  {losses}"
            )

    def _table(self, event: "StepsDone") -> "Group":
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
