"""`mitoda segment`."""

from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mitoda.cli.blocks import (
    BlockOption,
    PartOption,
    PlanOption,
    SchedulerOption,
    WorkersOption,
    part_summary,
    read_part,
    show_plan,
    start,
)
from mitoda.cli.display import Ticker, counted, duration, say, stderr, warn
from mitoda.cli.instances import instances_summary
from mitoda.cli.options import (
    COMPUTING,
    VOLUMES,
    AxesOption,
    DestOption,
    DeviceOption,
    Lengths,
    OmeZarrOption,
    PrecisionOption,
    ScaleOption,
    voxel_size_option,
)
from mitoda.cli.show import open_input
from mitoda.cli.stacks import Job, plan_jobs, run_jobs
from mitoda.inference.settings import BlockSettings, MaskSettings, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Generator

    from mitoda.inference.events import Event, Segmented
    from mitoda.inference.settings import Resolved
    from mitoda.models.model import Model
    from mitoda.volumes import Volume


def option(panel: str, *names: str, **how: Any) -> Any:
    """An option in a panel of `segment --help`."""
    return typer.Option(*names, rich_help_panel=panel, **how)


FILES, STACK, MASK, SPEED = "Files", VOLUMES, "Mask", COMPUTING

InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...", help="TIFFs, folders of sections, images, patterns, or fetched data sets."
    ),
]
OutputOption = Annotated[
    Path | None, option(FILES, "-o", "--output", help="Mask to write: .tif, .zarr, .h5 or .mrc.")
]
OutputFolderOption = Annotated[
    Path | None,
    option(FILES, help="Folder for the masks of several stacks, each named after its stack."),
]
ProbabilityOption = Annotated[
    Path | None,
    option(FILES, help="Also write the probability map (uint8, × 255); a folder with --output-folder."),
]
ReportOption = Annotated[
    Path | None,
    option(FILES, help="Also write a page to look at the result (.html); a folder with --output-folder."),
]
InstancesOption = Annotated[
    Path | None,
    option(
        FILES,
        help="Also write labels, one number for each mitochondrion; a folder with --output-folder.",
    ),
]
NoSplitOption = Annotated[
    bool, option(FILES, "--no-split", help="Number connected components; do not split touching mitochondria.")
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
    voxel_size_option(
        help="Voxel size in nanometres; overrides the metadata. Estimated if neither is available."
    ),
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
    float,
    option(MASK, metavar="NM", help="Nanometres to move boundaries outward; negative moves them inward."),
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
    inputs: InputsArgument,
    output: OutputOption = None,
    output_folder: OutputFolderOption = None,
    weights: WeightsOption = "default",
    probability: ProbabilityOption = None,
    instances: InstancesOption = None,
    no_split: NoSplitOption = False,
    report: ReportOption = None,
    mask_value: MaskValueOption = SegmentSettings.mask_value,
    ome_zarr: OmeZarrOption = SegmentSettings.ome_zarr,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    scale: ScaleOption = None,
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
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    part: PartOption = None,
    block: BlockOption = None,
    plan: PlanOption = False,
    dest: DestOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write the masks of the mitochondria in one or more stacks."""
    from mitoda.models.model import load_model
    from mitoda.models.weights import find_weights, read_info
    from mitoda.plotting.html import check_page_path
    from mitoda.volumes.address import file_of
    from mitoda.volumes.files import is_zarr
    from mitoda.volumes.volume import remark_of

    make = partial(
        SegmentSettings,
        split=not no_split,
        mask_value=mask_value,
        ome_zarr=ome_zarr,
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
    jobs = plan_jobs(inputs, output, output_folder, probability, instances, report)
    settings = {
        job: make(output=job.output, probability=job.probability, instances=job.instances) for job in jobs
    }
    blocks = BlockSettings(block=block, workers=workers, scheduler=scheduler, part=read_part(part))
    load = cache(partial(load_model, weights, device if scheduler is None else "cpu", precision))
    if len(jobs) > 1:
        load()  # weights that cannot be read fail once, not for every stack

    def work(job: Job) -> str:
        pixel = None
        if voxel_size is None and is_zarr(file_of(job.source)):
            pixel = read_info(find_weights(weights)).pixel
        open_stack = partial(open_input, job.source, voxel_size, axes, invert, dest, scale, pixel)
        stack = open_stack()
        if (remark := remark_of(stack)) and not quiet:
            say(remark)
        sources = [Path(stack.name), find_weights(weights)]
        settings[job].check_paths(sources)
        if plan:
            return show_plan(stack, load(), settings[job], blocks, job.source)
        if job.report is not None:
            check_page_path(job.report, sources, overwrite or resume)
        events = start(open_stack, stack, load(), settings[job], blocks, device)
        return _segment(events, stack, load(), settings[job], job.report, quiet)

    run_jobs(jobs, work)


def _segment(
    run: "Generator[Event, None, None]",
    stack: "Volume",
    model: "Model",
    settings: SegmentSettings,
    report: Path | None,
    quiet: bool,
) -> str:
    """Draw the run of one stack, write its page, and return the result in a few words."""
    from mitoda.inference.events import PartDone, Segmented
    from mitoda.inference.report import write_segmentation_report
    from mitoda.models.device import describe_device

    events = draw_segmentation(run, settings, describe_device(model.device), quiet)
    if isinstance(events[-1], PartDone):
        return f"part {events[-1].part} of {events[-1].parts} done"
    if report is not None:
        write_segmentation_report(report, stack, model, settings, events)
        if not quiet:
            say(f"wrote {report}")
    done = events[-1]
    if not isinstance(done, Segmented):
        return "complete already"
    sections = counted(done.sections, "section")
    warnings = f", {counted(len(done.warnings), 'warning')}" if done.warnings else ""
    return f"{done.foreground:.2%} foreground, {sections}, {duration(done.seconds)}{warnings}"


def draw_segmentation(
    events: "Generator[Event, None, None]", settings: SegmentSettings, device: str, quiet: bool = False
) -> "list[Event]":
    """Draw events: a bar on a terminal, a plain line now and then elsewhere. Return them without those of sections."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mitoda.inference import events as core
    from mitoda.inference.settings import Resolved
    from mitoda.inference.voxel_size import VoxelSizeFound

    def tell(message: str) -> None:
        if message and not quiet:
            say(message)

    ticker, resumed = Ticker(), False
    seen: list[Event] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not stderr.is_terminal
    # closed before a message says what is on disk
    with closing(events), Progress(*columns, console=stderr, transient=True, disable=hidden) as progress:
        task = progress.add_task("sections", total=None)
        for event in events:
            if not isinstance(event, core.SectionDone | core.BlockDone):
                seen.append(event)
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
            elif isinstance(event, core.BlockDone):
                steps = {"predict": "blocks", "finish": "blocks joined"}
                progress.update(task, description=steps[event.step], total=event.blocks, completed=event.done)
                if hidden and ticker.due():
                    tell(f"{event.done} of {event.blocks} {steps[event.step]}")
            elif isinstance(event, core.PartDone):
                tell(part_summary(event))
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
    return seen


def _defaults(resolved: "Resolved", settings: SegmentSettings) -> str:
    """Describe the mask settings that come from the weights."""
    parts = []
    if resolved.snap and settings.snap is None:
        parts.append("boundaries are moved to each mitochondrion's dark membrane (--no-snap turns this off)")
    if resolved.min_size and settings.min_size is None:
        parts.append(f"components under {resolved.min_size} voxels are removed (--min-size 0 keeps them)")
    return "; ".join(parts)


def _summary(done: "Segmented", settings: SegmentSettings, device: str) -> str:
    rate = done.sections / max(done.seconds, 1e-9)
    return (
        f"{settings.output}: {done.foreground:.2%} foreground, {counted(done.sections, 'section')} on {device} in "
        f"{duration(done.seconds)} ({rate:.1f} sections/s)"
    )
