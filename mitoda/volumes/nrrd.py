"""NRRD files (.nrrd, and .nhdr with its values in another file), whose headers pynrrd reads. Axes are x, y, z.

Raw values are read region by region; compressed ones cannot be, and are decoded once into memory.
"""

import bz2
import gzip
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from mitoda.errors import FileError
from mitoda.volumes.chunked import ChunkedVolume, Selection, StoredArray
from mitoda.volumes.files import check_regular, check_signature, naming_damage
from mitoda.volumes.mrc import load_mapped
from mitoda.volumes.nifti import check_room, read_exactly
from mitoda.volumes.voxel_size import unit_in_nanometres

NRRD_SUFFIXES = (".nrrd", ".nhdr")
TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"
    ),
    "float": "f4",
    "double": "f8",
}
COMPRESSED: dict[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}


def open_nrrd(path: Path, axes: str | None = None) -> ChunkedVolume:
    """Open an NRRD file.

    The voxel size is that of `space directions` with `space units`, or of `spacings` with `units`; unknown without
    a unit.

    Parameters
    ----------
    path : Path
    axes : str, optional
        As for `open_volume`.

    Raises
    ------
    FileError
        If a file is missing, damaged, truncated, of an unknown encoding or, compressed, larger than the memory.
    """
    check_signature(path, "NRRD")
    with naming_damage(str(path)):
        return ChunkedVolume(_describe(path), axes)


def _describe(path: Path) -> StoredArray:
    import nrrd

    with path.open("rb") as file:
        try:
            header: Any = nrrd.read_header(file)
        except nrrd.NRRDError as error:
            raise FileError(f"{path} has no valid NRRD header: {error}; export it again") from error
        values, offset = path, file.tell()
    detached = header.get("data file", header.get("datafile"))
    if detached is not None:
        values, offset = _beside(path, str(detached)), 0
    dtype = _dtype(header, path)
    shape = tuple(int(length) for length in header["sizes"])[::-1]  # the first axis is the fastest
    encoding = str(header["encoding"]).lower()
    claimed = math.prod(shape) * dtype.itemsize
    line_skip, byte_skip = _skips(header, path, encoding)
    if encoding == "raw":
        size = values.stat().st_size
        offset = size - claimed if byte_skip == -1 else offset + byte_skip
        if offset < 0 or offset + claimed > size:
            raise FileError(
                f"{path} is truncated: {values.name} has {size:,} bytes, but they end at {offset + claimed:,}; copy "
                "or download it again"
            )
        load = partial(load_mapped, values, dtype, offset, shape)
    elif encoding in COMPRESSED:
        check_room(values, claimed)
        with values.open("rb") as file:
            file.seek(offset)
            for _ in range(line_skip):
                file.readline()
            stream: IO[bytes] = COMPRESSED[encoding](file)
            stream.read(max(byte_skip, 0))
            array = np.frombuffer(read_exactly(stream, claimed, values), dtype).reshape(shape)
        load = partial(_load_decoded, array)
    else:
        raise FileError(
            f"{path} has the encoding '{encoding}'; mitoda reads raw and gzip, so save it as one of them"
        )
    letters = _letters(header, len(shape))
    return StoredArray(str(path), path, shape, dtype, letters, load, lengths=_lengths(header, letters))


def _load_decoded(array: np.ndarray, selection: Selection) -> np.ndarray:
    part: np.ndarray = array[selection]
    return part


def _beside(path: Path, name: str) -> Path:
    """Path of the values of a detached header; only files in its folder are read."""
    parts = PurePosixPath(name).parts
    if name.upper().startswith("LIST") or "%" in name:
        raise FileError(f"{path} keeps its values in several files ({name}); save it as one .nrrd file")
    if PurePosixPath(name).is_absolute() or ".." in parts:
        raise FileError(
            f"{path} keeps its values in {name}, outside its folder; move the file there, and correct 'data file'"
        )
    check_regular(path.parent / name)
    return path.parent / name


def _dtype(header: Mapping[str, Any], path: Path) -> np.dtype:
    name = TYPES.get(str(header.get("type")).lower())
    order = {"big": ">", "little": "<"}.get(str(header.get("endian", "")).lower())
    if name is None or (order is None and not name.endswith("1")):
        raise FileError(
            f"{path} has values of type '{header.get('type')}' in the byte order '{header.get('endian')}', which "
            "mitoda does not read; export it as integers or floats"
        )
    return np.dtype(f"{order or ''}{name}")


def _skips(header: Mapping[str, Any], path: Path, encoding: str) -> tuple[int, int]:
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    count = int(header.get("byte skip", header.get("byteskip", 0)))
    if lines < 0 or count < -1 or (encoding == "raw" and lines):
        raise FileError(
            f"{path} skips {lines} lines and {count} bytes before its values; save it without a skip"
        )
    return lines, count


def _letters(header: Mapping[str, Any], count: int) -> str:
    """Letters from the slowest axis to the fastest: axes of colours, vectors and lists are no axes of space."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ())][::-1]
    in_space = [kind in ("domain", "space", "???", "none") for kind in kinds]
    if len(kinds) != count or sum(in_space) > 3:
        return ("Q" * (count - 3) + "ZYX")[-count:]
    space = iter("ZYX"[3 - sum(in_space) :])
    return "".join(
        next(space) if own else "T" if kind == "time" else "S" if "color" in kind else "C"
        for own, kind in zip(in_space, kinds, strict=True)
    )


def _lengths(header: Mapping[str, Any], letters: str) -> dict[str, float | None]:
    directions = header.get("space directions")
    if directions is not None:
        units = list(header.get("space units", ()))
        lengths = [
            None if row is None else float(np.linalg.norm(np.asarray(row, np.float64))) for row in directions
        ]
        scales = (
            [unit_in_nanometres(str(units[0]))] * len(lengths)
            if len(set(units)) == 1
            else [None] * len(lengths)
        )
    elif "spacings" in header:
        lengths = [float(one) for one in header["spacings"]]
        scales = [unit_in_nanometres(str(unit)) for unit in header.get("units", [""] * len(lengths))]
    else:
        return {}
    return {
        letter: None if length is None or scale is None or not math.isfinite(length) else length * scale
        for letter, length, scale in zip(letters, lengths[::-1], scales[::-1], strict=True)
    }
