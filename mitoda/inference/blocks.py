"""Segment a volume block by block: each block is a pure function of its number, computed anywhere and in any order.

    OUT.zarr.blocks/record.json        what all blocks share, found once
                    predicted.zarr     the mask before small components are removed
                    predict/0000/012   a block's marker, written last: checksum and components
                    numbers.npy        numbers of the components of all blocks
                    mask.zarr          becomes OUT.zarr
                    finish/0000/012    a block's marker

A block reads the sections that its own depend on (pairs, smoothing). Sections of at most `PIXELS` pixels are blocks'
whole sections, and the result is that of `segment` to the bit. Larger ones are cut into windows with a margin, and a
window is normalised, searched for padding and tiled as if it were a section.
"""

import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import mitoda
from mitoda.data.filled import FilledVolume
from mitoda.errors import InputError
from mitoda.inference.segment import make_finalizer
from mitoda.inference.settings import Resolved, SegmentSettings
from mitoda.inference.streaming import predict, smoothing_reach
from mitoda.inference.tiling import Block, BlockGrid
from mitoda.models.model import Model
from mitoda.postprocessing.joining import FIELDS, BlockLabeller, BlockLabels
from mitoda.postprocessing.mask import quantise
from mitoda.volumes import Volume, VoxelSize
from mitoda.volumes.files import atomic_write, output_kind
from mitoda.volumes.volume import EVERYTHING, Lengths
from mitoda.volumes.wrappers import BoxVolume
from mitoda.volumes.zarr_pages import LAYER, ZarrPages, checked_version, write_files


@dataclass(frozen=True)
class BlockRecord:
    """What all blocks share, kept beside the output."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}

    identity: str
    """Fingerprint of all that decides the result."""
    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    margin: tuple[int, int]
    unit: tuple[int, int, int]
    """Sides of a file of the output (a shard), which only one block writes."""
    voxel_size: VoxelSize
    stated: Lengths
    """Voxel size written into the output, as far as it is known."""
    origin: VoxelSize
    """Position of the first voxel in nanometres."""
    resolved: Resolved
    bfloat16: bool

    @property
    def grid(self) -> BlockGrid:
        """The blocks."""
        return BlockGrid(self.shape, self.block, self.margin)


@dataclass(frozen=True)
class Outcome:
    """What came of a block."""

    index: int
    foreground: int
    """Voxels."""
    seconds: float


@dataclass
class BlockWork:
    """All that a process needs to compute blocks; it can be pickled, and opens and moves what it needs where it is."""

    open: Callable[[], Volume]
    model: Model
    device: str
    settings: SegmentSettings
    record: BlockRecord
    folder: Path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_volume", "_model")}

    @cached_property
    def _volume(self) -> Volume:
        volume = self.open()
        if volume.shape != self.record.shape:
            raise InputError(f"{volume.name} has shape {volume.shape}; the run is one of {self.record.shape}")
        return volume

    @cached_property
    def _model(self) -> Model:
        return replace(self.model.to(self.device), bfloat16=self.record.bfloat16)

    @property
    def is_joined(self) -> bool:
        """Whether the mask needs the components of all blocks: then it is written in a second step."""
        return self.record.resolved.min_size > 0 or self.numbers_blocks

    @property
    def numbers_blocks(self) -> bool:
        """Whether labels are connected components in an OME-Zarr, which blocks can number and write."""
        path = self.settings.instances
        return path is not None and not self.settings.split and output_kind(Path(path)) == "Zarr"

    def marker(self, step: str, index: int) -> Path:
        """The file that says that a step of a block is done."""
        return self.folder / step / f"{index // 1000:04d}" / f"{index % 1000:03d}.npz"

    def is_done(self, step: str, index: int) -> bool:
        """Whether a step of a block is done; a torn marker is none."""
        try:
            self.read(step, index, "foreground")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return False
        return True

    def read(self, step: str, index: int, name: str) -> np.ndarray:
        """Return one array of a marker."""
        with self.marker(step, index).open("rb") as file, np.load(file) as content:
            return np.asarray(content[name])

    def image(self, name: str, dtype: np.dtype, folder: Path, exists: bool = True) -> ZarrPages:
        """Create, or open to complete it, an image of the run in a folder."""
        record = self.record
        written = {"probability.zarr": self.settings.probability, "labels.zarr": self.settings.instances}
        return ZarrPages(
            folder / name,
            record.shape,
            dtype,
            record.stated,
            f"mitoda {mitoda.__version__}, blocks {record.identity}",
            Path(written.get(name) or self.settings.output).name.split(".")[0],
            record.origin,
            checked_version(self.settings.ome_zarr),
            layer=min(LAYER, record.shape[0]),
            exists=exists,
        )

    def array(self, name: str) -> Any:
        """Open the full resolution of an image: a zarr array, (sections, rows, columns)."""
        import zarr

        return zarr.open_array(self.folder / name / "0", mode="r+")

    def predict(self, index: int) -> Outcome:
        """Predict a block, and write its mask and its marker, whatever is there."""
        began = time.monotonic()
        block = self.record.grid[index]
        name = "predicted.zarr" if self.is_joined else "mask.zarr"
        stores = [_Slabs(self.array(name), block, self.record.unit[0])]
        if self.settings.probability is not None:
            stores.append(_Slabs(self.array("probability.zarr"), block, self.record.unit[0]))
        labeller = BlockLabeller(block.core, self.record.shape) if self.is_joined else None
        foreground = 0
        for arrays in self._sections(block):
            mask = arrays[0]
            foreground += int(np.count_nonzero(mask))
            if labeller is not None:
                labeller.add(mask)
            else:
                mask = np.where(mask > 0, np.uint8(self.settings.mask_value), np.uint8(0))
            for store, array in zip(stores, (mask, *arrays[1:]), strict=False):
                store.add(array)
        labels = {} if labeller is None else vars(labeller.finish())
        seconds = time.monotonic() - began
        self._mark("predict", index, foreground, seconds, crc=np.int64(stores[0].crc), **labels)
        return Outcome(index, foreground, seconds)

    def _sections(self, block: Block) -> Iterator[tuple[np.ndarray, ...]]:
        """Mask, 0 and 255, and probability × 255 of each section of a block's core; 0 where the input is constant."""
        window = BoxVolume(self._volume, (EVERYTHING, *block.window), self.record.voxel_size)
        if self._is_constant(window, block.core[0]):
            for _ in range(block.shape[0]):
                yield (np.zeros(block.shape[1:], np.uint8),) * 2
            return
        filled = FilledVolume(window)
        finalizer = make_finalizer(self.settings, self.record.resolved, self.record.voxel_size)
        first, stop = block.core[0].start, block.core[0].stop
        for section, probability in enumerate(
            predict(filled, self._model, self.settings, first, _refuse, stop), first
        ):
            mask = filled.tissue.clear(section, finalizer.pending(probability))
            yield mask[block.inner], quantise(probability[block.inner])

    def _is_constant(self, window: Volume, sections: slice) -> bool:
        """Whether every section that a block depends on has one value; reading ends at the first that has several."""
        reach = reach_of(self.model, self.record.resolved, self.record.voxel_size, self.record.shape[0])
        around = range(max(0, sections.start - reach), min(sections.stop + reach, self.record.shape[0]))
        middle = (sections.start + sections.stop) // 2
        near = sorted(around, key=lambda section: abs(section - middle))
        return all(np.ptp(window.read(section)) == 0 for section in near)

    def finish(self, index: int) -> Outcome:
        """Write the final mask, and labels, of a block from its predicted mask and the joined numbers."""
        began = time.monotonic()
        labels = self._checked(index)
        joined = self.folder / "offsets.npy", self.folder / "numbers.npy"
        start, stop = np.load(joined[0], mmap_mode="r")[index : index + 2]
        numbers = np.load(joined[1], mmap_mode="r")[start:stop]
        block, depth = self.record.grid[index], self.record.unit[0]
        stores = [_Slabs(self.array("mask.zarr"), block, depth)]
        if self.numbers_blocks:
            stores.append(_Slabs(self.array("labels.zarr"), block, depth))
        foreground = 0
        for section, mask in enumerate(_read_sections(self.array("predicted.zarr"), block, depth)):
            found = labels.number(section, mask, numbers)
            kept = np.where(found > 0, np.uint8(self.settings.mask_value), np.uint8(0))
            foreground += int(np.count_nonzero(kept))
            for store, array in zip(stores, (kept, found), strict=False):
                store.add(array)
        seconds = time.monotonic() - began
        self._mark("finish", index, foreground, seconds)
        return Outcome(index, foreground, seconds)

    def _checked(self, index: int) -> BlockLabels:
        """The components of a block, which is predicted again if its mask is not what was written."""
        block = self.record.grid[index]
        try:
            stored = _read_sections(self.array("predicted.zarr"), block, self.record.unit[0])
            intact = _checksum(stored) == self.read("predict", index, "crc")
        except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile):  # however a codec fails
            intact = False
        if not intact:
            self.predict(index)
        return BlockLabels(**{name: self.read("predict", index, name) for name in FIELDS})

    def _mark(self, step: str, index: int, foreground: int, seconds: float, **arrays: Any) -> None:
        path = self.marker(step, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, foreground=np.int64(foreground), seconds=np.float64(seconds), **arrays)


def _refuse(change: str) -> None:
    """Fail where a prediction would go on in another way: all blocks must be computed alike."""
    raise InputError(
        f"{change}, but all blocks must be computed alike; give smaller tiles (--tile 1024 1024), fewer pairs at once "
        "(--batch-size) or smaller blocks (--block), leave out --compile, and begin again with --overwrite"
    )


class _Slabs:
    """Writes the sections of a block to an array, a shard's depth at a time."""

    def __init__(self, array: Any, block: Block, depth: int) -> None:
        self._array, self._core = array, block.core
        self._buffer = np.empty((min(depth, block.shape[0]), *block.shape[1:]), array.dtype)
        self._written = self._held = 0
        self.crc = 0
        """Checksum of what was added."""

    def add(self, section: np.ndarray) -> None:
        """Add the next section of the block's core."""
        self._buffer[self._held] = section
        self.crc = zlib.crc32(self._buffer[self._held], self.crc)
        self._held += 1
        first = self._core[0].start + self._written
        if self._held == len(self._buffer) or first + self._held == self._core[0].stop:
            region = (slice(first, first + self._held), *self._core[1:])
            write_files(self._array, region, self._buffer[: self._held])
            self._written, self._held = self._written + self._held, 0


def _read_sections(array: Any, block: Block, depth: int) -> Iterator[np.ndarray]:
    """The sections of a block's core, read a shard's depth at a time."""
    sections, rows, columns = block.core
    for first in range(sections.start, sections.stop, depth):
        yield from array[first : min(first + depth, sections.stop), rows, columns]


def _checksum(sections: Iterator[np.ndarray]) -> int:
    crc = 0
    for section in sections:
        crc = zlib.crc32(section.tobytes(), crc)
    return crc


def reach_of(model: Model, resolved: Resolved, voxel_size: VoxelSize, sections: int) -> int:
    """Sections before and after one that its prediction depends on."""
    return model.geometry.stride(voxel_size, sections) + smoothing_reach(resolved.smoothing / voxel_size[0])
