"""MRC files (.mrc, .rec, .st, .map, .ali), as the MRC2014 standard and IMOD write them; memory-mapped.

    mode   0 bytes: signed by the standard, unsigned in many older files; decided as IMOD does
           1 int16 · 2 float32 · 6 uint16 · 12 float16

The standard: doi:10.1016/j.jsb.2015.04.002. The decision on bytes: `readBytesSigned` in IMOD's libcfshr/b3dutil.c.
"""

from functools import partial
from pathlib import Path

import numpy as np

from mitoda.errors import FileError
from mitoda.volumes.chunked import ChunkedVolume, Selection, StoredArray
from mitoda.volumes.files import check_regular

MRC_SUFFIXES = (".mrc", ".rec", ".st", ".map", ".ali", ".mrcs")

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
COMPLEX_MODES = {3: "complex integers", 4: "complex numbers", 101: "4-bit values"}
IMOD_STAMP = 1146047817
SIGNED_BYTES = 1
"""Bit of IMOD's flags."""
NARROWED = "mitoda type "
"""Beginning of the label in which we note the type of what MRC has no type for, and which is read in that type."""

HEADER = [
    ("shape", "3i4"),  # columns, rows, sections
    ("mode", "i4"),
    ("start", "3i4"),
    ("intervals", "3i4"),
    ("cell", "3f4"),  # Å, x, y, z
    ("angles", "3f4"),
    ("axes", "3i4"),  # 1 x, 2 y, 3 z of columns, rows, sections
    ("low", "f4"),
    ("high", "f4"),
    ("mean", "f4"),
    ("space_group", "i4"),
    ("extended", "i4"),
    ("extra", "V8"),
    ("extended_type", "S4"),
    ("version", "i4"),
    ("more", "V40"),
    ("imod_stamp", "i4"),
    ("imod_flags", "i4"),
    ("tilts", "V36"),
    ("origin", "3f4"),
    ("map", "S4"),
    ("machine", "V4"),
    ("rms", "f4"),
    ("label_count", "i4"),
    ("labels", "10S80"),
]


def open_mrc(path: Path, axes: str | None = None) -> ChunkedVolume:
    """Open an MRC file.

    Parameters
    ----------
    path : Path
    axes : str, optional
        As for `open_volume`; by default those of the header.

    Raises
    ------
    FileError
        If the file is missing, truncated, no MRC, or of complex or 4-bit values.
    """
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    size = path.stat().st_size
    header = _header(start)
    if header is None:
        raise FileError(
            f"{path} is not an MRC file: it has no valid header of {HEADER_BYTES} bytes; export it again"
        )
    mode = int(header["mode"])
    if mode not in MODES:
        raise FileError(
            f"{path} has mode {mode} ({COMPLEX_MODES.get(mode, 'unknown')}); mitoda reads the modes "
            f"{', '.join(map(str, MODES))}, so convert it (newstack -mode 1 {path.name} new.mrc)"
        )
    dtype = np.dtype(f"{header.dtype['mode'].str[0]}{MODES[mode]}")
    remark = ""
    if mode == 0:
        signed, why = _bytes_are_signed(header)
        dtype = np.dtype(np.int8 if signed else np.uint8)
        remark = f"{path}: bytes are read as {'signed' if signed else 'unsigned'} ({why})"
    columns, rows, sections = (int(length) for length in header["shape"])
    offset = HEADER_BYTES + int(header["extended"])
    end = offset + columns * rows * sections * dtype.itemsize
    if end > size:
        raise FileError(
            f"{path} is truncated: its {sections} sections end at byte {end:,}, but the file ends at {size:,}; copy or "
            "download it again"
        )
    letters = _letters(header)
    return ChunkedVolume(
        StoredArray(
            name=str(path),
            path=path,
            shape=(sections, rows, columns),
            dtype=_noted_type(header) or dtype,
            letters=letters,
            load=partial(load_mapped, path, dtype, offset, (sections, rows, columns)),
            lengths=_lengths(header),
            remark=remark,
        ),
        axes,
    )


def load_mapped(
    path: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...], selection: Selection
) -> np.ndarray:
    """Read a part of an array that lies in a file as it is, in C order."""
    return np.array(np.memmap(path, dtype, "r", offset, shape)[selection])


def _header(start: bytes) -> np.ndarray | None:
    """Read the header in the byte order in which it makes sense; None where neither does."""
    if len(start) < HEADER_BYTES:
        return None
    for order in (np.dtype(HEADER), np.dtype(HEADER).newbyteorder("S")):
        header = np.frombuffer(start, order)[0]
        known_mode = 0 <= header["mode"] <= 101
        if known_mode and all(0 < length < 1 << 20 for length in header["shape"]) and header["extended"] >= 0:
            found: np.ndarray = header
            return found
    return None


def _letters(header: np.ndarray) -> str:
    """Axes of sections, rows and columns; zeros, as old files have them, mean the usual order."""
    order = [int(axis) for axis in header["axes"]][::-1]
    return "".join(" XYZ"[axis] for axis in order) if sorted(order) == [1, 2, 3] else "ZYX"


def _lengths(header: np.ndarray) -> dict[str, float | None]:
    """Edge lengths: the cell, in ångström, by its intervals; a cell of a voxel of 1 Å is what nobody set."""
    lengths: dict[str, float | None] = {}
    for axis, cell, intervals in zip("XYZ", header["cell"], header["intervals"], strict=True):
        length = float(cell) / int(intervals) if intervals > 0 else 0.0
        lengths[axis] = shortest(0.1 * length) if 0 < length < float("inf") else None
    return {} if all(length == shortest(0.1) for length in lengths.values()) else lengths


def shortest(value: float) -> float:
    """Return the shortest decimal number of a 32-bit float: 0.05 instead of 0.05000000074505806."""
    return float(str(np.float32(value)))


def _bytes_are_signed(header: np.ndarray) -> tuple[bool, str]:
    """Whether bytes are signed, and why: IMOD's flag, or else the smallest and largest value in the header."""
    if header["imod_stamp"] == IMOD_STAMP:
        return bool(header["imod_flags"] & SIGNED_BYTES), "the header of IMOD says so"
    low, high = float(header["low"]), float(header["high"])
    signed = low < 0 and (high < 128 or -low > high - 128)
    return signed, f"the header states values from {low:g} to {high:g}"


def _noted_type(header: np.ndarray) -> np.dtype | None:
    """The type in which we write what MRC has no type for."""
    for label in header["labels"]:
        text = bytes(label).decode("ascii", "replace")
        if text.startswith(NARROWED) and text.removeprefix(NARROWED).strip() in ("uint8", "uint32"):
            return np.dtype(text.removeprefix(NARROWED).strip())
    return None
