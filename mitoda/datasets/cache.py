"""Where converted data sets lie, what is recorded about them, and how a command names a volume of one."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mitoda.datasets.catalogue import DATASETS
from mitoda.datasets.schema import Dataset
from mitoda.errors import FileError, InputError
from mitoda.volumes import VoxelSize
from mitoda.volumes.records import write_record

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
    """255 where nobody annotated; None where everything is annotated."""
    voxel_size: VoxelSize | None
    """Nanometres, from the catalogue; None where the sources contradict each other."""


@dataclass(frozen=True)
class SourceFile:
    """A published file that was converted."""

    origin: str
    """URL or path."""
    size: int
    sha256: str
    check: str
    """What was verified, and against what."""


@dataclass(frozen=True)
class Product:
    """A converted file."""

    size: int
    sha256: str
    array_sha256: str | None
    """sha256 of the array in C order: the grey values, or the mask as 0 and 1; None for ignore.tif."""
    sources: tuple[str, ...]
    """Paths of the published files."""


@dataclass(frozen=True)
class Record:
    """The part of dataset.json that is read back."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "ignore", "allow_inf_nan": False}

    files: dict[str, SourceFile]
    """By published path."""
    products: dict[str, Product]
    """By `SPLIT/NAME`, for example `training/mask.tif`."""


def save_record(folder: Path, dataset: Dataset, record: Record) -> None:
    """Write dataset.json: the catalogue's description, and what was fetched and made."""
    from mitoda import __version__

    described = ("name", "landing_page", "licence", "citation", "voxel_size_note", "note")
    description = {field: getattr(dataset, field) for field in described}
    description["voxel_size_nm"] = {name: split.voxel_size for name, split in dataset.splits.items()}
    description["mitoda_version"] = __version__
    write_record(folder / RECORD, {**description, **asdict(record)})


def default_dest() -> Path:
    """Return the folder that holds the data sets: MITODA_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("MITODA_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("mitoda"))


def find_dataset(spec: str) -> Dataset:
    """Return the data set that `NAME` names; `NAME:SPLIT` returns it with that split only.

    Raises
    ------
    InputError
        If there is none; the message lists the known ones.

    Examples
    --------
    >>> list(find_dataset("lucchi").splits), list(find_dataset("lucchi:testing").splits)
    (['training', 'testing'], ['testing'])
    """
    name, colon, split = spec.partition(":")
    if name not in DATASETS:
        raise InputError(f"there is no data set {name!r}; known are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if not colon:
        return dataset
    if split not in dataset.splits:
        known = ", ".join(f"{name}:{known}" for known in dataset.splits)
        raise InputError(f"{name} has no split {split!r}; it has {known}")
    return replace(dataset, splits={split: dataset.splits[split]})


def is_dataset_spec(text: str) -> bool:
    """Whether a text names a data set (`lucchi`) or a split of one (`lucchi:testing`), fetched or not.

    An unknown split counts, so that `resolve` can list the known ones.

    Examples
    --------
    >>> is_dataset_spec("lucchi:testing"), is_dataset_spec("lucchi.tif")
    (True, False)
    """
    return text.partition(":")[0] in DATASETS


def resolve(spec: str, dest: str | Path | None = None) -> ResolvedSplit:
    """Return the files that `mitoda fetch` made for a split of a data set.

    Parameters
    ----------
    spec : str
        `NAME:SPLIT`, or `NAME` for the first split.
    dest : path, optional
        Folder that holds the data sets; `default_dest()` otherwise.

    Raises
    ------
    InputError
        If the data set or the split is unknown.
    FileError
        If it has not been fetched.
    """
    dataset = find_dataset(spec)
    name, (split, entry) = dataset.name, next(iter(dataset.splits.items()))
    root = Path(dest) if dest is not None else default_dest()
    volume, mask, ignore = (root / name / split / file for file in (VOLUME, MASK, IGNORE))
    if not volume.is_file():
        where = "" if dest is None else f" --dest {dest}"
        raise FileError(f"{name}:{split} is not in {root}; run: mitoda fetch {name}{where}")
    return ResolvedSplit(
        dataset=name,
        split=split,
        volume=volume,
        mask=mask if mask.is_file() else None,
        ignore=ignore if ignore.is_file() else None,
        voxel_size=entry.voxel_size,
    )
