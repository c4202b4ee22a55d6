"""Opening a file, a folder or an array as a `Volume`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mitoda.errors import FileError, InputError
from mitoda.volumes.address import HDF5_SUFFIXES, split_key
from mitoda.volumes.axes import array_axes, lay_out, reorder
from mitoda.volumes.chunked import ChunkedVolume
from mitoda.volumes.files import SUFFIXES, check_claim, is_zarr
from mitoda.volumes.folder import FolderVolume, ImageVolume
from mitoda.volumes.hdf5 import open_hdf5
from mitoda.volumes.mrc import MRC_SUFFIXES, open_mrc
from mitoda.volumes.nifti import NIFTI_SUFFIXES, open_nifti
from mitoda.volumes.nrrd import NRRD_SUFFIXES, open_nrrd
from mitoda.volumes.omezarr import open_zarr
from mitoda.volumes.tiff import TiffVolume
from mitoda.volumes.volume import ArrayVolume, Volume
from mitoda.volumes.voxel_size import check_voxel_size
from mitoda.volumes.wrappers import GreyVolume, LabelVolume

Source = str | Path | np.ndarray

MOST_VALUES = 20
"""Different values in a section that may border on each other and be labels: classes."""
LEAST_AT_BACKGROUND = 1 / 3
"""Share of the pixel borders between values in labels that have 0 on one side. It is 0 in images, 0.11 to 0.16 in
probability maps of Lucchi and of drawn tissue, and 1 where mitochondria do not touch."""
WINDOW = 512
"""Rows and columns in the middle of a section that are looked at."""


def open_volume(
    source: Source,
    *,
    voxel_size: Sequence[float] | None = None,
    axes: str | None = None,
    invert: bool = False,
    scale: int | None = None,
    pixel: tuple[float, float] | None = None,
) -> Volume:
    """Open a stack of grey values; each section is read when needed.

    Parameters
    ----------
    source : path or ndarray
        A TIFF, HDF5, MRC, NIfTI or NRRD file, a Zarr folder, a folder with one PNG, JPEG or TIFF file per section, a
        single PNG or JPEG, or an array, of any boolean, integer or floating type; see `GreyVolume` for the type of
        the volume. `stack.h5:/volumes/raw` names a dataset of an HDF5 file. 1-bit files are read as 0 and 255, boolean
        arrays as 0 and 1. Colour files are accepted if all their channels are equal.
    voxel_size : (float, float, float), optional
        Nanometres, (section, row, column). By default that of the file's metadata if they state all three lengths,
        else None. Plain resolution tags of TIFF are not used.
    axes : str, optional
        Stored axes, outermost first ("ZYX", "YXZ", "XYZ", …), instead of those the file states. Axes of length 1
        may be left out.
    invert : bool
        Invert the contrast: 255 − v, 65535 − v or −v. A TIFF with the photometric "white is zero" is already
        inverted, so that dark is small in every file.
    scale : int, optional
        Resolution level of an OME-Zarr image; 0 is the finest.
    pixel : (float, float), optional
        Wanted pixel (row, column) in nanometres: without `scale`, the level of an OME-Zarr image nearest to it is
        read, else level 0. The remark of the volume says which.

    Returns
    -------
    Volume

    Raises
    ------
    FileError
        If a file is missing, damaged or of an unsupported format.
    InputError
        If the type, the axes or the voxel size are not supported.
    """
    volume, white_is_zero = _open_stored(source, axes, scale=scale, pixel=pixel)
    if voxel_size is not None:
        volume.voxel_size = check_voxel_size(voxel_size)
    grey = GreyVolume(volume, invert != white_is_zero)
    return grey if grey.invert or grey.dtype.kind == "f" or grey.dtype != volume.dtype else volume


def open_labels(
    source: Source,
    *,
    voxel_size: Sequence[float] | None = None,
    axes: str | None = None,
    invert: bool = False,
) -> Volume:
    """Open a mask: all non-zero values are foreground and are read as 1.

    Values are used as stored: the photometric "white is zero" is ignored, because masks written by Fiji and others
    carry it without meaning it.

    Parameters
    ----------
    source, voxel_size, axes
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
        As `open_volume`; also if the file is JPEG-compressed, which makes background pixels non-zero, or an image.
    """
    volume, _ = _open_stored(source, axes, lossless=True)
    refuse_image(volume)
    if voxel_size is not None:
        volume.voxel_size = check_voxel_size(voxel_size)
    return LabelVolume(volume, invert)


def refuse_image(volume: Volume) -> None:
    """Refuse an image or a probability map in place of labels.

    Its middle has many values, which border on each other more than on 0.

    Raises
    ------
    InputError

    Examples
    --------
    >>> refuse_image(ArrayVolume(np.arange(1, 101).reshape(1, 10, 10)))
    Traceback (most recent call last):
    mitoda.errors.InputError: array looks like an image or a probability map, not labels: section 0 has 100 values, ...
    """
    middle = volume.shape[0] // 2
    starts = [max(0, (side - WINDOW) // 2) for side in volume.shape[1:]]
    rows, columns = (slice(start, start + WINDOW) for start in starts)
    section = volume.read(middle, rows, columns)
    values = len(np.unique(section))
    if values <= MOST_VALUES:
        return
    left, right = section[:, :-1], section[:, 1:]
    edges = np.count_nonzero(left != right)
    if np.count_nonzero((left == 0) != (right == 0)) < LEAST_AT_BACKGROUND * edges:
        raise InputError(
            f"{volume.name} looks like an image or a probability map, not labels: section {middle} has {values} "
            "values, which border on each other more than on 0; give a mask or instance numbers"
        )


def open_values(source: Source, *, axes: str | None = None, gaps: bool = False) -> Volume:
    """Open a volume of class or instance numbers; values are read as stored.

    Parameters
    ----------
    source, axes
        As for `open_volume`.
    gaps : bool
        Accept a folder in which numbers are missing.

    Raises
    ------
    FileError, InputError
        As `open_labels`.
    """
    return _open_stored(source, axes, lossless=True, gaps=gaps)[0]


def as_volume(source: Volume | Source, opener: Callable[[Source], Volume] = open_values) -> Volume:
    """Open a path or an array; a volume stays as it is."""
    return opener(source) if isinstance(source, str | Path | np.ndarray) else source


def _open_stored(
    source: Source,
    axes: str | None,
    *,
    lossless: bool = False,
    gaps: bool = False,
    scale: int | None = None,
    pixel: tuple[float, float] | None = None,
) -> tuple[Volume, bool]:
    """Return the volume in the order (section, row, column), and whether white is zero."""
    if isinstance(source, np.ndarray):
        volume, white_is_zero = _from_array(source, axes), False
    else:
        stored = _open_path(source, axes, gaps, scale, pixel)
        if lossless and stored.lossy:
            raise InputError(
                f"{stored.name} is JPEG-compressed, which leaves grey values around a mask; "
                "apply a threshold and save it as PNG or TIFF"
            )
        if not lossless:
            section = stored.shape[1] * stored.shape[2] * stored.dtype.itemsize
            check_claim(stored.name, section * stored.shape[0], section, stored.file_size)
        letters = stored.letters
        if axes is not None and not isinstance(stored, TiffVolume | ChunkedVolume):
            _, letters = lay_out(stored.name, stored.shape, letters, axes)
        volume, white_is_zero = reorder(stored, letters), stored.white_is_zero
    if volume.dtype.kind not in "buif":
        raise InputError(f"{volume.name} holds {volume.dtype} values; expected integers, booleans or floats")
    return volume, white_is_zero


def _open_path(
    source: str | Path, axes: str | None, gaps: bool, scale: int | None, pixel: tuple[float, float] | None
) -> TiffVolume | ImageVolume | FolderVolume | ChunkedVolume:
    path, key = split_key(source)
    name = path.name.lower()
    if path.is_dir() and (is_zarr(path) or name.endswith(".zarr")):
        return open_zarr(path, axes, scale, pixel)
    if scale is not None:
        raise InputError(
            f"{path} is not an OME-Zarr image, so it has no resolution levels; leave --scale out"
        )
    if path.is_dir():
        return FolderVolume(path, gaps=gaps)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is not None:
        return TiffVolume(path, axes) if kind == "TIFF" else ImageVolume(path)
    if not path.exists():
        raise FileError(_not_there(path))
    if name.endswith(HDF5_SUFFIXES):
        return open_hdf5(path, key, axes)
    for suffixes, open_format in (
        (MRC_SUFFIXES, open_mrc),
        (NIFTI_SUFFIXES, open_nifti),
        (NRRD_SUFFIXES, open_nrrd),
    ):
        if name.endswith(suffixes):
            return open_format(path, axes)
    extension = f"the extension {path.suffix!r}" if path.suffix else "no extension"
    raise FileError(
        f"{path} has {extension}; mitoda reads TIFF, PNG and JPEG files and folders of them, HDF5, Zarr, MRC, NIfTI "
        "and NRRD, so convert it (in Fiji: File > Save As > Tiff)"
    )


def _not_there(path: Path) -> str:
    above = next((one for one in path.parents if is_zarr(one)), None)
    if above is None:
        return f"{path} does not exist; check the path"
    found = sorted(one.name for one in above.iterdir() if is_zarr(one))
    return f"{path} does not exist; {above} holds {', '.join(found[:12]) or 'no groups or arrays'}"


def _from_array(array: np.ndarray, axes: str | None) -> Volume:
    if array.ndim < 2 or array.size == 0:
        raise InputError(f"array has shape {array.shape}; a volume has at least one row and one column")
    shape, letters = lay_out("array", array.shape, array_axes(array.shape), axes)
    order = [letters.index(letter) for letter in "ZYX"]
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return ArrayVolume(native.reshape(shape).transpose(order))
