"""`mitoda adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.terminal import Ticker, duration, say, stderr, stopping_politely, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from rich.console import Group

    from mitoda.adaptation import AdaptationPlan, Prepared
    from mitoda.patches import Pairs
    from mitoda.training import Event, Finished, StepsDone

VoxelSizeOption = tuple[float, float, float]
DEFAULT_MINUTES = 30.0
MAY_CHANGE = ("resume", "steps", "minutes", "device")
"""Options that can be given with --resume."""
RUN_FILES = ("run.json", "state.pt", "log.jsonl", "weights.safetensors", "curves.png", "report.html")


def adapt(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Option(help="Unlabelled volume: a path, or a fetched data set (lucchi:testing).")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Labelled volume: a fetched data set, or IMAGES:LABELS.")
    ] = "vnc3",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")] = Path("run"),
    start: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Begin from these weights (a bundled name, a file, a run). Default: the bundled ones for a stack of "
            "your own with the default source, method and backbone; for fetched data sets none.",
        ),
    ] = None,
    source_free: Annotated[
        bool,
        typer.Option(
            "--source-free", help="Adapt to the target alone, from the weights of --start (or bundled ones)."
        ),
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin from freshly drawn weights in any case.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="mitoda, isc (DA-ISC; its ablation: isc-i … isc-v), da-vsn, damt-net, ualr, adaptsegnet, dann, y-net, "
            "source-only or oracle."
        ),
    ] = "mitoda",
    backbone: Annotated[str, typer.Option(help="compact, codetection, rsunet or unet.")] = "compact",
    minutes: Annotated[
        float | None, typer.Option(help=f"Length of the run. Default {DEFAULT_MINUTES:.0f}, unless --steps.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length of the run in steps; repeats exactly on a CPU.")
    ] = None,
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
        typer.Option(
            "--target-voxel-size", "--voxel-size", metavar="Z Y X", help="Nanometres; overrules the metadata."
        ),
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
    keep: Annotated[
        int,
        typer.Option(help="Also keep so many checkpoints along the way, with label-free scores in the log."),
    ] = 0,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run; --minutes or --steps extend it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in the same folder.")] = False,
) -> None:
    """Train a network for your volume: labels from the source, images of both, no label of the target."""
    from mitoda.adaptation import AdaptationPlan, extended, load_plan
    from mitoda.bundled import DEFAULT
    from mitoda.errors import InputError
    from mitoda.training_settings import TrainingSettings

    if resume is not None:
        _refuse_beside_resume(context)
        run_plan(extended(load_plan(resume), steps, minutes), resume, device, resume=True)
        return
    if target is None:
        raise typer.BadParameter("give the volume to adapt to: --target my_stack.tif", param_hint="--target")
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    if from_scratch and start is not None:
        raise typer.BadParameter("give either --start or --from-scratch", param_hint="--start")
    if source_free and (from_scratch or _is_given(context, "source")):
        raise typer.BadParameter(
            "without a source there is neither a --source nor a start --from-scratch",
            param_hint="--source-free",
        )
    if start is None and not from_scratch and (source_free or begins_from_bundled(context, target)):
        start = DEFAULT  # by its own name, which a resumed run finds again
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
            keep=keep,
            assignments=pairs,
        ),
        start=start,
        source_free=source_free,
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
    run_plan(plan, out, device, overwrite=overwrite)


def begins_from_bundled(context: typer.Context, target: str) -> bool:
    """Whether a run begins from the bundled weights: own stack; source, method, backbone and scale left as they are.

    Data sets begin from scratch, for what is bundled may have learnt from them, and figures must not.
    """
    from mitoda.datasets import is_dataset_spec

    decisive = ("source", "method", "backbone", "pixel", "spacing")
    return not is_dataset_spec(target) and not any(_is_given(context, name) for name in decisive)


def _is_given(context: typer.Context, option: str) -> bool:
    """Whether the person gave an option, rather than leaving its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_beside_resume(context: typer.Context) -> None:
    """A run keeps its settings: an option that would be ignored is a mistake."""
    for parameter in context.command.params:
        if parameter.name not in MAY_CHANGE and _is_given(context, parameter.name or ""):
            raise typer.BadParameter(
                "a resumed run keeps its settings; only --steps, --minutes and --device can be given again",
                param_hint=parameter.opts[0],
            )


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--set")
    return name.strip().replace("-", "_"), value.strip()


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot take a run, or holds one already; nothing is changed."""
    from mitoda.errors import FileError

    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file; give the name of a folder with --out")
    if (folder / "run.json").exists() and not overwrite:
        raise FileError(
            f"{folder} holds a run already; go on with it: mitoda adapt --resume {folder}, give another folder "
            "with --out, or --overwrite to replace it"
        )


def make_run_folder(folder: Path) -> None:
    """Make a folder for a run, without what an earlier run left."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*(folder / name for name in RUN_FILES), *folder.glob("weights-*.safetensors")]:
        path.unlink(missing_ok=True)


def run_plan(
    plan: "AdaptationPlan", folder: Path, device_name: str, *, resume: bool = False, overwrite: bool = False
) -> "Finished":
    """Train a plan in its folder and draw the progress."""
    from mitoda.adaptation import prepare
    from mitoda.devices import choose_bfloat16, choose_device, describe_device
    from mitoda.methods import Arithmetic
    from mitoda.training import adapt

    if not resume:
        check_run_folder(folder, overwrite)
    device = choose_device(device_name)
    bfloat16 = choose_bfloat16(plan.precision, device)
    prepared = prepare(plan)
    if not resume:  # an earlier run is replaced only once the new one is known to begin
        make_run_folder(folder)
    _announce(plan, prepared, describe_device(device), bfloat16)
    with stopping_politely(
        "stopping after this step, then saving … (Ctrl-C again to stop at once)"
    ) as should_stop:
        plan.save(folder)
        events = adapt(
            plan.training,
            prepared.source,
            prepared.target,
            folder,
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
    _conclude(plan, prepared, folder, finished, device, bfloat16)
    return finished


def _draw_training(events: "Iterator[Event]", folder: Path) -> "Finished":
    """Draw the events of a training; return its last."""
    from mitoda.run_report import draw_curves
    from mitoda.training import Finished, RoundBegun, Saved, StepsDone

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
    bfloat16: bool,
) -> None:
    """Write the report, say how it ended and what to do next."""
    from mitoda.run_report import write_run_report
    from mitoda.verdict import judge

    verdict = judge(prepared, finished.weights, device, bfloat16) if finished.complete else None
    report = write_run_report(plan, prepared, folder, finished, device, bfloat16=bfloat16, verdict=verdict)
    done = f"{finished.step} steps in {duration(finished.seconds)}"
    if verdict is None:
        say(f"stopped after {done}; go on with: mitoda adapt --resume {folder}")
        raise typer.Exit(1)
    say(
        f"done: {done}; the averaged weights of the last step are {finished.weights}; losses and pictures: {report}"
    )
    say(verdict.sentence)
    for warning in verdict.warnings:
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
