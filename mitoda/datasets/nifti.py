"""NIfTI-1 volumes, read section by section: only what the published data sets need."""

import gzip
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mitoda.errors import FileError

_HEADER_SIZE = 348
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""NIfTI-1 data types that hold one number, from nifti1.h."""


def read_nifti_sections(path: Path) -> Iterator[np.ndarray]:
    """Yield the sections of a NIfTI-1 file, `.nii` or `.nii.gz`, holding one in memory.

    The first axis of NIfTI, x, runs fastest, so the bytes are already in the order (section, row, column) =
    (z, y, x).

    The voxel size of the header is not read: those published with the data sets here are meaningless.

    Yields
    ------
    ndarray, shape (rows, columns)
        uint8 where every value of the section is a whole number from 0 to 255, since NIfTI writers widen
        types
        freely; else the type of the file, or float64 where the header scales the values.

    Raises
    ------
    FileError
        If the file is not NIfTI-1, has another number type or more than three axes, or ends too early.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        header = file.read(_HEADER_SIZE)
        shape, dtype, offset, slope, intercept = _parse_header(header, path)
        file.read(offset - _HEADER_SIZE)
        sections, rows, columns = shape
        for section in range(sections):
            data = file.read(rows * columns * dtype.itemsize)
            if len(data) < rows * columns * dtype.itemsize:
                raise FileError(f"{path} ends within section {section} of {sections}; fetch it again")
            values = np.frombuffer(data, dtype).reshape(rows, columns)
            if math.isfinite(slope) and slope != 0 and (slope, intercept) != (1, 0):
                values = values * slope + intercept
            yield _narrow(values)


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return the values as uint8 where that changes none of them."""
    with np.errstate(invalid="ignore"):
        narrow = values.astype(np.uint8)
    return narrow if np.array_equal(narrow, values) else values


def _parse_header(header: bytes, path: Path) -> tuple[tuple[int, int, int], np.dtype, int, float, float]:
    """Return (sections, rows, columns), number type, offset of the data, slope and intercept."""
    if len(header) < _HEADER_SIZE or header[344:347] != b"n+1":
        raise FileError(f"{path} is not a single-file NIfTI-1 volume (expected 'n+1' at byte 344)")
    order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_SIZE else ">"
    axes, columns, rows, sections, *more = struct.unpack(order + "8h", header[40:56])
    if axes < 3 or any(length > 1 for length in more[: axes - 3]):
        raise FileError(f"{path} has {axes} axes; a volume of three was expected")
    (code,) = struct.unpack(order + "h", header[70:72])
    if code not in _DTYPES:
        raise FileError(f"{path} has the NIfTI number type {code}; expected one of {sorted(_DTYPES)}")
    offset, slope, intercept = struct.unpack(order + "3f", header[108:120])
    return (sections, rows, columns), np.dtype(order + _DTYPES[code]), int(offset), slope, intercept
