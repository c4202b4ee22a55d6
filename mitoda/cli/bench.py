"""`mitoda bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import Ticker, announce_stop, duration, percent, print_table, say, stdout, warn
from mitoda.cli.lodo import leave_one_out
from mitoda.cli.options import (
    DestOption,
    DeviceOption,
    Lengths,
    assignment,
    given_options,
    voxel_size_option,
)
from mitoda.cli.stopping import say_how_to_continue, stopping_after_step

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from mitoda.benchmark import BenchSettings, BenchTable, Task
    from mitoda.benchmark.runner import Event
    from mitoda.benchmark.table import Result

NAMES = {"average_precision": "AP", "f1": "F1", "mcc": "MCC", "iou": "IoU"}

TaskOption = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="vnc3-lucchi-s1, vnc3-lucchi-s2, mitoem-r-h, mitoem-h-r, phantom or lodo (leave one data set out); or "
        "give your own volumes.",
    ),
]
MethodsOption = Annotated[str, typer.Option(help="'all', or names separated by commas: isc,source-only.")]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        help="Length of each training, in minutes. Default: 30; phantom: 80 steps; lodo, of general: 1500 steps."
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Length of each training, in steps.")]
SeedsOption = Annotated[
    str,
    typer.Option(help="Number of seeds, or the seeds with commas: 0,2. The table has their mean and spread."),
]
BackboneOption = Annotated[str, typer.Option(help="compact or codetection, the same for every method.")]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for all benchmarks.")]
SourceOption = Annotated[
    str | None,
    typer.Option(help="Your own task: labelled volume, a data set or IMAGES:LABELS. lodo: one more source."),
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
LEFT_OUT_PANEL = "Leave one data set out (lodo)"
StagesOption = Annotated[
    str,
    typer.Option(help="Stages to run, with commas: general, adapt, painted.", rich_help_panel=LEFT_OUT_PANEL),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        help="Data sets to leave out, with commas: vnc3, lucchi, cdeep3m. Default: each in turn.",
        rich_help_panel=LEFT_OUT_PANEL,
    ),
]
StartsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--start",
        metavar="NAME=WEIGHTS",
        help="Weights to use when the data set NAME is left out, instead of training them; {seed} is replaced by the "
        "seed. Repeat it for more data sets.",
        rich_help_panel=LEFT_OUT_PANEL,
    ),
]
AdaptStepsOption = Annotated[
    int | None,
    typer.Option(help="Length of adapt, in steps. Default: 10 minutes.", rich_help_panel=LEFT_OUT_PANEL),
]
PaintedStepsOption = Annotated[
    int | None,
    typer.Option(help="Length of painted, in steps. Default: 3 minutes.", rich_help_panel=LEFT_OUT_PANEL),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="List the stages and their estimated time, and end.", rich_help_panel=LEFT_OUT_PANEL
    ),
]
LODO_ONLY = {"stages", "only", "starts", "adapt_steps", "painted_steps", "dry_run"}
WITH_LODO = {
    "task", "minutes", "steps", "seeds", "out", "source", "as_json", "patch", "dest", "device", *LODO_ONLY
}  # fmt: skip
"""Options that can be given with the task lodo."""


def bench(
    context: typer.Context,
    task: TaskOption = None,
    methods: MethodsOption = "all",
    minutes: MinutesOption = None,
    steps: StepsOption = None,
    seeds: SeedsOption = "1",
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
    stages: StagesOption = "general,adapt,painted",
    only: OnlyOption = None,
    starts: StartsOption = None,
    adapt_steps: AdaptStepsOption = None,
    painted_steps: PaintedStepsOption = None,
    dry_run: DryRunOption = False,
    dest: DestOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train methods, score each on a held-out volume, and print the scores beside the paper's."""
    from dataclasses import replace

    from mitoda.benchmark import (
        BenchSettings,
        LodoSettings,
        choose_methods,
        choose_seeds,
        find_task,
        own_task,
    )
    from mitoda.benchmark.tasks import LODO, split_names
    from mitoda.models.device import choose_device

    _refuse_of_another_task(context, task, task == LODO)
    chosen_seeds, chosen_device = choose_seeds(seeds), choose_device(device)
    if task == LODO:
        lodo = LodoSettings(
            only=split_names(only or ""),
            stages=split_names(stages),
            seeds=chosen_seeds,
            steps=steps,
            minutes=minutes,
            adapt_steps=adapt_steps,
            painted_steps=painted_steps,
            more_sources=() if source is None else (source,),
            starts=dict(assignment(text, "--start") for text in starts or []),
            patch=patch or LodoSettings.patch,
            dest=dest,
        )
        leave_one_out(lodo, out, chosen_device, as_json=as_json, dry_run=dry_run)
        return
    specs = [spec for spec in (source, target, test, labels) if spec]
    _check_files(csv, figure, [Path(part) for spec in specs for part in (spec, *spec.split(":")) if part])
    settings = BenchSettings(choose_methods(methods), chosen_seeds, backbone, keep, dest)
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
    _compare_methods(chosen, settings, out, chosen_device, csv, figure, as_json)


def _refuse_of_another_task(context: typer.Context, task: str | None, is_lodo: bool) -> None:
    """An option that would be ignored is an error."""
    for name, option in given_options(context).items():
        if is_lodo and name not in WITH_LODO:
            raise typer.BadParameter(f"the task {task} does not have this option", param_hint=option)
        if not is_lodo and name in LODO_ONLY:
            raise typer.BadParameter("only the task lodo has this option", param_hint=option)


def _check_files(csv: Path | None, figure: Path | None, inputs: list[Path]) -> None:
    """Refuse files to write that have another format's name, or would replace an input."""
    from mitoda.volumes.files import check_output

    for path, suffix in ((csv, ".csv"), (figure, ".png")):
        if path is not None:
            check_output(path, inputs, overwrite=True, suffix=suffix)


def _compare_methods(
    task: "Task",
    settings: "BenchSettings",
    out: Path,
    device: "torch.device",
    csv: Path | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Run a task, print its table and write the files; exit with 1 if it is not complete."""
    import json

    from mitoda.benchmark import run_bench, tabulate
    from mitoda.models.device import describe_device

    say(f"{task.name}: {', '.join(settings.methods)} on {describe_device(device)}, into {out}")
    say_how_to_continue(lambda: "the same command continues from the last checkpoint")
    with stopping_after_step(announce_stop) as should_stop:
        events = run_bench(task, settings, out, device, should_stop=should_stop)
        results, notes, complete = _follow(events)
    if should_stop.asked:
        say("stopped; the same command resumes from the last checkpoint")
    table = tabulate(task, settings, results, notes)
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
    with TrainingDisplay() as display:
        for event in events:
            if isinstance(event, Started):
                verb = "resuming" if event.resumed else "training"
                say(f"[{event.position}/{event.jobs}] {verb} {event.job.name}")
            elif isinstance(event, StepsDone):
                display.show(event)
            elif isinstance(event, ScoringSection) and ticker.due():
                where = f"{event.section + 1} of {event.sections} sections"
                say(f"scoring {event.entry.name}, step {event.step}: {where}")
            elif isinstance(event, Scored):
                done = "finished before" if event.known else duration(event.result.training_seconds)
                say(f"{event.entry.name}: F1 {percent(event.result.last.mean['f1'])} ({done})")
                results.append(event.result)
            elif isinstance(event, Skipped):
                warn(f"{event.method} is left out: {event.reason}")
                notes[event.method] = event.reason
            elif isinstance(event, Failed):
                warn(f"{event.job.name} failed: {event.reason}")
                notes[event.job.method], complete = event.reason, False
    return results, notes, complete


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
            spread = "" if row.spread[name] is None else f" ± {percent(row.spread[name])}"
            cells += [percent(row.ours[name]) + spread, percent(row.paper[name])]
        shown.add_row(escape(row.method), *cells)
    print_table(shown)
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
        print_table(correlations)


def _draw_bars(table: "BenchTable", path: Path) -> None:
    """Write a picture of F1 of each method, measured and the paper's."""
    from mitoda.plotting import Bar, bar_figure, write_png

    bars = [
        Bar(row.method, *(None if scores["f1"] is None else 100 * scores["f1"] for scores in groups))
        for row in table.rows
        for groups in [(row.ours, row.spread, row.paper)]
    ]
    write_png(bar_figure(bars, f"{table.task}: F1 in per cent, mean over sections"), path)
