"""Published files read section by section, whatever they are: loose images, stacks, zips of images, NIfTI."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np

from mitoda.datasets.nifti import read_nifti_sections
from mitoda.datasets.schema import Sections
from mitoda.errors import FileError, MitodaError


def read_sections(where: Sections, files: Mapping[str, Path]) -> Iterator[np.ndarray]:
    """Yield the sections of a volume, in order, holding one in memory.

    Parameters
    ----------
    where : Sections
        Where they lie.
    files : mapping of str to Path
        The local file of each path that `where` names.

    Yields
    ------
    ndarray, shape (rows, columns) or (rows, columns, channels)
        As stored; 1-bit images as 0 and 255.

    Raises
    ------
    FileError
        If a file cannot be read, or a zip does not hold the sections.
    """
    paths = [files[path] for path in where.files]
    first = paths[0]
    sections: Iterator[np.ndarray]
    if len(paths) > 1:
        sections = (decode_section(path.name, path.read_bytes()) for path in paths)
    elif first.suffix == ".zip":
        sections = _read_zip(first, where)
    elif first.name.endswith((".nii", ".nii.gz")):
        sections = read_nifti_sections(first)
    else:
        sections = _read_stack(first)

    import tifffile

    broken = (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
        zipfile.BadZipFile,
        tifffile.TiffFileError,
    )
    found = 0
    try:
        for section in sections:
            yield section
            found += 1
    except MitodaError:
        raise
    except broken as error:
        path = paths[min(found, len(paths) - 1)]
        raise FileError(f"section {found} cannot be read from {path}: {error}") from error


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that counts: 2.png comes before 10.png.

    >>> sorted(["10.png", "2.png", "0.png"], key=natural_key)
    ['0.png', '2.png', '10.png']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def decode_section(name: str, data: bytes) -> np.ndarray:
    """Decode one TIFF or PNG image; a 1-bit image becomes 0 and 255, as an 8-bit one would be."""
    if name.lower().endswith((".tif", ".tiff")):
        import tifffile

        # TiffFile holds itself in a cycle; closing the buffer frees the bytes before the collector comes by.
        with io.BytesIO(data) as buffer, tifffile.TiffFile(buffer) as tiff:
            image = tiff.asarray()
    else:
        import imageio.v3 as imageio

        image = imageio.imread(io.BytesIO(data), extension=PurePosixPath(name).suffix)
    return image.astype(np.uint8) * np.uint8(255) if image.dtype == bool else image


def _read_stack(path: Path) -> Iterator[np.ndarray]:
    """Yield the sections of a multi-page TIFF, as stored: labels that say white is zero do not mean it."""
    from mitoda.volumes.tiff import TiffVolume

    stack = TiffVolume(path)
    for section in range(stack.shape[0]):
        yield stack.read(section)


def _read_zip(path: Path, where: Sections) -> Iterator[np.ndarray]:
    """Yield the sections of a zip straight from it; nothing is unpacked."""
    with zipfile.ZipFile(path) as archive:
        for member in select_members(archive.namelist(), where, path.name):
            yield decode_section(member, archive.read(member))


def select_members(names: Sequence[str], where: Sections, archive: str) -> list[str]:
    """Return the members of a zip that are the sections, in natural order.

    `__MACOSX`, hidden files and folders are passed over.

    Raises
    ------
    FileError
        If none is there, or a wanted section number is missing or there twice.
    """
    members = []
    for name in names:
        path = PurePosixPath(name)
        hidden = "__MACOSX" in path.parts or path.name.startswith(".")
        in_folder = where.folder is None or path.parent.name == where.folder
        if not name.endswith("/") and not hidden and in_folder and fnmatchcase(path.name, where.pattern):
            members.append(name)
    members.sort(key=natural_key)
    wanted = where.pattern if where.folder is None else f"{where.folder}/{where.pattern}"
    if not members:
        raise FileError(f"{archive} holds no {wanted}; it is another archive than the published one")
    if where.numbers is None:
        return members
    by_number: dict[int, str] = {}
    for member in members:
        number = int(re.findall(r"\d+", PurePosixPath(member).stem)[-1])
        if number in by_number and number in where.numbers:
            raise FileError(f"{archive} holds section {number} twice: {by_number[number]} and {member}")
        by_number[number] = member
    absent = [number for number in where.numbers if number not in by_number]
    if absent:
        raise FileError(
            f"{archive} lacks {len(absent)} of the {len(where.numbers)} sections {wanted}; "
            f"the first one missing is number {absent[0]}"
        )
    return [by_number[number] for number in where.numbers]
