"""NIfTI files (.nii, .nii.gz), read with nibabel. Their axes are x, y, z, x fastest.

A .nii file is read region by region; a .nii.gz file cannot be, and is decoded once into memory.
"""

import gzip
import math
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from mitoda.errors import FileError
from mitoda.volumes.chunked import ChunkedVolume, Selection, StoredArray
from mitoda.volumes.files import available_memory, check_claim, check_regular, naming_damage
from mitoda.volumes.mrc import shortest

NIFTI_SUFFIXES = (".nii", ".nii.gz")

UNITS = {1: 1e9, 2: 1e6, 3: 1e3}
"""Nanometres of NIfTI's codes for metre, millimetre and micrometre."""


def open_nifti(path: Path, axes: str | None = None) -> ChunkedVolume:
    """Open a NIfTI file.

    The voxel size is that of the header where it states a unit. Values are scaled by slope and intercept.

    Parameters
    ----------
    path : Path
    axes : str, optional
        As for `open_volume`.

    Raises
    ------
    FileError
        If the file is missing, damaged, truncated or, compressed, larger than the memory.
    """
    check_regular(path)
    compressed = path.name.lower().endswith(".gz")
    with naming_damage(str(path)), path.open("rb") as file:
        stream: Any = gzip.GzipFile(fileobj=file) if compressed else file
        header = read_header(stream, path)
        stored = _describe(header, path, None if compressed else path.stat().st_size)
        if compressed:
            stored = _decoded(stored, header, stream)
        return ChunkedVolume(stored, axes)


def read_header(stream: IO[bytes] | gzip.GzipFile, path: Path) -> Any:
    """Return the header of a NIfTI stream, which then stands where the values begin.

    Raises
    ------
    FileError
        If there is no valid header.
    """
    import nibabel

    header_type: Any = nibabel.Nifti1Header
    start = stream.read(4)
    stream.seek(0)
    if start in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"):  # 540, the size of the header of NIfTI-2
        header_type = nibabel.Nifti2Header
    try:
        header = header_type.from_fileobj(stream)
    except (nibabel.spatialimages.HeaderDataError, nibabel.wrapstruct.WrapStructError) as error:
        raise FileError(f"{path} has no valid NIfTI header: {error}") from error
    stream.seek(header.get_data_offset())
    return header


def _describe(header: Any, path: Path, size: int | None) -> StoredArray:
    """Describe the array; stored from the slowest axis to the fastest, so (…, z, y, x)."""
    shape = tuple(int(length) for length in header.get_data_shape())[::-1]
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    end = offset + math.prod(shape) * dtype.itemsize
    if size is not None and end > size:
        raise FileError(
            f"{path} is truncated: its values end at byte {end:,}, but the file ends at {size:,}; copy or download it "
            "again"
        )
    slope, intercept = header.get_slope_inter()
    scaled = slope is not None and (slope, intercept) != (1, 0)
    letters = "QQTZYX"[-len(shape) :] if len(shape) <= 6 else "Q" * len(shape)
    scale = UNITS.get(int(header["xyzt_units"]) & 7)
    zooms = [shortest(zoom) for zoom in header.get_zooms()[:3]]
    return StoredArray(
        name=str(path),
        path=path,
        shape=shape,
        dtype=np.dtype(np.float32) if scaled else dtype,
        letters=letters,
        load=partial(_load_mapped, path, dtype, offset, shape, (slope, intercept) if scaled else None),
        lengths={}
        if scale is None
        else {axis: scale * zoom for axis, zoom in zip("XYZ", zooms, strict=False)},
    )


def _load_mapped(
    path: Path,
    dtype: np.dtype,
    offset: int,
    shape: tuple[int, ...],
    scaling: tuple[float, float] | None,
    selection: Selection,
) -> np.ndarray:
    return _scale(np.array(np.memmap(path, dtype, "r", offset, shape)[selection]), scaling)


def _scale(values: np.ndarray, scaling: tuple[float, float] | None) -> np.ndarray:
    if scaling is None:
        return values
    return (values * scaling[0] + scaling[1]).astype(np.float32)


def _decoded(stored: StoredArray, header: Any, stream: IO[bytes]) -> StoredArray:
    """Read all values of a compressed stream into memory."""
    dtype = header.get_data_dtype()
    claimed = math.prod(stored.shape) * dtype.itemsize
    check_room(stored.path, claimed)
    values = np.frombuffer(read_exactly(stream, claimed, stored.path), dtype).reshape(stored.shape)
    slope, intercept = header.get_slope_inter()
    scaling = (slope, intercept) if stored.dtype != dtype and slope is not None else None

    def load(selection: Selection) -> np.ndarray:
        return _scale(values[selection], scaling)

    return StoredArray(
        stored.name, stored.path, stored.shape, stored.dtype, stored.letters, load, lengths=stored.lengths
    )


def check_room(path: Path, claimed: int) -> None:
    """Refuse a compressed file that must be decoded whole, where the memory does not hold it.

    Raises
    ------
    FileError
    """
    check_claim(str(path), claimed, claimed, path.stat().st_size)
    if claimed > available_memory() / 2:
        raise FileError(
            f"{path} is compressed as a whole and takes {claimed / 2**30:.1f} GiB of memory; save it uncompressed, "
            "or as TIFF, HDF5 or Zarr"
        )


def read_exactly(stream: IO[bytes], count: int, path: Path) -> bytes:
    """Read `count` bytes; FileError if there are fewer."""
    content = stream.read(count)
    if len(content) < count:
        raise FileError(
            f"{path} is truncated: it holds {len(content):,} of {count:,} bytes of values; copy or download it again"
        )
    return content
