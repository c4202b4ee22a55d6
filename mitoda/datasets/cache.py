"""Where converted data sets lie, what is recorded about them, and how a command names a volume of one."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitoda.datasets.catalogue import DATASETS
from mitoda.datasets.schema import Dataset
from mitoda.errors import FileError, InputError
from mitoda.volumes import VoxelSize

VOLUME, MASK, IGNORE = "volume.tif", "mask.tif", "ignore.tif"
RECORD = "dataset.json"


@dataclass(frozen=True)
class ResolvedSplit:
    """The files of one converted split."""

    dataset: str
    split: str
    volume: Path
    mask: Path | None
    """0 and 255; None where the split has no labels here."""
    ignore: Path | None
    """255 where nobody annotated, to be left out of scores; None where everything is annotated."""
    voxel_size: VoxelSize | None
    """Nanometres, from the table; None where the sources contradict each other."""


def default_dest() -> Path:
    """Return the folder that holds the data sets: MITODA_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("MITODA_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()

    import pooch

    return Path(pooch.os_cache("mitoda"))


def find_dataset(name: str, datasets: Mapping[str, Dataset] = DATASETS) -> Dataset:
    """Return the data set of that name.

    Raises
    ------
    InputError
        If there is none; the message lists the known ones.
    """
    if name not in datasets:
        raise InputError(f"there is no data set {name!r}; known are {', '.join(datasets)}")
    return datasets[name]


def is_dataset_spec(text: str, datasets: Mapping[str, Dataset] = DATASETS) -> bool:
    """Say whether a text names a data set (`lucchi`) or a split of one (`lucchi:testing`), fetched or not.

    A misspelt split counts, so that `resolve` can list the right ones; a misspelt data set is taken for a
    path.

    Examples
    --------
    >>> is_dataset_spec("lucchi:testing"), is_dataset_spec("lucchi.tif")
    (True, False)
    """
    return text.partition(":")[0] in datasets


def resolve(
    spec: str, dest: str | Path | None = None, *, datasets: Mapping[str, Dataset] = DATASETS
) -> ResolvedSplit:
    """Return the files that `mitoda fetch` made for a data set or a split of it.

    Parameters
    ----------
    spec : str
        `NAME` for the default split (the only one, or training) or `NAME:SPLIT`.
    dest : path, optional
        Where the data sets lie; `default_dest()` otherwise.
    datasets : mapping
        The table.

    Raises
    ------
    InputError
        If the data set or the split is unknown.
    FileError
        If it has not been fetched.
    """
    name, colon, split = spec.partition(":")
    dataset = find_dataset(name, datasets)
    split = split if colon else dataset.default_split
    if split not in dataset.splits:
        raise InputError(
            f"{name} has no split {split!r}; it has {', '.join(f'{name}:{s}' for s in dataset.splits)}"
        )
    root = Path(dest) if dest is not None else default_dest()
    folder = root / name / split
    if not (folder / VOLUME).is_file():
        where = "" if dest is None else f" --dest {dest}"
        raise FileError(f"{name}:{split} is not in {root}; run: mitoda fetch {name}{where}")
    mask, ignore = folder / MASK, folder / IGNORE
    return ResolvedSplit(
        dataset=name,
        split=split,
        volume=folder / VOLUME,
        mask=mask if mask.is_file() else None,
        ignore=ignore if ignore.is_file() else None,
        voxel_size=dataset.voxel_size,
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Return what dataset.json says about files and splits; an empty record where it is missing or broken.

    A broken record costs a conversion, nothing else: nothing is taken for intact without it.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        record = {}
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), dict) for key in ("files", "splits")
    ):
        return {"files": {}, "splits": {}}
    return record


def write_record(folder: Path, dataset: Dataset, record: Mapping[str, Any]) -> None:
    """Write dataset.json: origin, terms, hashes seen, and what was made of the files."""
    from mitoda import __version__

    content = {
        "name": dataset.name,
        "landing_page": dataset.landing_page,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "voxel_size_nm": dataset.voxel_size,
        "voxel_size_note": dataset.voxel_size_note,
        "note": dataset.note,
        "mitoda_version": __version__,
        "files": record["files"],
        "splits": record["splits"],
    }
    partial = folder / f"{RECORD}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(folder / RECORD)
    finally:
        partial.unlink(missing_ok=True)
