"""`mitoda adapt`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.options import DestOption, DeviceOption, Lengths, PrecisionOption
from mitoda.cli.training import run_plan

DEFAULT_MINUTES = 30.0
DEFAULT_SOURCE = "vnc3"
MAY_CHANGE = ("resume", "steps", "minutes", "device")
"""Options that can be given with --resume."""

TargetOption = Annotated[
    str | None, typer.Option(help="Unlabelled volume: a path, or a fetched data set (lucchi:testing).")
]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Labelled volume: a fetched data set, or IMAGES:LABELS; give it again for more. "
        f"Default: {DEFAULT_SOURCE}.",
    ),
]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")]
StartOption = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Begin from these weights (a bundled name, a file, a run). Default: the bundled ones for a stack of "
        "your own with the default source, method and backbone; for fetched data sets none.",
    ),
]
SourceFreeOption = Annotated[
    bool,
    typer.Option(
        "--source-free", help="Adapt to the target alone, from the weights of --start (or bundled ones)."
    ),
]
FromScratchOption = Annotated[
    bool, typer.Option("--from-scratch", help="Begin from freshly drawn weights in any case.")
]
MethodOption = Annotated[
    str,
    typer.Option(
        help="mitoda, isc (DA-ISC; its ablation: isc-i … isc-v), da-vsn, damt-net, ualr, adaptsegnet, dann, y-net, "
        "source-only or oracle."
    ),
]
BackboneOption = Annotated[str, typer.Option(help="compact, codetection, rsunet or unet.")]
MinutesOption = Annotated[
    float | None, typer.Option(help=f"Length of the run. Default {DEFAULT_MINUTES:.0f}, unless --steps.")
]
StepsOption = Annotated[
    int | None, typer.Option(help="Length of the run in steps; repeats exactly on a CPU.")
]
AssignmentsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method.")
]
BatchSizeOption = Annotated[int, typer.Option(help="Pairs of each domain in a step.")]
PatchOption = Annotated[int, typer.Option(help="Side of the patches, in working pixels.")]
ScheduleOption = Annotated[str, typer.Option(help="poly, cosine or constant.")]
EmaOption = Annotated[float, typer.Option(help="Decay of the averaged weights, which are those saved.")]
AugmentationOption = Annotated[
    str, typer.Option(help="strong, wide (strong at a larger range of scales), paper or none.")
]
HistogramMatchingOption = Annotated[
    float, typer.Option(help="Share of steps in which the source takes the target's grey values.")
]
SourceVoxelSizeOption = Annotated[
    Lengths | None, typer.Option(metavar="Z Y X", help="Nanometres; overrules the metadata.")
]
TargetVoxelSizeOption = Annotated[
    Lengths | None,
    typer.Option(
        "--target-voxel-size", "--voxel-size", metavar="Z Y X", help="Nanometres; overrules the metadata."
    ),
]
SourceStrideOption = Annotated[int | None, typer.Option(help="Sections between the two of a pair.")]
TargetStrideOption = Annotated[int | None, typer.Option(help="The same of the target.")]
PixelOption = Annotated[
    float | None, typer.Option(help="Working pixel size in nanometres. Default: the target's.")
]
SpacingOption = Annotated[
    float | None, typer.Option(help="Distance of a pair in nanometres. Default: the thicker sections'.")
]
InvertOption = Annotated[bool, typer.Option("--invert", help="The target's contrast is inverted.")]
WorkersOption = Annotated[int, typer.Option(help="Threads that read patches.")]
SeedOption = Annotated[int, typer.Option(help="Of everything random.")]
KeepOption = Annotated[
    int,
    typer.Option(help="Also keep so many checkpoints along the way, with label-free scores in the log."),
]
ResumeOption = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Go on with a run; --minutes or --steps extend it.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a run in the same folder.")]


def adapt(
    context: typer.Context,
    target: TargetOption = None,
    sources: SourcesOption = None,
    out: OutOption = Path("run"),
    start: StartOption = None,
    source_free: SourceFreeOption = False,
    from_scratch: FromScratchOption = False,
    method: MethodOption = "mitoda",
    backbone: BackboneOption = "compact",
    minutes: MinutesOption = None,
    steps: StepsOption = None,
    assignments: AssignmentsOption = None,
    batch_size: BatchSizeOption = 2,
    patch: PatchOption = 512,
    schedule: ScheduleOption = "poly",
    ema: EmaOption = 0.995,
    augmentation: AugmentationOption = "strong",
    histogram_matching: HistogramMatchingOption = 0.0,
    source_voxel_size: SourceVoxelSizeOption = None,
    target_voxel_size: TargetVoxelSizeOption = None,
    source_stride: SourceStrideOption = None,
    target_stride: TargetStrideOption = None,
    pixel: PixelOption = None,
    spacing: SpacingOption = None,
    invert: InvertOption = False,
    dest: DestOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = 2,
    seed: SeedOption = 0,
    keep: KeepOption = 0,
    resume: ResumeOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a network for your volume: labels from the source, images of both, no label of the target."""
    from mitoda.training.domains import AdaptationPlan, extended, load_plan
    from mitoda.training.run_folder import RunFolder
    from mitoda.training.settings import TrainingSettings

    if resume is not None:
        _refuse_beside_resume(context)
        run_plan(extended(load_plan(RunFolder(resume)), steps, minutes), resume, device, resume=True)
        return
    if target is None:
        raise typer.BadParameter("give the volume to adapt to: --target my_stack.tif", param_hint="--target")
    start = choose_start(context, target, start, source_free=source_free, from_scratch=from_scratch)
    source, *more_sources = sources or [DEFAULT_SOURCE]
    plan = AdaptationPlan(
        source=source,
        more_sources=tuple(more_sources),
        target=target,
        training=TrainingSettings(
            method=method,
            backbone=backbone,
            steps=steps,
            minutes=DEFAULT_MINUTES if minutes is None and steps is None else minutes,
            batch_size=batch_size,
            patch=patch,
            schedule=schedule,
            ema_decay=ema,
            augmentation=augmentation,
            histogram_matching=histogram_matching,
            seed=seed,
            workers=workers,
            keep=keep,
            assignments=dict(_assignment(text) for text in assignments or []),
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


def choose_start(
    context: typer.Context, target: str, start: str | None, *, source_free: bool, from_scratch: bool
) -> str | None:
    """Choose the weights a run begins from; None is from scratch.

    The bundled ones where there is no source, and for a stack of one's own with source, method, backbone and scale left
    as they are. Data sets begin from scratch, for what is bundled may have learnt from them, and figures must not.
    """
    from mitoda.datasets import is_dataset_spec
    from mitoda.models.weights import DEFAULT_WEIGHTS

    if from_scratch and start is not None:
        raise typer.BadParameter("give either --start or --from-scratch", param_hint="--start")
    if source_free and (from_scratch or _is_given(context, "sources")):
        raise typer.BadParameter(
            "without a source there is neither a --source nor a start --from-scratch",
            param_hint="--source-free",
        )
    if start is not None or from_scratch:
        return start
    decisive = ("sources", "method", "backbone", "pixel", "spacing")
    as_it_comes = not is_dataset_spec(target) and not any(_is_given(context, name) for name in decisive)
    return (
        DEFAULT_WEIGHTS if source_free or as_it_comes else None
    )  # by its own name: a resumed run finds it again


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
