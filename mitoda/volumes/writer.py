"""Writing a stack as TIFF: section by section, under its name only when complete."""

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import tifffile
from numpy.typing import DTypeLike

import mitoda
from mitoda.errors import FileError, InputError
from mitoda.volumes.signatures import SUFFIXES
from mitoda.volumes.volume import VoxelSize
from mitoda.volumes.voxel_size import check_voxel_size

DTYPES = (np.uint8, np.uint16, np.float32)
"""What ImageJ reads."""

ZLIB_LEVEL = 5
"""Measured on 20 sections of a FIB-SEM stack, one core, libdeflate, MB of voxels a second, compression:

level        1            3            5            6            9
mask         317, 107×    529, 103×    356, 162×    319, 166×    120, 175×
grey         97, 1.16×    85, 1.16×    67, 1.16×    80, 1.16×    66, 1.16×

Levels differ little in time beside the networks that make the masks; 5 is the fastest of the dense ones."""

CLASSIC_LIMIT = (1 << 32) - (1 << 25)
"""Bytes. Offsets of a classic TIFF have 32 bits; a margin of 32 MiB, as tifffile keeps."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def partial_path(path: str | Path) -> Path:
    """Return where a stack lies while it is written: NAME.partial."""
    return Path(f"{path}.partial")


def previous_path(path: str | Path) -> Path:
    """Return where an interrupted stack waits while it is fed into a new one: NAME.partial.previous."""
    return Path(f"{path}.partial.previous")


class SectionWriter:
    """Writes a stack to PATH.partial, one page a section, and renames it when all sections are there.

    The pages carry ImageJ's description, which Fiji and tifffile take shape and voxel size from. It is used
    for BigTIFF too, chosen when the uncompressed stack comes near 4 GiB; there Fiji opens it through
    Bio-Formats, which reads the same description. Use as a context manager. When the block ends with an
    exception, the partial file is closed and stays, so that `read_partial` can take it up.

    Parameters
    ----------
    path : path
        Ends in .tif or .tiff.
    shape : (int, int, int)
        Sections, rows, columns.
    dtype : dtype
        uint8, uint16 or float32.
    voxel_size : (float, float, float) or None
        Nanometres; None writes none.
    overwrite : bool
        Replace what is at `path`, and a partial file that an interrupted run left.
    compression : {"zlib", "none"}
    identity : str
        What the stack is made from and with; `read_partial` goes on only where it is the same. ASCII.

    Raises
    ------
    FileError
        If the path is taken, a folder, in a folder that does not exist, or cannot be written.
    InputError
        If an argument is not one of the above.
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
        self.partial = partial_path(path)
        self.shape = _check_shape(shape)
        self.dtype = np.dtype(dtype)
        self.voxel_size = None if voxel_size is None else check_voxel_size(voxel_size)
        self.overwrite = overwrite
        self.compression = compression
        self.software = f"mitoda {mitoda.__version__}" + (f"; run {identity}" if identity else "")
        self.written = 0
        self._check_arguments(identity)
        self._check_path()
        self._file = self._attempt_open()
        self._tiff = tifffile.TiffWriter(
            self._file, bigtiff=needs_bigtiff(self.shape, self.dtype), shaped=False
        )

    def _check_arguments(self, identity: str) -> None:
        if self.dtype not in DTYPES:
            raise InputError(
                f"cannot write {self.dtype}; ImageJ reads uint8, uint16 and float32, so convert first"
            )
        if self.compression not in ("zlib", "none"):
            raise InputError(f'compression is {self.compression!r}; it must be "zlib" or "none"')
        if not identity.isascii() or not identity.isprintable():
            raise InputError(f"identity {identity!r} must be printable ASCII: it goes into a TIFF tag")
        if SUFFIXES.get(self.path.suffix.lower()) != "TIFF":
            raise InputError(f"{self.path} would be written as TIFF; let its name end in .tif or .tiff")

    def _check_path(self) -> None:
        if self.path.is_dir():
            raise FileError(
                f"{self.path} is a folder; give the name of a file in it, e.g. {self.path / 'mask.tif'}"
            )
        if not self.path.parent.is_dir():
            raise FileError(
                f"the folder {self.path.parent} does not exist; create it first: mkdir -p {self.path.parent}"
            )
        if self.path.exists() and not self.overwrite:
            raise FileError(f"{self.path} exists; give --overwrite to replace it, or another name")

    def _attempt_open(self) -> BinaryIO:
        try:
            return open_for_writing(self.partial, self.overwrite)
        except FileExistsError as error:
            raise FileError(
                f"{self.partial} is left from an interrupted run; give --resume to go on with it, or "
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
            If the shape or type differs, or all sections are written already.
        FileError
            If the disk is full or fails.
        """
        if section.shape != self.shape[1:] or section.dtype != self.dtype:
            raise InputError(
                f"section {self.written} for {self.path} is {section.shape} {section.dtype}; "
                f"it must be {self.shape[1:]} {self.dtype}"
            )
        if self.written == self.shape[0]:
            raise InputError(f"{self.path} has all its {self.shape[0]} sections already; none can follow")
        compressed = self.compression == "zlib"
        try:
            self._tiff.write(
                section,
                photometric="minisblack",
                description=imagej_description(self.shape, self.voxel_size, compressed)
                if self.written == 0
                else None,
                metadata=None,
                software=self.software,
                resolution=_voxels_per_nanometre(self.voxel_size),
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
        if kind is not None:
            # closing flushes, which fails again on a full disk; the error under way says more
            with suppress(OSError):
                self._file.close()
            return
        self._finish()

    def _finish(self) -> None:
        """Close, check and rename; leave the partial file where anything fails."""
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
                f"{self.path} appeared meanwhile; the result stays in {self.partial}, so rename one of them"
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
        if error.errno in DISK_FULL:
            return FileError(
                f"the disk is full: {done} were written to {self.partial}, which stays; free some space "
                "and go on with --resume"
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
    """Write sections as they come; see `SectionWriter` for the parameters and what is raised."""
    with SectionWriter(path, shape, dtype, voxel_size, overwrite=overwrite, identity=identity) as writer:
        for section in sections:
            writer.write(section)


def open_for_writing(path: Path, overwrite: bool) -> BinaryIO:
    """Open a file that must not exist, unless it may be overwritten."""
    return path.open("wb" if overwrite else "xb")


def needs_bigtiff(shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Tell whether a stack may outgrow 32-bit offsets: its voxels, a thousandth for zlib at worst, 4 KiB a
    page."""
    voxel_bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
    return voxel_bytes + voxel_bytes // 1000 + 4096 * shape[0] > CLASSIC_LIMIT


def imagej_description(shape: tuple[int, int, int], voxel_size: VoxelSize | None, compressed: bool) -> str:
    """Return ImageJ's lines about a stack.

    ImageJ takes `images` in an uncompressed file for a promise that all sections follow the first without a
    gap, and ignores the other pages. Ours have gaps, so the line is left out there.
    """
    lines = ["ImageJ=1.54f"]
    if compressed:
        lines.append(f"images={shape[0]}")
    lines.append(f"slices={shape[0]}")
    if voxel_size is not None:
        lines += ["unit=nm", f"spacing={voxel_size[0]!r}"]
    return "\n".join([*lines, "loop=false", ""])


def _voxels_per_nanometre(voxel_size: VoxelSize | None) -> tuple[float, float] | None:
    """Return the X and Y resolution tags."""
    return None if voxel_size is None else (1 / voxel_size[2], 1 / voxel_size[1])


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape {tuple(shape)} must be sections, rows, columns, each at least 1")
    return int(shape[0]), int(shape[1]), int(shape[2])
