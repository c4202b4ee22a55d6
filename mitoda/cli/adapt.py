"""`mitoda adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.terminal import Ticker, duration, say, stderr, stopping_politely, warn

if TYPE_CHECKING:
    from mitoda.adaptation import AdaptationPlan, Prepared
    from mitoda.training import Finished, StepsDone

VoxelSizeOption = tuple[float, float, float]
DEFAULT_MINUTES = 30.0


def adapt(
    target: Annotated[
        str | None, typer.Option(help="Unlabelled volume: a path, or a fetched data set (lucchi:testing).")
    ] = None,
    source: Annotated[str, typer.Option(help="Labelled volume: a fetched data set, or IMAGES:LABELS.")] = "vnc3",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")] = Path("run"),
    method: Annotated[str, typer.Option(help="isc, isc-i … isc-v, source-only or oracle.")] = "isc",
    backbone: Annotated[str, typer.Option(help="compact or codetection.")] = "compact",
    minutes: Annotated[
        float | None, typer.Option(help=f"Length of the run. Default {DEFAULT_MINUTES:.0f}, unless --steps.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps; repeats exactly on a CPU.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pairs of each domain in a step.")] = 2,
    patch: Annotated[int, typer.Option(help="Side of the patches, in working pixels.")] = 512,
    schedule: Annotated[str, typer.Option(help="poly, cosine or constant.")] = "poly",
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights, which are those saved.")] = 0.995,
    augmentation: Annotated[str, typer.Option(help="strong, paper or none.")] = "strong",
    histogram_matching: Annotated[
        float, typer.Option(help="Share of steps in which the source takes the target's grey values.")
    ] = 0.0,
    source_voxel_size: Annotated[
        VoxelSizeOption | None, typer.Option(metavar="Z Y X", help="Nanometres; overrules the metadata.")
    ] = None,
    target_voxel_size: Annotated[
        VoxelSizeOption | None,
        typer.Option("--target-voxel-size", "--voxel-size", metavar="Z Y X", help="Nanometres; overrules the metadata."),
    ] = None,
    source_stride: Annotated[int | None, typer.Option(help="Sections between the two of a pair.")] = None,
    target_stride: Annotated[int | None, typer.Option(help="The same of the target.")] = None,
    pixel: Annotated[
        float | None, typer.Option(help="Working pixel size in nanometres. Default: the target's.")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Distance of a pair in nanometres. Default: the thicker sections'.")
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="The target's contrast is inverted.")] = False,
    dest: Annotated[str | None, typer.Option(help="Where the fetched data sets lie.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that read patches.")] = 2,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run; --minutes or --steps extend it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in the same folder.")] = False,
) -> None:
    """Train a network for your volume: labels from the source, images of both, no label of the target."""
    from mitoda.adaptation import AdaptationPlan, extended, load_plan
    from mitoda.errors import InputError
    from mitoda.training import TrainingSettings

    if resume is not None:
        plan = extended(load_plan(resume), steps, minutes)
        run_plan(plan, resume, device, resume=True)
        return
    if target is None:
        raise typer.BadParameter("give the volume to adapt to: --target my_stack.tif", param_hint="--target")
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    pairs = dict(_assignment(text) for text in assignments or [])
    if workers < 1:
        raise InputError(f"--workers must be at least 1; got {workers}")
    plan = AdaptationPlan(
        source=source,
        target=target,
        training=TrainingSettings(
            method=method,
            backbone=backbone,
            steps=steps,
            minutes=minutes,
            batch_size=batch_size,
            patch=patch,
            schedule=schedule,
            ema_decay=ema,
            augmentation=augmentation,
            histogram_matching=histogram_matching,
            seed=seed,
            workers=workers,
            assignments=pairs,
        ),
        source_voxel_size=source_voxel_size,
        target_voxel_size=target_voxel_size,
        source_stride=source_stride,
        target_stride=target_stride,
        pixel=pixel,
        spacing=spacing,
        invert_target=invert,
        dest=dest,
        precision=precision,
    )
    make_run_folder(out, overwrite)
    run_plan(plan, out, device, resume=False)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--set")
    return name.strip().replace("-", "_"), value.strip()


def make_run_folder(folder: Path, overwrite: bool) -> None:
    """Make an empty folder for a run; refuse one that holds a run already."""
    from mitoda.errors import FileError

    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file; give the name of a folder with --out")
    if (folder / "run.json").exists():
        if not overwrite:
            raise FileError(
                f"{folder} holds a run already; go on with it: mitoda adapt --resume {folder}, give another folder "
                "with --out, or --overwrite to replace it"
            )
        for name in ("run.json", "state.pt", "log.jsonl", "weights.safetensors", "curves.png", "report.html"):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def run_plan(plan: "AdaptationPlan", folder: Path, device_name: str, *, resume: bool) -> "Finished":
    """Train a plan in its folder and draw the progress."""
    from mitoda.adaptation import prepare
    from mitoda.devices import choose_device, describe_device
    from mitoda.methods import Arithmetic
    from mitoda.training import Finished, Saved, StepsDone, adapt, choose_bfloat16

    device = choose_device(device_name)
    prepared = prepare(plan)
    bfloat16 = choose_bfloat16(plan.precision, plan.training.backbone, device)
    plan.save(folder)
    _announce(plan, prepared, describe_device(device), bfloat16)
    finished = None
    with stopping_politely("stopping after this step, then saving … (Ctrl-C again to stop at once)") as should_stop:
        events = adapt(
            plan.training,
            prepared.source,
            prepared.target,
            folder,
            prepared.info,
            Arithmetic(device, bfloat16),
            resume=resume,
            should_stop=should_stop,
        )
        with TrainingDisplay() as display:
            for event in events:
                if isinstance(event, StepsDone):
                    display.show(event)
                elif isinstance(event, Saved):
                    _draw_curves(folder)
                elif isinstance(event, Finished):
                    finished = event
    if finished is None:
        raise RuntimeError("the training ended without an end")
    _conclude(plan, prepared, folder, finished)
    return finished


def _announce(plan: "AdaptationPlan", prepared: "Prepared", device: str, bfloat16: bool) -> None:
    """Say what is about to happen, and what was derived."""
    source, target, geometry = prepared.source, prepared.target, prepared.geometry
    say(
        f"{plan.training.method} on {plan.training.backbone}, {device}, {'bfloat16' if bfloat16 else 'float32'}; "
        f"working pixel {geometry.pixel[0]:g} × {geometry.pixel[1]:g} nm, pairs {geometry.spacing:g} nm apart"
    )
    for name, pairs in (("source", source), ("target", target)):
        scale = "" if pairs.scale == (1.0, 1.0) else f", resampled ×{1 / pairs.scale[0]:.3f}"
        say(f"{name}: {pairs.volume.name}, {' × '.join(map(str, pairs.volume.shape))}, stride {pairs.stride}{scale}")
    if target.stride == 0:
        warn(f"{target.volume.name} is a single section: pairs are that section twice, so sections cannot teach each other")


def _draw_curves(folder: Path) -> None:
    from mitoda.report import curve_figure
    from mitoda.training import read_log

    records = read_log(folder)
    if records:
        curve_figure(records, folder / "curves.png")


def _conclude(plan: "AdaptationPlan", prepared: "Prepared", folder: Path, finished: "Finished") -> None:
    """Say how it ended and what to do next."""
    _draw_curves(folder)
    done = f"{finished.step} steps in {duration(finished.seconds)}"
    if not finished.complete:
        say(f"stopped after {done}; go on with: mitoda adapt --resume {folder}")
        raise typer.Exit(1)
    say(f"done: {done}; the averaged weights of the last step are {finished.weights}")
    say(f"next: mitoda segment STACK.tif -o mask.tif --weights {finished.weights}")


class TrainingDisplay:
    """Progress of a training: a live table on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=stderr, refresh_per_second=4, transient=True) if stderr.is_terminal else None
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

    def _table(self, event: "StepsDone") -> object:
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
