"""Data that a block stores until all blocks are joined, and from which its boundaries are computed.

    block ──> components and, where boundaries are moved, grey values on contours        (any order, anywhere)
    components joined over faces ──> curves of all components, in files                  (once)
    block, its neighbours' contours, curves of its components ──> its mask               (any order, anywhere)

Where boundaries are moved, blocks must be whole sections: then sums are those of `MembraneSnapping` to the bit.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mitoda.postprocessing.joining import BlockLabeller, Joined
from mitoda.postprocessing.mask import MaskFinalizer
from mitoda.postprocessing.membrane_snapping import Curves
from mitoda.postprocessing.spool import pack, unpack
from mitoda.volumes.files import atomic_write


class BlockSummary:
    """Components of a block and, where boundaries are moved, the grey values on its contours.

    Parameters
    ----------
    finalizer : MaskFinalizer
        Of the volume; its state is not changed.
    core : (slice, slice, slice)
        Sections, rows and columns of the block in the volume.
    shape : (int, int, int)
        Of the volume.
    """

    def __init__(
        self, finalizer: MaskFinalizer, core: tuple[slice, slice, slice], shape: tuple[int, int, int]
    ) -> None:
        self._finalizer = finalizer
        if finalizer.needs_images:
            shape = (shape[0], *finalizer.grid_shape(shape[1:]))
            core = (core[0], slice(0, shape[1]), slice(0, shape[2]))
        self._labeller = BlockLabeller(core, shape)
        self._sums: list[tuple[np.ndarray, np.ndarray]] = []
        self._blocks: dict[str, np.ndarray] = {}

    def add(self, pending: np.ndarray, grey: np.ndarray) -> None:
        """Add the next section of the block; see `MaskFinalizer.pending`. `grey` is its image."""
        if not self._finalizer.needs_images:
            self._labeller.add(pending)
            return
        parts = self._labeller.add(self._finalizer.cells(pending))
        found = self._finalizer.grid.gather(grey, pending, parts)
        self._blocks[f"blocks{len(self._sums)}"] = np.frombuffer(pack(found[2:]), np.uint8)
        self._sums.append((found.sums, found.counts))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all of it by name, to be kept in a file. Call after all sections were added."""
        labels = vars(self._labeller.finish())
        if not self._sums:
            return labels
        sums, counts = (np.concatenate(both) for both in zip(*self._sums, strict=True))
        return {**labels, **self._blocks, "sums": sums, "counts": counts}


def blocks_of(read: Callable[[str], np.ndarray], section: int) -> list[np.ndarray]:
    """Return what was gathered of the blocks of grid cells of a section, as `MembraneShifts` takes it.

    Parameters
    ----------
    read : callable
        Returns one of `BlockSummary.arrays`, by its name.
    section : int
        In the block.
    """
    return unpack(read(f"blocks{section}").tobytes())


def joined_parts(
    read: Callable[[int, str], np.ndarray], joined: Joined
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Contours of the parts of all blocks, as `join_curves` takes them, a block at a time."""
    for block, start in enumerate(joined.offsets[:-1]):
        numbers = np.append(0, joined.numbers[start : joined.offsets[block + 1]])
        yield numbers[read(block, "component_of_part")[1:]], read(block, "sums"), read(block, "counts")


def save_curves(folder: Path, curves: Curves) -> None:
    """Write curves into a folder, a file for each field."""
    overall = math.nan if curves.overall is None else curves.overall
    for name, content in curves._replace(overall=overall)._asdict().items():
        save_array(folder / f"{name}.npy", content)


def load_curves(folder: Path, rows: np.ndarray) -> Curves:
    """Return some rows of the curves in a folder; other rows are not read."""
    means, darkest, kept = (
        np.load(folder / f"{name}.npy", mmap_mode="r")[rows] for name in Curves._fields[:-1]
    )
    overall = float(np.load(folder / "overall.npy"))
    return Curves(means, darkest, kept, None if math.isnan(overall) else overall)


def save_array(path: Path, content: np.ndarray) -> None:
    """Write an array into a file of its own, which appears once it is complete."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, content)
