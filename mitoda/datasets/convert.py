"""Published files converted to volume.tif, mask.tif and, where not everything is annotated, ignore.tif."""

import gzip
import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import tifffile

from mitoda.datasets.cache import IGNORE, MASK, VOLUME, Product
from mitoda.datasets.schema import Dataset, FetchEvent, LabelRule, Sections
from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes.files import DAMAGE
from mitoda.volumes.folder import natural_key
from mitoda.volumes.nifti import read_header
from mitoda.volumes.tiff import TiffVolume
from mitoda.volumes.writer import SectionWriter

BROKEN = (OSError, zlib.error, zipfile.BadZipFile, *DAMAGE)
"""What the readers raise for a damaged file."""

Conversion = Generator[FetchEvent, None, dict[str, Product]]
"""Yields progress; returns the files written, by name."""


def convert_volume(dataset: Dataset, split: str, files: Mapping[str, Path], folder: Path) -> Conversion:
    """Write `folder`/volume.tif, with one section in memory.

    Raises
    ------
    InputError
        If shape, type, number of sections or hash are not what the catalogue says.
    FileError
        If a source cannot be read.
    """
    entry, what = dataset.splits[split], f"the volume of {dataset.name}:{split}"
    shape = entry.shape or nifti_shape(entry.images, files)
    digest = hashlib.sha256()
    with SectionWriter(folder / VOLUME, shape, np.uint8, entry.voxel_size) as writer:
        for done, stored in enumerate(_of_shape(read_sections(entry.images, files), shape, what), start=1):
            section = _grey(stored, what)
            digest.update(section.tobytes())
            writer.write(section)
            yield FetchEvent("converting", dataset.name, "", f"{split}/{VOLUME}", done, shape[0])
        _check_hash(digest.hexdigest(), entry.volume_sha256, what)
    return {VOLUME: _product(folder / VOLUME, entry.images, digest.hexdigest())}


def convert_labels(dataset: Dataset, split: str, files: Mapping[str, Path], folder: Path) -> Conversion:
    """Write `folder`/mask.tif: 255 where the source says mitochondrion, else 0.

    Voxels that the source marks as not annotated are 0 in the mask and 255 in `folder`/ignore.tif: a reader of masks
    takes anything that is not 0 for a mitochondrion.

    Raises
    ------
    InputError
        If shape, values, number of sections or hash are not what the catalogue says, or no voxel is a mitochondrion.
    FileError
        If a source cannot be read.
    """
    entry, rule, what = dataset.splits[split], dataset.label_rule, f"the labels of {dataset.name}:{split}"
    if entry.labels is None:
        raise InputError(f"{dataset.name}:{split} has no labels")
    shape = entry.shape or nifti_shape(entry.images, files)
    digest, found, is_empty = hashlib.sha256(), set[float](), True
    with ExitStack() as stack:

        def writer(name: str) -> SectionWriter:
            return stack.enter_context(SectionWriter(folder / name, shape, np.uint8, entry.voxel_size))

        mask = writer(MASK)
        ignored = None if rule.ignore is None else writer(IGNORE)
        for done, stored in enumerate(_of_shape(read_sections(entry.labels, files), shape, what), start=1):
            section = _lowest_channel(stored)
            if rule.allowed is not None:
                found.update(np.unique(section).tolist())
            is_foreground = section > rule.above
            is_empty = is_empty and not is_foreground.any()
            digest.update(is_foreground.tobytes())
            mask.write(is_foreground * np.uint8(255))
            if ignored is not None:
                ignored.write((section == rule.ignore) * np.uint8(255))
            yield FetchEvent("converting", dataset.name, "", f"{split}/{MASK}", done, shape[0])
        _check_values(found, rule, what)
        if is_empty:
            raise InputError(
                f"{what} contain no mitochondrion: no value is above {rule.above}; this is the wrong file"
            )
        _check_hash(digest.hexdigest(), entry.mask_sha256, what)
    products = {MASK: _product(folder / MASK, entry.labels, digest.hexdigest())}
    return products if ignored is None else {**products, IGNORE: _product(folder / IGNORE, entry.labels)}


def _product(path: Path, source: Sections, array_sha256: str | None = None) -> Product:
    import pooch

    return Product(path.stat().st_size, pooch.file_hash(str(path)), array_sha256, source.files)


def _of_shape(sections: Iterable[np.ndarray], shape: tuple[int, int, int], what: str) -> Iterator[np.ndarray]:
    """Yield the sections; refuse one of another shape, and more or fewer than expected."""
    count = 0
    for section in sections:
        if section.shape[:2] != shape[1:]:
            raise InputError(f"{what}: section {count} has the shape {section.shape}, expected {shape[1:]}")
        if count == shape[0]:
            raise InputError(f"{what}: there are more than the {shape[0]} sections expected")
        yield section
        count += 1
    if count < shape[0]:
        raise InputError(f"{what}: there are {count} sections, expected {shape[0]}")


def _grey(section: np.ndarray, what: str) -> np.ndarray:
    """Return uint8 grey values, also of an image stored with equal colour channels; drop alpha."""
    if section.dtype != np.uint8:
        raise InputError(f"{what} has values of type {section.dtype}; expected uint8")
    if section.ndim == 3:
        if section.shape[-1] >= 3 and np.ptp(section[..., :3], axis=-1).any():
            raise InputError(f"{what} is in colour; expected grey values")
        section = section[..., 0]
    return np.ascontiguousarray(section)


def _lowest_channel(section: np.ndarray) -> np.ndarray:
    """Return labels stored with colour channels as one: the darkest colour, 0 where alpha makes it transparent.

    So white is a mitochondrion and a coloured mark is not.
    """
    if section.ndim != 3:
        return section
    has_alpha = section.shape[-1] in (2, 4)
    lowest: np.ndarray = (section[..., :-1] if has_alpha else section).min(axis=-1)
    return np.where(section[..., -1] == 0, 0, lowest) if has_alpha else lowest


def _check_values(found: set[float], rule: LabelRule, what: str) -> None:
    if rule.allowed is None or any(found <= set(allowed) for allowed in rule.allowed):
        return
    expected = " or ".join(", ".join(map(str, allowed)) for allowed in rule.allowed)
    some = ", ".join(f"{value:g}" for value in sorted(found)[:8]) + (", ..." if len(found) > 8 else "")
    raise InputError(f"{what} contain the values {some}; expected {expected}")


def _check_hash(found: str, expected: str | None, what: str) -> None:
    if expected is not None and found != expected:
        raise InputError(f"{what} decoded to an array with sha256 {found}, expected {expected}")


def read_sections(where: Sections, files: Mapping[str, Path]) -> Iterator[np.ndarray]:
    """Yield sections in order, shape (rows, columns) or (rows, columns, channels); 1-bit images as 0 and 255.

    `files` holds the local file of each path in `where`.

    Raises
    ------
    FileError
        If a file cannot be read, or a zip does not contain the sections.
    """
    paths = [files[path] for path in where.files]
    first, found = paths[0], 0
    sections: Iterator[np.ndarray]
    if len(paths) > 1:
        sections = (_decode(path.name, path.read_bytes()) for path in paths)
    elif (first.name if first.suffix != ".zip" else where.pattern).endswith(".nii.gz"):
        sections = _read_nifti(first, where)
    elif first.suffix == ".zip":
        sections = _read_zip(first, where)
    else:
        sections = _read_stack(first)
    try:
        for section in sections:
            yield section
            found += 1
    except MitodaError:
        raise
    except BROKEN as error:
        path = paths[min(found, len(paths) - 1)]
        raise FileError(f"section {found} cannot be read from {path}: {error}") from error


def _decode(name: str, data: bytes) -> np.ndarray:
    """Decode one TIFF or PNG image; a 1-bit image becomes 0 and 255, as an 8-bit one would be."""
    if name.lower().endswith((".tif", ".tiff")):
        # TiffFile holds itself in a cycle; closing the buffer frees the bytes before the garbage collector runs
        with io.BytesIO(data) as buffer, tifffile.TiffFile(buffer) as tiff:
            image = tiff.asarray()
    else:
        import imageio.v3 as imageio

        image = imageio.imread(io.BytesIO(data), extension=PurePosixPath(name).suffix)
    return image.astype(np.uint8) * np.uint8(255) if image.dtype == bool else image


def _read_stack(path: Path) -> Iterator[np.ndarray]:
    stack = TiffVolume(path)
    for section in range(stack.shape[0]):
        yield stack.read(section)


@contextmanager
def _open_nifti(path: Path, where: Sections) -> Iterator[tuple[Any, gzip.GzipFile]]:
    """Open a .nii.gz file, also inside a zip; yield its header, and the stream of what follows it."""
    with ExitStack() as stack:
        if path.suffix == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = select_members(archive.namelist(), where, path.name)[0]
            stored: IO[bytes] = stack.enter_context(archive.open(member))
        else:
            stored = stack.enter_context(path.open("rb"))
        stream = stack.enter_context(gzip.open(stored))
        yield read_header(stream, path), stream


def nifti_shape(where: Sections, files: Mapping[str, Path]) -> tuple[int, int, int]:
    """Return (sections, rows, columns) of a NIfTI volume."""
    path = files[where.files[0]]
    try:
        with _open_nifti(path, where) as (header, _):
            columns, rows, sections = header.get_data_shape()[:3]
    except MitodaError:
        raise
    except BROKEN as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    return sections, rows, columns


def _read_nifti(path: Path, where: Sections) -> Iterator[np.ndarray]:
    """Yield sections; as uint8 where that changes no value, since NIfTI writers widen types.

    NIfTI's axes are (x, y, z), x fastest, so sections follow each other; a transposed volume is held as a whole. The
    voxel size is not read: in the data sets here it is meaningless.
    """
    with _open_nifti(path, where) as (header, stream):
        shape, dtype = header.get_data_shape()[:3][::-1], header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
        planes = (
            np.frombuffer(stream.read(math.prod(shape[1:]) * dtype.itemsize), dtype).reshape(shape[1:])
            for _ in range(shape[0])
        )
        for section in np.stack(list(planes)).T if where.transposed else planes:
            if slope is not None and (slope, intercept) != (1, 0):
                section = section * slope + intercept
            with np.errstate(invalid="ignore"):
                narrow = section.astype(np.uint8)
            yield narrow if np.array_equal(narrow, section) else section


def _read_zip(path: Path, where: Sections) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        for member in select_members(archive.namelist(), where, path.name):
            yield _decode(member, archive.read(member))


def select_members(names: Sequence[str], where: Sections, archive: str) -> list[str]:
    """Return the members of a zip that are the sections, in natural order, without hidden files and `__MACOSX`.

    Raises FileError if there is none, or a wanted section number is missing or there twice.
    """
    paths = [PurePosixPath(name) for name in names if not name.endswith("/") and "__MACOSX" not in name]
    members = sorted((str(p) for p in paths if p.match(where.pattern) and p.name[0] != "."), key=natural_key)
    if not members:
        raise FileError(
            f"{archive} contains no {where.pattern}; it is another archive than the published one"
        )
    if where.numbers is None:
        return members
    by_number: dict[int, str] = {}
    for member in members:
        number = int(re.findall(r"\d+", PurePosixPath(member).stem)[-1])
        if number in by_number and number in where.numbers:
            raise FileError(f"{archive} contains section {number} twice: {by_number[number]} and {member}")
        by_number[number] = member
    missing = [number for number in where.numbers if number not in by_number]
    if missing:
        raise FileError(
            f"{archive} lacks {len(missing)} of the {len(where.numbers)} sections {where.pattern}; "
            f"the first one missing is number {missing[0]}"
        )
    return [by_number[number] for number in where.numbers]
