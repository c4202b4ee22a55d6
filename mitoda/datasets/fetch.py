"""Fetch a data set: get its files, verify, convert and record them. Yields events; never prints."""

import math
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pooch

from mitoda.datasets.cache import (
    IGNORE,
    MASK,
    RECORD,
    VOLUME,
    Record,
    default_dest,
    find_dataset,
    save_record,
)
from mitoda.datasets.convert import convert_labels, convert_volume
from mitoda.datasets.download import ADVICE, DOWNLOADS, Supply, check_free_space
from mitoda.datasets.schema import Dataset, FetchEvent, Sections
from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes.records import read_record

STAGING = ".partial"
"""Folder of files that are being converted."""
LOCK = ".lock"


class _ImagesAbsentError(FileError):
    """The images of one split cannot be found; the other splits can still be useful."""


def fetch_dataset(
    dataset: str | Dataset,
    dest: str | Path | None = None,
    *,
    source_dir: str | Path | None = None,
    mirror: str | None = None,
) -> Iterator[FetchEvent]:
    """Fetch a data set: DEST/NAME/SPLIT/volume.tif and mask.tif, and DEST/NAME/dataset.json about their origin.

    What is converted already and intact is kept. After a failure, complete and partial downloads wait in
    DEST/NAME/downloads, and the next call continues with them. A split whose labels are found
    nowhere becomes a volume without a mask, with a warning: it can serve as a target.

    Parameters
    ----------
    dataset : str or Dataset
        A name in `DATASETS`, `NAME:SPLIT` for one volume of it, or an entry of your own.
    dest : path, optional
        Folder of all data sets; `default_dest()` otherwise.
    source_dir : path, optional
        Read files from here: SOURCE/path, SOURCE/NAME/path or SOURCE/file name. They are never changed. Nothing is
        downloaded then, except from `mirror` if that is given too.
    mirror : str, optional
        Download files from MIRROR/NAME/path or MIRROR/path instead of the published addresses.

    Yields
    ------
    FetchEvent

    Raises
    ------
    InputError
        If the name is unknown, `mirror` is no web address, or a file does not contain what the catalogue says.
    FileError
        If a file is not found, is damaged or another one, there is no room on the disk, or another process is
        fetching the same data set.
    """
    entry = find_dataset(dataset) if isinstance(dataset, str) else dataset
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise InputError(f"mirror is {mirror}; expected an address that begins with http:// or https://")
    folder = Path(source_dir).expanduser() if source_dir is not None else None
    if folder is not None and not folder.is_dir():
        raise FileError(f"there is no folder {folder}; expected one with the files of {entry.name}")
    root = (Path(dest).expanduser() if dest is not None else default_dest()) / entry.name
    return _fetch_safely(entry, root, folder, mirror)


def _fetch_safely(
    dataset: Dataset, root: Path, source_dir: Path | None, mirror: str | None
) -> Iterator[FetchEvent]:
    """Fetch under a lock, leave no partial files, and turn errors of the operating system into ours."""
    try:
        with _locked(root):
            try:
                _remove_unfinished_conversions(root)
                yield from _fetch(dataset, root, source_dir, mirror)
            finally:
                _remove_unfinished_conversions(root)
    except MitodaError:
        raise
    except OSError as error:
        raise FileError(f"{error.filename or root}: {error.strerror or error}") from error


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Refuse a folder that another process is fetching into. The lock ends with the process; none on Windows."""
    try:
        import fcntl
    except ImportError:
        root.mkdir(parents=True, exist_ok=True)
        yield
        return
    lock = root / LOCK
    while True:
        root.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileError(
                    f"another process is fetching into {root}; wait until it has finished"
                ) from None
            if not (lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat())):
                continue  # the process that had the lock removed its file between opening and locking
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    root.rmdir()
            return


def _remove_unfinished_conversions(root: Path) -> None:
    """Remove what this or a killed process has not finished converting, and empty folders."""
    shutil.rmtree(root / STAGING, ignore_errors=True)
    for path in root.glob("*.partial"):
        path.unlink(missing_ok=True)
    for folder, _, _ in os.walk(root, topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _fetch(dataset: Dataset, root: Path, source_dir: Path | None, mirror: str | None) -> Iterator[FetchEvent]:
    record = Record({}, {})
    if (root / RECORD).exists():
        try:
            record = read_record(root / RECORD, Record)
        except FileError as error:
            yield FetchEvent("warning", dataset.name, f"{error}; everything is converted again")
    supply = Supply(dataset, root, source_dir, mirror, record.files)
    wanted: list[tuple[str, str]] = []
    for split in dataset.splits:
        if f"{split}/{VOLUME}" in record.products:
            yield FetchEvent("checking", dataset.name, file=split)
        wanted += [(split, name) for name in _missing(dataset, root, split, record)]
    if not wanted:
        yield FetchEvent("done", dataset.name, f"already complete in {root}")
        return
    _check_room(dataset, root, supply, wanted)

    failures: dict[str, str] = {}
    for split, name in wanted:
        try:
            if split not in failures:
                yield from _make(dataset, split, name, root, supply, record)
        except _ImagesAbsentError as error:
            failures[split] = str(error)
    if failures:
        raise FileError("; ".join(failures.values()))
    shutil.rmtree(root / DOWNLOADS, ignore_errors=True)
    if dataset.voxel_size_note:
        yield FetchEvent("warning", dataset.name, f"voxel size: {dataset.voxel_size_note}")
    if dataset.note:
        yield FetchEvent("warning", dataset.name, dataset.note)
    yield FetchEvent("done", dataset.name, f"ready in {root}")


def _missing(dataset: Dataset, root: Path, split: str, record: Record) -> list[str]:
    """Return which of volume.tif and mask.tif are missing or not as recorded."""

    def is_intact(name: str) -> bool:
        path, known = root / split / name, record.products.get(f"{split}/{name}")
        if known is None or not path.is_file() or path.stat().st_size != known.size:
            return False
        return bool(pooch.file_hash(str(path)) == known.sha256)

    masks = [MASK] if dataset.label_rule.ignore is None else [MASK, IGNORE]
    missing = [] if is_intact(VOLUME) else [VOLUME]
    if dataset.splits[split].labels is not None and not all(map(is_intact, masks)):
        missing.append(MASK)
    return missing


def _sections(dataset: Dataset, split: str, name: str) -> Sections:
    """Return what volume.tif or mask.tif is made from."""
    entry = dataset.splits[split]
    return entry.labels if name == MASK and entry.labels is not None else entry.images


def _check_room(dataset: Dataset, root: Path, supply: Supply, wanted: list[tuple[str, str]]) -> None:
    """Refuse to begin if the disk has no room for the downloads and the volumes made from them."""
    paths = {path for split, name in wanted for path in _sections(dataset, split, name).files}
    volumes = sum(math.prod(dataset.splits[split].shape or (0,)) for split, name in wanted if name == VOLUME)
    check_free_space(root, supply.download_size(paths) + volumes, dataset.name)


def _make(
    dataset: Dataset, split: str, name: str, root: Path, supply: Supply, record: Record
) -> Generator[FetchEvent, None, None]:
    """Make volume.tif or mask.tif of a split: get its files, convert them, move the products, record them."""
    sources = _sections(dataset, split, name).files
    files = yield from supply.gather(sources)
    absent = [path for path in sources if path not in files]
    if absent:
        yield from _explain_absent(dataset, split, name, root, absent, supply.absent[absent[0]])
        return
    staging = root / STAGING
    staging.mkdir()
    try:
        convert = convert_volume if name == VOLUME else convert_labels
        products = yield from convert(dataset, split, files, staging)
    except MitodaError:
        supply.discard(sources)
        raise
    (root / split).mkdir(exist_ok=True)
    for file, product in products.items():
        (staging / file).replace(root / split / file)
        record.products[f"{split}/{file}"] = product
    staging.rmdir()
    record.files.update({path: supply.sources[path] for path in sources})
    save_record(root, dataset, record)
    yield FetchEvent("converted", dataset.name, file=f"{split}/{name}")


def _explain_absent(
    dataset: Dataset, split: str, name: str, root: Path, absent: list[str], tried: str
) -> Iterator[FetchEvent]:
    """Warn that all labels are missing; raise FileError where that is not the case, or an older mask is there."""
    spec, mask = f"{dataset.name}:{split}", root / split / MASK
    if name == VOLUME:
        raise _ImagesAbsentError(f"{spec} has no images: {absent[0]} is missing ({tried}); {ADVICE}")
    expected = len(_sections(dataset, split, name).files)
    if len(absent) < expected:
        raise FileError(
            f"{spec} lacks {len(absent)} of {expected} label files: {absent[0]} is missing ({tried}); {ADVICE}"
        )
    if mask.exists():
        raise FileError(
            f"{mask} has changed since it was made, and its source is missing ({tried}); delete it, or {ADVICE}"
        )
    message = f"{spec} has no labels here; it can serve as a target (missing: {tried})"
    yield FetchEvent("warning", dataset.name, message, absent[0])
