"""Published files brought to this machine and verified: from a folder, a mirror or the source."""

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mitoda.datasets.download import NotThereError, check_beginning, download
from mitoda.datasets.events import FetchEvent
from mitoda.datasets.schema import Dataset, DatasetFile
from mitoda.errors import FileError

DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Supplied:
    """A file at hand, with what is known about it."""

    path: Path
    origin: str
    """URL or path that it came from."""
    sha256: str
    size: int
    check: str
    """What was verified, and against what."""
    doubtful: bool
    """Whether it was downloaded here and no hash vouches for it: it goes when it cannot be converted."""


class Supply:
    """Finds, downloads and verifies the files of one data set; each only once.

    Parameters
    ----------
    dataset : Dataset
    root : Path
        The data set's folder; downloads wait below it until they are converted.
    source_dir : Path, optional
        A folder with files that the person has. Nothing is downloaded then, except from `mirror` if that is
        given too.
    mirror : str, optional
        A base URL that stands in for the published addresses.
    recorded : mapping
        What dataset.json says about files of earlier fetches.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        source_dir: Path | None,
        mirror: str | None,
        recorded: Mapping[str, Any],
    ) -> None:
        self.dataset = dataset
        self.root = root
        self.source_dir = source_dir
        self.mirror = mirror
        self.recorded = recorded
        self.supplied: dict[str, Supplied] = {}
        self.absent: dict[str, str] = {}
        """Paths that are nowhere, with where they were looked for."""

    def gather(self, paths: tuple[str, ...]) -> Generator[FetchEvent, None, dict[str, Path]]:
        """Bring files here; return those that exist. The others are in `absent`."""
        for path in paths:
            if path not in self.supplied and path not in self.absent:
                yield from self._bring(self.dataset.file(path))
        return {path: self.supplied[path].path for path in paths if path in self.supplied}

    def discard(self, paths: tuple[str, ...]) -> None:
        """Delete the downloads among these that no hash vouches for: they could not be converted."""
        for path in paths:
            if path in self.supplied and self.supplied[path].doubtful:
                self.supplied.pop(path).path.unlink(missing_ok=True)

    def find_here(self, path: str) -> Path | None:
        """Return the file in the person's folder, or None."""
        return next((place for place in self._places(path) if place.is_file()), None)

    def is_at_hand(self, path: str) -> bool:
        """Say whether a file need not be downloaded: the person has it, or a download of it waits."""
        file = self.dataset.file(path)
        waiting = any(self._target(file, url).is_file() for url in self._addresses(file))
        return waiting or self.find_here(path) is not None

    def _places(self, path: str) -> list[Path]:
        if self.source_dir is None:
            return []
        here, relative = self.source_dir, Path(path)
        # dict.fromkeys: the first and the last are the same for a path without folders
        return list(
            dict.fromkeys((here / relative, here / self.dataset.name / relative, here / relative.name))
        )

    def _addresses(self, file: DatasetFile) -> list[str]:
        if self.mirror is not None:
            base = self.mirror.rstrip("/")
            return [f"{base}/{quote(self.dataset.name)}/{quote(file.path)}", f"{base}/{quote(file.path)}"]
        return [] if self.source_dir is not None else list(file.urls)

    def _bring(self, file: DatasetFile) -> Generator[FetchEvent, None, None]:
        name = self.dataset.name
        counts = {"done": len(self.supplied) + len(self.absent), "total": len(self.dataset.files)}
        yield FetchEvent("file", name, f"looking for {file.path}", file.path, unit="files", **counts)
        here = self.find_here(file.path)
        if here is not None:
            check_beginning(here, here.suffix, str(here))
            yield from self._verify(file, here, str(here), downloaded=False)
            return
        places = [f"{place} does not exist" for place in self._places(file.path)]
        for url in self._addresses(file):
            target = self._target(file, url)
            # Only a published address promises the published size; a mirror may have compressed the file
            # anew.
            size = file.size if url in file.urls else None
            try:
                for done, total in download(url, target, file.sha256, size, file.provenance):
                    yield FetchEvent("progress", name, url, file.path, done, total, "B")
            except NotThereError as error:
                places.append(str(error))
                continue
            yield from self._verify(file, target, url, downloaded=True)
            return
        self.absent[file.path] = "; ".join(places)

    def _target(self, file: DatasetFile, url: str) -> Path:
        """Return where a download waits: apart for each address, so that no file passes for another one."""
        address = hashlib.sha256(url.encode()).hexdigest()[:12]
        return self.root / DOWNLOADS / address / Path(file.path)

    def _verify(
        self, file: DatasetFile, path: Path, origin: str, *, downloaded: bool
    ) -> Generator[FetchEvent, None, None]:
        """Check the hash where one is known, else compare with the first fetch."""
        import pooch

        size = path.stat().st_size
        checked_by_pooch = downloaded and file.sha256 is not None
        sha256 = file.sha256 if checked_by_pooch and file.sha256 else pooch.file_hash(str(path))
        warning = ""
        try:
            if file.sha256 is not None:
                check = _check_known(origin, "sha256", sha256, file.sha256, file.provenance)
            elif file.git_blob is not None:
                check = _check_known(origin, "git blob", git_blob(path), file.git_blob, file.provenance)
            else:
                check = f"no hash is published: sha256 {sha256} is recorded; shape, type and values decide"
                warning = self._compare_with_first(file, origin, sha256)
                if file.size is not None and size != file.size:
                    check += f" (a copy of {size:,} bytes; {file.size:,} are published)"
        except FileError:
            if downloaded:
                path.unlink()
            raise
        if warning:
            yield FetchEvent("warning", self.dataset.name, warning, file.path)
        doubtful = downloaded and file.status == "none known"
        self.supplied[file.path] = Supplied(path, origin, sha256, size, check, doubtful)
        yield FetchEvent("verified", self.dataset.name, check, file.path, size, size, "B")

    def _compare_with_first(self, file: DatasetFile, origin: str, sha256: str) -> str:
        """Return a warning, or "", when no published hash exists and another file was here before.

        Raises
        ------
        FileError
            If the same address now serves other bytes.
        """
        first = self.recorded.get(file.path)
        if not isinstance(first, dict) or first.get("sha256") == sha256:
            return ""
        if first.get("origin") == origin:
            raise FileError(
                f"{origin} has changed since it was first fetched: sha256 {sha256}, recorded "
                f"{first.get('sha256')}; "
                f"if the new file is right, delete {self.root} and fetch again"
            )
        return (
            f"{self.dataset.name}/{file.path} is another copy than the one fetched first from "
            f"{first.get('origin')}: "
            "shape, type and values decide"
        )


def git_blob(path: Path) -> str:
    """Return git's name of a file's content: the sha1 of `blob SIZE NUL content`."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_known(origin: str, kind: str, found: str, expected: str, provenance: str) -> str:
    """Return what was checked.

    Raises
    ------
    FileError
        If the hash is another one.
    """
    if found != expected:
        raise FileError(
            f"{origin} has the {kind} {found}, expected {expected} ({provenance}): it is damaged or "
            f"another version; "
            "take the file from elsewhere with --mirror URL or --from DIR"
        )
    return f"{kind} matches ({provenance})"
