"""Which axis of a stored array is the section, the row and the column.

One letter names an axis: Z section, Y row, X column, C channel, T time, S colour sample, Q and I unknown.

tifffile with imagej=True calls sections channels. So a single axis of channels or time points beside rows and columns
is read as sections if it is longer than `MOST_CHANNELS`; a shorter one is refused unless `axes` names it.
"""

from collections.abc import Sequence

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import ArrayVolume, Volume, stated_lengths
from mitoda.volumes.wrappers import TransposedVolume

MOST_CHANNELS = 4

REORDERING_LIMIT = 4 << 30
"""Bytes. A stack whose sections run across all stored pages is read whole; a larger one is refused."""


def lay_out(
    name: str, shape: Sequence[int], stored_axes: str, axes: str | None = None
) -> tuple[tuple[int, int, int], str]:
    """Find the three axes of a stored array.

    Parameters
    ----------
    name : str
        Name of the array in messages.
    shape : sequence of int
        Shape as stored, outermost axis first.
    stored_axes : str
        One letter per axis, from the file or `array_axes`.
    axes : str, optional
        Letters to use instead; axes of length 1 may be left out.

    Returns
    -------
    shape : (int, int, int)
        Shape as stored, without other axes of length 1; a single section gets a first axis of length 1.
    letters : str
        Z, Y and X in the order of that shape.

    Raises
    ------
    InputError
        If there are channels, colours, time points or more than three axes, or `axes` does not fit.
    """
    named = (
        list(zip(stored_axes, shape, strict=True)) if axes is None else _named(name, shape, stored_axes, axes)
    )
    kept = [(letter, length) for letter, length in named if letter in "ZYX" or length > 1]
    if len(kept) > 3:
        kept = [(letter, length) for letter, length in kept if letter in "YX" or length > 1]
    letters = "".join(letter for letter, _ in kept)
    if len(letters) == 3 and letters[1:] == "YX":
        if letters[0] in "QI" or (letters[0] in "CT" and kept[0][1] > MOST_CHANNELS):
            letters = "ZYX"
    elif len(letters) == 2:
        letters, kept = "Z" + letters, [("Z", 1), *kept]
    if sorted(letters) != ["X", "Y", "Z"]:
        raise InputError(_refusal(name, shape, stored_axes, letters))
    first, second, third = (length for _, length in kept)
    return (first, second, third), letters


def _named(name: str, shape: Sequence[int], stored_axes: str, axes: str) -> list[tuple[str, int]]:
    letters = axes.upper()
    if len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters) or not letters.isalpha():
        raise InputError(f"axes {axes!r} must name each axis once, Y and X among them, e.g. ZYX or YXZ")
    if len(letters) == len(shape):
        return list(zip(letters, shape, strict=True))
    long = [length for length in shape if length > 1]
    spatial = "".join(letter for letter in letters if letter in "ZYX")
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
            f"(in Fiji: Image > Type > 8-bit){as_sections}"
        )
    if "C" in letters:
        return f"{found}: several channels; save one (in Fiji: Image > Color > Split Channels){as_sections}"
    if "T" in letters:
        return f"{found}: several time points; save one (in Fiji: Image > Duplicate){as_sections}"
    return f"{found}; mitoda reads stacks (section, row, column); save one stack, or give --axes ZYX"


def array_axes(shape: Sequence[int]) -> str:
    """Return the probable axes of an array: sections, rows, columns, or rows, columns, colours.

    The last axis is read as colours if its length is 3 or 4 and the two before it are longer than 16.

    Examples
    --------
    >>> array_axes((20, 64, 64)), array_axes((64, 64)), array_axes((64, 64, 3))
    ('ZYX', 'YX', 'YXS')
    """
    colour = len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 16
    letters = "YXS" if colour and len(shape) == 3 else "ZYXS" if colour else "ZYX"
    return ("Q" * len(shape) + letters)[-len(shape) :]


def reorder(volume: Volume, letters: str) -> Volume:
    """Return a volume with axes (section, row, column), whatever order it is stored in.

    If a section runs across all stored pages (YXZ, XYZ, …), the stack is read into memory at once.

    Parameters
    ----------
    volume : Volume
        Its shape and voxel size in stored order.
    letters : str
        The stored axes, a permutation of ZYX.

    Raises
    ------
    InputError
        If it must be read into memory and is larger than `REORDERING_LIMIT`.
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
    order = z, y, x = letters.index("Z"), letters.index("Y"), letters.index("X")
    array = np.stack([volume.read(index) for index in range(volume.shape[0])]).transpose(order)
    stored, lengths = volume.voxel_size, stated_lengths(volume)
    stated = (lengths[z], lengths[y], lengths[x])
    return ArrayVolume(array, stored and (stored[z], stored[y], stored[x]), volume.name, stated)
