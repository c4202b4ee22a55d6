"""`mitoda segment`."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.options import DestOption, DeviceOption, Lengths, PrecisionOption
from mitoda.cli.terminal import Ticker, duration, say, stderr, warn

if TYPE_CHECKING:
    from collections.abc import Generator

    from mitoda.inference.segment import Notice, SectionDone, Segmented
    from mitoda.inference.segment_settings import SegmentationSettings
    from mitoda.volumes import Volume, VoxelSize


VolumeOption = Annotated[
    str, typer.Argument(metavar="INPUT", help="TIFF, folder of sections, image, or a fetched data set.")
]
OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Mask to write (.tif).")]
WeightsOption = Annotated[
    str, typer.Option(help="A bundled name ('mitoda weights' lists them) or a .safetensors file.")
]
ProbabilityOption = Annotated[
    Path | None, typer.Option(help="Also write the probability map (.tif, uint8, × 255).")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(help="Probability from which a pixel is mitochondrion. Default: the weights'."),
]
MinSizeOption = Annotated[
    int | None,
    typer.Option(
        help="Drop components of fewer voxels, joined through sections; 0 keeps all. Default: the weights'."
    ),
]
SnapOption = Annotated[
    bool | None,
    typer.Option(
        "--snap/--no-snap",
        help="Move each mitochondrion's boundary to its own dark membrane, or leave it. Default: the weights'.",
    ),
]
BoundaryOption = Annotated[
    float,
    typer.Option(
        metavar="NM",
        help="Move the mask's boundary outward by nanometres (inward: negative).",
    ),
]
TtaOption = Annotated[bool, typer.Option("--tta", help="Average four mirrored views; four times slower.")]
TileOption = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="ROWS COLUMNS",
        help="Predict in tiles of working pixels. Default: whole sections if they fit.",
    ),
]
OverlapOption = Annotated[int, typer.Option(help="Working pixels that tiles share.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(help="Pairs computed together. Default: what fits the memory; on a CPU 1.")
]
CompiledOption = Annotated[
    bool,
    typer.Option(
        "--compile", help="Let torch.compile fuse the network's layers first, which takes a minute or so."
    ),
]
SmoothOption = Annotated[
    float | None,
    typer.Option(metavar="NM", help="Smoothing along the sections (σ, nanometres). Default: the weights'."),
]
StackVoxelSizeOption = Annotated[
    Lengths | None,
    typer.Option(
        metavar="Z Y X", help="Nanometres; overrules the metadata. Where neither says it, it is searched."
    ),
]
AxesOption = Annotated[
    str | None, typer.Option(help="Axes as stored, e.g. ZYX or YXZ; overrules the metadata.")
]
InvertOption = Annotated[bool, typer.Option("--invert", help="The contrast is inverted (membranes bright).")]
MaskValueOption = Annotated[int, typer.Option(help="Value of foreground in the mask.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, only warnings.")]


def segment(
    volume: VolumeOption,
    output: OutputOption,
    weights: WeightsOption = "default",
    probability: ProbabilityOption = None,
    threshold: ThresholdOption = None,
    min_size: MinSizeOption = None,
    snap: SnapOption = None,
    boundary: BoundaryOption = 0.0,
    tta: TtaOption = False,
    tile: TileOption = None,
    overlap: OverlapOption = 128,
    batch_size: BatchSizeOption = None,
    compiled: CompiledOption = False,
    smooth: SmoothOption = None,
    voxel_size: StackVoxelSizeOption = None,
    axes: AxesOption = None,
    invert: InvertOption = False,
    mask_value: MaskValueOption = 255,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    dest: DestOption = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the mask of the mitochondria in a stack."""
    from mitoda.data.geometry import component_limit
    from mitoda.inference.predictor import InferenceSettings
    from mitoda.inference.segment import Segmented, segment_volume
    from mitoda.inference.segment_settings import SegmentationSettings, check_outputs
    from mitoda.inference.streaming import check_volume
    from mitoda.inference.voxel_size import search_voxel_size
    from mitoda.models.device import choose_bfloat16, choose_device, describe_device
    from mitoda.models.weights import find_weights, load_weights

    stack = open_input(volume, voxel_size, axes, invert, dest)
    chosen_device = choose_device(device)
    network, info = load_weights(find_weights(weights))
    bfloat16 = choose_bfloat16(precision, chosen_device)
    if stack.voxel_size is None:
        found = search_voxel_size(network.to(chosen_device), info, stack, chosen_device, bfloat16=bfloat16)
        if not quiet:
            say(found.sentence)
        stack = open_input(volume, found.voxel_size, axes, invert, dest)
    default_size = component_limit(info.smallest, check_volume(stack), stack.shape[0])
    settings = SegmentationSettings(
        output=output,
        probability=probability,
        threshold=info.threshold if threshold is None else threshold,
        snap=info.snap if snap is None else snap,
        boundary=boundary,
        min_size=default_size if min_size is None else min_size,
        mask_value=mask_value,
        overwrite=overwrite,
        resume=resume,
        inference=InferenceSettings(
            tile=tile,
            overlap=overlap,
            batch_size=batch_size,
            compiled=compiled,
            flips=tta,
            smoothing=info.smoothing if smooth is None else smooth,
            bfloat16=bfloat16,
        ),
    )
    check_outputs(settings)
    if not quiet:
        _announce(settings, min_size, snap)
    events = segment_volume(network, info, stack, settings, chosen_device)
    try:
        # closed before a message says what is on disk
        with closing(_drawn(events, quiet)) as drawn:
            for event in drawn:
                if isinstance(event, Segmented):
                    _report(event, output, describe_device(chosen_device), quiet)
    except KeyboardInterrupt:
        say(f"interrupted; what is done stays beside {output}. Go on with the same command and --resume")
        raise typer.Exit(1) from None


def _announce(settings: "SegmentationSettings", min_size: int | None, snap: bool | None) -> None:
    """Say what the weights, and not the person, decided about the mask."""
    parts = []
    if settings.snap and snap is None:
        parts.append("boundaries go to each mitochondrion's dark membrane (--no-snap leaves them)")
    if settings.min_size and min_size is None:
        parts.append(f"components under {settings.min_size} voxels are dropped (--min-size 0 keeps them)")
    if parts:
        say("; ".join(parts))


def _report(done: "Segmented", output: Path, device: str, quiet: bool) -> None:
    for warning in done.warnings:
        warn(warning)
    if quiet:
        return
    rate = done.sections / max(done.seconds, 1e-9)
    say(
        f"{output}: {done.foreground:.2%} foreground, {done.sections} sections on {device} in "
        f"{duration(done.seconds)} ({rate:.1f} sections/s)"
    )


def open_input(
    volume: str, voxel_size: "VoxelSize | None", axes: str | None, invert: bool, dest: str | None
) -> "Volume":
    """Open the stack to segment, by path or by the name of a fetched data set."""
    from mitoda.datasets import is_dataset_spec, resolve
    from mitoda.volumes import open_volume

    if is_dataset_spec(volume):
        split = resolve(volume, dest)
        return open_volume(split.volume, voxel_size=voxel_size or split.voxel_size, axes=axes, invert=invert)
    return open_volume(volume, voxel_size=voxel_size, axes=axes, invert=invert)


def _drawn(
    events: "Generator[SectionDone | Notice | Segmented, None, None]", quiet: bool
) -> "Generator[SectionDone | Notice | Segmented, None, None]":
    """Pass events on and draw them: a bar on a terminal, a plain line now and then elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mitoda.inference.segment import Notice, SectionDone

    ticker = Ticker()
    columns = (TextColumn("sections"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not stderr.is_terminal
    with closing(events), Progress(*columns, console=stderr, transient=True, disable=hidden) as progress:
        task = progress.add_task("segment", total=None)
        resumed = False
        for event in events:
            if isinstance(event, SectionDone):
                if event.resumed and not resumed and not quiet:
                    resumed = True
                    say("going on from the interrupted run")
                progress.update(task, total=event.sections, completed=event.section + 1)
                if progress.disable and not quiet and ticker.due():
                    say(f"{event.section + 1} of {event.sections} sections")
            elif isinstance(event, Notice):
                warn(event.text)
            yield event
