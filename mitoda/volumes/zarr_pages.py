"""An OME-Zarr image that is written section by section, with coarser resolution levels.

    level 0   the sections, collected until a layer of chunks is whole, so that no chunk or shard is written twice
    level 1…  every second row and column of the level before; every second section once voxels are that flat

A voxel of a coarser level is one of level 0, so masks and labels keep their values, and all levels one origin.
"""

import math
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import Lengths, VoxelSize

ZarrVersion = Literal["0.4", "0.5"]
VERSIONS: tuple[ZarrVersion, ...] = ("0.4", "0.5")

LAYER, CHUNK = 16, 256
"""Sections of a chunk, and its rows and columns."""
LAYER_BYTES = 1 << 28
"""Bytes of a layer of chunks, above which it has fewer sections."""
CHUNKS_ACROSS = 8
"""Chunks of a shard along rows and along columns."""
COARSEST = 256
"""Rows or columns of a level that needs no coarser one."""
MARK = "mitoda"
"""Attribute of what we write."""


def checked_version(version: str) -> ZarrVersion:
    """Return a version of OME-Zarr that can be written, or raise InputError."""
    for known in VERSIONS:
        if version == known:
            return known
    raise InputError(f"the OME-Zarr version is {version!r}; it must be {' or '.join(VERSIONS)}")


def layout(
    shape: tuple[int, ...], layer: int, version: ZarrVersion
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the sides of a chunk, and of what makes a file: a shard in 0.5, a chunk in 0.4."""
    chunks = (min(layer, shape[0]), min(CHUNK, shape[1]), min(CHUNK, shape[2]))
    if version == "0.4":
        return chunks, chunks
    rows, columns = (
        chunk * min(CHUNKS_ACROSS, math.ceil(length / chunk))
        for chunk, length in zip(chunks[1:], shape[1:], strict=True)
    )
    return chunks, (chunks[0], rows, columns)


def file_regions(array: Any, region: tuple[slice, ...] | None = None) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of a region, of the whole array by default, that are a file each."""
    region = region or tuple(slice(0, length) for length in array.shape)
    steps = array.shards or array.chunks
    starts = [range(one.start, one.stop, step) for one, step in zip(region, steps, strict=True)]
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + step, one.stop))
            for start, step, one in zip(corner, steps, region, strict=True)
        )


def write_files(array: Any, region: tuple[slice, ...], values: np.ndarray) -> None:
    """Write a region of whole files, whatever is there.

    The files are removed first: a process that died may have left them torn, and zarr reads those that it writes in
    part, at the far ends of the array.
    """
    folder = Path(array.store_path.store.root) / array.store_path.path
    steps = array.shards or array.chunks
    for part in file_regions(array, region):
        place = tuple(one.start // step for one, step in zip(part, steps, strict=True))
        (folder / array.metadata.encode_chunk_key(place)).unlink(missing_ok=True)
    array[region] = values


class ZarrPages:
    """An image of OME-Zarr 0.5 (Zarr 3, sharded) or 0.4 (Zarr 2), with axes z, y, x in nanometres.

    Parameters
    ----------
    path, shape, dtype, lengths, software
        See `Pages`. An axis without a length gets no unit; the attribute `mitoda` has `software`.
    name : str
        Of the image.
    origin : (float, float, float)
        Nanometres: position of the first voxel.
    version : {"0.5", "0.4"}
    layer : int, optional
        Sections of a chunk; by default as many as fit `LAYER_BYTES`, because whole sections wait for it.
    exists : bool
        Continue an image that was created before, instead of creating it.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        lengths: Lengths,
        software: str,
        name: str = "",
        origin: VoxelSize = (0.0, 0.0, 0.0),
        version: ZarrVersion = "0.5",
        layer: int | None = None,
        exists: bool = False,
    ) -> None:
        import zarr

        self.path, self.shape, self.dtype, self.lengths = path, shape, dtype, lengths
        self.name, self.origin, self.version = name, origin, version
        store = zarr.storage.LocalStore(path)
        section = shape[1] * shape[2] * dtype.itemsize
        self._layer = layer or max(1, min(LAYER, shape[0], LAYER_BYTES // section))
        self._waiting: np.ndarray | None = None
        self._written = 0
        self._group: Any
        if exists:
            self._group = zarr.open_group(store, mode="r+")
            self._level = self._group["0"]
            return
        path.mkdir()
        self._group = zarr.create_group(
            store, zarr_format=3 if version == "0.5" else 2, attributes={MARK: {"software": software}}
        )
        self._level = self._create(0, shape)

    def _create(self, number: int, shape: tuple[int, ...]) -> Any:
        chunks, file = layout(shape, self._layer, self.version)
        version_3 = {"shards": file, "dimension_names": ("z", "y", "x")}
        version_2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        return self._group.create_array(
            str(number),
            shape=shape,
            dtype=self.dtype,
            chunks=chunks,
            fill_value=0,
            overwrite=number > 0,  # a coarser level may be left from a process that died
            **(version_3 if self.version == "0.5" else version_2),
        )

    def append(self, section: np.ndarray) -> None:
        """Keep the next section, and write the layer of chunks that it completes."""
        if self._waiting is None:
            self._waiting = np.zeros((self._layer, *self.shape[1:]), self.dtype)
        self._waiting[self._written % self._layer] = section
        self._written += 1
        if self._written % self._layer == 0 or self._written == self.shape[0]:
            first = (self._written - 1) // self._layer * self._layer
            self._level[first : self._written] = self._waiting[: self._written - first]

    def close(self) -> None:
        """Complete the image, if it has all its sections."""
        if self._written == self.shape[0]:
            self.complete()

    def complete(self) -> None:
        """Write the coarser levels and the metadata, and bring all files to the disk."""
        self._write_metadata(self._write_levels())
        for folder, _, files in os.walk(self.path):
            for name in files:
                with (Path(folder) / name).open("rb") as file:
                    os.fsync(file.fileno())

    def abandon(self) -> None:
        """Nothing is open."""

    def _write_levels(self) -> list[tuple[int, int, int]]:
        """Return the factor of each level along each axis."""
        factors = [(1, 1, 1)]
        finer = self._level
        while max(finer.shape[1:]) > COARSEST:
            step = self._step(factors[-1], finer.shape)
            shape = tuple(math.ceil(length / by) for length, by in zip(finer.shape, step, strict=True))
            coarser = self._create(len(factors), shape)
            for part in file_regions(coarser):
                source = tuple(
                    slice(one.start * by, one.stop * by, by) for one, by in zip(part, step, strict=True)
                )
                coarser[part] = finer[source]
            done = [before * by for before, by in zip(factors[-1], step, strict=True)]
            factors.append((done[0], done[1], done[2]))
            finer = coarser
        return factors

    def _step(self, factor: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Factors of the next level: sections are left out where they are no further apart than pixels will be."""
        depth, row, column = self.lengths
        flat = depth is not None and None not in (row, column)
        halve = flat and (depth or 0) * factor[0] * 2 <= 1.5 * max(row or 0, column or 0) * factor[1] * 2
        return (2 if halve and shape[0] > 1 else 1, 2, 2)

    def _write_metadata(self, factors: list[tuple[int, int, int]]) -> None:
        axes = [
            {"name": axis, "type": "space", **({} if length is None else {"unit": "nanometer"})}
            for axis, length in zip("zyx", self.lengths, strict=True)
        ]
        datasets = []
        for number, factor in enumerate(factors):
            scale = [
                (1.0 if length is None else length) * by
                for length, by in zip(self.lengths, factor, strict=True)
            ]
            transforms: list[dict[str, object]] = [{"type": "scale", "scale": scale}]
            if any(self.origin):
                transforms.append({"type": "translation", "translation": list(self.origin)})
            datasets.append({"path": str(number), "coordinateTransformations": transforms})
        image = {"name": self.name, "axes": axes, "datasets": datasets, "type": "nearest"}
        if self.version == "0.5":
            self._group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
        else:
            self._group.attrs["multiscales"] = [{"version": "0.4", **image}]
