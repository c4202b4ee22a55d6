"""Connected components, and the removal of small ones: of a stack that streams by, and of one in memory."""

import math
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from scipy import ndimage

from mitoda.volumes import VoxelSize

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Within a section pixels touch along edges and corners; between sections where they overlap."""


class SizeLimit(NamedTuple):
    """The size below which a component is too small.

    One that touches the first or the last section may continue outside of the stack, so it is judged by what is
    visible: it needs the share of `voxels` that its sections show of a compact component. Of 24,000 voxels of 5 nm,
    144 nm across, a single section keeps what covers 144 × 144 nm.
    """

    voxels: float
    depth: float
    """Sections that a compact component of that many voxels spans."""

    @classmethod
    def compact(cls, voxels: float, voxel_size: VoxelSize) -> Self:
        """Return the limit for voxels of a size, as long in all directions.

        Examples
        --------
        >>> limit = SizeLimit.compact(24_000, (5, 5, 5))
        >>> [round(float(limit.of(first, last, sections=10))) for first, last in ((0, 0), (3, 9), (3, 8))]
        [832, 5824, 24000]
        """
        return cls(voxels, (voxels * math.prod(voxel_size)) ** (1 / 3) / voxel_size[0])

    def of(self, first: np.ndarray | int, last: np.ndarray | int, sections: int) -> np.ndarray:
        """Return the least number of voxels of components from a first to a last section of a stack."""
        is_cut = np.equal(first, 0) | np.equal(last, sections - 1)
        shown = np.minimum(1, (np.subtract(last, first) + 1) / max(self.depth, 1e-9))
        return np.where(is_cut, shown, 1.0) * self.voxels


class DisjointSets:
    """Numbers that are joined into sets (union-find); 0 is a set of its own. The smallest number stands for its set."""

    def __init__(self) -> None:
        self._parents: list[int] = [0]

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, count: int) -> int:
        """Add `count` numbers, each in a set of its own; return the first."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return first

    def root(self, number: int) -> int:
        """The number that stands for a number's set."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one set of the sets of two numbers."""
        one, other = sorted((self.root(one), self.root(other)))
        self._parents[other] = one

    def roots(self) -> np.ndarray:
        """`root` of every number."""
        return np.array([self.root(number) for number in range(len(self._parents))])


class StreamedComponents:
    """Components of a mask given section by section, joined through sections.

    Give every section to `add`, then ask for the components of each with `number`. Memory grows with the number of
    parts (components within a section), not with the number of voxels.
    """

    def __init__(self) -> None:
        self._sets = DisjointSets()
        self._sizes: list[int] = [0]
        self.first_parts: list[int] = []
        """Number of the first part of each section."""
        self._previous: np.ndarray | None = None

    def __len__(self) -> int:
        """Numbers of parts so far, 0 of background included."""
        return len(self._sets)

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Add the next section, non-zero is foreground; return the number of each pixel's part, 0 of background.

        Parts are numbered from 1 through all sections.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = self._sets.add(count)
        self.first_parts.append(first)
        self._sizes.extend(np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist())
        parts = np.where(labels > 0, labels + (first - 1), 0)
        if self._previous is not None:
            both = (parts > 0) & (self._previous > 0)
            # One number for each pair: numbers of this section begin at `first`.
            above = self._previous[both].astype(np.int64)
            touching = np.unique(above * (count + 1) + parts[both] - (first - 1))
            for one, other in zip(*np.divmod(touching, count + 1), strict=True):
                self._sets.join(int(one), int(other) + first - 1)
        self._previous = parts
        return parts

    @cached_property
    def component_of_part(self) -> np.ndarray:
        """The number of the component of each part; 0 of background. Call after all sections were added."""
        return self._sets.roots()

    @cached_property
    def voxels(self) -> np.ndarray:
        """Voxels of each component, by its number; entries of other numbers have no meaning."""
        return np.bincount(self.component_of_part, self._sizes, len(self._sets))

    @cached_property
    def first_and_last(self) -> tuple[np.ndarray, np.ndarray]:
        """Sections of each component, by its number."""
        parts = np.arange(len(self._sets))
        first = np.maximum(
            np.searchsorted(self.first_parts, parts, "right") - 1, 0
        )  # the first part numbers it
        last = first.copy()
        np.maximum.at(last, self.component_of_part, first)
        return first, last

    def number(self, section: int, mask: np.ndarray) -> np.ndarray:
        """Return the number of each pixel's component, 0 of background.

        Parameters
        ----------
        section : int
            Its number in the order of `add`.
        mask : ndarray
            What was given to `add` for it.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = self.first_parts[section]
        return np.asarray(np.concatenate([[0], self.component_of_part[first : first + count]])[labels])

    def is_large(self, numbers: np.ndarray, limit: SizeLimit) -> np.ndarray:
        """Whether each number is that of a component that is large enough."""
        first, last = self.first_and_last
        large = self.voxels >= limit.of(first, last, len(self.first_parts))
        return np.asarray((numbers > 0) & large[numbers])


def remove_small_components(values: np.ndarray, threshold: int, limit: SizeLimit) -> np.ndarray:
    """Set components that are too small to 0 in an array of shape (sections, rows, columns).

    A component is made of values from `threshold` on that touch along faces, edges or corners.
    """
    labels, _ = ndimage.label(values >= threshold, np.ones((3, 3, 3), bool))
    boxes = ndimage.find_objects(labels)
    first = np.array([0, *(box[0].start for box in boxes)])
    last = np.array([0, *(box[0].stop - 1 for box in boxes)])
    small = np.bincount(labels.ravel()) < limit.of(first, last, len(values))
    small[0] = False
    return np.where(small[labels], values.dtype.type(0), values)
