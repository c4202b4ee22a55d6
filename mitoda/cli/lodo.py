"""`mitoda bench lodo`: leave one data set out."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mitoda.cli.display import Ticker, announce_stop, duration, percent, print_table, say, stdout, warn
from mitoda.cli.stopping import say_how_to_continue, stopping_after_step

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from mitoda.benchmark.left_out import LodoSettings
    from mitoda.benchmark.lodo import Event, StageScored
    from mitoda.benchmark.lodo_table import LodoLine, LodoRow


def leave_one_out(
    settings: "LodoSettings", out: Path, device: "torch.device", *, as_json: bool, dry_run: bool
) -> None:
    """Run all stages and print their table; exit with 1 if not all are finished."""
    import json
    from dataclasses import asdict

    from mitoda.benchmark.lodo import run_lodo
    from mitoda.benchmark.lodo_table import PROTOCOL, tabulate_lodo
    from mitoda.benchmark.tasks import LODO
    from mitoda.models.device import describe_device

    if dry_run:
        _print_forecast(settings, out)
        return
    say(f"{LODO}: {', '.join(settings.stages)} on {describe_device(device)}, into {out / LODO}")
    say_how_to_continue(lambda: "the same command continues from the last checkpoint")
    with stopping_after_step(announce_stop) as should_stop:
        rows, complete = _follow(run_lodo(settings, out, device, should_stop=should_stop))
    if should_stop.asked:
        say("stopped; the same command resumes from the last checkpoint")
    lines = tabulate_lodo(rows)
    if as_json:
        typer.echo(json.dumps({"rows": [asdict(row) for row in rows], "table": [asdict(x) for x in lines]}))
    elif lines:
        _print_table(lines)
        for sentence in PROTOCOL:
            stdout.print(f"- {sentence}", markup=False)
    if should_stop.asked or not complete:
        raise typer.Exit(1)


def _follow(events: "Iterable[Event]") -> "tuple[list[LodoRow], bool]":
    """Draw the progress; return the rows of the finished stages, and whether none failed."""
    from mitoda.benchmark.lodo import StageScored
    from mitoda.benchmark.runner import Failed, Started
    from mitoda.cli.display import TrainingDisplay
    from mitoda.inference.events import SectionDone
    from mitoda.training.loop import StepsDone
    from mitoda.training.painting import HeldBackScore

    rows: list[LodoRow] = []
    complete, ticker = True, Ticker()
    with TrainingDisplay() as display:
        for event in events:
            if isinstance(event, Started):
                verb = "resuming" if event.resumed else "running"
                say(f"[{event.position}/{event.jobs}] {verb} {event.job.name}")
            elif isinstance(event, StepsDone | HeldBackScore):
                display.show(event)
            elif isinstance(event, SectionDone) and ticker.due():
                say(f"segmenting: {event.section + 1} of {event.sections} sections")
            elif isinstance(event, StageScored):
                rows += event.rows
                _say_scores(event)
            elif isinstance(event, Failed):
                warn(f"{event.job.name} failed: {event.reason}")
                complete = False
    return rows, complete


def _say_scores(event: "StageScored") -> None:
    """Say the F1 of each volume, and how far it is from that of the start."""
    for row in event.rows:
        known = "finished before" if event.known else f"{row.steps} steps in {duration(row.seconds)}"
        change = "" if row.change is None else f", {100 * row.change:+.1f} above general"
        say(f"{event.stage.name}: F1 {percent(row.scores.f1)} on {row.volume}{change} ({known})")
        for warning in () if event.known else row.warnings:
            warn(warning)


def _print_forecast(settings: "LodoSettings", out: Path) -> None:
    """Print the stages with their estimated time."""
    from rich import box
    from rich.table import Table

    from mitoda.benchmark.lodo import forecast

    forecasts, per_step = forecast(settings, out)
    table = Table(box=box.SIMPLE)
    for name in ("stage", "state", "length", "estimated"):
        table.add_column(name, no_wrap=True, justify="right" if name == "estimated" else "left")
    for one in forecasts:
        training = one.stage.plan.training
        length = f"{training.steps} steps" if training.steps is not None else f"{training.minutes:g} minutes"
        if not one.stage.is_trained_here:
            length = f"weights {one.stage.weights}"
        table.add_row(one.stage.name, one.state, length, duration(one.seconds) if one.seconds else "–")
    print_table(table)
    total = sum(one.seconds for one in forecasts)
    stdout.print(f"about {duration(total)} in all, at {per_step:.2g} s a step", markup=False)


def _print_table(lines: "list[LodoLine]") -> None:
    """Print scores in per cent, one line for each volume and stage."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="trained without the data set that is scored: per cent", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    scores = (
        "F1",
        "change",
        "precision",
        "recall",
        "IoU",
        "map",
        "best",
        "level",
        "small",
        "medium",
        "large",
    )
    for name in ("volume", "stage", "seeds", *scores):
        table.add_column(name, no_wrap=True, justify="left" if name in ("volume", "stage") else "right")
    previous = ""
    for line in lines:
        spread = "" if line.spread is None else f" ± {percent(line.spread)}"
        level = line.mean["best_level"]
        table.add_row(
            line.volume if line.volume != previous else "",
            line.stage,
            str(line.seeds),
            percent(line.mean["f1"]) + spread,
            "–" if line.change is None else f"{100 * line.change:+.1f}",
            *(percent(line.mean[name]) for name in ("precision", "recall", "iou", "map_f1", "best_f1")),
            "–" if level is None else f"{level:.2f}",
            *(percent(share) for share in line.objects.values()),
        )
        previous = line.volume
    print_table(table)
