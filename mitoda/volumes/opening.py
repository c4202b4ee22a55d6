"""One way in: whatever holds a stack becomes a `Volume`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mitoda.errors import FileError, InputError
from mitoda.volumes.axes import array_axes, lay_out, reorder
from mitoda.volumes.folder import FolderVolume
from mitoda.volumes.images import ImageVolume
from mitoda.volumes.signatures import SUFFIXES
from mitoda.volumes.tiff import TiffVolume
from mitoda.volumes.views import GreyVolume, LabelVolume
from mitoda.volumes.volume import ArrayVolume, Volume
from mitoda.volumes.voxel_size import check_voxel_size

GREY_TYPES = (np.uint8, np.uint16, np.float32)

Source = str | Path | np.ndarray


def open_volume(
    source: Source,
    *,
    voxel_size: Sequence[float] | None = None,
    axes: str | None = None,
    invert: bool = False,
) -> Volume:
    """Open a stack of grey values; sections are read when asked for.

    Parameters
    ----------
    source : path or ndarray
        A TIFF file, a folder with one PNG, JPEG or TIFF file per section, a single PNG or JPEG, or an array.
        uint8, uint16 or float32; 1-bit files read as 0 and 255, boolean arrays as 0 and 1.
    voxel_size : (float, float, float), optional
        Nanometres, (section, row, column). Overrules what the file says. Without either it is None: ImageJ
        and OME metadata are believed when they give all three lengths, plain resolution tags never.
    axes : str, optional
        Overrules the axes of the file: "ZYX", "YXZ", "XYZ", … as stored, outermost first. Axes of length 1
        may be left out.
    invert : bool
        Invert the contrast: 255 − v, 65535 − v or −v. A TIFF that says white is zero is inverted already, so
        that dark is small whichever way it is stored.

    Returns
    -------
    Volume

    Raises
    ------
    FileError
        If something is missing, damaged or of another kind.
    InputError
        If the type, the axes or the voxel size are not what is needed.
    """
    volume, white_is_zero = _open_stored(source, axes)
    if volume.dtype == bool:
        volume = LabelVolume(volume)
    if volume.dtype not in GREY_TYPES:
        raise InputError(
            f"{volume.name} holds {volume.dtype} values; mitoda reads uint8, uint16 and float32, so convert "
            "it (in Fiji: Image > Type > 16-bit)"
        )
    _set_voxel_size(volume, voxel_size)
    inverted = invert != white_is_zero
    return GreyVolume(volume, inverted) if inverted or volume.dtype == np.float32 else volume


def open_labels(
    source: Source,
    *,
    voxel_size: Sequence[float] | None = None,
    axes: str | None = None,
    invert: bool = False,
) -> Volume:
    """Open a mask: anything non-zero is foreground, and reads as 1.

    Takes what `open_volume` takes, and arrays and files of any integer, boolean or floating type, such as
    instance numbers. Values count as stored: a TIFF's remark that white is zero is ignored, because masks
    written by Fiji and others carry it without meaning it.

    Parameters
    ----------
    source : path or ndarray
    voxel_size, axes
        As for `open_volume`.
    invert : bool
        Zero is foreground.

    Returns
    -------
    Volume
        uint8, 0 and 1.

    Raises
    ------
    FileError, InputError
        As `open_volume`; also if it is JPEG-compressed, which smears masks: pixels beside the foreground are
        no longer zero.
    """
    volume, _ = _open_stored(source, axes, labels=True)
    if volume.dtype.kind not in "buif":
        raise InputError(
            f"{volume.name} holds {volume.dtype} values; a mask is of an integer, boolean or float type"
        )
    _set_voxel_size(volume, voxel_size)
    return LabelVolume(volume, invert)


def _open_stored(source: Source, axes: str | None, labels: bool = False) -> tuple[Volume, bool]:
    """Return the volume in the order (section, row, column), and whether it says that white is zero."""
    if isinstance(source, np.ndarray):
        return _from_array(source, axes), False
    stored = _open_path(Path(source), axes)
    if labels and stored.lossy:
        raise InputError(
            f"{stored.name} is JPEG-compressed, which leaves grey values around a mask; "
            "cut it at a threshold and save it as PNG or TIFF"
        )
    letters = stored.letters
    if axes is not None and not isinstance(stored, TiffVolume):
        _, letters = lay_out(stored.name, stored.shape, letters, axes)
    return reorder(stored, letters), stored.white_is_zero


def _open_path(path: Path, axes: str | None) -> TiffVolume | ImageVolume | FolderVolume:
    if path.is_dir():
        return FolderVolume(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind == "TIFF":
        return TiffVolume(path, axes)
    if kind is not None:
        return ImageVolume(path)
    if not path.exists():
        raise FileError(f"{path} does not exist; check the path")
    raise FileError(
        f"{path} has the extension {path.suffix or 'of no format'!r}; mitoda reads TIFF, PNG and JPEG "
        "files and folders of "
        "them, so convert it (in Fiji: File > Save As > Tiff)"
    )


def _from_array(array: np.ndarray, axes: str | None) -> Volume:
    if array.ndim < 2 or array.size == 0:
        raise InputError(f"array has shape {array.shape}; a volume has at least one row and one column")
    shape, letters = lay_out("array", array.shape, array_axes(array.shape), axes)
    order = [letters.index(letter) for letter in "ZYX"]
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return ArrayVolume(native.reshape(shape).transpose(order))


def _set_voxel_size(volume: Volume, voxel_size: Sequence[float] | None) -> None:
    if voxel_size is not None:
        volume.voxel_size = check_voxel_size(voxel_size)
