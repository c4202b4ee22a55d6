"""HDF5 files: one dataset, named as stack.h5:/volumes/raw or the only one that can be a stack.

Links and virtual datasets that lead to other files are refused, so that a file of others reads nothing but itself.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mitoda.errors import FileError, InputError
from mitoda.volumes.axes import array_axes
from mitoda.volumes.chunked import (
    ChunkedVolume,
    Selection,
    StoredArray,
    as_letters,
    choices,
    label_axes,
)
from mitoda.volumes.files import check_signature, naming_damage
from mitoda.volumes.voxel_size import from_attributes

if TYPE_CHECKING:
    import h5py

MOST_LINKS = 16
"""Soft links followed one after another before they are taken for a circle."""


def open_hdf5(path: Path, key: str = "", axes: str | None = None) -> ChunkedVolume:
    """Open a dataset of an HDF5 file.

    The axes are those of ilastik's `axistags` or of the dimension labels, else (section, row, column). The voxel size
    is that of `mitoda.volumes.voxel_size.from_attributes`, on the dataset or a group above it.

    Parameters
    ----------
    path : Path
    key : str
        Path of the dataset in the file. By default the only dataset of three axes or, if there is none, of two.
    axes : str, optional
        As for `open_volume`.

    Raises
    ------
    FileError
        If the file is missing, damaged or no HDF5, refers to other files, or `key` must name one of its datasets.
    InputError
        If the dataset is no stack of numbers.
    """
    check_signature(path, "HDF5")
    with naming_damage(str(path)), _open(path) as file:
        dataset = _find(file, key, str(path)) if key else _only(file, path)
        return ChunkedVolume(_describe(dataset, path), axes)


def _open(path: Path) -> "h5py.File":
    import h5py

    return h5py.File(path, "r", locking=False)  # locks fail on many network file systems


def _describe(dataset: "h5py.Dataset", path: Path) -> StoredArray:
    inner, shape = dataset.name, tuple(dataset.shape or ())
    _check_own_data(dataset, path)
    letters = _axes(dataset, array_axes(shape))
    lengths, node = None, dataset
    while lengths is None:
        lengths = from_attributes(_attributes(node))
        if node.name == "/":
            break
        node = node.parent

    def load(selection: Selection) -> np.ndarray:
        with _open(path) as file:
            values: np.ndarray = file[inner][selection]
            return values

    return StoredArray(
        name=f"{path}:{inner}",
        path=path,
        shape=shape,
        dtype=np.dtype(dataset.dtype),
        letters=letters,
        load=load,
        chunks=dataset.chunks,
        lengths=label_axes(lengths, letters),
    )


def _attributes(node: Any) -> dict[str, Any]:
    names = ("element_size_um", "resolution", "voxel_size", "units", "unit")
    return {name: node.attrs[name] for name in names if name in node.attrs}


def _axes(dataset: "h5py.Dataset", fallback: str) -> str:
    """Letters of ilastik's axis tags, or of the dimension labels."""
    tags = dataset.attrs.get("axistags")
    if isinstance(tags, str | bytes):
        try:
            return as_letters([one["key"] for one in json.loads(tags)["axes"]], fallback)
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(
                f"the attribute axistags of {dataset.file.filename}:{dataset.name} is damaged ({error!r}); remove it, "
                "or export the file again"
            ) from error
    return as_letters([dimension.label for dimension in dataset.dims], fallback)


def _check_own_data(dataset: "h5py.Dataset", path: Path) -> None:
    """Refuse data in other files, and filters that are not installed."""
    import h5py

    name = f"{path}:{dataset.name}"
    others = dataset.external or ()
    elsewhere = [str(one[0]) for one in others]
    if dataset.is_virtual:
        elsewhere += [one.file_name for one in dataset.virtual_sources() if one.file_name != "."]
    if elsewhere:
        raise FileError(
            f"{name} refers to data in another file ({elsewhere[0]}), which mitoda does not follow; copy the dataset "
            "into one file (h5repack, or h5py with f['copy'] = f['name'][()])"
        )
    settings = dataset.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, _, _, label = settings.get_filter(number)
        if not h5py.h5z.filter_avail(code) and not _plugins_bring(code):
            raise FileError(
                f"{name} is compressed with the HDF5 filter {code} ({label.decode('ascii', 'replace') or 'no name'}), "
                "which is not installed; install it with pip install hdf5plugin, or save the file with gzip"
            )


def _plugins_bring(code: int) -> bool:
    import h5py

    try:
        import hdf5plugin  # noqa: F401 - registers its filters
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))


def _find(file: "h5py.File", key: str, name: str, followed: int = 0) -> "h5py.Dataset":
    """Return a dataset by its path; links to other files are refused before they are followed."""
    import h5py

    node: Any = file
    parts = [part for part in key.split("/") if part]
    for index, part in enumerate(parts):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise _missing(file, name, key)
        if isinstance(link, h5py.ExternalLink):
            raise FileError(
                f"{name}:{key} is a link to another file ({link.filename}:{link.path}); give that file itself"
            )
        if isinstance(link, h5py.SoftLink):
            if followed == MOST_LINKS:
                raise FileError(
                    f"{name}:{key} is a link that leads to itself; name the dataset it should lead to"
                )
            start = "" if link.path.startswith("/") else node.name
            return _find(file, "/".join([start, link.path, *parts[index + 1 :]]), name, followed + 1)
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        below = [one for one in _stacks(file) if one[0].startswith(f"{node.name.rstrip('/')}/")]
        raise choices(f"{name}:{key}", below, f"{name}:{below[0][0]}" if below else "")
    return node


def _missing(file: "h5py.File", name: str, key: str) -> FileError:
    found = ", ".join(f"{one} {shape} {dtype}" for one, shape, dtype in _stacks(file)[:12])
    return FileError(f"{name} has no dataset {key}; it has {found or 'none of two or more axes'}")


def _stacks(file: "h5py.File") -> list[tuple[str, tuple[int, ...], object]]:
    """Datasets of this file that may hold a stack or an image: path, shape, type."""
    import h5py

    found: list[tuple[str, tuple[int, ...], object]] = []

    def visit(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None and len(node.shape) >= 2:
            found.append((f"/{name}", tuple(node.shape), node.dtype))

    file.visititems(visit)  # follows neither soft links nor those to other files
    return found


def _only(file: "h5py.File", path: Path) -> "h5py.Dataset":
    """Return the dataset that can be meant: the only one of three axes, or of two."""
    stacks = [one for one in _stacks(file) if np.dtype(one[2]).kind in "buif"]  # type: ignore[call-overload]
    long = {key: sum(length > 1 for length in shape) for key, shape, _ in stacks}
    for axes in (3, 2):
        keys = [key for key in long if long[key] >= axes]
        if len(keys) == 1:
            return file[keys[0]]
        if keys:
            break
    else:
        keys = list(long)
        if len(keys) == 1:
            return file[keys[0]]
    if not stacks and (others := _stacks(file)):
        raise InputError(f"{path} holds {others[0][2]} values; expected integers, booleans or floats")
    raise choices(str(path), stacks, f"{path}:{stacks[0][0]}" if stacks else "")
