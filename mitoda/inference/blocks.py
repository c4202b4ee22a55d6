"""Segment a volume block by block: each block is a pure function of its number, computed anywhere and in any order.

    OUT.zarr.blocks/record.json        what all blocks share, found once
                    predicted.zarr     the mask before small components are removed or, where boundaries move,
                                       probabilities
                    predict/0000/012   a block's marker, written last: checksum, components, grey values on contours
                    numbers.npy        numbers of the components of all blocks
                    means.npy …        curves of these components, where boundaries move
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
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import mitoda
from mitoda.data.filled import FilledVolume
from mitoda.errors import InputError
from mitoda.inference.segment import make_finalizer
from mitoda.inference.settings import Resolved, SegmentSettings
from mitoda.inference.slabs import Slabs, checksum, read_slabs
from mitoda.inference.streaming import predict, smoothing_reach
from mitoda.inference.tiling import Block, BlockGrid
from mitoda.models.model import Model
from mitoda.postprocessing.block_summary import BlockSummary, blocks_of, load_curves
from mitoda.postprocessing.joining import FIELDS, BlockLabels
from mitoda.postprocessing.mask import REFERENCE, MaskFinalizer, quantise
from mitoda.postprocessing.membrane_snapping import MembraneShifts
from mitoda.volumes import Volume, VoxelSize
from mitoda.volumes.files import atomic_write, output_kind
from mitoda.volumes.volume import EVERYTHING, Lengths
from mitoda.volumes.wrappers import BoxVolume
from mitoda.volumes.zarr_pages import LAYER, ZarrPages, checked_version

TORN = (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
"""Errors of a marker that is not there, or not whole."""


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
    """Result of a block."""

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
        return self.record.resolved.two_passes or self.numbers_blocks

    @property
    def numbers_blocks(self) -> bool:
        """Whether labels are connected components in an OME-Zarr, which blocks can number and write."""
        path = self.settings.instances
        if path is None or self.settings.split or self.record.resolved.snap:
            return False  # the components of moved boundaries are known once all blocks are finished
        return output_kind(Path(path)) == "Zarr"

    @property
    def finalizer(self) -> MaskFinalizer:
        """A new one, for a block or for what is common to all."""
        return make_finalizer(self.settings, self.record.resolved, self.record.voxel_size)

    def marker(self, step: str, index: int) -> Path:
        """The file that says that a step of a block is done."""
        return self.folder / step / f"{index // 1000:04d}" / f"{index % 1000:03d}.npz"

    def is_done(self, step: str, index: int) -> bool:
        """Whether a step of a block is done; a damaged marker does not count."""
        try:
            self.read(step, index, "foreground")
        except TORN:
            return False
        return True

    def read(self, step: str, index: int, name: str) -> np.ndarray:
        """Return one array of a marker."""
        with self.marker(step, index).open("rb") as file, np.load(file) as content:
            return np.asarray(content[name])

    def predicted(self, index: int, name: str) -> np.ndarray:
        """Return one array of the marker of a predicted block, which is predicted again if that is torn or lost."""
        try:
            return self.read("predict", index, name)
        except TORN:
            self.predict(index)
        return self.read("predict", index, name)

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
        stores = [Slabs(self.array(name), block, self.record.unit[0])]
        if self.settings.probability is not None:
            stores.append(Slabs(self.array("probability.zarr"), block, self.record.unit[0]))
        finalizer = self.finalizer
        summary = BlockSummary(finalizer, block.core, self.record.shape) if self.is_joined else None
        foreground = 0
        for pending, probability, grey in self._sections(block, finalizer):
            mask = finalizer.provisional(pending)
            foreground += int(np.count_nonzero(mask))
            if summary is not None:
                summary.add(pending, grey)
            kept = mask * np.uint8(self.settings.mask_value) if summary is None else pending
            for store, array in zip(stores, (kept, probability), strict=False):
                store.add(array)
        arrays = {} if summary is None else summary.arrays()
        seconds = time.monotonic() - began
        self._mark("predict", index, foreground, seconds, crc=np.int64(stores[0].crc), **arrays)
        return Outcome(index, foreground, seconds)

    def _sections(
        self, block: Block, finalizer: MaskFinalizer
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What is pending, probability × 255 and the image of each section of a block's core.

        All are 0 where the input is constant. The image is only read where boundaries are moved.
        """
        filled = self._filled(block)
        if self._is_constant(filled, block.core[0]):
            for _ in range(block.shape[0]):
                yield (np.zeros(block.shape[1:], np.uint8),) * 3
            return
        first, stop = block.core[0].start, block.core[0].stop
        for section, probability in enumerate(
            predict(filled, self._model, self.settings, first, _refuse, stop), first
        ):
            pending = filled.tissue.clear(section, finalizer.pending(probability))[block.inner]
            grey = filled.read(section) if finalizer.needs_images else pending
            yield pending, quantise(probability[block.inner]), grey

    def _filled(self, block: Block) -> FilledVolume:
        """What a block is predicted from."""
        return FilledVolume(BoxVolume(self._volume, (EVERYTHING, *block.window), self.record.voxel_size))

    def _is_constant(self, window: FilledVolume, sections: slice) -> bool:
        """Whether every section that a block depends on has one value; reading ends at the first that has several."""
        reach = reach_of(self.model, self.record.resolved, self.record.voxel_size, self.record.shape[0])
        reach = max(reach, window.tissue.reach)
        around = range(max(0, sections.start - reach), min(sections.stop + reach, self.record.shape[0]))
        middle = (sections.start + sections.stop) // 2
        near = sorted(around, key=lambda section: abs(section - middle))
        return all(np.ptp(window.volume.read(section)) == 0 for section in near)

    def finish(self, index: int) -> Outcome:
        """Write the final mask, and labels, of a block from what is pending of it and the joined components."""
        began = time.monotonic()
        labels = self._checked(index)
        start, stop = np.load(self.folder / "offsets.npy", mmap_mode="r")[index : index + 2]
        numbers = np.load(self.folder / "numbers.npy", mmap_mode="r")[start:stop]
        block, depth = self.record.grid[index], self.record.unit[0]
        stores = [Slabs(self.array("mask.zarr"), block, depth)]
        if self.numbers_blocks:
            stores.append(Slabs(self.array("labels.zarr"), block, depth))
        finished = self._snapped if self.record.resolved.snap else self._numbered
        foreground = 0
        for mask, *found in finished(block, labels, numbers):
            foreground += int(np.count_nonzero(mask))
            kept = mask * np.uint8(self.settings.mask_value)
            for store, array in zip(stores, (kept, *found), strict=False):
                store.add(array)
        seconds = time.monotonic() - began
        self._mark("finish", index, foreground, seconds)
        return Outcome(index, foreground, seconds)

    def _numbered(
        self, block: Block, labels: BlockLabels, numbers: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Mask and numbers of each section of a block, without components that are too small."""
        pending = read_slabs(self.array("predicted.zarr"), block, self.record.unit[0])
        for section, mask in enumerate(pending):
            found = labels.number(section, mask, numbers)
            yield found > 0, found

    def _snapped(
        self, block: Block, labels: BlockLabels, numbers: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Mask of each section of a block, its boundaries moved to membranes."""
        finalizer, tissue = self.finalizer, self._filled(block).tissue
        # A worker holds the curves of its own block. Components that other blocks join are one row here too.
        rows, own = np.unique(np.append(0, numbers), return_inverse=True)
        shifts = MembraneShifts(
            finalizer.grid, load_curves(self.folder, rows), self.record.shape[0], self._contours
        )
        pending = read_slabs(self.array("predicted.zarr"), block, self.record.unit[0])
        for section, probability in enumerate(pending, block.core[0].start):
            cells = finalizer.cells(probability)
            components = labels.number(section - block.core[0].start, cells, own[1:])
            mask = finalizer.shifted(probability, shifts.of(section, components, REFERENCE))
            if finalizer.boundary_nm > 0 and mask.any():  # else nothing lies outside of tissue
                mask = tissue.clear(section, mask)
            yield (mask,)

    def _contours(self, section: int) -> list[np.ndarray]:
        """What was gathered of the blocks of grid cells of any section, also of a neighbour's."""
        index, inside = divmod(section, self.record.block[0])
        return blocks_of(partial(self.predicted, index), inside)

    def _checked(self, index: int) -> BlockLabels:
        """The components of a block, which is predicted again if its mask is not what was written."""
        block = self.record.grid[index]
        intact = False
        with suppress(*TORN, RuntimeError):  # however a codec fails
            stored = read_slabs(self.array("predicted.zarr"), block, self.record.unit[0])
            intact = checksum(stored) == self.read("predict", index, "crc")
        if not intact:
            self.predict(index)
        return BlockLabels(**{name: self.predicted(index, name) for name in FIELDS})

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


def reach_of(model: Model, resolved: Resolved, voxel_size: VoxelSize, sections: int) -> int:
    """Sections before and after one that its prediction depends on."""
    return model.geometry.stride(voxel_size, sections) + smoothing_reach(resolved.smoothing / voxel_size[0])
