"""Axes: which axis of a stored array is the section, the row and the column.

A letter names an axis: Z section, Y row, X column; C channel, T time, S colour sample; Q and I are unknown.

An only other axis called channel or time is taken for sections if it is longer than 4: tifffile with
imagej=True calls sections channels, and electron microscopes have few channels and no films of tissue.
Up to 4 it is refused until `axes` says what it is.
"""

from collections.abc import Sequence

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import EVERYTHING, ArrayVolume, Volume

MOST_CHANNELS = 4

REORDERING_LIMIT = 4 << 30
"""Bytes. A stack whose sections run across all stored pages is read whole; above this it is refused."""


def lay_out(
    name: str, shape: Sequence[int], stored_axes: str, axes: str | None = None
) -> tuple[tuple[int, int, int], str]:
    """Find the three axes of a stored array.

    Parameters
    ----------
    name : str
        What messages call the array.
    shape : sequence of int
        Shape as stored, outermost axis first.
    stored_axes : str
        One letter per axis, as the file or the kind of array says.
    axes : str, optional
        The same from a person, who is right; axes of length 1 may be named or left out.

    Returns
    -------
    shape : (int, int, int)
        Shape as stored, without other axes of length 1; a single section gets a first axis of length 1.
    letters : str
        Z, Y and X in the order of that shape.

    Raises
    ------
    InputError
        If there are channels, colours, time points or more axes than three, or `axes` does not fit.
    """
    named = (
        list(zip(stored_axes, shape, strict=True)) if axes is None else _named(name, shape, stored_axes, axes)
    )
    kept = [(letter, length) for letter, length in named if letter in "ZYX" or length > 1]
    if len(kept) > 3:
        kept = [(letter, length) for letter, length in kept if letter in "YX" or length > 1]
    letters = "".join(letter for letter, _ in kept)
    if len(letters) == 3 and letters[1:] == "YX" and _are_sections(letters[0], kept[0][1]):
        letters = "ZYX"
    if len(letters) == 2:
        letters, kept = "Z" + letters, [("Z", 1), *kept]
    if sorted(letters) != ["X", "Y", "Z"]:
        raise InputError(_refusal(name, shape, stored_axes, letters))
    first, second, third = (length for _, length in kept)
    return (first, second, third), letters


def _are_sections(letter: str, length: int) -> bool:
    """Tell whether an axis that is not called Z holds sections all the same."""
    return letter in "QI" or (letter in "CT" and length > MOST_CHANNELS)


def _named(name: str, shape: Sequence[int], stored_axes: str, axes: str) -> list[tuple[str, int]]:
    letters = axes.upper()
    spatial = "".join(letter for letter in letters if letter in "ZYX")
    if len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters) or not letters.isalpha():
        raise InputError(f"axes {axes!r} must name each axis once, Y and X among them, e.g. ZYX or YXZ")
    if len(letters) == len(shape):
        return list(zip(letters, shape, strict=True))
    long = [length for length in shape if length > 1]
    for fitting in (letters, spatial, spatial.replace("Z", "")):
        if len(fitting) == len(long):
            return list(zip(fitting, long, strict=True))
    raise InputError(
        f"axes {axes!r} do not fit {name}, which has shape {tuple(shape)} with axes {stored_axes}; "
        "give one letter for each axis"
    )


def _refusal(name: str, shape: Sequence[int], stored_axes: str, letters: str) -> str:
    found = f"{name} has shape {tuple(shape)} with axes {stored_axes}"
    as_sections = "; if these are sections, give --axes ZYX" if len(letters) == 3 else ""
    if "S" in letters:
        return (
            f"{found}: a colour image (RGB or RGBA); mitoda reads grey values, so convert it first "
            "(in Fiji: Image > Type > 8-bit)"
        )
    if "C" in letters:
        return f"{found}: several channels; save one (in Fiji: Image > Color > Split Channels){as_sections}"
    if "T" in letters:
        return f"{found}: several time points; save one (in Fiji: Image > Duplicate){as_sections}"
    return f"{found}; mitoda reads stacks (section, row, column), so save one such, or give --axes ZYX"


def array_axes(shape: Sequence[int]) -> str:
    """Return the letters of an array that came without: ... section, row, column, or row, column, colour.

    The last axis is taken for colours if it has length 3 or 4 and those before it are longer than 16.

    Examples
    --------
    >>> array_axes((20, 64, 64)), array_axes((64, 64)), array_axes((64, 64, 3))
    ('ZYX', 'YX', 'YXS')
    """
    if len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 16:
        return ("Q" * len(shape) + "ZYXS")[-len(shape) :] if len(shape) > 3 else "YXS"
    return ("Q" * len(shape) + "ZYX")[-len(shape) :]


class TransposedVolume:
    """A volume whose stored sections have columns first.

    Parameters
    ----------
    volume : Volume
        With axes (section, column, row).
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.name = volume.name
        self.dtype = volume.dtype
        sections, columns, rows = volume.shape
        self.shape = (sections, rows, columns)
        size = volume.voxel_size
        self.voxel_size = None if size is None else (size[0], size[2], size[1])

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`."""
        return self.volume.read(section, columns, rows).T


def reorder(volume: Volume, letters: str) -> Volume:
    """Return a volume with axes (section, row, column), whatever order it is stored in.

    Swapped rows and columns are swapped as they are read. Where a section runs across all stored pages (YXZ,
    XYZ and alike) the stack is read into memory at once.

    Parameters
    ----------
    volume : Volume
        Its shape and voxel size in stored order.
    letters : str
        A permutation of ZYX: what the stored axes are.

    Raises
    ------
    InputError
        If it would have to be read into memory and is larger than `REORDERING_LIMIT`.
    """
    if letters == "ZYX":
        return volume
    if letters == "ZXY":
        return TransposedVolume(volume)
    size = int(np.prod(volume.shape, dtype=np.int64)) * volume.dtype.itemsize
    if size > REORDERING_LIMIT:
        raise InputError(
            f"{volume.name} is stored as {letters}, and its {size / 2**30:.1f} GiB are too much to reorder "
            "in memory; save it in the order ZYX (in Fiji: Image > Stacks > Reslice)"
        )
    order = [letters.index(letter) for letter in "ZYX"]
    array = np.stack([volume.read(index) for index in range(volume.shape[0])]).transpose(order)
    stored = volume.voxel_size
    return ArrayVolume(
        array, None if stored is None else (stored[order[0]], stored[order[1]], stored[order[2]]), volume.name
    )
