"""What segmenting a volume in blocks will take, from a measured piece of it."""

import copy
import math
import time
from dataclasses import dataclass

from mitoda.data.filled import FilledVolume
from mitoda.inference.block_run import describe, middle_window
from mitoda.inference.blocks import BlockRecord, reach_of
from mitoda.inference.segment import make_finalizer
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.inference.streaming import predict, smoothing_reach
from mitoda.inference.voxel_size import VoxelSizeFound, search_voxel_size
from mitoda.models.model import Model
from mitoda.volumes import Volume
from mitoda.volumes.volume import EVERYTHING, stated_lengths
from mitoda.volumes.wrappers import BoxVolume

SIDE = 512
"""Rows and columns of the measured piece."""
PART_HOURS = 2.0
"""Of one job of an array: short enough for most queues, and little is lost with it."""
MOST_PARTS = 1000
"""Jobs of an array, at most; SLURM's own limit is 1001 by default."""
BASE_BYTES = 0.7e9
"""Memory of Python, PyTorch and the features of some tiles."""
COMPRESSED = 1 / 50
"""Bytes of a voxel of a mask on disk; Lucchi's take 1/100."""
MAP = 10
"""Times that probabilities take more than a mask."""
CONTOURS = 0.06
"""Bytes that a block keeps of each voxel, in memory and on disk, where boundaries are moved to membranes; measured
where a third of the voxels are foreground."""


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
