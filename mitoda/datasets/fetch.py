"""Fetch a data set: bring its files here, verify, convert and record them. Yields events; never prints."""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from mitoda.datasets.cache import IGNORE, MASK, VOLUME, default_dest, find_dataset, read_record, write_record
from mitoda.datasets.convert import Product, Progress, convert_labels, convert_volume
from mitoda.datasets.download import check_free_space
from mitoda.datasets.events import FetchEvent
from mitoda.datasets.schema import Dataset, Sections
from mitoda.datasets.supply import DOWNLOADS, Supply
from mitoda.errors import FileError, InputError, MitodaError

ABANDONED_AFTER = 3600
"""Seconds without a write until a partial file counts as left by a process that was killed."""
STAGING_PREFIX = ".partial-"

Converter = Callable[[Dataset, str, Mapping[str, Path], Path], Generator[Progress, None, list[Product]]]


def fetch_dataset(
    dataset: str | Dataset,
    dest: str | Path | None = None,
    *,
    source_dir: str | Path | None = None,
    mirror: str | None = None,
) -> Iterator[FetchEvent]:
    """Fetch a data set: DEST/NAME/SPLIT/volume.tif, mask.tif, and DEST/NAME/dataset.json about their origin.

    What is converted already and intact is kept. After any failure nothing half-written stays, files that are
    complete and verified wait in DEST/NAME/downloads, and the next call goes on from there.

    A split whose labels are nowhere becomes a volume without a mask, with a warning: it can serve as a
    target.

    Parameters
    ----------
    dataset : str or Dataset
        A name in `DATASETS`, or an entry of one's own.
    dest : path, optional
        Folder of all data sets; `default_dest()` otherwise.
    source_dir : path, optional
        Take files from here: SOURCE/path, SOURCE/NAME/path or SOURCE/file name. They are read in place and
        never
        changed. Nothing is downloaded then, except from `mirror` if that is given too.
    mirror : str, optional
        Take files from MIRROR/NAME/path or MIRROR/path instead of the published addresses.

    Yields
    ------
    FetchEvent

    Raises
    ------
    InputError
        If the name is unknown, `mirror` is no web address, or a file does not hold what the table says.
    FileError
        If a file cannot be had, is damaged or another one, or there is no room on the disk.
    """
    entry = find_dataset(dataset) if isinstance(dataset, str) else dataset
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise InputError(f"--mirror {mirror}: expected an address that begins with http:// or https://")
    folder = Path(source_dir).expanduser() if source_dir is not None else None
    if folder is not None and not folder.is_dir():
        raise FileError(f"--from {folder}: there is no such folder")
    root = (Path(dest).expanduser() if dest is not None else default_dest()) / entry.name
    return _with_file_errors(_fetch(entry, root, folder, mirror), root)


def _with_file_errors(events: Iterator[FetchEvent], root: Path) -> Iterator[FetchEvent]:
    """Pass events on; turn what the operating system says (no room, no permission) into our error."""
    try:
        yield from events
    except MitodaError:
        raise
    except OSError as error:
        raise FileError(f"{error.filename or root}: {error.strerror or error}") from error


def _fetch(dataset: Dataset, root: Path, source_dir: Path | None, mirror: str | None) -> Iterator[FetchEvent]:
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    record = read_record(root)
    supply = Supply(dataset, root, source_dir, mirror, record["files"])
    wanted: dict[str, list[str]] = {}
    for split in dataset.splits:
        if split in record["splits"]:
            yield FetchEvent("checking", dataset.name, f"checking {dataset.name}:{split}", split)
        wanted[split] = _wanted(dataset, root, split, record)
    if not any(wanted.values()):
        yield FetchEvent(
            "done", dataset.name, f"{dataset.name} is complete in {root}; nothing was to be done"
        )
        return
    _check_room(dataset, root, supply, wanted)

    failures = []
    try:
        for split, products in wanted.items():
            try:
                yield from _fetch_split(dataset, split, products, root, supply, record)
            except _ImagesAbsentError as error:
                failures.append(str(error))
        if failures:
            raise FileError("; ".join(failures))
        shutil.rmtree(root / DOWNLOADS, ignore_errors=True)
    finally:
        _remove_empty_folders(root)
    if dataset.voxel_size is None:
        yield FetchEvent("warning", dataset.name, f"the voxel size is not certain: {dataset.voxel_size_note}")
    if dataset.note:
        yield FetchEvent("warning", dataset.name, dataset.note)
    yield FetchEvent("done", dataset.name, f"{dataset.name} is ready in {root}")


class _ImagesAbsentError(FileError):
    """The images of one split are nowhere; the other splits can still be useful."""


def _fetch_split(
    dataset: Dataset, split: str, wanted: list[str], root: Path, supply: Supply, record: dict[str, Any]
) -> Iterator[FetchEvent]:
    """Bring and convert what is wanted of one split."""
    entry = dataset.splits[split]
    if VOLUME in wanted:
        files = yield from supply.gather(entry.images.files)
        absent = [path for path in entry.images.files if path not in files]
        if absent:
            raise _ImagesAbsentError(
                f"{dataset.name}:{split} has no images: {absent[0]} is missing ({supply.absent[absent[0]]}); "
                "take it from elsewhere with --mirror URL or --from DIR"
            )
        yield from _convert(convert_volume, dataset, split, entry.images, root, supply, record)
    if MASK in wanted and entry.labels is not None:
        files = yield from supply.gather(entry.labels.files)
        absent = [path for path in entry.labels.files if path not in files]
        if files and absent:
            raise FileError(
                f"{dataset.name}:{split} lacks {len(absent)} of {len(entry.labels.files)} label files: "
                f"{absent[0]} ({supply.absent[absent[0]]}); complete the copy, or use --mirror URL or "
                f"--from DIR"
            )
        if absent:
            yield _without_labels(dataset, split, root, absent[0], supply.absent[absent[0]])
            return
        yield from _convert(convert_labels, dataset, split, entry.labels, root, supply, record)


def _without_labels(dataset: Dataset, split: str, root: Path, file: str, why: str) -> FetchEvent:
    """Return the warning that a split has no labels.

    Raises
    ------
    FileError
        If a mask lies there that is not the one recorded: silence would let it pass for the labels.
    """
    mask = root / split / MASK
    if mask.exists():
        raise FileError(
            f"{mask} is not as it was made, and its source is missing ({why}); "
            "delete it, or give the source with --mirror URL or --from DIR"
        )
    message = f"{dataset.name}:{split} has no labels here; it can serve as a target (missing: {why})"
    return FetchEvent("warning", dataset.name, message, file)


def _convert(
    converter: Converter,
    dataset: Dataset,
    split: str,
    source: Sections,
    root: Path,
    supply: Supply,
    record: dict[str, Any],
) -> Iterator[FetchEvent]:
    """Convert into a folder of its own, then move what is complete to its name and record it."""
    import pooch

    files = {path: supply.supplied[path].path for path in source.files}
    name = f"{split}/{VOLUME if converter is convert_volume else MASK}"
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=root) as staging:
        try:
            products = yield from _converting(
                converter(dataset, split, files, Path(staging)), dataset.name, name
            )
        except MitodaError:
            supply.discard(source.files)
            raise
        (root / split).mkdir(exist_ok=True)
        entry = record["splits"].setdefault(split, {"shape": list(dataset.splits[split].shape)})
        for product in products:
            path = root / split / product.name
            (Path(staging) / product.name).replace(path)
            entry[product.name] = {
                "size": path.stat().st_size,
                "sha256": pooch.file_hash(str(path)),
                "array_sha256": product.array_sha256,
                "foreground": product.foreground,
                "sources": list(source.files),
            }
    for source_path in source.files:
        file = supply.supplied[source_path]
        record["files"][source_path] = {
            "origin": file.origin,
            "size": file.size,
            "sha256": file.sha256,
            "check": file.check,
        }
    write_record(root, dataset, record)
    yield FetchEvent("converted", dataset.name, str(root / name), name)


def _converting(
    conversion: Generator[Progress, None, list[Product]], dataset: str, name: str
) -> Generator[FetchEvent, None, list[Product]]:
    """Turn the progress of a conversion into events; return what it made."""
    try:
        while True:
            done, total = next(conversion)
            yield FetchEvent("converting", dataset, name, name, done, total, "sections")
    except StopIteration as end:
        products: list[Product] = end.value
        return products
    finally:
        conversion.close()


def _wanted(dataset: Dataset, root: Path, split: str, record: Mapping[str, Any]) -> list[str]:
    """Return which of volume.tif and mask.tif have to be made: not there, or not as recorded."""
    wanted = [] if _intact(root, split, VOLUME, record) else [VOLUME]
    masks = [MASK] if dataset.label_rule.ignore is None else [MASK, IGNORE]
    if dataset.splits[split].labelled and not all(_intact(root, split, name, record) for name in masks):
        wanted.append(MASK)
    return wanted


def _intact(root: Path, split: str, name: str, record: Mapping[str, Any]) -> bool:
    """Say whether a converted file is there with the size and hash recorded when it was made."""
    import pooch

    path = root / split / name
    known = record["splits"].get(split, {}).get(name)
    if not known or not path.is_file() or path.stat().st_size != known["size"]:
        return False
    matches: bool = pooch.file_hash(str(path)) == known["sha256"]
    return matches


def _check_room(dataset: Dataset, root: Path, supply: Supply, wanted: Mapping[str, list[str]]) -> None:
    """Refuse to begin what the disk has no room for: downloads, and the volumes made from them."""
    paths: set[str] = set()
    for split, products in wanted.items():
        entry = dataset.splits[split]
        paths.update(entry.images.files if VOLUME in products else ())
        paths.update(entry.labels.files if MASK in products and entry.labels else ())
    files = [dataset.file(path) for path in paths if not supply.is_at_hand(path)]
    downloads = (
        0 if supply.source_dir and not supply.mirror else sum(file.size or file.about or 0 for file in files)
    )
    volumes = sum(
        math.prod(dataset.splits[split].shape) for split, products in wanted.items() if VOLUME in products
    )
    check_free_space(root, downloads + volumes, dataset.name)


def _remove_abandoned(root: Path) -> None:
    """Remove what a killed process left half-written; a process still at work has written within the hour."""
    partial = [*root.glob(f"{STAGING_PREFIX}*"), *(root / DOWNLOADS).glob("**/tmp*"), *root.glob("*.partial")]
    for path in partial:
        newest = max((file.stat().st_mtime for file in [path, *path.glob("**/*")]), default=0.0)
        if time.time() - newest < ABANDONED_AFTER:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_empty_folders(root: Path) -> None:
    """Remove folders that hold nothing, the data set's own included."""
    for folder, _, _ in os.walk(root, topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()
