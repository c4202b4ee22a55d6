"""The first bytes of a file: is it what its name says, and if not, what is it?"""

from pathlib import Path

from mitoda.errors import FileError

SIGNATURES = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
}
"""The last two of TIFF are BigTIFF."""

SUFFIXES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".btf": "TIFF",
    ".tf8": "TIFF",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}


def check_signature(path: Path, kind: str) -> None:
    """Refuse a file that does not begin as its kind must.

    Parameters
    ----------
    path : Path
    kind : {"TIFF", "PNG", "JPEG"}

    Raises
    ------
    FileError
        If the file is missing, unreadable, empty or of another kind; the message says which one it looks
        like.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start.startswith(SIGNATURES[kind]):
        raise FileError(f"{path} is not a {kind} file: {_what_it_looks_like(start)}")


def _what_it_looks_like(start: bytes) -> str:
    for kind, signatures in SIGNATURES.items():
        if start.startswith(signatures):
            return f"it looks like a {kind}; give it the file name extension of a {kind}"
    if not start:
        return "it is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with git lfs pull"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return "it looks like a web page (HTML), so a download probably went wrong; download it again"
    if not any(byte < 9 for byte in start):
        return "it looks like text; download or export the image again"
    return f"it begins with {start[:4]!r}; export the image again"
