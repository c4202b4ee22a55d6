"""Zarr 2 and 3: OME-Zarr 0.1 to 0.5 images with their resolution levels and labels, and plain arrays.

    stack.zarr            an image: the level nearest to the wanted pixel, or level 0
    stack.zarr/1          level 1 of it; its voxel size is that of the image above
    stack.zarr/labels/mito

Data are numbers or refused before they are read; codecs that unpickle are refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes.axes import array_axes
from mitoda.volumes.chunked import (
    ChunkedVolume,
    Selection,
    StoredArray,
    as_letters,
    choices,
    label_axes,
)
from mitoda.volumes.files import ZARR_METADATA, is_zarr, naming_damage
from mitoda.volumes.voxel_size import from_attributes, unit_in_nanometres

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
"""Versions of OME-Zarr that are read."""
FIVE_AXES = "tczyx"
"""Axes of the versions that do not name them, 0.1 and 0.2."""


@dataclass(frozen=True)
class Level:
    """One resolution of an OME-Zarr image."""

    path: str
    names: tuple[str, ...]
    """Of the axes, as stored."""
    letters: str
    scale: tuple[float, ...] | None
    """Units between voxels, for each axis; None where the file does not say."""
    translation: tuple[float, ...]
    units: tuple[str, ...]

    def nanometres(self, values: Sequence[float] | None) -> dict[str, float | None]:
        """Lengths along the axes; None where the unit is no length."""
        if values is None:
            return {}
        scales = map(unit_in_nanometres, self.units)
        return {
            letter: None if scale is None else float(value) * scale
            for letter, value, scale in zip(self.letters, values, scales, strict=True)
        }


def open_zarr(
    path: Path, axes: str | None = None, level: int | None = None, pixel: tuple[float, float] | None = None
) -> ChunkedVolume:
    """Open a Zarr array, or one level of an OME-Zarr image.

    Parameters
    ----------
    path : Path
        Folder of an array, an image, a bioformats2raw group of one image, or any group with a single array.
    axes : str, optional
        As for `open_volume`.
    level : int, optional
        Resolution level; 0 is the finest.
    pixel : (float, float), optional
        Wanted pixel (row, column) in nanometres: without `level`, the level nearest to it is taken.

    Raises
    ------
    FileError
        If the metadata or an array is missing, damaged, or of an unknown version or codec.
    InputError
        If the array is no stack of numbers, or `level` is given for what has none.
    """
    with naming_damage(str(path)):
        node = _open(path)
        if not hasattr(node, "shape"):
            node, path = _image(node, path)
        if hasattr(node, "shape"):
            if level is not None:
                raise InputError(f"{path} is a single array without resolution levels; leave --scale out")
            return ChunkedVolume(_describe(node, path, _level_above(path)), axes)
        return _open_level(node, path, axes, level, pixel)


def _open(path: Path) -> Any:
    """Open an array or group; where there is neither, FileError."""
    import zarr

    if not is_zarr(path):
        raise FileError(
            f"{path} is no Zarr array or group: it has none of {', '.join(ZARR_METADATA)}; check the path"
        )
    return zarr.open(zarr.storage.LocalStore(path, read_only=True), mode="r")


def _open_level(
    group: Any, path: Path, axes: str | None, wanted: int | None, pixel: tuple[float, float] | None
) -> ChunkedVolume:
    levels = read_levels(dict(group.attrs), str(path))
    if wanted is not None and not 0 <= wanted < len(levels):
        raise InputError(f"{path} has the levels 0 to {len(levels) - 1}, but not {wanted}; give one of them")
    number = wanted if wanted is not None else 0 if pixel is None else _nearest(levels, pixel)
    level = levels[number]
    folder = path / level.path
    if not is_zarr(folder):
        raise FileError(
            f"{path} lists the level '{level.path}', and {folder} is no Zarr array; copy it again, or give another "
            "level with --scale"
        )
    array = _open(folder)
    if not hasattr(array, "shape"):
        raise FileError(f"{folder} is a Zarr group, but the level of an image is an array; export it again")
    remark = ""
    if wanted is None and pixel is not None and len(levels) > 1:
        remark = (
            f"{path}: level {number} of {len(levels)} is read, which is nearest to the working pixel of "
            f"{pixel[0]:g} × {pixel[1]:g} nm (--scale chooses another); to other commands give {folder}"
        )
    return ChunkedVolume(_describe(array, folder, level, remark), axes)


def _nearest(levels: Sequence[Level], pixel: tuple[float, float]) -> int:
    """Number of the level whose pixel has the nearest area, by ratio; 0 where pixel sizes are unknown."""
    distances = []
    for level in levels:
        lengths = level.nanometres(level.scale)
        row, column = lengths.get("Y"), lengths.get("X")
        if not row or not column:
            return 0
        distances.append(abs(math.log(row * column / (pixel[0] * pixel[1]))))
    return distances.index(min(distances))


def _describe(array: Any, path: Path, level: Level | None, remark: str = "") -> StoredArray:
    metadata = str(array.metadata.to_dict()).lower()
    if "pickle" in metadata:
        raise FileError(f"{path} is stored with pickle, which can run any program; mitoda does not read it")
    shape = tuple(array.shape)
    if level is not None:
        if len(level.letters) != len(shape):
            raise FileError(
                f"{path} has {len(shape)} axes, and its OME-Zarr metadata name {len(level.letters)} "
                f"({level.letters.lower()}); correct the metadata, or export it again"
            )
        letters, lengths = level.letters, level.nanometres(level.scale)
        origin = {axis: value for axis, value in level.nanometres(level.translation).items() if value}
    else:
        letters = _plain_axes(array, array_axes(shape))
        lengths, origin = label_axes(from_attributes(dict(array.attrs)), letters), {}
    return StoredArray(
        name=str(path),
        path=path,
        shape=shape,
        dtype=np.dtype(array.dtype),
        letters=letters,
        load=partial(_load, array),
        chunks=tuple(array.chunks),
        lengths=lengths,
        origin=origin,
        remark=remark,
    )


def _load(array: Any, selection: Selection) -> np.ndarray:
    values: np.ndarray = array[selection]
    return values


def _plain_axes(array: Any, fallback: str) -> str:
    """Letters of the dimension names of Zarr 3, or of xarray's attribute."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return as_letters(list(names) if isinstance(names, list | tuple) else [], fallback)


def _level_above(path: Path) -> Level | None:
    """The entry of an array in the image in the folder above, or up to two further up ("scale/0")."""
    for above in list(path.parents)[:3]:
        if is_zarr(above):
            group = _open(above)
            if not hasattr(group, "shape") and is_image(dict(group.attrs)):
                key = path.relative_to(above).as_posix()
                return next(
                    (one for one in read_levels(dict(group.attrs), str(above)) if one.path == key), None
                )
    return None


def is_image(attributes: dict[str, Any]) -> bool:
    """Whether the attributes of a group are those of an OME-Zarr image or label image."""
    ome = attributes.get("ome")
    return "multiscales" in attributes or (isinstance(ome, dict) and "multiscales" in ome)


def _image(group: Any, path: Path) -> tuple[Any, Path]:
    """Go down to the image or array that can be meant: the group itself, or the only one in it."""
    if is_image(dict(group.attrs)):
        return group, path
    found: list[tuple[str, Any]] = []
    arrays: list[tuple[str, Any]] = []
    for name, child in sorted(group.members(max_depth=2)):
        if hasattr(child, "shape"):
            if len(child.shape) >= 2 and not any(name.startswith(f"{image}/") for image, _ in found):
                arrays.append((name, child))
        elif is_image(dict(child.attrs)):
            found.append((name, child))
    arrays = [
        (name, one) for name, one in arrays if not any(name.startswith(f"{image}/") for image, _ in found)
    ]
    candidates = found or arrays
    if len(candidates) == 1:
        return candidates[0][1], path / candidates[0][0]
    listed = [
        (name, one.shape if hasattr(one, "shape") else (), getattr(one, "dtype", "image"))
        for name, one in candidates
    ]
    raise choices(str(path), listed, str(path / listed[0][0]) if listed else "")


def read_levels(attributes: dict[str, Any], name: str) -> list[Level]:
    """Read the levels of an OME-Zarr image, finest first.

    Parameters
    ----------
    attributes : dict
        Of its group.
    name : str
        Of the file, for messages.

    Raises
    ------
    FileError
        If the version is unknown, or the metadata are not as the specification says.
    """
    ome = attributes.get("ome")
    holder = ome if isinstance(ome, dict) and "multiscales" in ome else attributes
    try:
        image = holder["multiscales"][0]
        version = str(holder.get("version") or image.get("version") or "0.4")
        if version not in VERSIONS:
            raise FileError(
                f"{name} is OME-Zarr {version}; mitoda reads {VERSIONS[0]} to {VERSIONS[-1]}, so give one of its "
                f"arrays, such as {name}/0, or export it as 0.5"
            )
        return _levels(image, version, name)
    except MitodaError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FileError(
            f"the OME-Zarr metadata of {name} are not as the specification says ({error!r}); export it again, or give "
            f"one of its arrays, such as {name}/0"
        ) from error


def _levels(image: dict[str, Any], version: str, name: str) -> list[Level]:
    axes = image.get("axes")
    if axes is None:
        if version not in VERSIONS[:2]:
            raise FileError(
                f"the OME-Zarr metadata of {name} name no axes, which version {version} needs; export it again, or "
                f"give one of its arrays, such as {name}/0, with --axes"
            )
        axes = list(FIVE_AXES)
    names = tuple(str(axis["name"] if isinstance(axis, dict) else axis) for axis in axes)
    units = tuple(str(axis.get("unit", "")) if isinstance(axis, dict) else "" for axis in axes)
    if not image["datasets"]:
        raise FileError(f"{name} is an OME-Zarr image without a resolution level; export it again")
    letters = as_letters(names, "".join(_letter(axis) for axis in axes))
    outer_scale, outer_shift = _transform(image.get("coordinateTransformations"), len(names), name)
    levels = []
    for dataset in image["datasets"]:
        scale, shift = _transform(dataset.get("coordinateTransformations"), len(names), name)
        if scale is not None and outer_scale is not None:
            shift = tuple(
                inner * factor + outer
                for inner, factor, outer in zip(shift, outer_scale, outer_shift, strict=True)
            )
            scale = tuple(inner * factor for inner, factor in zip(scale, outer_scale, strict=True))
        levels.append(Level(str(dataset["path"]), names, letters, scale, shift, units))
    return levels


def _letter(axis: object) -> str:
    """Letter of an axis whose name is not one of x, y, z, c and t."""
    kind = axis.get("type") if isinstance(axis, dict) else None
    return {"channel": "C", "time": "T"}.get(str(kind), "Q")


def _transform(
    transforms: list[dict[str, Any]] | None, axes: int, name: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    """Return scale and translation; the scale is None where none is stated."""
    scale, shift = None, (0.0,) * axes
    for one in transforms or ():
        kind = one["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or kind not in one:
            raise FileError(
                f"{name} has a coordinate transformation of type '{kind}' that mitoda does not read; give one of its "
                f"arrays, such as {name}/0, with --voxel-size"
            )
        values = tuple(float(value) for value in one[kind])
        if len(values) != axes or not all(map(math.isfinite, values)):
            raise FileError(
                f"{name} has a {kind} of {len(values)} values {values} for {axes} axes; correct the metadata, or "
                "export it again"
            )
        if kind == "scale":
            scale = values
        else:
            shift = values
    return scale, shift
