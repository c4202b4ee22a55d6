"""One file over HTTP with pooch: to a temporary name, checked, then moved. Errors say what to do next."""

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from mitoda.errors import FileError, MitodaError

CHUNK = 2**18
"""Bytes between two looks at the progress."""
TIMEOUT = 30
"""Seconds without a byte from the server until it counts as gone."""
REPORT_EVERY = 0.1
"""Seconds between two reports of progress."""

SIGNATURES = {
    ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".zip": (b"PK\x03\x04",),
    ".gz": (b"\x1f\x8b",),
}
"""First bytes by suffix; the last two of TIFF are BigTIFF."""

ADVICE = "fetch again, or take it from elsewhere with --mirror URL or --from DIR"


class NotThereError(FileError):
    """A server says that it has no such file."""


class _Progress:
    """What pooch calls a progress bar: counts bytes, and stops a download that cannot end well."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.received = 0
        self.expected = 0
        self.answered = False
        self.cancelled = False

    @property
    def total(self) -> int:
        """Bytes that the server announces, or 0."""
        return self.expected

    @total.setter
    def total(self, expected: int) -> None:
        self.answered = True
        self.expected = expected
        check_free_space(self.folder, expected, self.url)

    def update(self, count: int) -> None:
        """Count bytes; pooch counts whole chunks, so the last one may be too many."""
        if self.cancelled:
            raise FileError(f"the download of {self.url} was stopped")
        self.received += count
        if self.expected:
            self.received = min(self.received, self.expected)

    def reset(self) -> None:
        """Do nothing: pooch calls this at the end, before it counts all bytes at once."""

    def close(self) -> None:
        """Do nothing: there is nothing on a screen."""


def download(
    url: str, target: Path, sha256: str | None, size: int | None, provenance: str = ""
) -> Iterator[tuple[int, int | None]]:
    """Download `url` to `target`; a file already there with the right hash is kept.

    Nothing appears under the name of `target` unless it is complete and right, and nothing else stays.

    Parameters
    ----------
    url : str
        http or https.
    target : Path
        Its folder is made if need be.
    sha256 : str, optional
        Without one, whatever carries the right first bytes and `size` is taken, as is a file that is already
        there.
    size : int, optional
        Bytes that the file must have.
    provenance : str
        Where the hash comes from, for the message when it differs.

    Yields
    ------
    (int, int or None)
        Bytes so far and bytes in all, about ten times a second.

    Raises
    ------
    NotThereError
        If the server says that there is no such file.
    FileError
        If the connection fails, or what arrives is cut off, a web page, or of another size or hash.
    """
    progress = _Progress(url, target.parent)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mitoda-fetch") as pool:
        future = pool.submit(_retrieve, url, target, sha256, size, progress)
        try:
            while not wait([future], timeout=REPORT_EVERY).done:
                yield progress.received, progress.expected or None
        finally:
            progress.cancelled = True
    try:
        future.result()
    except ValueError as error:
        if isinstance(error, MitodaError):
            raise
        # pooch, when the hash differs; its sentence has both hashes
        origin = f" The expected hash is {provenance}." if provenance else ""
        raise FileError(f"{url}: {error}{origin} What to do: {ADVICE}.") from error


def _retrieve(url: str, target: Path, sha256: str | None, size: int | None, progress: _Progress) -> None:
    """Run pooch, and say in our words what failed."""
    import pooch
    import requests

    def fetch_and_check(url: str, temporary: str, caller: object) -> None:
        # A server that declares .gz files as compressed in transit would make requests unpack them.
        headers = {"Accept-Encoding": "identity"}
        # pooch leaves the connection open when it gives up on an answer; the hook lets us close it.
        answers: list[requests.Response] = []
        hooks = {"response": lambda answer, **_: answers.append(answer)}
        get = pooch.HTTPDownloader(
            progressbar=progress, chunk_size=CHUNK, timeout=TIMEOUT, headers=headers, hooks=hooks
        )
        try:
            get(url, temporary, caller)
        finally:
            for answer in answers:
                answer.close()
        check_beginning(Path(temporary), target.suffix, url)
        found = Path(temporary).stat().st_size
        if size is not None and found != size:
            raise FileError(f"{url} sent {found:,} bytes, expected {size:,}; the file was removed; {ADVICE}")

    try:
        with _quiet_pooch():
            pooch.retrieve(url, sha256, fname=target.name, path=target.parent, downloader=fetch_and_check)
    except requests.HTTPError as error:
        answer = error.response
        status, reason = (answer.status_code, answer.reason) if answer is not None else (0, "")
        if status in (404, 410):
            raise NotThereError(f"{url} does not exist (HTTP {status})") from error
        raise FileError(f"{url} was refused (HTTP {status} {reason}); {ADVICE}") from error
    except requests.Timeout as error:
        raise FileError(f"{url}: no answer for {TIMEOUT} s; check the network; {ADVICE}") from error
    except requests.RequestException as error:
        if progress.answered:
            of = f" of {progress.expected:,}" if progress.expected else ""
            raise FileError(
                f"{url}: the connection broke after about {progress.received:,}{of} bytes; "
                f"the partial file was removed; {ADVICE}"
            ) from error
        raise FileError(
            f"{url} cannot be reached ({_innermost(error)}); check the network; {ADVICE}"
        ) from error


def check_beginning(path: Path, suffix: str, origin: str) -> None:
    """Refuse a file that does not begin as its suffix promises.

    Parameters
    ----------
    path : Path
        The file.
    suffix : str
        `.tif`, `.png`, `.zip` or `.gz`; others are not checked.
    origin : str
        What the message calls it: its URL or path.

    Raises
    ------
    FileError
        If it is empty, a web page, or something else.
    """
    with path.open("rb") as file:
        start = file.read(512)
    signatures = SIGNATURES.get(suffix)
    if signatures is None or start.startswith(signatures):
        return
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        looks = "it is empty"
    elif text.startswith((b"<!doctype html", b"<html")) or b"<head" in text or b"<body" in text:
        looks = "it looks like a web page, perhaps one that asks to log in or says that the file has moved"
    elif text.startswith(b"version https://git-lfs"):
        looks = "it is a Git LFS pointer, not the file"
    else:
        looks = f"it begins with {start[:8]!r}"
    raise FileError(f"{origin} is not a {suffix} file: {looks}; {ADVICE}")


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what the disk of `folder` has no room for.

    Raises
    ------
    FileError
        With both sizes and the way out.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileError(
            f"{what} needs about {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB is free; "
            "make room, or choose another place with --dest or MITODA_CACHE_DIR"
        )


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch from writing on standard error, which is the command line's."""
    import pooch

    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _innermost(error: BaseException) -> str:
    """Return what the operating system said, without the layers that requests and urllib3 wrap around it."""
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.strerror):
        seen = seen.__cause__ or seen.__context__
    return seen.strerror if isinstance(seen, OSError) and seen.strerror else type(error).__name__
