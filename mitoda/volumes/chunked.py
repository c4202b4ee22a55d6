"""Arrays of any axis order that are read region by region: HDF5, Zarr, MRC, NIfTI and NRRD."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mitoda.errors import FileError, InputError
from mitoda.volumes.axes import lay_out
from mitoda.volumes.files import check_claim, naming_damage
from mitoda.volumes.volume import EVERYTHING, VoxelSize, check_section, span
from mitoda.volumes.voxel_size import complete, plausible

SLAB_LIMIT = 1 << 30
"""Most bytes of decoded chunks that a volume keeps."""
SECTIONS_KEPT = 64
"""Sections around the current one whose chunks are kept: a pair's other section, those read ahead, those finished."""
WHOLE_SLAB = 1 << 28
"""Bytes of the chunks of whole sections up to which they are decoded, and kept, for a part of a section too."""

Selection = tuple[slice | int, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array of a file, and how to read a part of it."""

    name: str
    """Used in messages."""
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    letters: str
    """One for each axis, see `mitoda.volumes.axes`."""
    load: Callable[[Selection], np.ndarray]
    """Reads a selection: a slice or a number for each axis. Safe from several threads."""
    chunks: tuple[int, ...] | None = None
    """Voxels that are decoded together, for each axis; None where every voxel can be read alone."""
    lengths: Mapping[str, float | None] = field(default_factory=dict)
    """Edge length of a voxel along an axis, in nanometres."""
    origin: Mapping[str, float] = field(default_factory=dict)
    """Position of the first voxel, in nanometres."""
    remark: str = ""
    """Note for the user about how the file is read."""


class ChunkedVolume:
    """A stack in an array of any axis order.

    Where a chunk spans several sections, the chunks of a section are decoded together and kept, so that reading
    section after section decodes each chunk once. No file stays open between reads.

    Parameters
    ----------
    stored : StoredArray
    axes : str, optional
        Replaces the axes of the file; see `mitoda.volumes.axes.lay_out`.

    Raises
    ------
    FileError
        If a section takes more memory than there is.
    InputError
        If its values are no numbers, or the axes are not those of one stack.
    """

    letters = "ZYX"
    white_is_zero = False
    lossy = False

    def __init__(self, stored: StoredArray, axes: str | None = None) -> None:
        self.stored = stored
        self.name, self.path, self.remark = stored.name, stored.path, stored.remark
        if stored.dtype.kind not in "buif":
            raise InputError(
                f"{self.name} holds {stored.dtype} values; expected integers, booleans or floats"
            )
        if len(stored.shape) < 2 or 0 in stored.shape:
            raise InputError(
                f"{self.name} has shape {stored.shape}; a volume has at least one row and one column"
            )
        shape, self._order = lay_out(self.name, stored.shape, stored.letters, axes)
        lengths = dict(zip(self._order, shape, strict=True))
        self.shape = (lengths["Z"], lengths["Y"], lengths["X"])
        self.dtype = stored.dtype.newbyteorder("=")
        self._dimensions = _dimensions(stored.shape, shape, self._order)
        known = _along_axes(stored, axes)
        self.stated = plausible(*(known.get(letter) for letter in "ZYX"))
        self.voxel_size = complete(self.stated)
        first = [stored.origin.get(letter, 0.0) for letter in "ZYX"]
        self.origin: VoxelSize = (first[0], first[1], first[2])
        section = self.shape[1] * self.shape[2] * self.dtype.itemsize
        self.file_size = self.shape[0] * section  # not compared: a chunk that is all zero is not stored
        check_claim(self.name, self.file_size, section, self.file_size)
        self._depth = self._slab_depth()
        self._slabs: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def _slab_depth(self) -> int:
        """Sections that are decoded together."""
        dimension = self._dimensions["Z"]
        if self.stored.chunks is None or dimension is None:
            return 1
        return min(self.stored.chunks[dimension], self.shape[0])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_slabs": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __copy__(self) -> "ChunkedVolume":
        copied = object.__new__(ChunkedVolume)
        copied.__setstate__(self.__getstate__())
        return copied

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section, writable; see `Volume.read`.

        Raises
        ------
        FileError
            If the section is damaged, with its number.
        """
        check_section(self, section)
        first, last, row_rest = span(rows, self.shape[1])
        left, right, column_rest = span(columns, self.shape[2])
        slab_bytes = self._depth * self.dtype.itemsize
        if self._depth > 1 and slab_bytes * self.shape[1] * self.shape[2] <= WHOLE_SLAB:
            return self._slab(section, 0, self.shape[1], 0, self.shape[2])[rows, columns].copy()
        if self._depth > 1 and slab_bytes * (last - first) * (right - left) <= SLAB_LIMIT:
            return self._slab(section, first, last, left, right)[row_rest, column_rest].copy()
        region = self._load(section, slice(section, section + 1), slice(first, last), slice(left, right))
        return np.array(region[0, row_rest, column_rest], self.dtype)

    def _slab(self, section: int, first: int, last: int, left: int, right: int) -> np.ndarray:
        """A part of a section, from the chunks that hold it, which are kept."""
        number = section // self._depth
        key = (number, first, last, left, right)
        with self._lock:
            kept = self._slabs.get(key)
            if kept is None:
                start = number * self._depth
                sections = slice(start, min(start + self._depth, self.shape[0]))
                loaded = self._load(section, sections, slice(first, last), slice(left, right))
                kept = self._slabs[key] = np.ascontiguousarray(loaded, self.dtype)
                self._drop_slabs()
            self._slabs.move_to_end(key)
            part: np.ndarray = kept[section % self._depth]
            return part

    def _drop_slabs(self) -> None:
        """Forget the slabs that were used the longest time ago."""
        regions = len(
            {key[1:] for key in self._slabs}
        )  # windows of large sections, each with slabs of its own
        most = regions * (1 + math.ceil(SECTIONS_KEPT / self._depth))
        while len(self._slabs) > 1 and (
            len(self._slabs) > most or sum(one.nbytes for one in self._slabs.values()) > SLAB_LIMIT
        ):
            self._slabs.popitem(last=False)

    def _load(self, section: int, sections: slice, rows: slice, columns: slice) -> np.ndarray:
        """Read a region with axes (section, row, column)."""
        wanted = {"Z": sections, "Y": rows, "X": columns}
        shape = [wanted[letter].stop - wanted[letter].start for letter in self._order]
        selection: list[slice | int] = [0] * len(self.stored.shape)
        for letter, dimension in self._dimensions.items():
            if dimension is not None:
                selection[dimension] = wanted[letter]
        if 0 in shape:
            return np.empty([wanted[letter].stop - wanted[letter].start for letter in "ZYX"], self.dtype)
        with naming_damage(f"section {section} of {self.name}"):
            values = np.asarray(self.stored.load(tuple(selection)))
        return values.reshape(shape).transpose([self._order.index(letter) for letter in "ZYX"])


def _dimensions(stored: Sequence[int], shape: tuple[int, int, int], order: str) -> dict[str, int | None]:
    """Find the stored dimension of each axis; None for one of length 1, wherever it is."""
    long = iter(index for index, length in enumerate(stored) if length > 1)
    return {letter: next(long) if length > 1 else None for letter, length in zip(order, shape, strict=True)}


def _along_axes(stored: StoredArray, axes: str | None) -> Mapping[str, float | None]:
    """Edge lengths by the letters in use: those of the file, or `axes` where a person renamed them."""
    if axes is None or len(axes) != len(stored.letters):
        return stored.lengths
    return {new: stored.lengths.get(old) for new, old in zip(axes.upper(), stored.letters, strict=True)}


def label_axes(lengths: Sequence[float | None] | None, letters: str) -> dict[str, float | None]:
    """Return edge lengths by axis: one for each axis, or for each axis of space.

    Examples
    --------
    >>> label_axes([40, 4, 4], "CZYX"), label_axes([1, 40, 4, 4], "CZYX"), label_axes([4], "ZYX")
    ({'Z': 40, 'Y': 4, 'X': 4}, {'C': 1, 'Z': 40, 'Y': 4, 'X': 4}, {})
    """
    for named in (letters, "".join(letter for letter in letters if letter not in "CTS")):
        if lengths is not None and len(lengths) == len(named):
            return dict(zip(named, lengths, strict=True))
    return {}


def as_letters(names: Sequence[object], fallback: str) -> str:
    """Return axis names as letters, or the fallback where they are not all x, y, z, c, t and different.

    Examples
    --------
    >>> as_letters(["z", "y", "x"], "QQQ"), as_letters(["depth", "y", "x"], "QYX")
    ('ZYX', 'QYX')
    """
    letters = "".join(str(name).upper() for name in names)
    fits = len(letters) == len(names) == len(fallback) and set(letters) <= set("ZYXCT")
    return letters if fits and len(set(letters)) == len(letters) else fallback


def choices(name: str, found: Sequence[tuple[str, Sequence[int], object]], example: str) -> FileError:
    """Return an error that lists the arrays of a file, of which one must be named."""
    listed = ", ".join(f"{key} {tuple(shape)} {dtype}" for key, shape, dtype in found[:12])
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    if not found:
        return FileError(f"{name} holds no array of two or more axes; export the stack again")
    return FileError(f"{name} holds several arrays: {listed}{more}; name one, for example {example}")
