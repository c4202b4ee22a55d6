"""The catalogue of public data sets, read from catalogue.toml, which says for each hash where it comes from."""

import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files as package_files
from typing import Any

from mitoda.datasets.schema import Dataset, DatasetFile, LabelRule, Sections, Split

_FOLDER = package_files("mitoda.datasets")


def _read(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


def _dataset(name: str, entry: dict[str, Any]) -> Dataset:
    """Return one table of catalogue.toml; its head says what each key means."""
    files = tuple(file for group in entry.pop("files") for file in _files(**group))
    size = entry.pop("voxel_size", [])
    splits = {
        key: split
        for table in entry.pop("splits")
        for key, split in _splits({"voxel_size": size, **table}, files)
    }
    rule = LabelRule(**entry.pop("label_rule", {}))
    return Dataset(name=name, files=files, splits=splits, label_rule=rule, **entry)


def _files(
    url: str | list[str], provenance: str, size: int, registry: str | dict[str, str], exact: bool = False
) -> Iterator[DatasetFile]:
    urls = [url] if isinstance(url, str) else url
    known = (
        registry
        if isinstance(registry, dict)
        else dict(line.split() for line in _read(registry).splitlines())
    )
    for path, known_hash in known.items():
        addresses = tuple(one.replace("{path}", path) for one in urls)
        yield DatasetFile(path, addresses, provenance, size, exact, known_hash or None)


def _splits(table: dict[str, Any], files: tuple[DatasetFile, ...]) -> Iterator[tuple[str, Split]]:
    numbers = range(*table["numbers"]) if "numbers" in table else None

    def sections(where: str, transposed: bool = False) -> Sections:
        archive, is_zip, pattern = where.partition(".zip/")
        if is_zip:
            return Sections((f"{archive}.zip",), pattern, numbers, transposed)
        return Sections(
            tuple(file.path for file in files if fnmatch(file.path, where)), transposed=transposed
        )

    for name in table["names"]:
        labels = table.get("labels")
        yield (
            name,
            Split(
                tuple(table["shape"]) if "shape" in table else None,
                tuple(table["voxel_size"]) or None,
                sections(table["images"].replace("{name}", name)),
                sections(labels.replace("{name}", name), table.get("labels_transposed", False))
                if labels
                else None,
                table.get("volume_sha256"),
                table.get("mask_sha256"),
            ),
        )


DATASETS: dict[str, Dataset] = {
    name: _dataset(name, entry) for name, entry in tomllib.loads(_read("catalogue.toml")).items()
}
