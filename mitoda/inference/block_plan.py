"""How a volume is cut into blocks, and what segmenting it will take, from a measured piece of it."""

import copy
import math
import time
from dataclasses import dataclass

from mitoda.data.filled import FilledVolume
from mitoda.errors import InputError
from mitoda.inference.blocks import BlockRecord, reach_of
from mitoda.inference.identity import fingerprint, run_identity
from mitoda.inference.segment import make_finalizer
from mitoda.inference.settings import BlockSettings, SegmentSettings, resolve
from mitoda.inference.streaming import predict, smoothing_reach
from mitoda.inference.tiling import LEAST_DEPTH, BlockGrid, plan_blocks
from mitoda.inference.voxel_size import VoxelSizeFound, search_voxel_size
from mitoda.models.model import Model
from mitoda.volumes import Volume
from mitoda.volumes.files import output_kind
from mitoda.volumes.volume import EVERYTHING, Lengths, origin_of, stated_lengths
from mitoda.volumes.voxel_size import known_voxel_size
from mitoda.volumes.wrappers import BoxVolume
from mitoda.volumes.zarr_pages import LAYER, checked_version, layout

PIXELS = 2**23
"""Rows times columns of a block, without its margin: 2896 × 2896. With pairs ten sections apart a worker then takes
about 1.2 GB."""
SIDE = 512
"""Rows and columns of the measured piece."""
PART_HOURS = 2.0
"""Hours of one array job: short enough for most queues, and little work is lost if it fails."""
MOST_PARTS = 1000
"""Jobs of an array, at most; SLURM's own limit is 1001 by default."""
BASE_BYTES = 0.7e9
"""Memory of Python, PyTorch and the features of some tiles."""
COMPRESSED = 1 / 50
"""Bytes of a voxel of a mask on disk; Lucchi's take 1/100."""
MAP = 10
"""Disk space of a probability map relative to a mask."""
CONTOURS = 0.06
"""Bytes that a block keeps of each voxel, in memory and on disk, where boundaries are moved to membranes; measured
where a third of the voxels are foreground."""


def describe(
    volume: Volume, model: Model, settings: SegmentSettings, blocks: BlockSettings, stated: Lengths
) -> BlockRecord:
    """All that the blocks of a volume share.

    Raises
    ------
    InputError
        If the stack cannot be segmented in blocks, or the blocks wanted are not whole files.
    """
    size = known_voxel_size(volume)
    resolved = resolve(settings, model.info, size)
    if reason := why_whole(settings, resolved.snap, volume.shape, blocks.block):
        raise InputError(reason)
    version = checked_version(settings.ome_zarr)
    _, unit = layout(volume.shape, min(LAYER, volume.shape[0]), version)
    scale = model.geometry.scale(size)
    rows, columns = (
        math.ceil(settings.overlap * factor + max(0.0, abs(settings.boundary)) / length)
        for factor, length in zip(scale, size[1:], strict=True)
    )
    reach = reach_of(model, resolved, size, volume.shape[0])
    grid = plan_blocks(volume.shape, unit, reach, PIXELS, (rows, columns))
    if blocks.block is not None:
        if any(
            side % step and side < whole
            for side, step, whole in zip(blocks.block, unit, volume.shape, strict=True)
        ):
            raise InputError(
                f"blocks of {blocks.block} voxels are not whole files of the output, which are {unit}; two blocks "
                "would write one file, so give multiples of these (sections, rows, columns)"
            )
        grid = BlockGrid(volume.shape, blocks.block, (rows, columns))
    identity = run_identity(middle_window(volume), model, settings, resolved)
    files = [settings.probability is not None, settings.instances is not None, settings.split, version]
    return BlockRecord(
        identity=fingerprint([identity, grid.shape, grid.block, grid.margin, resolved.min_size, files]),
        shape=grid.shape,
        block=grid.block,
        margin=grid.margin,
        unit=unit,
        voxel_size=size,
        stated=stated,
        origin=origin_of(volume),
        resolved=resolved,
        bfloat16=model.bfloat16,
    )


def why_whole(
    settings: SegmentSettings,
    snap: bool,
    shape: tuple[int, int, int],
    block: tuple[int, int, int] | None = None,
) -> str:
    """Why a stack must be segmented as a whole, by one process, and what to do about it; empty if blocks will do."""
    for path in settings.paths:
        if output_kind(path) != "Zarr":
            return f"{path} cannot be written block by block, only OME-Zarr can; give it a name that ends in .zarr"
    rows, columns = shape[1:]
    whole = rows * columns <= PIXELS if block is None else block[1] >= rows and block[2] >= columns
    if snap and not whole:
        return (
            "boundaries are moved to membranes in blocks of whole sections only; give --block "
            f"{LEAST_DEPTH} {rows} {columns}, or --no-snap"
        )
    return ""


def middle_window(volume: Volume) -> Volume:
    """The volume, or the middle of its sections where they are larger than a block: what global decisions look at."""
    rows, columns = volume.shape[1:]
    if rows * columns <= PIXELS:
        return volume
    height = min(rows, max(math.isqrt(PIXELS), PIXELS // columns))
    width = PIXELS // height
    top, left = (rows - height) // 2, (columns - width) // 2
    return BoxVolume(volume, (EVERYTHING, slice(top, top + height), slice(left, left + width)))


@dataclass(frozen=True)
class BlockPlan:
    """What segmenting a volume in blocks will take."""

    record: BlockRecord
    found: VoxelSizeFound | None
    """The voxel size, if it had to be estimated."""
    seconds_per_block: float
    """On the device that measured, of a whole block of tissue; constant blocks are skipped."""
    memory_bytes: float
    """Of a worker."""
    disk_bytes: float
    """While it runs; less than half of it stays."""

    @property
    def hours(self) -> float:
        """Of one worker."""
        whole = math.prod(self.record.shape) / math.prod(self.record.grid[0].shape)
        return whole * self.seconds_per_block / 3600

    @property
    def parts(self) -> int:
        """Jobs of an array that take about `PART_HOURS` each."""
        return max(1, min(math.ceil(self.hours / PART_HOURS), len(self.record.grid), MOST_PARTS))


def plan_segmentation(
    volume: Volume, model: Model, settings: SegmentSettings, blocks: BlockSettings
) -> BlockPlan:
    """Describe the blocks of a volume, and measure the time of a small piece in its middle."""
    stated, found = stated_lengths(volume), None
    if volume.voxel_size is None:
        found = search_voxel_size(middle_window(volume), model)
        volume = copy.copy(volume)
        volume.voxel_size = found.voxel_size
    record = describe(volume, model, settings, blocks, stated)
    sections, rows, columns = record.grid[0].shape
    tall, wide = (side.stop - side.start for side in record.grid[len(record.grid) // 2].window)
    reach = reach_of(model, record.resolved, record.voxel_size, record.shape[0])
    snap = record.resolved.snap
    masks = (
        1 + (record.resolved.min_size > 0 and not snap) + MAP * (snap + (settings.probability is not None))
    )
    kept = CONTOURS if snap else 0.0
    return BlockPlan(
        record=record,
        found=found,
        seconds_per_block=sections * tall * wide * _seconds_per_pixel(volume, model, settings, record),
        memory_bytes=BASE_BYTES
        + tall * wide * (4.0 * (reach + 8) + volume.dtype.itemsize * 4)
        + (2.0 * record.unit[0] + kept * sections) * rows * columns,
        disk_bytes=math.prod(record.shape) * (masks * COMPRESSED + kept),
    )


def _seconds_per_pixel(volume: Volume, model: Model, settings: SegmentSettings, record: BlockRecord) -> float:
    """Time for each pixel of a block's window and section, from one section predicted with all it depends on."""
    stride = model.geometry.stride(record.voxel_size, record.shape[0])
    smooth = 2 * smoothing_reach(record.resolved.smoothing / record.voxel_size[0])
    middle = record.shape[0] // 2
    for side in (SIDE // 4, SIDE):  # the first one warms up
        rows, columns = (
            slice(max(0, (size - side) // 2), min(size, (size + side) // 2)) for size in record.shape[1:]
        )
        piece = BoxVolume(volume, (EVERYTHING, rows, columns), record.voxel_size)
        began = time.monotonic()
        (probability,) = predict(FilledVolume(piece), model, settings, middle, stop=middle + 1)
        predicted = time.monotonic()
        finalizer = make_finalizer(settings, record.resolved, record.voxel_size)
        finalizer.add(finalizer.pending(probability), piece.read(middle))
        finalizer.finalize(0, finalizer.pending(probability))
        finalized = time.monotonic()
    pairs = min(2 * (1 + smooth), 1 + smooth + stride)
    depth = record.grid[0].shape[0]
    in_block = min(2 * (depth + smooth), depth + smooth + stride)
    seconds = (predicted - began) * in_block / pairs / depth + finalized - predicted
    return seconds / (piece.shape[1] * piece.shape[2])
