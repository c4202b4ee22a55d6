"""The `Volume` protocol: sections of equal shape, read lazily, with a voxel size in nanometres."""

from typing import Protocol

import numpy as np

from mitoda.errors import InputError

VoxelSize = tuple[float, float, float]
"""Edge lengths of a voxel in nanometres: (section, row, column)."""

Lengths = tuple[float | None, float | None, float | None]
"""Edge lengths of a voxel as far as they are known."""

EVERYTHING = slice(None)


class Volume(Protocol):
    """A stack of sections, in axis order (section, row, column). Reading is safe from several threads."""

    name: str
    """Used in messages: usually the path."""
    shape: tuple[int, int, int]
    dtype: np.dtype
    """uint8, uint16 or float32."""
    voxel_size: VoxelSize | None
    """Nanometres, or None if unknown."""

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section, shape (rows, columns), in the volume's dtype.

        Raises
        ------
        IndexError
            If `section` is negative or past the end.
        """
        ...


class ArrayVolume:
    """A volume held in memory.

    Parameters
    ----------
    array : ndarray, shape (sections, rows, columns)
        A 2-D array is one section.
    voxel_size : (float, float, float), optional
        Nanometres.
    name : str
        Used in messages.
    stated : (float or None, float or None, float or None), optional
        What is known where the voxel size is not; see `stated_lengths`.
    """

    def __init__(
        self,
        array: np.ndarray,
        voxel_size: VoxelSize | None = None,
        name: str = "array",
        stated: Lengths = (None, None, None),
    ) -> None:
        self.stated = stated
        self.array = array[None] if array.ndim == 2 else array
        self.shape = self.array.shape
        self.dtype = self.array.dtype
        self.voxel_size = voxel_size
        self.name = name

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section as a view; see `Volume.read`."""
        check_section(self, section)
        return self.array[section, rows, columns]


def stated_lengths(volume: Volume) -> Lengths:
    """Return the edge lengths that a person or the file states, also where they are not all three."""
    if volume.voxel_size is not None:
        return volume.voxel_size
    stated: Lengths = getattr(volume, "stated", (None, None, None))
    return stated


def origin_of(volume: Volume) -> VoxelSize:
    """Return the position of the first voxel in nanometres, (section, row, column), as an OME-Zarr states it."""
    origin: VoxelSize = getattr(volume, "origin", (0.0, 0.0, 0.0))
    return origin


def remark_of(volume: Volume) -> str:
    """Return what a person should know of how the file is read, such as the resolution level; usually empty."""
    return str(getattr(volume, "remark", ""))


def span(wanted: slice, length: int) -> tuple[int, int, slice]:
    """Split a slice into the run that covers it, [first, last), and what is left to do within the run.

    Examples
    --------
    >>> span(slice(2, 30, 3), 40)
    (2, 30, slice(None, None, 3))
    """
    first, last, step = wanted.indices(length)
    if step < 0:
        return 0, length, wanted
    return first, max(first, last), slice(None, None, step)


def check_section(volume: Volume, section: int) -> None:
    """Raise IndexError unless the volume has this section."""
    if not 0 <= section < volume.shape[0]:
        raise IndexError(f"{volume.name} has sections 0 to {volume.shape[0] - 1}, but not section {section}")


def check_same_shape(stack: Volume, other: Volume) -> None:
    """Raise InputError unless another volume has the shape of a stack."""
    if other.shape != stack.shape:
        raise InputError(
            f"{stack.name} has shape {stack.shape}, {other.name} {other.shape}; expected equal shapes "
            "(sections, rows, columns)"
        )
