"""Components of a mask that is labelled block by block, and joined where blocks touch.

    block ──label──> components of the block, and their numbers on its six faces     (any order, anywhere)
    faces of neighbours ──> components that touch are one ──> sizes, numbers         (once)
    block ──label──> the number of each voxel's component                            (any order, anywhere)

The joined components are those of `StreamedComponents` on the whole mask, numbered from 1 in the order of their first
voxel. Memory for a block grows with its components and faces; joining holds a few numbers for each component.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitoda.postprocessing.components import NEIGHBOURS, SizeLimit, StreamedComponents


@dataclass(frozen=True)
class BlockLabels:
    """The components of a block, numbered from 1; as arrays, to be kept in a file."""

    component_of_part: np.ndarray
    """Component of each part (within a section, see `StreamedComponents`); 0 of background."""
    first_parts: np.ndarray
    """Number of the first part of each section."""
    voxels: np.ndarray
    """(components,)"""
    first: np.ndarray
    """(components,), first section, in the volume."""
    last: np.ndarray
    """(components,), last section, in the volume."""
    places: np.ndarray
    """(components,), index of the first voxel in the flattened volume."""
    front: np.ndarray
    """(rows, columns), components in the first section; `back` in the last."""
    back: np.ndarray
    top: np.ndarray
    """(sections, columns), components in the first row; `bottom` in the last."""
    bottom: np.ndarray
    left: np.ndarray
    """(sections, rows), components in the first column; `right` in the last."""
    right: np.ndarray

    def number(self, section: int, mask: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the final number of each pixel.

        Parameters
        ----------
        section : int
            In the block.
        mask : ndarray
            What `BlockLabeller.add` was given for it.
        numbers : ndarray, shape (components,)
            The final number of each component of the block.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = self.first_parts[section]
        parts = self.component_of_part[first : first + count]
        return np.asarray(np.append(0, numbers)[np.append(0, parts)][labels])


FIELDS = tuple(field.name for field in fields(BlockLabels))


class BlockLabeller:
    """Labels the mask of a block section by section.

    Parameters
    ----------
    core : (slice, slice, slice)
        Sections, rows and columns of the block in the volume.
    shape : (int, int, int)
        Of the volume.
    """

    def __init__(self, core: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> None:
        self._core, self._shape = core, shape
        self._components = StreamedComponents()
        self._places = [np.zeros(1, np.int64)]
        self._ends: list[np.ndarray] = []
        self._sides: dict[str, list[np.ndarray]] = {"top": [], "bottom": [], "left": [], "right": []}

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Add the next section of the block, non-zero is foreground; return as `StreamedComponents.add`."""
        parts = self._components.add(mask)
        self._ends = [*self._ends[:1], parts]
        for name, edge in zip(self._sides, (parts[0], parts[-1], parts[:, 0], parts[:, -1]), strict=True):
            self._sides[name].append(edge.copy())
        self._places.append(self._first_voxels(parts))
        return parts

    def _first_voxels(self, parts: np.ndarray) -> np.ndarray:
        """Index of the first voxel of each part of the section just added, in the flattened volume."""
        start = self._components.first_parts[-1]
        pixels = np.flatnonzero(parts)[::-1]
        found = np.zeros(len(self._components) - start, np.int64)
        found[parts.ravel()[pixels] - start] = pixels  # the last one written is the first pixel
        row, column = np.divmod(found, parts.shape[1])
        section = self._core[0].start + len(self._components.first_parts) - 1
        row, column = row + self._core[1].start, column + self._core[2].start
        return np.asarray((section * self._shape[1] + row) * self._shape[2] + column)

    def finish(self) -> BlockLabels:
        """Return the components of the block. Call after all sections were added."""
        found = self._components
        roots, component = np.unique(found.component_of_part, return_inverse=True)
        component = component.astype(np.int32)
        places = np.full(len(roots), np.iinfo(np.int64).max)
        np.minimum.at(places, component, np.concatenate(self._places))
        first, last = (sections[roots[1:]] + self._core[0].start for sections in found.first_and_last)
        return BlockLabels(
            component,
            np.array(found.first_parts),
            found.voxels[roots[1:]].astype(np.int64),
            first,
            last,
            places[1:],
            component[self._ends[0]],
            component[self._ends[-1]],
            **{name: component[np.stack(edges)] for name, edges in self._sides.items()},
        )


@dataclass(frozen=True)
class Joined:
    """The components of all blocks, joined, and numbered from 1 in the order of their first voxel."""

    offsets: np.ndarray
    """(blocks + 1,), where the components of each block begin in `numbers`."""
    numbers: np.ndarray
    """Number of the joined component of each component of each block."""
    voxels: np.ndarray
    """(components + 1,), by number; 0 is background."""
    first: np.ndarray
    """(components + 1,), first section, by number."""
    last: np.ndarray
    """(components + 1,), last section, by number."""

    def is_large(self, limit: SizeLimit, sections: int) -> np.ndarray:
        """Whether the component of each number is large enough in a volume of so many sections; not background."""
        large = self.voxels >= limit.of(self.first, self.last, sections)
        large[0] = False
        return np.asarray(large)

    def renumbered(self, kept: np.ndarray) -> np.ndarray:
        """`numbers`, uint32, counted without those that are not kept, which are 0; `kept` is bool, by number."""
        return np.asarray((np.cumsum(kept) * kept).astype(np.uint32)[self.numbers])


def join_blocks(read: Callable[[int, str], np.ndarray], counts: tuple[int, int, int]) -> Joined:
    """Join the components of blocks.

    Parameters
    ----------
    read : callable
        Returns a field of the `BlockLabels` of a block, by the block's number.
    counts : (int, int, int)
        Blocks along sections, rows and columns.
    """
    blocks = range(counts[0] * counts[1] * counts[2])
    voxels, first, last, places = (
        np.concatenate([read(block, name) for block in blocks])
        for name in ("voxels", "first", "last", "places")
    )
    offsets = np.cumsum([0, *(len(read(block, "voxels")) for block in blocks)])
    edges = [np.zeros((2, 0), np.int64), *_touching(read, counts, offsets)]
    low, high = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(low), bool), (low, high)), (len(voxels),) * 2)
    count, component = connected_components(graph, directed=False) if len(voxels) else (0, np.zeros(0, int))
    start = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(start, component, places)
    numbers = (np.argsort(np.argsort(start)) + 1)[component]
    size, begin, end = (np.zeros(count + 1, np.int64) for _ in range(3))
    begin[1:] = np.iinfo(np.int64).max
    np.add.at(size, numbers, voxels)
    np.minimum.at(begin, numbers, first)
    np.maximum.at(end, numbers, last)
    return Joined(offsets, numbers, size, begin, end)


def _touching(
    read: Callable[[int, str], np.ndarray], counts: tuple[int, int, int], offsets: np.ndarray
) -> Iterator[np.ndarray]:
    """Pairs of components of different blocks that touch: arrays of shape (2, pairs)."""
    for block, place in enumerate(np.ndindex(counts)):
        for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, -1)):
            near = tuple(own + by for own, by in zip(place, step, strict=True))
            if not all(0 <= number < count for number, count in zip(near, counts, strict=True)):
                continue
            other = int(np.ravel_multi_index(near, counts))
            if offsets[block] == offsets[block + 1] or offsets[other] == offsets[other + 1]:
                continue
            one, two = _contact(read, block, other, step)
            both = (one > 0) & (two > 0)
            pairs = np.unique(np.stack([one[both], two[both]]), axis=1).astype(np.int64)
            yield pairs + (np.array([[offsets[block]], [offsets[other]]]) - 1)


def _contact(
    read: Callable[[int, str], np.ndarray], block: int, other: int, step: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Components of two blocks at voxels that touch, within sections also at corners."""
    if step == (1, 0, 0):
        return read(block, "back").ravel(), read(other, "front").ravel()
    names = ("right", "left") if step == (0, 0, 1) else ("bottom", "top")
    one, two = read(block, names[0]), read(other, names[1])
    if step == (0, 1, 1):
        return one[:, -1], two[:, 0]
    if step == (0, 1, -1):
        return one[:, 0], two[:, -1]
    sides = [(one, two), (one[:, 1:], two[:, :-1]), (one[:, :-1], two[:, 1:])]
    a, b = zip(*((x.ravel(), y.ravel()) for x, y in sides), strict=True)
    return np.concatenate(a), np.concatenate(b)
