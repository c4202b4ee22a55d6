"""Files recognised by their first bytes, and written whole or not at all."""

import math
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes.address import file_of

SIGNATURES = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two are BigTIFF
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "ZIP": (b"PK\x03\x04",),
    "GZIP": (b"\x1f\x8b",),
    "HDF5": (b"\x89HDF\r\n\x1a\n",),
    "NRRD": (b"NRRD000",),
}
SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), "TIFF"),
    ".png": "PNG",
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
}

OUTPUTS = {
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    ".zarr": "Zarr",
    **dict.fromkeys((".mrc", ".rec"), "MRC"),
}
"""Formats of written stacks, by the ending of their name."""
ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")
"""Files of which one is in each folder of a Zarr hierarchy."""

DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
)
"""What decoders raise on broken files, besides OSError: tifffile ValueError, imagecodecs RuntimeError."""

SMALL_SECTION = 2**26
"""Bytes of a section that any computer has room for."""
LARGEST_COMPRESSION = 300
"""Times that a stack of grey values can be compressed at most; zlib compresses Lucchi by 1.3, and masks by 1000."""


def check_regular(path: Path) -> None:
    """Refuse pipes, devices and sockets, which would block or never end.

    Raises
    ------
    FileError
        If the path is missing or not a regular file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        link = "is a link to a missing file" if path.is_symlink() else "does not exist"
        raise FileError(f"{path} {link}; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise FileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is not a regular file but a folder, pipe or device; give a file")


def check_signature(path: Path, kind: str, name: str | None = None) -> None:
    """Refuse a file whose first bytes are not those of its format.

    Parameters
    ----------
    path : Path
    kind : {"TIFF", "PNG", "JPEG", "ZIP", "GZIP"}
    name : str, optional
        What the message calls the file, for example its URL; its path otherwise.

    Raises
    ------
    FileError
        If the file is missing, unreadable, empty or of another format; the message says which one.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start.startswith(SIGNATURES[kind]):
        article = "an" if kind[0] in "HN" else "a"
        raise FileError(f"{name or path} is not {article} {kind} file: {_what_it_looks_like(start)}")


def _what_it_looks_like(start: bytes) -> str:
    for kind, signatures in SIGNATURES.items():
        if start.startswith(signatures):
            return f"it looks like a {kind}; give it the file name extension of a {kind}"
    if not start:
        return "it is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; get the file itself with git lfs pull"
    if b"<html" in start.lower() or b"<!doctype html" in start.lower():
        return "it looks like a web page (HTML), so a download probably failed; download it again"
    if not any(byte < 9 for byte in start):
        return "it looks like text; download or export the image again"
    return f"it begins with {start[:4]!r}; export the image again"


def check_claim(name: str, claimed: int, section: int, size: int) -> None:
    """Refuse a small file that claims to hold a large image, before memory is taken for it.

    Parameters
    ----------
    name : str
    claimed : int
        Bytes of all its pixels.
    section : int
        Bytes of one section. Up to `SMALL_SECTION`, nothing is refused.
    size : int
        Bytes of the file.

    Raises
    ------
    FileError
    """
    if section > SMALL_SECTION and claimed > LARGEST_COMPRESSION * size:
        raise FileError(
            f"{name} claims {claimed / 2**30:.1f} GiB of pixels in a file of {size:,} bytes, "
            f"{claimed // max(size, 1):,} times as much, and no image of tissue can be compressed so; it is damaged, "
            "or a mask (save a mask in colour as 8-bit grey)"
        )
    available = available_memory()
    if section > available:
        raise FileError(
            f"a section of {name} takes {section / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB of memory are free; "
            "cut the stack into smaller ones, or use a computer with more memory"
        )


def available_memory() -> float:
    """Bytes of memory that are free; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * found[0] if found else math.inf


def check_output(
    path: Path, inputs: Iterable[Path], overwrite: bool = False, suffix: str | None = None
) -> None:
    """Refuse a file that cannot be written, or that would replace an input.

    Parameters
    ----------
    path : Path
    inputs : iterable of Path
        Everything that is read.
    overwrite : bool
        Accept a file that exists.
    suffix : str, optional
        What the name must end in, for example ".csv".

    Raises
    ------
    InputError
        If the name ends in something else than `suffix`.
    FileError
        If `path` is an input or in an input folder, a folder, a device, in a missing folder, or exists without
        `overwrite`.
    """
    if suffix is not None and path.suffix.lower() != suffix:
        raise InputError(f"{path} must end in {suffix}")
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; create it first: mkdir -p {path.parent}")
    is_ours = OUTPUTS.get(path.suffix.lower()) == "Zarr" and is_zarr(path)
    if path.is_dir() and not is_ours:
        raise FileError(f"{path} is a folder; give the name of a file in it")
    for source in map(file_of, inputs):
        if (path.exists() and source.exists() and path.samefile(source)) or (
            (source.is_dir() and Path(os.path.realpath(path)).is_relative_to(source.resolve()))
            or (path.is_dir() and source.resolve().is_relative_to(path.resolve()))
        ):
            raise FileError(f"{path} would replace or join the input {source}; give another name")
    if path.exists() or path.is_symlink():
        if not path.is_dir():
            check_regular(path)
        if not overwrite:
            raise FileError(f"{path} exists; give another name, or --overwrite to replace it")


@contextmanager
def naming_damage(what: str) -> Iterator[None]:
    """Turn what a decoder raises on a broken file into a FileError that says of what; errors of mitoda pass.

    Parameters
    ----------
    what : str
        Name of the file, or "section 3 of stack.tif".
    """
    try:
        yield
    except MitodaError:
        raise
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"{what} cannot be read: {error.strerror}") from error
        raise FileError(f"{what} is damaged: {error}; copy or export the file again") from error


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_METADATA)


def output_kind(path: Path) -> str:
    """Return the format in which a stack is written: "TIFF", "HDF5", "Zarr" or "MRC".

    Raises
    ------
    InputError
        If the name has another ending.
    """
    kind = OUTPUTS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path} must end in .tif, .tiff, .zarr, .h5 or .mrc; mitoda writes TIFF, OME-Zarr, HDF5 and MRC"
        )
    return kind


def partial_path(path: Path) -> Path:
    """Name that a file has until it is complete, where an interrupted command continues it."""
    return path.with_name(f"{path.name}.partial")


def partial_paths(path: Path) -> list[Path]:
    """Return the files that a killed `atomic_write` of `path` left."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.partial")
    return [one for one in path.parent.glob("*.partial") if pattern.fullmatch(one.name)]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a new, empty file beside `path`; rename it to `path` when the block ends without an error.

    The earlier content of `path` stays until the new content is on disk. After an error the new file is removed. Its
    name is random, so that no file of others is replaced, no link is followed, and two processes do not mix.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.open("xb").close()
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except MitodaError:
        _remove(partial)
        raise
    except OSError as error:
        _remove(partial)
        kept = "; its earlier content is unchanged" if path.exists() else ""
        raise FileError(f"{path} cannot be written ({error.strerror or error}){kept}") from error
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
