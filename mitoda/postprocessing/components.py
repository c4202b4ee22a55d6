"""Connected components, and the removal of small ones: of a stack that streams by, and of one in memory."""

from functools import cached_property

import numpy as np
from scipy import ndimage

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Within a section pixels touch along edges and corners; between sections where they overlap."""


class StreamedComponents:
    """Components of a mask given section by section, joined through sections.

    Give every section to `add`, then ask for the components of each with `number`. Memory grows with the number of
    parts (components within a section), not with the number of voxels.
    """

    def __init__(self) -> None:
        self._parents: list[int] = [0]
        self._sizes: list[int] = [0]
        self._first_parts: list[int] = []
        self._previous: np.ndarray | None = None

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Add the next section, non-zero is foreground; return the number of each pixel's part, 0 of background.

        Parts are numbered from 1 through all sections.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = len(self._parents)
        self._first_parts.append(first)
        self._parents.extend(range(first, first + count))
        self._sizes.extend(np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist())
        parts = np.where(labels > 0, labels + (first - 1), 0)
        if self._previous is not None:
            both = (parts > 0) & (self._previous > 0)
            # One number for each pair: numbers of this section begin at `first`.
            touching = np.unique(self._previous[both] * (count + 1) + parts[both] - (first - 1))
            for above, below in zip(*np.divmod(touching, count + 1), strict=True):
                self._join(int(above), int(below) + first - 1)
        self._previous = parts
        return parts

    def _root(self, part: int) -> int:
        while self._parents[part] != part:
            self._parents[part] = self._parents[self._parents[part]]
            part = self._parents[part]
        return part

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self._parents[other] = one
            self._sizes[one] += self._sizes[other]

    @cached_property
    def component_of_part(self) -> np.ndarray:
        """The number of the component of each part; 0 of background. Ask once all sections were added."""
        return np.array([self._root(part) for part in range(len(self._parents))])

    @cached_property
    def _voxels(self) -> np.ndarray:
        """Voxels of each component, by its number; entries of other numbers have no meaning."""
        return np.array(self._sizes)

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
        first = self._first_parts[section]
        return np.asarray(np.concatenate([[0], self.component_of_part[first : first + count]])[labels])

    def is_large(self, numbers: np.ndarray, min_voxels: float) -> np.ndarray:
        """Whether each number is that of a component of `min_voxels` or more."""
        return np.asarray((numbers > 0) & (self._voxels[numbers] >= min_voxels))


def remove_small_components(values: np.ndarray, threshold: int, min_voxels: int) -> np.ndarray:
    """Set components of fewer than `min_voxels` voxels to 0 in an array of shape (sections, rows, columns).

    A component is made of values from `threshold` on that touch along faces, edges or corners.
    """
    labels, _ = ndimage.label(values >= threshold, np.ones((3, 3, 3), bool))
    small = np.bincount(labels.ravel()) < min_voxels
    small[0] = False
    return np.where(small[labels], values.dtype.type(0), values)
