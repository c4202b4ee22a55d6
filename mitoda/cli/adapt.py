"""`mitoda adapt`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.training import run_plan

VoxelSizeOption = tuple[float, float, float]
DEFAULT_MINUTES = 30.0
DEFAULT_SOURCE = "vnc3"
MAY_CHANGE = ("resume", "steps", "minutes", "device")
"""Options that can be given with --resume."""


def adapt(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Option(help="Unlabelled volume: a path, or a fetched data set (lucchi:testing).")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="Labelled volume: a fetched data set, or IMAGES:LABELS; give it again for more. "
            f"Default: {DEFAULT_SOURCE}.",
        ),
    ] = None,
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
    augmentation: Annotated[
        str, typer.Option(help="strong, wide (strong at a larger range of scales), paper or none.")
    ] = "strong",
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
    start = choose_start(context, target, start, source_free=source_free, from_scratch=from_scratch)
    pairs = dict(_assignment(text) for text in assignments or [])
    if workers < 1:
        raise InputError(f"--workers must be at least 1; got {workers}")
    source, *more_sources = sources or [DEFAULT_SOURCE]
    plan = AdaptationPlan(
        source=source,
        more_sources=tuple(more_sources),
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


def choose_start(
    context: typer.Context, target: str, start: str | None, *, source_free: bool, from_scratch: bool
) -> str | None:
    """Choose the weights a run begins from; None is from scratch.

    The bundled ones where there is no source, and for a stack of one's own with source, method, backbone and scale left
    as they are. Data sets begin from scratch, for what is bundled may have learnt from them, and figures must not.
    """
    from mitoda.bundled import DEFAULT
    from mitoda.datasets import is_dataset_spec

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
    return DEFAULT if source_free or as_it_comes else None  # by its own name: a resumed run finds it again


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
