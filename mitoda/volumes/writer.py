"""Writing a stack as TIFF, section by section; see `mitoda.volumes.partial` for what an interruption leaves."""

import errno
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import tifffile
from numpy.typing import DTypeLike

import mitoda
from mitoda.errors import FileError, InputError
from mitoda.volumes.files import SUFFIXES, check_output, partial_path
from mitoda.volumes.partial import MARK, Origin, check_partial, check_shape, previous_path
from mitoda.volumes.volume import Lengths
from mitoda.volumes.voxel_size import check_lengths

DTYPES = (np.uint8, np.uint16, np.float32, np.uint32)
"""The types that ImageJ reads, and one for many labels."""

ZLIB_LEVEL = 5
"""The fastest of the dense levels: masks at 356 MB of voxels a second to 1/162 (level 3: 529 to 1/103, 9: 120 to
1/175), measured on 20 FIB-SEM sections with libdeflate on one core."""

CLASSIC_LIMIT = (1 << 32) - (1 << 25)
"""Bytes. Offsets of a classic TIFF have 32 bits; a margin of 32 MiB, as in tifffile."""


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
        Nanometres; None writes none, and for one of the three leaves that out.
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
        voxel_size: Sequence[float | None] | None,
        *,
        overwrite: bool = False,
        compression: Literal["zlib", "none"] = "zlib",
        identity: str = "",
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.shape = check_shape(shape)
        self.dtype = np.dtype(dtype)
        self.voxel_size = (None, None, None) if voxel_size is None else check_lengths(voxel_size)
        self.overwrite = overwrite
        self.compression = compression
        self.written = 0
        self._check_arguments(identity)
        origin = Origin(identity, self.shape, self.dtype.name)
        self.software = f"{MARK}{mitoda.__version__} {json.dumps(asdict(origin))}"
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
            if self.overwrite:
                check_partial(self.partial)
                self.partial.unlink(missing_ok=True)
            return open_new(self.partial)
        except FileExistsError as error:
            raise FileError(
                f"{self.partial} is left from an interrupted run; give --resume to continue it, or "
                "--overwrite to start again"
            ) from error
        except FileError:
            raise
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
                if size[1] is None or size[2] is None
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
            written = os.fstat(self._file.fileno())
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
            if not os.path.samestat(written, self.partial.stat()):
                raise FileError(f"{self.partial} was replaced by another process meanwhile; run it again")
            self.partial.replace(self.path)
            previous_path(self.path).unlink(missing_ok=True)
        except FileError:
            raise
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
    voxel_size: Sequence[float | None] | None,
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


def imagej_description(shape: tuple[int, int, int], lengths: Lengths, compressed: bool) -> str:
    """Return ImageJ's description of a stack.

    In an uncompressed file `images` tells ImageJ that all sections follow the first without a gap, and that the other
    pages can be ignored. Ours have gaps, so the line is left out there.
    """
    lines = ["ImageJ=1.54f"]
    if compressed:
        lines.append(f"images={shape[0]}")
    lines.append(f"slices={shape[0]}")
    if any(lengths):
        section, has_pixel = lengths[0], None not in lengths[1:]
        lines.append(f"unit={'nm' if has_pixel else 'pixel'}")
        if has_pixel != (section is not None):  # or ImageJ would take one unit for all axes
            lines.append(f"zunit={'pixel' if has_pixel else 'nm'}")
        if section is not None:
            lines.append(f"spacing={section!r}")
    return "\n".join([*lines, "loop=false", ""])
