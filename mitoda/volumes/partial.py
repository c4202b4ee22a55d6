"""What an interrupted stack leaves, and how it is continued.

    mask.tif.partial            the sections written so far
    mask.tif.partial.previous   those of an interrupted run, while they are copied into a new mask.tif.partial
    mask.tif                    the complete stack; .previous is then deleted

If a run is interrupted while it copies, both files exist; `read_partial` keeps the one with more whole sections.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from mitoda.errors import FileError, InputError
from mitoda.volumes.files import DAMAGE, OUTPUTS, check_regular, check_signature, partial_path
from mitoda.volumes.records import LARGEST_RECORD, parse_record
from mitoda.volumes.tiff import quiet_tifffile

MARK = "mitoda "
"""Beginning of the Software tag, which lies before all sections."""
SHORTEST = 1024
"""Bytes below which a file may have been cut before that tag."""


@dataclass(frozen=True)
class Origin:
    """What the sections of a file belong to, stored in the Software tag."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    identity: str
    shape: tuple[int, int, int]
    dtype: str


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a shape as sections, rows, columns; InputError unless each is at least 1."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape {tuple(shape)} must be sections, rows, columns, each at least 1")
    return int(shape[0]), int(shape[1]), int(shape[2])


def check_partial(path: Path) -> None:
    """Refuse a file of a partial file's name that `SectionWriter` did not write, so that it is not removed.

    Raises
    ------
    FileError
        If it is a link, no regular file, or holds something else.
    """
    if path.is_symlink():
        raise FileError(f"{path} is a link, which mitoda does not make; move it away")
    if not path.exists():
        return
    if path.is_dir() and _kind(path) == "Zarr":
        if not _is_marked_zarr(path):
            raise FileError(f"{path} was not written by mitoda; move it away")
        return
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(8192)
    begins_well = len(start) < SHORTEST and start[:3] in (b"", b"I", b"II", b"II*", b"II+")
    torn = begins_well and next(_whole_sections(path), None) is None
    if not torn and MARK.encode() not in start:
        raise FileError(f"{path} was not written by mitoda; move it away")


def _kind(partial: Path) -> str | None:
    """Format of a stack by the name of its partial file."""
    return OUTPUTS.get(Path(partial.name.removesuffix(".previous").removesuffix(".partial")).suffix.lower())


def _is_marked_zarr(path: Path) -> bool:
    """Whether a folder is empty, or a Zarr group with our attribute."""
    for name in ("zarr.json", ".zattrs"):
        with suppress(OSError):
            return MARK.strip().encode() in (path / name).read_bytes()[:LARGEST_RECORD]
    return not any(path.iterdir())


def was_written_by(path: Path, identity: str) -> bool:
    """Whether a complete stack was written by a `SectionWriter` of this identity."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            software = tiff.pages.first.software
        return parse_record(software[software.find("{") :], Origin, str(path)).identity == identity
    except (OSError, *DAMAGE):  # not a TIFF, or not one of mitoda
        return False


def previous_path(path: Path) -> Path:
    """Name of an interrupted stack while its sections are copied into a new one."""
    return path.with_name(f"{path.name}.partial.previous")


def remove_previous(path: Path) -> None:
    """Remove what a run left that was killed right after it completed a stack."""
    previous = previous_path(path)
    with suppress(FileError):  # not one of mitoda
        check_partial(previous)
        previous.unlink(missing_ok=True)


@dataclass(frozen=True)
class PartialSections:
    """The whole sections of an interrupted stack in order; each iteration reads them again."""

    path: Path
    """The file they are in; it need not exist if there are none."""
    count: int

    def __iter__(self) -> Iterator[np.ndarray]:
        if not self.count:
            return
        done = 0
        for section in _whole_sections(self.path):
            yield section
            done += 1
            if done == self.count:
                return
        raise FileError(
            f"{self.path} had {self.count} whole sections and now has {done}; start again with --overwrite"
        )


def read_partial(path: str | Path, identity: str, shape: Sequence[int], dtype: DTypeLike) -> PartialSections:
    """Move the partial file of an interrupted run aside and return its whole sections.

    Call it before opening the `SectionWriter`, write these sections first, and continue after them. Reading stops at
    the first section that is cut off or damaged. An interruption anywhere in between loses nothing.

    Parameters
    ----------
    path : path
        The final name, without .partial.
    identity : str
        As given to the `SectionWriter`.
    shape : (int, int, int)
        Of the whole stack.
    dtype : dtype

    Returns
    -------
    PartialSections
        With count 0 if there is no partial file, or no whole section in it.

    Raises
    ------
    InputError
        If the partial file has another identity, shape or type. Then nothing is moved.
    FileError
        If a file cannot be read or moved, or was not written by `SectionWriter`.
    """
    partial, previous = partial_path(Path(path)), previous_path(Path(path))
    expected = Origin(identity, check_shape(shape), np.dtype(dtype).name)
    try:
        for file in (partial, previous):
            check_partial(file)
        counts = {file: _count(file, expected) for file in (partial, previous) if file.exists()}
        kept = max(counts, key=lambda file: counts[file], default=previous)
        if kept == partial:
            partial.replace(previous)
        else:
            partial.unlink(missing_ok=True)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{partial} cannot be resumed: {error.strerror or error}") from error
    return PartialSections(previous, counts.get(kept, 0))


def _count(path: Path, expected: Origin) -> int:
    """Count the whole sections of a file, or refuse it if they belong to something else."""
    if path.stat().st_size < 16:
        return 0
    check_signature(path, "TIFF")
    whole = sum(1 for _ in _whole_sections(path))
    if not whole:
        return 0
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        software = tiff.pages.first.software
    if not software.startswith(MARK):
        raise FileError(f"{path} was not written by mitoda; move it away")
    found = parse_record(software[software.find("{") :], Origin, str(path))
    if found.identity != expected.identity:
        raise InputError(
            f"{path} was made with other settings or weights (run {found.identity or 'without a name'}, now "
            f"{expected.identity or 'without a name'}); use the same again, or give --overwrite to start again"
        )
    if found != expected:
        raise InputError(
            f"{path} is for a stack of {found.shape} {found.dtype}, but this one is {expected.shape} {expected.dtype}; "
            "give the same stack, or --overwrite to start again"
        )
    return whole


def _whole_sections(path: Path) -> Iterator[np.ndarray]:
    """Yield sections up to the first that is cut off or fails zlib's checksum."""
    shape = None
    with suppress(*DAMAGE), quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        tiff.pages.useframes = False
        for index in itertools.count():
            page = tiff.pages[index]
            ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
            if max(ends) > tiff.filehandle.size or 0 in page.databytecounts:
                return
            section = page.asarray(maxworkers=1)
            if shape not in (None, section.shape):
                return
            shape = section.shape
            yield section
