"""`mitoda segment`."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mitoda.cli.display import Ticker, duration, say, stderr, warn
from mitoda.cli.instances import instances_summary
from mitoda.cli.options import (
    COMPUTING,
    VOLUMES,
    DestOption,
    DeviceOption,
    Lengths,
    PrecisionOption,
    voxel_size_option,
)
from mitoda.cli.show import InputArgument, open_input
from mitoda.inference.settings import MaskSettings, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Generator

    from mitoda.inference.segment import Event, Segmented
    from mitoda.inference.settings import Resolved


def option(panel: str, *names: str, **how: Any) -> Any:
    """An option in a panel of `segment --help`."""
    return typer.Option(*names, rich_help_panel=panel, **how)


FILES, STACK, MASK, SPEED = "Files", VOLUMES, "Mask", COMPUTING

OutputOption = Annotated[Path, option(FILES, "-o", "--output", help="Mask to write (.tif).")]
ProbabilityOption = Annotated[
    Path | None, option(FILES, help="Also write the probability map (.tif, uint8, × 255).")
]
InstancesOption = Annotated[
    Path | None, option(FILES, help="Also write labels, one number for each mitochondrion (.tif).")
]
NoSplitOption = Annotated[
    bool, option(FILES, "--no-split", help="Number connected components; do not split what touches.")
]
MaskValueOption = Annotated[int, option(FILES, help="Value of foreground in the mask.")]
OverwriteOption = Annotated[bool, option(FILES, "--overwrite", help="Replace existing files.")]
ResumeOption = Annotated[bool, option(FILES, "--resume", help="Continue an interrupted run.")]
WeightsOption = Annotated[
    str,
    option(FILES, help="Name of pretrained weights ('mitoda weights' lists them), or a .safetensors file."),
]
VoxelSizeOption = Annotated[
    Lengths | None,
    voxel_size_option(help="Nanometres; overrides the metadata. Estimated where both are missing."),
]
AxesOption = Annotated[
    str | None, option(STACK, help="Axes as stored, e.g. ZYX or YXZ; overrides the metadata.")
]
InvertOption = Annotated[bool, option(STACK, "--invert", help="The contrast is inverted (membranes bright).")]
ThresholdOption = Annotated[
    float | None,
    option(MASK, help="Probability from which a voxel is mitochondrion. Default: the weights' value."),
]
MinSizeOption = Annotated[
    int | None,
    option(MASK, help="Remove 3-D components of fewer voxels; 0 keeps all. Default: the weights' value."),
]
SnapOption = Annotated[
    bool | None,
    option(
        MASK,
        "--snap/--no-snap",
        help="Move each mitochondrion's boundary to its dark membrane, or not. Default: the weights' value.",
    ),
]
BoundaryOption = Annotated[
    float, option(MASK, metavar="NM", help="Move boundaries outward by nanometres (inward: negative).")
]
SmoothOption = Annotated[
    float | None,
    option(
        MASK,
        metavar="NM",
        help="Smoothing along the sections (σ in nanometres). Default: the weights' value.",
    ),
]
TtaOption = Annotated[bool, option(SPEED, "--tta", help="Average four mirrored views; four times slower.")]
TileOption = Annotated[
    tuple[int, int] | None,
    option(
        SPEED,
        metavar="ROWS COLUMNS",
        help="Predict in tiles of working pixels. Default: whole sections if they fit.",
    ),
]
OverlapOption = Annotated[int, option(SPEED, help="Working pixels that tiles share.")]
BatchSizeOption = Annotated[
    int | None, option(SPEED, help="Pairs computed together. Default: what fits the memory; on a CPU 1.")
]
CompiledOption = Annotated[
    bool, option(SPEED, "--compile", help="Compile the network first, which takes about a minute.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings only.")]


def segment(
    volume: InputArgument,
    output: OutputOption,
    weights: WeightsOption = "default",
    probability: ProbabilityOption = None,
    instances: InstancesOption = None,
    no_split: NoSplitOption = False,
    mask_value: MaskValueOption = SegmentSettings.mask_value,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    invert: InvertOption = False,
    threshold: ThresholdOption = None,
    min_size: MinSizeOption = None,
    snap: SnapOption = None,
    boundary: BoundaryOption = MaskSettings.boundary,
    smooth: SmoothOption = None,
    tta: TtaOption = False,
    tile: TileOption = None,
    overlap: OverlapOption = MaskSettings.overlap,
    batch_size: BatchSizeOption = None,
    compiled: CompiledOption = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    dest: DestOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write the mask of the mitochondria in a stack."""
    from mitoda.inference.segment import segment as run
    from mitoda.models.device import describe_device
    from mitoda.models.model import load_model
    from mitoda.models.weights import find_weights

    settings = SegmentSettings(
        output=output,
        probability=probability,
        instances=instances,
        split=not no_split,
        mask_value=mask_value,
        overwrite=overwrite,
        resume=resume,
        threshold=threshold,
        min_size=min_size,
        snap=snap,
        boundary=boundary,
        smoothing=smooth,
        flips=tta,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        compiled=compiled,
    )
    stack = open_input(volume, voxel_size, axes, invert, dest)
    settings.check_paths([Path(stack.name), find_weights(weights)])
    model = load_model(weights, device, precision)
    try:
        draw_segmentation(run(stack, model, settings), settings, describe_device(model.device), quiet)
    except KeyboardInterrupt:
        say(f"interrupted; what is done is kept beside {output}. Continue with the same command and --resume")
        raise typer.Exit(1) from None


def draw_segmentation(
    events: "Generator[Event, None, None]", settings: SegmentSettings, device: str, quiet: bool = False
) -> None:
    """Draw events: a bar on a terminal, a plain line now and then elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mitoda.inference import segment as core
    from mitoda.inference.settings import Resolved
    from mitoda.inference.voxel_size import VoxelSizeFound

    def tell(message: str) -> None:
        if message and not quiet:
            say(message)

    ticker, resumed = Ticker(), False
    columns = (TextColumn("sections"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not stderr.is_terminal
    # closed before a message says what is on disk
    with closing(events), Progress(*columns, console=stderr, transient=True, disable=hidden) as progress:
        task = progress.add_task("segment", total=None)
        for event in events:
            if isinstance(event, VoxelSizeFound):
                tell(event.sentence)
            elif isinstance(event, Resolved):
                tell(_defaults(event, settings))
            elif isinstance(event, core.SectionDone):
                if event.resumed and not resumed:
                    resumed = True
                    tell("continuing the interrupted run")
                progress.update(task, total=event.sections, completed=event.section + 1)
                if hidden and ticker.due():
                    tell(f"{event.section + 1} of {event.sections} sections")
            elif isinstance(event, core.Notice):
                warn(event.text)
            elif isinstance(event, core.AlreadyComplete):
                tell(f"{event.output} is complete already")
            elif isinstance(event, core.Numbered):
                tell(instances_summary(event.output, event.count, event.components))
            elif isinstance(event, core.Segmented):
                for warning in event.warnings:
                    warn(warning)
                tell(_summary(event, settings, device))


def _defaults(resolved: "Resolved", settings: SegmentSettings) -> str:
    """What the weights, and not the person, decide about the mask."""
    parts = []
    if resolved.snap and settings.snap is None:
        parts.append("boundaries are moved to each mitochondrion's dark membrane (--no-snap turns this off)")
    if resolved.min_size and settings.min_size is None:
        parts.append(f"components under {resolved.min_size} voxels are removed (--min-size 0 keeps them)")
    return "; ".join(parts)


def _summary(done: "Segmented", settings: SegmentSettings, device: str) -> str:
    rate = done.sections / max(done.seconds, 1e-9)
    return (
        f"{settings.output}: {done.foreground:.2%} foreground, {done.sections} sections on {device} in "
        f"{duration(done.seconds)} ({rate:.1f} sections/s)"
    )
