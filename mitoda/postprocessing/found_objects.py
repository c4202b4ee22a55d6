"""The objects of a mask or label volume: how large each is and where, without holding the volume."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.evaluation.scoring import decide_kind
from mitoda.postprocessing.components import StreamedComponents
from mitoda.volumes import Volume
from mitoda.volumes.volume import EVERYTHING
from mitoda.volumes.wrappers import WrappedVolume


class FoundObjects(WrappedVolume):
    """A volume of object numbers, with the size and the bounding box of each object.

    In a mask, objects are connected components (see `StreamedComponents`); in a volume with several values besides 0,
    each value is an object. Opening reads every section once or twice; memory grows with the number of objects.

    Parameters
    ----------
    mask : Volume
        As `open_values` opens it.

    Attributes
    ----------
    numbers : ndarray of int64, shape (objects,)
        What `read` returns inside each object.
    voxels : ndarray of int64, shape (objects,)
    starts, stops : ndarray of int64, shape (objects, 3)
        First section, row and column of each object, and the first beyond it.

    Raises
    ------
    InputError
        If the mask is empty or holds probabilities.
    """

    def __init__(self, mask: Volume) -> None:
        super().__init__(mask, np.dtype(np.int64))
        kind, several_values = decide_kind(mask, range(mask.shape[0]))
        if kind == "probability":
            raise InputError(f"{mask.name} holds probabilities; give a mask or a volume of instance numbers")
        self._components = None if several_values else StreamedComponents()
        table = np.concatenate([np.zeros((0, 8), np.int64), *self._parts()])
        if not len(table):
            raise InputError(f"{mask.name} is empty, so there is no object to look at")
        if self._components is not None:
            table[:, 0] = self._components.component_of_part[table[:, 0]]
        table = table[table[:, 0].argsort(kind="stable")]
        self.numbers, first = np.unique(table[:, 0], return_index=True)
        self.voxels = np.add.reduceat(table[:, 1], first)
        self.starts = np.minimum.reduceat(table[:, 2:5], first)
        self.stops = np.maximum.reduceat(table[:, 5:8], first)

    def _parts(self) -> Iterator[np.ndarray]:
        """The parts of each section: number, pixels, first section, row and column, and the first beyond."""
        for section in range(self.shape[0]):
            values = self.volume.read(section)
            numbers = values if self._components is None else self._components.add(values)
            inside = numbers > 0
            present, places, pixels = np.unique(numbers[inside], return_inverse=True, return_counts=True)
            compact = np.zeros(numbers.shape, np.int32)
            compact[inside] = places + 1
            rows = [
                (int(number), count, section, top.start, left.start, section + 1, top.stop, left.stop)
                for number, count, (top, left) in zip(
                    present.tolist(), pixels.tolist(), ndimage.find_objects(compact), strict=True
                )
            ]
            yield np.array(rows, np.int64).reshape(-1, 8)

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return the object number of each pixel of part of a section, int64, 0 of background."""
        if self._components is None:
            return self.volume.read(section, rows, columns).astype(np.int64)
        return self._components.number(section, self.volume.read(section))[rows, columns]
