"""Writing a stack as TIFF, section by section, and resuming an interrupted one.

    mask.tif.partial            the sections written so far
    mask.tif.partial.previous   those of an interrupted run, while they are copied into a new mask.tif.partial
    mask.tif                    the complete stack; .previous is then deleted

If a run is interrupted while it copies, both files exist; `read_partial` keeps the one with more whole sections.
"""

import errno
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Literal, Self

import numpy as np
import tifffile
from numpy.typing import DTypeLike

import mitoda
from mitoda.errors import FileError, InputError
from mitoda.volumes.files import (
    SUFFIXES,
    check_output,
    check_regular,
    check_signature,
    parse_record,
    partial_path,
)
from mitoda.volumes.tiff import DAMAGE, quiet_tifffile
from mitoda.volumes.volume import VoxelSize
from mitoda.volumes.voxel_size import check_voxel_size

DTYPES = (np.uint8, np.uint16, np.float32, np.uint32)
"""The types that ImageJ reads, and one for many labels."""

ZLIB_LEVEL = 5
"""The fastest of the dense levels: masks at 356 MB of voxels a second to 1/162 (level 3: 529 to 1/103, 9: 120 to
1/175), measured on 20 FIB-SEM sections with libdeflate on one core."""

CLASSIC_LIMIT = (1 << 32) - (1 << 25)
"""Bytes. Offsets of a classic TIFF have 32 bits; a margin of 32 MiB, as in tifffile."""


@dataclass(frozen=True)
class _Origin:
    """What the sections of a file belong to, stored in the Software tag."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    identity: str
    shape: tuple[int, int, int]
    dtype: str


class SectionWriter:
    """Write a stack to PATH.partial, one page per section, and rename it when all sections are written.

    Use it as a context manager. If the block ends with an exception, the partial file stays for `read_partial`.

    The pages carry ImageJ's description, from which Fiji and tifffile take shape and voxel size. A stack near 4 GiB
    (uncompressed) becomes a BigTIFF, which Fiji opens through Bio-Formats with the same description.

    Parameters
    ----------
    path : path
        Ends in .tif or .tiff.
    shape : (int, int, int)
        Sections, rows, columns.
    dtype : dtype
        uint8, uint16 or float32; or uint32, which ImageJ itself does not read: it becomes a BigTIFF, which Fiji opens
        through Bio-Formats.
    voxel_size : (float, float, float) or None
        Nanometres; None writes none.
    overwrite : bool
        Replace the file at `path`, and the partial file of an interrupted run.
    compression : {"zlib", "none"}
    identity : str
        Names inputs and settings; `read_partial` resumes only the same identity. ASCII.

    Raises
    ------
    FileError
        If the path exists, is a folder, is in a missing folder, or cannot be written.
    InputError
        If another argument is invalid.
    """

    def __init__(
        self,
        path: str | Path,
        shape: Sequence[int],
        dtype: DTypeLike,
        voxel_size: Sequence[float] | None,
        *,
        overwrite: bool = False,
        compression: Literal["zlib", "none"] = "zlib",
        identity: str = "",
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.shape = _check_shape(shape)
        self.dtype = np.dtype(dtype)
        self.voxel_size = None if voxel_size is None else check_voxel_size(voxel_size)
        self.overwrite = overwrite
        self.compression = compression
        self.written = 0
        self._check_arguments(identity)
        origin = _Origin(identity, self.shape, self.dtype.name)
        self.software = f"mitoda {mitoda.__version__} {json.dumps(asdict(origin))}"
        self._file = self._open_partial()
        self._tiff = tifffile.TiffWriter(
            self._file, bigtiff=needs_bigtiff(self.shape, self.dtype), shaped=False
        )

    def _check_arguments(self, identity: str) -> None:
        if self.dtype not in DTYPES:
            raise InputError(
                f"cannot write {self.dtype}; expected uint8, uint16, float32 or uint32, so convert first"
            )
        if self.compression not in ("zlib", "none"):
            raise InputError(f'compression is {self.compression!r}; it must be "zlib" or "none"')
        if not identity.isascii() or not identity.isprintable():
            raise InputError(
                f"identity {identity!r} must be printable ASCII, because it is stored in a TIFF tag"
            )
        if SUFFIXES.get(self.path.suffix.lower()) != "TIFF":
            raise InputError(
                f"{self.path} would be written as TIFF; give it a name that ends in .tif or .tiff"
            )
        check_output(self.path, (), self.overwrite)

    def _open_partial(self) -> BinaryIO:
        try:
            if self.overwrite:  # a link or pipe of that name is replaced, not written through
                self.partial.unlink(missing_ok=True)
            return open_new(self.partial)
        except FileExistsError as error:
            raise FileError(
                f"{self.partial} is left from an interrupted run; give --resume to continue it, or "
                "--overwrite to start again"
            ) from error
        except OSError as error:
            raise self._failure(error) from error

    def write(self, section: np.ndarray) -> None:
        """Append the next section.

        Parameters
        ----------
        section : ndarray, shape (rows, columns)
            Of the writer's dtype.

        Raises
        ------
        InputError
            If the shape or type differs, or all sections are already written.
        FileError
            If the disk is full or fails.
        """
        if section.shape != self.shape[1:] or section.dtype != self.dtype:
            raise InputError(
                f"section {self.written} for {self.path} is {section.shape} {section.dtype}; "
                f"it must be {self.shape[1:]} {self.dtype}"
            )
        if self.written == self.shape[0]:
            raise InputError(f"{self.path} already has all its {self.shape[0]} sections")
        compressed = self.compression == "zlib"
        size = self.voxel_size
        try:
            self._tiff.write(
                section,
                photometric="minisblack",
                description=None if self.written else imagej_description(self.shape, size, compressed),
                metadata=None,
                software=self.software,
                resolution=None
                if size is None
                else (1 / size[2], 1 / size[1]),  # voxels per nanometre, x and y
                resolutionunit="none",
                compression="zlib" if compressed else None,
                compressionargs={"level": ZLIB_LEVEL} if compressed else None,
                contiguous=False,
            )
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error
        self.written += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._finalize()
            return
        with suppress(
            OSError
        ):  # closing flushes, which fails again on a full disk; the first error says more
            self._file.close()

    def _finalize(self) -> None:
        """Close, check and rename; leave the partial file if anything fails."""
        try:
            self._tiff.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        finally:
            with suppress(OSError):
                self._file.close()
        if self.written < self.shape[0]:
            raise InputError(
                f"{self.path} got {self.written} of its {self.shape[0]} sections; they stay in {self.partial}"
            )
        if self.path.exists() and not self.overwrite:
            raise FileError(
                f"{self.path} was created meanwhile; the result stays in {self.partial}, so rename one of them"
            )
        try:
            self.partial.replace(self.path)
            previous_path(self.path).unlink(missing_ok=True)
        except OSError as error:
            raise FileError(
                f"{self.partial} is complete but cannot be renamed: {error.strerror or error}"
            ) from error

    def _failure(self, error: OSError) -> FileError:
        done = f"{self.written} of {self.shape[0]} sections"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FileError(
                f"the disk is full: {done} were written to {self.partial}, which stays; free some space "
                "and continue with --resume"
            )
        return FileError(f"{self.partial} cannot be written: {error.strerror or error}; {done} were written")


def write_sections(
    path: str | Path,
    sections: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size: Sequence[float] | None,
    *,
    overwrite: bool = False,
    identity: str = "",
) -> None:
    """Write all sections; see `SectionWriter`."""
    with SectionWriter(path, shape, dtype, voxel_size, overwrite=overwrite, identity=identity) as writer:
        for section in sections:
            writer.write(section)


def open_new(path: Path) -> BinaryIO:
    """Create a file that must not exist."""
    return path.open("xb")


def needs_bigtiff(shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Whether a stack may outgrow 32-bit offsets (its voxels, 0.1 % for zlib at worst, 4 KiB a page), or is uint32."""
    if dtype == np.uint32:
        return True
    voxel_bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
    return voxel_bytes + voxel_bytes // 1000 + 4096 * shape[0] > CLASSIC_LIMIT


def imagej_description(shape: tuple[int, int, int], voxel_size: VoxelSize | None, compressed: bool) -> str:
    """Return ImageJ's description of a stack.

    In an uncompressed file `images` tells ImageJ that all sections follow the first without a gap, and that the other
    pages can be ignored. Ours have gaps, so the line is left out there.
    """
    lines = ["ImageJ=1.54f"]
    if compressed:
        lines.append(f"images={shape[0]}")
    lines.append(f"slices={shape[0]}")
    if voxel_size is not None:
        lines += ["unit=nm", f"spacing={voxel_size[0]!r}"]
    return "\n".join([*lines, "loop=false", ""])


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape {tuple(shape)} must be sections, rows, columns, each at least 1")
    return int(shape[0]), int(shape[1]), int(shape[2])


def was_written_by(path: Path, identity: str) -> bool:
    """Whether a complete stack was written by a `SectionWriter` of this identity."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            software = tiff.pages.first.software
        return parse_record(software[software.find("{") :], _Origin, str(path)).identity == identity
    except (OSError, *DAMAGE):  # not a TIFF, or not one of mitoda
        return False


def previous_path(path: Path) -> Path:
    """Name of an interrupted stack while its sections are copied into a new one."""
    return path.with_name(f"{path.name}.partial.previous")


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
    expected = _Origin(identity, _check_shape(shape), np.dtype(dtype).name)
    try:
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


def _count(path: Path, expected: _Origin) -> int:
    """Count the whole sections of a file, or refuse it if they belong to something else."""
    check_regular(path)
    if path.stat().st_size < 16:
        return 0
    check_signature(path, "TIFF")
    whole = sum(1 for _ in _whole_sections(path))
    if not whole:
        return 0
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        software = tiff.pages.first.software
    if not software.startswith("mitoda "):
        raise FileError(f"{path} was not written by mitoda; move it away, or give --overwrite to replace it")
    found = parse_record(software[software.find("{") :], _Origin, str(path))
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
