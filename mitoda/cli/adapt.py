"""`mitoda adapt`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.display import draw_training
from mitoda.cli.options import (
    VOLUMES,
    DestOption,
    DeviceOption,
    InvertOption,
    LabelSectionOption,
    Lengths,
    PrecisionOption,
    assignment,
    given_options,
    voxel_size_option,
)
from mitoda.training.settings import DEFAULT_MINUTES, DEFAULT_SOURCE, LABELLED_MINUTES, Plan, TrainingSettings

MAY_CHANGE = ("resume", "steps", "minutes", "device")
"""Options that can be given with --resume."""
TRAINING, METHOD, GEOMETRY, OUTPUT = "Training", "Method", "Geometry", "Output"
"""Panels of the help; the options in none come first."""

TargetOption = Annotated[
    str | None, typer.Option(help="Unlabelled volume: a path, or a fetched data set (lucchi:testing).")
]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Labelled volume: a fetched data set, IMAGES:LABELS, or drawn (tissue drawn at random, which needs no "
        "data). Repeat it for more sources. "
        f"Default: none if training starts from weights, else {DEFAULT_SOURCE}.",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help="A few painted places of the target: 0 unlabelled, 1 background, 2 mitochondrion. A file of the target's "
        "shape, a folder with the painted sections, or a single section with --label-section.",
        rich_help_panel=VOLUMES,
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        help=f"Minutes, unless --steps. Default: {DEFAULT_MINUTES:g}, or {LABELLED_MINUTES:g} with --labels."
    ),
]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")]

SourceVoxelSizeOption = Annotated[
    Lengths | None,
    voxel_size_option(help="Voxel size of the first source, in nanometres."),
]
TargetVoxelSizeOption = Annotated[
    Lengths | None,
    voxel_size_option(
        "--target-voxel-size",
        "--voxel-size",
        help="Voxel size of the target, in nanometres. Default: from the metadata, or estimated from the images.",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Weights to start from: a pretrained name, a file or a run. Default: the pretrained weights with "
        "--labels, or for your own stack without --source, --method, --backbone, --pixel and --spacing; else random.",
        rich_help_panel=TRAINING,
    ),
]
FromScratchOption = Annotated[
    bool, typer.Option("--from-scratch", help="Start from random weights.", rich_help_panel=TRAINING)
]
SourceFreeOption = Annotated[
    bool,
    typer.Option(
        "--source-free",
        help="Train without a source, from the pretrained weights or --start. Only needed for fetched data sets.",
        rich_help_panel=TRAINING,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        help="Training steps, instead of --minutes. On a CPU such a run is exactly reproducible.",
        rich_help_panel=TRAINING,
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(help="Pairs of each domain in a step.", rich_help_panel=TRAINING)
]
PatchOption = Annotated[
    int, typer.Option(help="Side of the patches, in working pixels.", rich_help_panel=TRAINING)
]
ScheduleOption = Annotated[
    str,
    typer.Option(help="Learning-rate schedule: poly, cosine or constant.", rich_help_panel=TRAINING),
]
EmaDecayOption = Annotated[
    float,
    typer.Option("--ema-decay", "--ema", help="Decay of the averaged weights.", rich_help_panel=TRAINING),
]
AugmentationOption = Annotated[
    str,
    typer.Option(help="strong, wide (more scales than strong), paper or none.", rich_help_panel=TRAINING),
]
HistogramMatchingOption = Annotated[
    float,
    typer.Option(
        help="Share of steps in which the source takes the target's grey values.", rich_help_panel=TRAINING
    ),
]
SeedOption = Annotated[int, typer.Option(help="Random seed.", rich_help_panel=TRAINING)]
WorkersOption = Annotated[int, typer.Option(help="Threads that read patches.", rich_help_panel=TRAINING)]
MethodOption = Annotated[
    str,
    typer.Option(
        help="mitoda, isc (DA-ISC; its ablation: isc-i … isc-v), da-vsn, damt-net, ualr, adaptsegnet, dann, y-net, "
        "source-only or oracle.",
        rich_help_panel=METHOD,
    ),
]
AssignmentsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method.", rich_help_panel=METHOD),
]
BackboneOption = Annotated[
    str, typer.Option(help="compact, codetection, rsunet or unet.", rich_help_panel=METHOD)
]
PixelOption = Annotated[
    float | None,
    typer.Option(help="Working pixel size in nanometres. Default: the target's.", rich_help_panel=GEOMETRY),
]
SpacingOption = Annotated[
    float | None,
    typer.Option(
        help="Distance of the two sections of a pair, in nanometres. Default: the thickest section.",
        rich_help_panel=GEOMETRY,
    ),
]
SourceStrideOption = Annotated[
    int | None, typer.Option(help="Source stride, in sections.", rich_help_panel=GEOMETRY)
]
TargetStrideOption = Annotated[
    int | None, typer.Option(help="Target stride, in sections.", rich_help_panel=GEOMETRY)
]
KeepOption = Annotated[
    int,
    typer.Option(
        help="Number of intermediate weights to keep, evenly spaced over the run.", rich_help_panel=OUTPUT
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Continue a run; --minutes or --steps change its length.",
        rich_help_panel=OUTPUT,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run.", rich_help_panel=OUTPUT)
]


def adapt(
    context: typer.Context,
    target: TargetOption = None,
    sources: SourcesOption = None,
    minutes: MinutesOption = None,
    out: OutOption = Path("run"),
    labels: LabelsOption = None,
    label_section: LabelSectionOption = None,
    invert: InvertOption = False,
    source_voxel_size: SourceVoxelSizeOption = None,
    target_voxel_size: TargetVoxelSizeOption = None,
    dest: DestOption = None,
    start: StartOption = None,
    from_scratch: FromScratchOption = False,
    source_free: SourceFreeOption = False,
    steps: StepsOption = None,
    batch_size: BatchSizeOption = TrainingSettings.batch_size,
    patch: PatchOption = TrainingSettings.patch,
    schedule: ScheduleOption = TrainingSettings.schedule,
    ema_decay: EmaDecayOption = TrainingSettings.ema_decay,
    augmentation: AugmentationOption = TrainingSettings.augmentation,
    histogram_matching: HistogramMatchingOption = TrainingSettings.histogram_matching,
    seed: SeedOption = TrainingSettings.seed,
    workers: WorkersOption = TrainingSettings.workers,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Plan.precision,
    method: MethodOption = TrainingSettings.method,
    assignments: AssignmentsOption = None,
    backbone: BackboneOption = TrainingSettings.backbone,
    pixel: PixelOption = None,
    spacing: SpacingOption = None,
    source_stride: SourceStrideOption = None,
    target_stride: TargetStrideOption = None,
    keep: KeepOption = TrainingSettings.keep,
    resume: ResumeOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Adapt a network to your stack, using a labelled source, the stack's images and optional painted labels."""
    from functools import partial

    from mitoda.training.adapt import adapt as run
    from mitoda.training.run_folder import RunFolder
    from mitoda.training.settings import load_plan

    if resume is not None:
        _refuse_beside_resume(context)
        plan = load_plan(RunFolder(resume)).extended(steps, minutes)
        draw_training(partial(run, plan, resume, device=device, resume=True), resume)
        return
    if target is None:
        raise typer.BadParameter("give the volume to adapt to: --target my_stack.tif", param_hint="--target")
    if from_scratch and start is not None:
        raise typer.BadParameter("give either --start or --from-scratch", param_hint="--start")
    if source_free and (from_scratch or sources):
        raise typer.BadParameter(
            "training without a source excludes --source and --from-scratch", param_hint="--source-free"
        )
    if labels is not None and minutes is None and steps is None:
        minutes = LABELLED_MINUTES
    plan = Plan(
        target=target,
        source=sources[0] if sources else None,
        more_sources=tuple((sources or [])[1:]),
        training=TrainingSettings(
            method=method,
            backbone=backbone,
            steps=steps,
            minutes=minutes,
            batch_size=batch_size,
            patch=patch,
            schedule=schedule,
            ema_decay=ema_decay,
            augmentation=augmentation,
            histogram_matching=histogram_matching,
            seed=seed,
            workers=workers,
            keep=keep,
            assignments={
                name.replace("-", "_"): value
                for name, value in (assignment(text, "--set") for text in assignments or [])
            },
        ),
        start=None if from_scratch else start or Plan.start,
        source_free=source_free,
        labels=labels,
        label_section=label_section,
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
    draw_training(partial(run, plan, out, device=device, overwrite=overwrite), out)


def _refuse_beside_resume(context: typer.Context) -> None:
    """A run keeps its settings: an option that would be ignored is an error."""
    for name, option in given_options(context).items():
        if name not in MAY_CHANGE:
            raise typer.BadParameter(
                "a resumed run keeps its settings; only --steps, --minutes and --device can be given again",
                param_hint=option,
            )
