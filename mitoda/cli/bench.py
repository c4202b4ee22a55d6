"""`mitoda bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import Ticker, duration, say, stdout, stopping_after_step, warn
from mitoda.cli.options import DestOption, DeviceOption, Lengths, voxel_size_option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from mitoda.benchmark import BenchTable
    from mitoda.benchmark.runner import Event
    from mitoda.benchmark.table import Result

NAMES = {"average_precision": "AP", "f1": "F1", "mcc": "MCC", "iou": "IoU"}

TaskOption = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="vnc3-lucchi-s1, vnc3-lucchi-s2, mitoem-r-h, mitoem-h-r or phantom; or give your own volumes.",
    ),
]
MethodsOption = Annotated[str, typer.Option(help="'all', or names separated by commas: isc,source-only.")]
MinutesOption = Annotated[
    float | None, typer.Option(help="Length of each training, in minutes. Default: 30; phantom: 80 steps.")
]
StepsOption = Annotated[int | None, typer.Option(help="Length of each training, in steps.")]
SeedsOption = Annotated[int, typer.Option(help="Number of seeds; the table has their mean and spread.")]
BackboneOption = Annotated[str, typer.Option(help="compact or codetection, the same for every method.")]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for all benchmarks.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Your own task: labelled volume, a data set or IMAGES:LABELS.")
]
TargetOption = Annotated[str | None, typer.Option(help="Your own task: volume to adapt to.")]
TestOption = Annotated[str | None, typer.Option(help="Your own task: held-out volume. Default: the target.")]
LabelsOption = Annotated[
    str | None, typer.Option(help="Your own task: labels of the held-out volume, read for scoring only.")
]
SourceVoxelSizeOption = Annotated[
    Lengths | None,
    voxel_size_option(help="Source voxel size in nanometres; overrides the metadata.", panel=None),
]
TargetVoxelSizeOption = Annotated[
    Lengths | None,
    voxel_size_option(
        help="Voxel size of target and test in nanometres; overrides the metadata.", panel=None
    ),
]
KeepOption = Annotated[
    int,
    typer.Option(help="Checkpoints of each training to keep and score, to study label-free selection."),
]
AsJsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
CsvOption = Annotated[Path | None, typer.Option(help="CSV file to write, one line per method.")]
FigureOption = Annotated[
    Path | None, typer.Option(help="Picture to write (.png): bars of F1, measured and the paper's.")
]
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
    as_json: AsJsonOption = False,
    csv: CsvOption = None,
    figure: FigureOption = None,
    patch: PatchOption = None,
    dest: DestOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train methods, score each on a held-out volume, and print the scores beside the paper's."""
    import json
    from dataclasses import replace

    from mitoda.benchmark import BenchSettings, choose_methods, find_task, own_task, run_bench, tabulate
    from mitoda.errors import InputError
    from mitoda.models.device import choose_device, describe_device
    from mitoda.volumes.files import check_output

    specs = [spec for spec in (source, target, test, labels) if spec]
    inputs = [Path(part) for spec in specs for part in (spec, *spec.split(":")) if part]
    for path, option, suffix in ((csv, "--csv", ".csv"), (figure, "--figure", ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise InputError(f"{option} must end in {suffix}; got '{path}'")
        if path is not None:
            check_output(path, inputs, overwrite=True)
    settings = BenchSettings(choose_methods(methods), seeds, backbone, keep, dest)
    chosen_device = choose_device(device)
    volumes = {
        "--source": source, "--target": target, "--labels": labels, "--test": test,
        "--source-voxel-size": source_voxel_size, "--target-voxel-size": target_voxel_size,
    }  # fmt: skip
    given = [option for option, value in volumes.items() if value is not None]
    if task is not None and given:
        raise typer.BadParameter(f"the task {task} has its own volumes; leave out {given[0]}, or TASK")
    if task is not None:
        chosen = find_task(task, out / task / "volumes", dest)
    elif source is None or target is None or labels is None:
        raise typer.BadParameter("give a TASK such as vnc3-lucchi-s2, or --source, --target and --labels")
    else:
        chosen = own_task(source, target, labels, test, source_voxel_size, target_voxel_size, dest)
    if steps is not None or minutes is not None:
        chosen = replace(chosen, steps=steps, minutes=minutes)
    if patch is not None:
        chosen = replace(chosen, patch=patch)
    say(f"{chosen.name}: {', '.join(settings.methods)} on {describe_device(chosen_device)}, into {out}")
    with stopping_after_step() as should_stop:
        events = run_bench(chosen, settings, out, chosen_device, should_stop=should_stop)
        results, notes, complete = _follow(events)
    if should_stop.asked:
        say("stopped; the same command resumes from the last checkpoint")
    table = tabulate(chosen, settings, results, notes)
    if csv is not None:
        table.write_csv(csv)
        say(f"wrote {csv}")
    if figure is not None:
        _draw_bars(table, figure)
        say(f"wrote {figure}")
    if as_json:
        typer.echo(json.dumps(table.to_dict()))
    else:
        _print_table(table)
    if should_stop.asked or not complete or not results:
        raise typer.Exit(1)


def _follow(events: "Iterable[Event]") -> "tuple[list[Result], dict[str, str], bool]":
    """Draw the progress; return the results, why methods have none, and whether nothing failed."""
    from mitoda.benchmark.runner import Failed, Scored, ScoringSection, Skipped, Started
    from mitoda.cli.display import TrainingDisplay
    from mitoda.training.loop import StepsDone

    results: list[Result] = []
    notes: dict[str, str] = {}
    complete, ticker = True, Ticker()
    try:
        with TrainingDisplay() as display:
            for event in events:
                if isinstance(event, Started):
                    verb = "resuming" if event.resumed else "training"
                    say(f"[{event.position}/{event.entries}] {verb} {event.entry.name}")
                elif isinstance(event, StepsDone):
                    display.show(event)
                elif isinstance(event, ScoringSection) and ticker.due():
                    where = f"{event.section + 1} of {event.sections} sections"
                    say(f"scoring {event.entry.name}, step {event.step}: {where}")
                elif isinstance(event, Scored):
                    done = "finished before" if event.known else duration(event.result.training_seconds)
                    say(f"{event.entry.name}: F1 {_percent(event.result.last.mean['f1'])} ({done})")
                    results.append(event.result)
                elif isinstance(event, Skipped):
                    warn(f"{event.method} is left out: {event.reason}")
                    notes[event.method] = event.reason
                elif isinstance(event, Failed):
                    warn(f"{event.entry.name} failed: {event.reason}")
                    notes[event.entry.method], complete = event.reason, False
    except KeyboardInterrupt:
        complete = False
    return results, notes, complete


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _print_table(table: "BenchTable") -> None:
    """Print measured scores beside the paper's, the protocol, and the rank correlations if there are any."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=f"{escape(table.task)}: per cent, mean over sections; the paper's number beside ours",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("method", no_wrap=True)
    shown.add_column("steps", justify="right", no_wrap=True)
    for name in NAMES.values():
        shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("paper", justify="right", no_wrap=True, style="dim")
    for row in table.rows:
        cells = ["–" if row.steps is None else f"{row.steps:.0f}"]
        for name in NAMES:
            spread = "" if row.spread[name] is None else f" ± {_percent(row.spread[name])}"
            cells += [_percent(row.ours[name]) + spread, _percent(row.paper[name])]
        shown.add_row(escape(row.method), *cells)
    _print_wide(shown)
    notes = [f"{row.method}: {row.note}" for row in table.rows if row.note]
    for line in (*table.protocol, *notes):
        stdout.print(f"- {line}", markup=False)
    correlations = Table(
        title="label-free scores: Spearman's rank correlation with F1 on the held-out volume", box=box.SIMPLE
    )
    for name in ("score", "within a run", "beyond time", "runs", "across entries", "entries"):
        correlations.add_column(name, justify="left" if name == "score" else "right")
    for one in table.rank_correlation_with_f1:
        rhos = [
            "–" if rho is None else f"{rho:+.2f}"
            for rho in (one.within_runs, one.beyond_time, one.across_entries)
        ]
        if one.runs or one.across_entries is not None:
            correlations.add_row(
                one.score.replace("_", " "), *rhos[:2], str(one.runs), rhos[2], str(one.entries)
            )
    if correlations.rows:
        _print_wide(correlations)


def _print_wide(table: "Table") -> None:
    """Print a table at its full width where no terminal sets a limit."""
    from rich.console import Console

    console = stdout if stdout.is_terminal else Console(width=max(stdout.width, 160), highlight=False)
    console.print(table)


def _draw_bars(table: "BenchTable", path: Path) -> None:
    """Write a picture of F1 of each method, measured and the paper's."""
    from mitoda.plotting import Bar, bar_figure, write_png

    bars = [
        Bar(row.method, *(None if scores["f1"] is None else 100 * scores["f1"] for scores in groups))
        for row in table.rows
        for groups in [(row.ours, row.spread, row.paper)]
    ]
    write_png(bar_figure(bars, f"{table.task}: F1 in per cent, mean over sections"), path)
