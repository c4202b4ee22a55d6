"""The options and the plan of `segment` for volumes larger than a machine."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import command, duration, say, stdout, warn
from mitoda.cli.stopping import say_how_to_continue
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.volumes.files import output_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mitoda.inference.block_plan import BlockPlan
    from mitoda.inference.events import Event, PartDone
    from mitoda.models.model import Model
    from mitoda.volumes import Volume

CLUSTER = "Larger than a machine (-o OUT.zarr)"


def read_part(text: str | None) -> tuple[int, int] | None:
    """Read 3/64; raises `BadParameter`."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(f"{text!r} is not a part such as 3/64", param_hint="--part")
    return int(part), int(parts)


WorkersOption = Annotated[
    int | None,
    typer.Option(rich_help_panel=CLUSTER, help="Number of processes on this machine that compute blocks."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=CLUSTER,
        metavar="ADDRESS",
        help="Compute blocks on the Dask cluster with this scheduler, e.g. tcp://host:8786.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=CLUSTER,
        metavar="K/N",
        help="Compute the K-th of N shares of the blocks, in a job array. Afterwards, run the same "
        "command with --resume instead of --part.",
    ),
]
BlockOption = Annotated[
    tuple[int, int, int] | None,
    typer.Option(
        rich_help_panel=CLUSTER,
        metavar="Z Y X",
        help="Block size in voxels. Default: whole sections up to 8 megapixels, windows of larger ones.",
    ),
]
PlanOption = Annotated[
    bool,
    typer.Option(
        "--plan",
        rich_help_panel=CLUSTER,
        help="Time a small piece, print estimated blocks, hours, memory and disk space and a SLURM command, and exit.",
    ),
]


def check_mask_of_blocks(settings: SegmentSettings, blocks: BlockSettings) -> None:
    """Refuse options of blocks for a mask that cannot be written in blocks; raises `BadParameter`."""
    if blocks != BlockSettings() and output_kind(Path(settings.output)) != "Zarr":
        raise typer.BadParameter(
            "--workers, --scheduler, --part, --block and --plan are for a mask in OME-Zarr: -o OUT.zarr"
        )


def start(
    open_stack: "Callable[[], Volume]",
    stack: "Volume",
    model: "Model",
    settings: SegmentSettings,
    blocks: BlockSettings,
    device: str,
) -> "Generator[Event, None, None]":
    """Segment a stack in blocks where that can be done, otherwise as a whole; say how to continue if it is stopped."""
    from mitoda.inference.block_plan import why_whole
    from mitoda.inference.block_run import segment_blocks
    from mitoda.inference.segment import segment as run

    check_mask_of_blocks(settings, blocks)
    info = model.info if stack.voxel_size is None else model.info.for_sections(stack.voxel_size[0])
    snap = info.snap if settings.snap is None else settings.snap
    if blocks != BlockSettings() or not why_whole(settings, snap, stack.shape):
        say_how_to_continue(lambda: how_to_continue(settings.output, True))
        return segment_blocks(open_stack, model, settings, blocks, device)
    is_tiff = all(output_kind(path) == "TIFF" for path in settings.written)
    say_how_to_continue(lambda: how_to_continue(settings.output, is_tiff))
    return run(stack, model, settings)


def how_to_continue(output: Path | str, can_be_continued: bool) -> str:
    """What an interrupted run leaves, and how to go on."""
    if can_be_continued:
        return f"what is done is kept beside {output}; continue with the same command and --resume"
    return f"{output} is not written, and only TIFF can be continued, so start again"


def part_summary(done: "PartDone") -> str:
    """What one job of an array has done, and what is next."""
    rest = (
        f"{done.missing} blocks of other parts are missing"
        if done.missing
        else "all blocks are predicted; give the same command with --resume instead of --part to finish"
    )
    return f"part {done.part} of {done.parts} is done; {rest}"


def show_plan(
    stack: "Volume", model: "Model", settings: SegmentSettings, blocks: BlockSettings, source: str
) -> str:
    """Print the plan of a run; return it in a few words."""
    from mitoda.inference.block_plan import plan_segmentation
    from mitoda.models.device import describe_device

    check_mask_of_blocks(settings, replace(blocks, block=blocks.block or (1, 1, 1)))
    plan = plan_segmentation(stack, model, settings, blocks)
    print_plan(plan, source, Path(settings.output), describe_device(model.device))
    return f"{len(plan.record.grid)} blocks"


def print_plan(plan: "BlockPlan", source: str, output: Path, device: str) -> None:
    """Print what a run will take, and how to submit it."""
    if plan.found is not None:
        warn(plan.found.sentence)
    grid, parts = plan.record.grid, plan.parts
    hours = plan.hours / parts
    facts = {
        "blocks": f"{len(grid):,} of {' × '.join(map(str, grid[0].shape))} voxels (sections, rows, columns)",
        "time": f"{plan.hours:,.3g} hours on {device}; a block takes {duration(plan.seconds_per_block)}",
        "memory": f"about {plan.memory_bytes / 1e9:.1f} GB a worker",
        "disk": f"about {plan.disk_bytes / 1e9:,.3g} GB while it runs",
    }
    for name, value in facts.items():
        stdout.print(f"{name:8} {value}", markup=False)
    run = [one for one in sys.argv[1:] if one != "--plan"]
    again = command(*run) if run[:1] == ["segment"] else command("segment", source, "-o", output)
    wall = max(1, round(hours * 1.5 + 0.5))
    limits = f"--mem={round(plan.memory_bytes * 1.3 / 1e9) + 1}G"
    stdout.print(
        f"SLURM    sbatch --parsable --array=1-{parts} --time={wall}:00:00 {limits} "
        f'--wrap "{again} --part \\$SLURM_ARRAY_TASK_ID/{parts}"',
        markup=False,
    )
    stdout.print(
        f'         sbatch --dependency=afterok:JOB --time={wall}:00:00 {limits} --wrap "{again} --resume"',
        markup=False,
    )
    if not plan.record.resolved.min_size:
        say("with --min-size 0 the last command only renames the files")
