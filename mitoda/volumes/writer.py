"""Writing a stack section by section, as the ending of its name says.

.tif .tiff   `TiffPages`; can be resumed, see `mitoda.volumes.partial`
.h5 .hdf5    `Hdf5Pages`
.zarr        `ZarrPages`: OME-Zarr, a folder
.mrc .rec    `MrcPages`
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

import mitoda
from mitoda.errors import FileError, InputError
from mitoda.volumes.files import check_output, output_kind, partial_path
from mitoda.volumes.hdf5_pages import Hdf5Pages
from mitoda.volumes.mrc_pages import MrcPages
from mitoda.volumes.partial import MARK, Origin, check_partial, check_shape, previous_path
from mitoda.volumes.tiff_pages import TiffPages
from mitoda.volumes.volume import Lengths, VoxelSize
from mitoda.volumes.voxel_size import check_lengths
from mitoda.volumes.zarr_pages import ZarrPages, checked_version

DTYPES = (np.uint8, np.uint16, np.float32, np.uint32)
"""The types that ImageJ reads, and one for many labels."""


class Pages(Protocol):
    """What a format does with sections: append them one by one, then close the file, or abandon it as it is.

    Its constructor takes the path, which must not exist (FileExistsError), shape, dtype, the edge lengths of a voxel in
    nanometres, each a float or None, and a line of ASCII that says who wrote the file for which run.
    """

    def append(self, section: np.ndarray) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class SectionWriter:
    """Write a stack to PATH.partial, section by section, and rename it when all sections are written.

    Use it as a context manager. If the block ends with an exception, a partial TIFF stays for `read_partial`; one of
    another format, which cannot be continued, is removed.

    Parameters
    ----------
    path : path
        Ends in .tif, .tiff, .h5, .hdf5, .zarr, .mrc or .rec.
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
        Of TIFF.
    identity : str
        Names inputs and settings; `read_partial` resumes only the same identity. ASCII.
    origin : (float, float, float)
        Nanometres, (section, row, column): position of the first voxel, which OME-Zarr keeps.
    zarr_version : {"0.5", "0.4"}
        Of OME-Zarr.

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
        origin: VoxelSize = (0.0, 0.0, 0.0),
        zarr_version: str = "0.5",
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.shape = check_shape(shape)
        self.dtype = np.dtype(dtype)
        self.voxel_size: Lengths = (None, None, None) if voxel_size is None else check_lengths(voxel_size)
        self.overwrite = overwrite
        self.compression = compression
        self.origin = origin
        self.zarr_version = checked_version(zarr_version)
        self.written = 0
        self._check_arguments(identity)
        self.kind = output_kind(self.path)
        software = (
            f"{MARK}{mitoda.__version__} {json.dumps(asdict(Origin(identity, self.shape, self.dtype.name)))}"
        )
        self._pages = self._open_partial(software)
        self._stat = self.partial.stat()

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
        check_output(self.path, (), self.overwrite)

    def _open_partial(self, software: str) -> Pages:
        try:
            if self.overwrite:
                check_partial(self.partial)
                _remove(self.partial)
            shared = (self.partial, self.shape, self.dtype, self.voxel_size, software)
            if self.kind == "TIFF":
                return TiffPages(*shared, self.compression)
            if self.kind == "HDF5":
                return Hdf5Pages(*shared)
            if self.kind == "MRC":
                return MrcPages(*shared)
            return ZarrPages(*shared, self.path.name.split(".")[0], self.origin, self.zarr_version)
        except FileExistsError as error:
            way_out = "give --resume to continue it, or --overwrite to start again"
            if self.kind != "TIFF":
                way_out = f"{self.kind} cannot be continued, so give --overwrite to start again"
            raise FileError(f"{self.partial} is left from an interrupted run; {way_out}") from error
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
        try:
            self._pages.append(section)
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
        self._pages.abandon()
        if self.kind != "TIFF":
            with suppress(OSError):
                _remove(self.partial)

    def _finalize(self) -> None:
        """Close, check and rename; leave the partial file if anything fails."""
        try:
            self._pages.close()
        except OSError as error:
            raise self._failure(error) from error
        if self.written < self.shape[0]:
            raise InputError(
                f"{self.path} got {self.written} of its {self.shape[0]} sections; they stay in {self.partial}"
            )
        if self.path.exists() and not self.overwrite:
            raise FileError(
                f"{self.path} was created meanwhile; the result stays in {self.partial}, so rename one of them"
            )
        try:
            if not os.path.samestat(self._stat, self.partial.stat()):
                raise FileError(f"{self.partial} was replaced by another process meanwhile; run it again")
            move_into_place(self.partial, self.path)
            previous_path(self.path).unlink(missing_ok=True)
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"{self.partial} is complete but cannot be renamed: {error.strerror or error}"
            ) from error

    def _failure(self, error: OSError) -> FileError:
        done = f"{self.written} of {self.shape[0]} sections"
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            if self.kind != "TIFF":
                return FileError(
                    f"the disk is full: {done} were written to {self.partial}; free some space and start again"
                )
            return FileError(
                f"the disk is full: {done} were written to {self.partial}, which stays; free some space "
                "and continue with --resume"
            )
        return FileError(f"{self.partial} cannot be written: {error.strerror or error}; {done} were written")


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds; a link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Give a complete file or folder its name. What a folder replaces is moved aside first, and removed last."""
    aside = None
    if partial.is_dir() and path.exists():
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.replaced")
        path.replace(aside)
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(partial, path)  # to another file system
    if aside is not None:
        _remove(aside)


def write_sections(
    path: str | Path,
    sections: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size: Sequence[float | None] | None,
    *,
    overwrite: bool = False,
    identity: str = "",
    origin: VoxelSize = (0.0, 0.0, 0.0),
    zarr_version: str = "0.5",
) -> None:
    """Write all sections; see `SectionWriter`."""
    with SectionWriter(
        path,
        shape,
        dtype,
        voxel_size,
        overwrite=overwrite,
        identity=identity,
        origin=origin,
        zarr_version=zarr_version,
    ) as writer:
        for section in sections:
            writer.write(section)
