"""Published files brought to this machine and verified: from a folder, a mirror or their published address.

downloads/ADDRESS/training.tif                    complete; waits for its conversion
downloads/ADDRESS/training.tif.VERSION.partial    a part of the server's VERSION; the next fetch continues it
"""

import glob
import hashlib
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pooch
import requests

from mitoda.datasets.cache import SourceFile
from mitoda.datasets.schema import Dataset, DatasetFile, FetchEvent
from mitoda.errors import FileError
from mitoda.volumes.files import check_signature, partial_path

DOWNLOADS = "downloads"
"""Folder of verified files that wait for their conversion."""
CHUNK = 2**16
"""Bytes between two reports of progress: so few that a slow server's arrive before a person stops waiting."""
TIMEOUT = 30
"""Seconds without data after which a download fails."""
ATTEMPTS = 3
"""Attempts at a file, with a second's wait more after each, where the connection or the server failed."""
LARGEST = 4
"""A body of more than this many times the known size is refused: a mirror may compress less, but not that much."""
ADVICE = "fetch again, or take the file from a mirror or a local folder"

KINDS = {".tif": "TIFF", ".png": "PNG", ".zip": "ZIP", ".gz": "GZIP"}


class _AbsentError(FileError):
    """The server has no such file."""


class _FailedError(FileError):
    """The connection or the server failed; another attempt may succeed."""


@dataclass
class Supply:
    """Finds, downloads and verifies the files of one data set, each once."""

    dataset: Dataset
    root: Path
    """The data set's folder; downloads wait below it until they are converted."""
    source_dir: Path | None
    """A local folder with the files. Nothing is downloaded then, except from `mirror` if that is given too."""
    mirror: str | None
    """A base URL that replaces the published addresses."""
    recorded: Mapping[str, SourceFile]
    """The files of earlier fetches."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Where each verified file lies."""
    sources: dict[str, SourceFile] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Files that were not found, with the places tried."""

    def gather(self, paths: tuple[str, ...]) -> Generator[FetchEvent, None, dict[str, Path]]:
        """Bring files here; return those that exist. The others are in `absent`."""
        for path in paths:
            if path not in self.paths and path not in self.absent:
                yield from self._bring(self.dataset.file(path))
        return {path: self.paths[path] for path in paths if path in self.paths}

    def discard(self, paths: tuple[str, ...]) -> None:
        """Delete the downloads among these that have no known hash: they could not be converted."""
        for path in paths:
            is_download = self.paths[path].is_relative_to(self.root / DOWNLOADS)
            if is_download and self.dataset.file(path).known_hash is None:
                self.paths.pop(path).unlink(missing_ok=True)

    def download_size(self, paths: set[str]) -> int:
        """Return about how many bytes have to be downloaded for these files."""
        return sum(
            file.size
            for file in map(self.dataset.file, paths)
            if not any(place.is_file() for place in self._local_places(file))
            and not any(self._target(file, url).is_file() for url in self._addresses(file))
            and self._addresses(file)
        )

    def _local_places(self, file: DatasetFile) -> list[Path]:
        if self.source_dir is None:
            return []
        names = (file.path, f"{self.dataset.name}/{file.path}", Path(file.path).name)
        return [self.source_dir / name for name in dict.fromkeys(names)]

    def _addresses(self, file: DatasetFile) -> list[str]:
        if self.mirror is not None:
            base = self.mirror.rstrip("/")
            return [f"{base}/{quote(self.dataset.name)}/{quote(file.path)}", f"{base}/{quote(file.path)}"]
        return [] if self.source_dir is not None else list(file.urls)

    def _target(self, file: DatasetFile, url: str) -> Path:
        """Return where a download waits: apart for each address, so that no file is taken for another one."""
        address = hashlib.sha256(url.encode()).hexdigest()[:12]
        return self.root / DOWNLOADS / address / Path(file.path)

    def _bring(self, file: DatasetFile) -> Generator[FetchEvent, None, None]:
        name, finished = self.dataset.name, len(self.paths) + len(self.absent)
        yield FetchEvent("file", name, "", file.path, finished, len(self.dataset.files))
        places = self._local_places(file)
        for place in places:
            if place.is_file():
                yield from self._verify(file, place, str(place))
                return
        tried = [f"{place} does not exist" for place in places]
        for url in self._addresses(file):
            target = self._target(file, url)
            try:
                if not target.is_file():
                    for done, total in download(url, target, LARGEST * file.size):
                        yield FetchEvent("progress", name, "", file.path, done, total)
                yield from self._verify(file, target, url)
                return
            except _AbsentError as error:
                tried.append(str(error))
            except FileError:
                target.unlink(missing_ok=True)
                raise
        self.absent[file.path] = "; ".join(tried)

    def _verify(self, file: DatasetFile, path: Path, origin: str) -> Iterator[FetchEvent]:
        """Compare a file with its format, and with its hash or else its size and the file fetched first."""
        if path.suffix in KINDS:
            check_signature(path, KINDS[path.suffix], origin)
        name, size, sha256 = self.dataset.name, path.stat().st_size, pooch.file_hash(str(path))
        first = self.recorded.get(file.path)
        if file.known_hash is not None:
            algorithm, _, expected = file.known_hash.partition(":")
            found = git_blob(path) if algorithm == "git_blob" else sha256
            if found != expected:
                raise FileError(
                    f"{origin} has the {algorithm} {found}, expected {expected} ({file.provenance}): it is damaged or "
                    f"another version; {ADVICE}"
                )
            check = f"{algorithm} matches ({file.provenance})"
        elif file.is_size_exact and size != file.size and origin in file.urls:
            # only a published address promises the published size: a mirror may have compressed the file anew
            raise FileError(f"{origin} sent {size:,} bytes, expected {file.size:,}; {ADVICE}")
        elif first is not None and first.sha256 != sha256 and first.origin == origin:
            raise FileError(
                f"{origin} has changed since it was first fetched: sha256 {sha256}, recorded {first.sha256}; "
                f"if the new file is right, delete {self.root} and fetch again"
            )
        else:
            check = f"no hash is published: sha256 {sha256} is recorded; shape, type and values are checked"
            if file.is_size_exact and size != file.size:
                check += f" (a copy of {size:,} bytes; {file.size:,} are published)"
            if first is not None and first.sha256 != sha256:
                warning = f"{name}/{file.path} differs from the file fetched first, from {first.origin}"
                yield FetchEvent("warning", name, warning, file.path)
        self.paths[file.path], self.sources[file.path] = path, SourceFile(origin, size, sha256, check)
        yield FetchEvent("verified", name, check, file.path, size, size)


def git_blob(path: Path) -> str:
    """Return git's name of a file's content: the sha1 of `blob SIZE NUL content`."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(url: str, target: Path, limit: int) -> Iterator[tuple[int, int | None]]:
    """Download `url` to `target`, which appears when it is complete. Yield bytes so far, and in all if known.

    What has arrived stays, and the next call continues it where the server names the version of its content (ETag or
    Last-Modified) and still has the same one. pooch's downloader reports through a callback, which would take a thread,
    and cannot continue; this one can be stopped at each chunk.

    Raises
    ------
    FileError
        If the connection fails, or the server sends an error, an incomplete body or more than `limit` bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            yield from _receive(url, target, limit)
            return
        except _FailedError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(attempt)


def _receive(url: str, target: Path, limit: int) -> Iterator[tuple[int, int | None]]:
    """Write what the server sends to a partial file, or what it lacks; rename it when it is complete."""
    earlier = next(target.parent.glob(f"{glob.escape(target.name)}.?*.partial"), None)
    done, total = earlier.stat().st_size if earlier else 0, None
    # identity: a server that calls .gz files compressed in transit would make requests unpack them
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if not (done and answer.status_code == 416):  # as long as the server's file already, or longer
                answer.raise_for_status()
            is_rest = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            done = done if is_rest else 0
            total = done + int(answer.headers.get("Content-Length", 0)) or None
            partial = _partial(target, answer, total)
            if earlier is not None and earlier != partial:
                earlier.unlink()
                if answer.status_code != 200:  # the rest of another version
                    yield from _receive(url, target, limit)
                    return
            check_free_space(partial.parent, (total or 0) - done, url)
            with partial.open("ab" if is_rest else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    done += file.write(chunk)
                    if max(done, total or 0) > limit:
                        partial.unlink()
                        raise FileError(
                            f"{url} sends more than {limit:,} bytes, which is too large; {ADVICE}"
                        )
                    yield done, total
                if total is not None and done < total:
                    raise requests.ConnectionError
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
    except requests.RequestException as error:
        raise _explain(error, url, done, total) from error


def _partial(target: Path, answer: requests.Response, total: int | None) -> Path:
    """Name the partial file after the version of its content; without one, no later download finds it."""
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    if version is None:
        return partial_path(target)
    short = hashlib.sha256(f"{version} {total}".encode()).hexdigest()[:12]
    return partial_path(target.with_name(f"{target.name}.{short}"))


def _explain(error: requests.RequestException, url: str, done: int, total: int | None) -> FileError:
    """Say what failed and what to do."""
    if error.response is not None:
        status, reason = error.response.status_code, error.response.reason
        if status in (404, 410):
            return _AbsentError(f"{url} does not exist (HTTP {status})")
        kind = _FailedError if status >= 500 or status == 429 else FileError
        return kind(f"{url} was refused (HTTP {status} {reason}); {ADVICE}")
    if isinstance(error, requests.Timeout):
        return _FailedError(f"{url}: no answer for {TIMEOUT} s; check the network; {ADVICE}")
    if done or total:
        of = f" of {total:,}" if total else ""
        return _FailedError(f"{url}: the connection broke after {done:,}{of} bytes; {ADVICE}")
    return _FailedError(f"{url} cannot be reached ({_innermost(error)}); check the network; {ADVICE}")


def _innermost(error: BaseException) -> str:
    """Return what the operating system said, without the layers that requests and urllib3 wrap around it."""
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.strerror):
        seen = seen.__cause__ or seen.__context__
    return seen.strerror if isinstance(seen, OSError) and seen.strerror else type(error).__name__


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raise FileError if the disk of `folder` has no room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileError(
            f"{what} needs about {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB is free; "
            "make room, or choose another folder with --dest or MITODA_CACHE_DIR"
        )
