"""Connected components of a mask that streams by section by section: small ones are dropped in bounded memory.

Two passes: the first labels each section, joins labels that touch between neighbouring sections and counts voxels; the
second labels each section again (the same way) and keeps what belongs to a large enough component.
"""

import numpy as np
from scipy import ndimage

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Within a section pixels touch along edges and corners; between sections where they overlap."""


class StreamedComponents:
    """Sizes of the components of a mask given section by section.

    Memory grows with the number of components, not with the number of voxels.
    """

    def __init__(self) -> None:
        self._parents: list[int] = [0]
        self._sizes: list[int] = [0]
        self._first_labels: list[int] = []
        self._previous: np.ndarray | None = None

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Take in the next section, non-zero is foreground; return the number of each pixel's part, 0 of background.

        Parts are what hangs together within a section, numbered from 1 through all sections.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = len(self._parents)
        self._first_labels.append(first)
        self._parents.extend(range(first, first + count))
        self._sizes.extend(np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist())
        labels = np.where(labels > 0, labels + (first - 1), 0)
        if self._previous is not None:
            both = (labels > 0) & (self._previous > 0)
            # One number for each pair: numbers of this section begin at `first`.
            touching = np.unique(self._previous[both] * (count + 1) + labels[both] - (first - 1))
            for above, below in zip(*np.divmod(touching, count + 1), strict=True):
                self._join(int(above), int(below) + first - 1)
        self._previous = labels
        return labels

    def roots(self) -> np.ndarray:
        """The number of the component of each part, by the part's number; that of 0 is 0."""
        return np.array([self._root(label) for label in range(len(self._parents))])

    def sizes(self) -> np.ndarray:
        """Voxels of each component, by its number; other entries mean nothing."""
        return np.array(self._sizes)

    def numbered(self, section: int, mask: np.ndarray) -> np.ndarray:
        """Return the number of the component of each pixel of a section, 0 of background; see `without_small`."""
        labels, roots = self._labelled_again(section, mask)
        return np.array(roots)[labels]

    def _labelled_again(self, section: int, mask: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Label a section as `add` did; with the number of the component of each label, 0 of background."""
        labels, count = ndimage.label(mask, NEIGHBOURS)
        first = self._first_labels[section]
        return labels, [0, *(self._root(first + k) for k in range(count))]

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self._parents[other] = one
            self._sizes[one] += self._sizes[other]

    def without_small(self, section: int, mask: np.ndarray, minimum: int) -> np.ndarray:
        """Return a section's mask without components of fewer than `minimum` voxels.

        Parameters
        ----------
        section : int
            Its number in the order of `add`.
        mask : ndarray
            What was given to `add` for it.
        """
        labels, roots = self._labelled_again(section, mask)
        large = np.array([root > 0 and self._sizes[root] >= minimum for root in roots])
        return np.where(large[labels], mask, np.zeros_like(mask))
