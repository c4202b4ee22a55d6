"""Volumes that convert, transpose or cache the sections of another volume."""

import math
import threading
from collections import OrderedDict

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import (
    EVERYTHING,
    Volume,
    VoxelSize,
    check_section,
    origin_of,
    remark_of,
    stated_lengths,
)

BOX = (512, 2048, 2048)
"""Sections, rows and columns that stand for a volume too large to be learnt whole: 2 GB, fifteen times Lucchi."""
LARGE_SECTION, LARGE_VOLUME = 2**26, 2**36
"""Pixels of a section, and voxels, above which a volume is too large. Whole sections are read and searched for padding;
those of 8192 × 8192 pixels take about 1 GB."""


class WrappedVolume:
    """A volume with the name, shape and voxel size of another one."""

    def __init__(self, volume: Volume, dtype: np.dtype | None = None) -> None:
        self.volume = volume
        self.name = volume.name
        self.shape = volume.shape
        self.dtype = volume.dtype if dtype is None else dtype
        self.voxel_size = volume.voxel_size
        self.stated = stated_lengths(volume)
        self.origin = origin_of(volume)
        self.remark = remark_of(volume)


class BoxVolume(WrappedVolume):
    """A box of a volume: some sections, rows and columns, counted from 0.

    Parameters
    ----------
    volume : Volume
    box : (slice, slice, slice)
        Sections, rows and columns, each without a step.
    voxel_size : (float, float, float), optional
        Nanometres, instead of the volume's.
    """

    def __init__(
        self, volume: Volume, box: tuple[slice, slice, slice], voxel_size: VoxelSize | None = None
    ) -> None:
        super().__init__(volume)
        self.box = tuple(range(length)[side] for side, length in zip(box, volume.shape, strict=True))
        sections, rows, columns = (len(side) for side in self.box)
        self.shape = (sections, rows, columns)
        self.voxel_size = voxel_size or volume.voxel_size

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`."""
        check_section(self, section)
        inner = [side[wanted] for side, wanted in zip(self.box[1:], (rows, columns), strict=True)]
        if any(one.step < 0 for one in inner):
            return self.read(section)[rows, columns]
        top, left = (slice(one.start, one.stop, one.step) for one in inner)
        return self.volume.read(self.box[0][section], top, left)


def sample_box(volume: Volume, seed: int = 0) -> Volume:
    """Return the part of a volume used for training: all of it, or a box of at most `BOX` where it is too large.

    A box of a large volume is read in bounded memory, and from few chunks. Of twenty random places the first is taken
    whose middle has more than one grey value in most of its rows.

    Raises
    ------
    InputError
        If the volume, or the middle of all places, is constant.
    """
    if math.prod(volume.shape[1:]) <= LARGE_SECTION and math.prod(volume.shape) <= LARGE_VOLUME:
        middle = volume.shape[0] // 2
        for section in sorted(range(volume.shape[0]), key=lambda one: abs(one - middle)):
            if np.ptp(volume.read(section)) > 0:
                return volume
        raise InputError(
            f"all sections of {volume.name} are constant; check the file, and give a stack of tissue"
        )
    sides = [min(length, side) for length, side in zip(volume.shape, BOX, strict=True)]
    generator = np.random.default_rng(seed)
    for _ in range(20):
        corner = [
            int(generator.integers(0, length - side + 1))
            for length, side in zip(volume.shape, sides, strict=True)
        ]
        sections, rows, columns = (
            slice(start, start + side) for start, side in zip(corner, sides, strict=True)
        )
        box = BoxVolume(volume, (sections, rows, columns))
        if np.mean(np.ptp(box.read(sides[0] // 2), axis=1) > 0) > 0.5:
            return box
    raise InputError(
        f"{volume.name} is constant in the middle of twenty boxes of {BOX} voxels; cut out a part with tissue"
    )


def grey_type(dtype: np.dtype) -> np.dtype:
    """Return the type in which grey values are read: uint8, uint16 or float32.

    Examples
    --------
    >>> [str(grey_type(np.dtype(name))) for name in ("bool", "int16", "uint32", "float64")]
    ['uint8', 'uint16', 'float32', 'float32']
    """
    return np.dtype(f"u{dtype.itemsize}" if dtype.kind in "bui" and dtype.itemsize <= 2 else np.float32)


class GreyVolume(WrappedVolume):
    """Grey values as uint8, uint16 or float32, finite and optionally inverted.

    int8 and int16 are shifted to start at 0 (−32768 becomes 0); larger integers and other floats become float32.

    Parameters
    ----------
    volume : Volume
        Of any boolean, integer or floating type.
    invert : bool
        Return 255 − v, 65535 − v or −v.
    """

    def __init__(self, volume: Volume, invert: bool = False) -> None:
        super().__init__(volume, grey_type(volume.dtype))
        self.invert = invert

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`.

        Raises
        ------
        InputError
            If that part holds NaN or infinite values.
        """
        values = self.volume.read(section, rows, columns)
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):  # of float64: infinite, so refused
                values = values.astype(self.dtype, copy=False)
            _check_finite(values, section, self.name)
            return -values if self.invert else values
        if values.dtype.kind == "i":
            values = values.view(self.dtype) ^ self.dtype.type(1 << (8 * self.dtype.itemsize - 1))
        values = values.astype(self.dtype, copy=False)
        return np.iinfo(self.dtype).max - values if self.invert else values


class LabelVolume(WrappedVolume):
    """A mask of 0 and 1: all non-zero values are foreground, or all zeros if `invert` is true.

    Parameters
    ----------
    volume : Volume
        Of any boolean, integer or floating type.
    invert : bool
    """

    def __init__(self, volume: Volume, invert: bool = False) -> None:
        super().__init__(volume, np.dtype(np.uint8))
        self.invert = invert

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `GreyVolume.read`."""
        values = self.volume.read(section, rows, columns)
        if values.dtype.kind == "f":
            _check_finite(values, section, self.name)
        foreground: np.ndarray = values == 0 if self.invert else values != 0
        return foreground.view(np.uint8)


def _check_finite(values: np.ndarray, section: int, name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(
            f"section {section} of {name} holds {values.size - int(finite.sum())} values that are NaN or infinite; "
            "replace them (in Fiji: Process > Math > NaN Background, or numpy.nan_to_num)"
        )


class TransposedVolume(WrappedVolume):
    """A volume whose stored sections have shape (columns, rows)."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        sections, columns, rows = volume.shape
        self.shape = (sections, rows, columns)
        if volume.voxel_size is not None:
            depth, width, height = volume.voxel_size
            self.voxel_size = (depth, height, width)
        self.stated = (self.stated[0], self.stated[2], self.stated[1])

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`."""
        return self.volume.read(section, columns, rows).T


class CachedVolume(WrappedVolume):
    """A volume that keeps the most recently used sections in memory.

    A section larger than the limit is never kept, and only the requested region is read. If two threads need the
    same section at once, both read it.

    Parameters
    ----------
    volume : Volume
    limit_bytes : int
        Maximum size of the sections kept.

    Raises
    ------
    InputError
        If the limit is negative.
    """

    def __init__(self, volume: Volume, limit_bytes: int = 1 << 30) -> None:
        if limit_bytes < 0:
            raise InputError(f"the cache limit is {limit_bytes} bytes; give 0 (keep nothing) or more")
        super().__init__(volume)
        self.limit_bytes = limit_bytes
        self.section_bytes = volume.shape[1] * volume.shape[2] * volume.dtype.itemsize
        self._sections: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return a copy of part of one section; see `Volume.read`."""
        if self.section_bytes > self.limit_bytes:
            return self.volume.read(section, rows, columns)
        with self._lock:
            kept = self._sections.get(section)
            if kept is not None:
                self._sections.move_to_end(section)
        if kept is None:
            kept = self.volume.read(section)
            with self._lock:
                self._sections[section] = kept
                while len(self._sections) * self.section_bytes > self.limit_bytes:
                    self._sections.popitem(last=False)
        return kept[rows, columns].copy()
