"""`mitoda bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.options import DestOption, DeviceOption, Lengths
from mitoda.cli.terminal import Ticker, duration, say, stdout, stopping_politely, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from rich.table import Table

    from mitoda.benchmark import BenchSettings, BenchTable, Event, Failed, Skipped, Task
    from mitoda.benchmark.entry import Result

NAMES = {"average_precision": "AP", "f1": "F1", "mcc": "MCC", "iou": "IoU"}


TaskOption = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="vnc3-lucchi-s1, vnc3-lucchi-s2, mitoem-r-h, mitoem-h-r or phantom; or give your own volumes.",
    ),
]
MethodsOption = Annotated[str, typer.Option(help="all, or a list with commas: isc,source-only.")]
MinutesOption = Annotated[
    float | None, typer.Option(help="Length of each training. Default 30, of phantom a few seconds.")
]
StepsOption = Annotated[int | None, typer.Option(help="The same in steps.")]
SeedsOption = Annotated[int, typer.Option(help="How many seeds; the table has mean and spread.")]
BackboneOption = Annotated[str, typer.Option(help="compact or codetection, the same for every method.")]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder of all benches.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Your own task: labelled volume, a data set or IMAGES:LABELS.")
]
TargetOption = Annotated[str | None, typer.Option(help="Your own task: the volume to adapt to.")]
TestOption = Annotated[
    str | None, typer.Option(help="Your own task: the held-out volume. Default: the target itself.")
]
LabelsOption = Annotated[
    str | None, typer.Option(help="Your own task: labels of the volume that is scored; for scoring only.")
]
SourceVoxelSizeOption = Annotated[
    Lengths | None, typer.Option(metavar="Z Y X", help="Nanometres; overrules the metadata.")
]
TargetVoxelSizeOption = Annotated[
    Lengths | None, typer.Option(metavar="Z Y X", help="The same of target and test.")
]
KeepOption = Annotated[
    int,
    typer.Option(help="Keep and score so many checkpoints of each training, to study label-free selection."),
]
ShowBestOption = Annotated[
    bool, typer.Option("--show-best", help="Also show the checkpoint that the test labels would choose.")
]
AsJsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
CsvOption = Annotated[Path | None, typer.Option(help="Write one line per method.")]
FigureOption = Annotated[Path | None, typer.Option(help="Write bars of F1, ours and the paper's (.png).")]
PatchOption = Annotated[int | None, typer.Option(help="Side of the patches, in working pixels.")]


def bench(
    task: TaskOption = None,
    methods: MethodsOption = "all",
    minutes: MinutesOption = None,
    steps: StepsOption = None,
    seeds: SeedsOption = 1,
    backbone: BackboneOption = "compact",
    out: OutOption = Path("bench"),
    source: SourceOption = None,
    target: TargetOption = None,
    test: TestOption = None,
    labels: LabelsOption = None,
    source_voxel_size: SourceVoxelSizeOption = None,
    target_voxel_size: TargetVoxelSizeOption = None,
    keep: KeepOption = 0,
    show_best: ShowBestOption = False,
    as_json: AsJsonOption = False,
    csv: CsvOption = None,
    figure: FigureOption = None,
    patch: PatchOption = None,
    dest: DestOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train methods, score each on a held-out half, and print the paper's numbers beside ours."""
    import json

    from mitoda.benchmark import BenchSettings, Failed, choose_methods, tabulate
    from mitoda.errors import FileError, InputError
    from mitoda.models.device import choose_device, describe_device

    for path in (csv, figure):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileError(f"the folder {path.absolute().parent} does not exist; make it first")
    if figure is not None and figure.suffix.lower() != ".png":
        raise InputError(f"--figure must end in .png; got {figure}")
    if show_best and not keep:
        raise InputError(
            "--show-best chooses among checkpoints; give --keep N, and it is a column of its own"
        )
    settings = BenchSettings(
        choose_methods(methods), seeds, minutes, steps, patch=patch, backbone=backbone, keep=keep, dest=dest
    )
    chosen_device = choose_device(device)
    chosen = _choose_task(
        task, source, target, test, labels, source_voxel_size, target_voxel_size, out=out, dest=dest
    )
    say(f"{chosen.name}: {', '.join(settings.methods)} on {describe_device(chosen_device)}, into {out}")
    results, missing, stopped = _run(chosen, settings, out, chosen_device)
    table = tabulate(chosen, settings, results, missing)
    if csv is not None:
        table.write_csv(csv, best=show_best)
        say(f"wrote {csv}")
    if figure is not None:
        draw_bars(table, figure)
        say(f"wrote {figure}")
    if as_json:
        typer.echo(json.dumps(table.to_dict(best=show_best)))
    else:
        print_table(table, show_best)
    if stopped or not results or any(isinstance(one, Failed) for one in missing):
        raise typer.Exit(1)


def _choose_task(
    task: str | None,
    source: str | None,
    target: str | None,
    test: str | None,
    labels: str | None,
    source_voxel_size: Lengths | None,
    target_voxel_size: Lengths | None,
    *,
    out: Path,
    dest: str | None,
) -> "Task":
    """Take a task by name, or make one of the person's own volumes."""
    from mitoda.benchmark import find_task, own_task

    own = {
        "--source": source,
        "--target": target,
        "--labels": labels,
        "--test": test,
        "--source-voxel-size": source_voxel_size,
        "--target-voxel-size": target_voxel_size,
    }
    given = [option for option, value in own.items() if value is not None]
    if task is not None:
        if given:
            raise typer.BadParameter(f"the task {task} has its own volumes; leave out {given[0]}, or TASK")
        return find_task(task, out / task / "volumes", dest)
    if source is None or target is None or labels is None:
        raise typer.BadParameter("give a TASK such as vnc3-lucchi-s2, or --source, --target and --labels")
    return own_task(
        source,
        target,
        labels,
        test=test,
        source_voxel_size=source_voxel_size,
        target_voxel_size=target_voxel_size,
        dest=dest,
    )


def _run(
    task: "Task", settings: "BenchSettings", out: Path, device: "torch.device"
) -> "tuple[list[Result], list[Skipped | Failed], bool]":
    """Bench, draw the progress, and collect what came out and what is missing."""
    from mitoda.benchmark import Failed, Scored, Skipped, Stopped, run_bench

    results: list[Result] = []
    missing: list[Skipped | Failed] = []
    with stopping_politely(
        "stopping after this step, then saving … (Ctrl-C again to stop at once)"
    ) as should_stop:
        try:
            for event in _drawn(run_bench(task, settings, out, device, should_stop=should_stop)):
                if isinstance(event, Scored):
                    results.append(event.result)
                elif isinstance(event, Skipped | Failed):
                    missing.append(event)
                elif isinstance(event, Stopped):
                    say(f"stopped in {event.entry.name}; the same command goes on there")
                    return results, missing, True
        except KeyboardInterrupt:
            say("stopped at once; the same command goes on from the last checkpoint")
            return results, missing, True
    return results, missing, False


def _drawn(events: "Iterable[Event]") -> "Iterator[Event]":
    """Pass events on and draw them."""
    from mitoda.benchmark import Failed, Scored, ScoringSection, Skipped, Started, Trained
    from mitoda.cli.training import TrainingDisplay
    from mitoda.training.loop import StepsDone

    ticker, display = Ticker(), TrainingDisplay()
    with display:
        for event in events:
            if isinstance(event, Started):
                verb = "going on with" if event.resumed else "training"
                say(f"[{event.position}/{event.entries}] {verb} {event.entry.name}")
            elif isinstance(event, Trained) and isinstance(event.event, StepsDone):
                display.show(event.event)
            elif isinstance(event, ScoringSection) and ticker.due():
                what = "last weights" if event.step is None else f"step {event.step}"
                say(f"scoring {event.entry.name}, {what}: {event.section + 1} of {event.sections} sections")
            elif isinstance(event, Scored):
                done = "done before" if event.known else f"trained in {duration(event.result.seconds)}"
                say(f"{event.entry.name}: F1 {_share(event.result.last.mean.f1)}, {done}")
            elif isinstance(event, Skipped):
                warn(f"{event.method} is left out: {event.reason}")
            elif isinstance(event, Failed):
                warn(f"{event.entry.name} failed: {event.reason}")
            yield event


def _share(value: float) -> str:
    """A share in per cent; a dash where it does not exist."""
    return "–" if value != value else f"{100 * value:.1f}"


def print_wide(table: "Table") -> None:
    """Print a table as wide as it is where no terminal sets a limit."""
    from rich.console import Console

    console = stdout if stdout.is_terminal else Console(width=max(stdout.width, 160), highlight=False)
    console.print(table)


def print_table(table: "BenchTable", show_best: bool) -> None:
    """Print ours and the paper's numbers, how they came about, and what label-free scores are worth."""
    from rich import box
    from rich.table import Table

    shown = Table(
        title=f"{table.task}: per cent, mean over sections; the paper's number beside ours",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("method", no_wrap=True)
    shown.add_column("steps", justify="right", no_wrap=True)
    for name in NAMES.values():
        shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("paper", justify="right", no_wrap=True, style="dim")
    if show_best:
        shown.add_column("F1 by labels", justify="right", no_wrap=True)
    for row in table.rows:
        cells = ["–" if row.steps != row.steps else f"{row.steps:.0f}"]
        for name in NAMES:
            spread = getattr(row.spread, name)
            around = "" if spread != spread else f" ± {_share(spread)}"
            cells += [_share(getattr(row.ours, name)) + around, _share(getattr(row.paper, name))]
        shown.add_row(row.method, *cells, *([_share(row.best.f1)] if show_best else []))
    print_wide(shown)
    for line in table.protocol:
        stdout.print(f"- {line}", markup=False)
    if show_best:
        stdout.print(
            "- F1 by labels: of the checkpoints kept, the one with the highest F1 on the test labels; an upper "
            "bound that nobody without labels can reach, not a result",
            markup=False,
        )
    for row in table.rows:
        if row.note:
            stdout.print(f"- {row.method}: {row.note}", markup=False)
    _print_correlations(table)


def _print_correlations(table: "BenchTable") -> None:
    """Print the rank correlations, where there is one at all."""
    from rich import box
    from rich.table import Table

    def number(value: float) -> str:
        return "–" if value != value else f"{value:+.2f}"

    if not any(one.runs or one.across == one.across for one in table.correlations):
        return
    shown = Table(
        title="label-free scores: rank correlation with F1 on the held-out half (Spearman)", box=box.SIMPLE
    )
    for name in ("score", "within a run", "beyond time", "runs", "across entries", "entries"):
        shown.add_column(name, justify="left" if name == "score" else "right")
    for one in table.correlations:
        cells = (
            number(one.within),
            number(one.beyond_time),
            str(one.runs),
            number(one.across),
            str(one.entries),
        )
        shown.add_row(one.score.replace("_", " "), *cells)
    print_wide(shown)


def draw_bars(table: "BenchTable", path: Path) -> None:
    """Draw F1 of each method, ours and the paper's."""
    from mitoda.plotting import Bar, bar_figure, write_png

    bars = [Bar(row.method, 100 * row.ours.f1, 100 * row.spread.f1, 100 * row.paper.f1) for row in table.rows]
    write_png(bar_figure(bars, f"{table.task}: F1 in per cent, mean over sections"), path)
