"""An OME-Zarr image that is written section by section, with coarser resolution levels.

    level 0   the sections, collected until a layer of chunks is whole, so that no chunk or shard is written twice
    level 1…  every second row and column of the level before; every second section once voxels are that flat

A voxel of a coarser level is one of level 0, so masks and labels keep their values, and all levels one origin.
"""

import math
import os
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


class ZarrPages:
    """An image of OME-Zarr 0.5 (Zarr 3, sharded) or 0.4 (Zarr 2), with axes z, y, x in nanometres.

    Parameters
    ----------
    path : Path
        Must not exist; else FileExistsError.
    shape : (int, int, int)
    dtype : dtype
    lengths : (float or None, float or None, float or None)
        Nanometres; an axis that is None gets no unit.
    software : str
        For the attribute `mitoda`.
    name : str
        Of the image.
    origin : (float, float, float)
        Nanometres: position of the first voxel.
    version : {"0.5", "0.4"}
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
    ) -> None:
        import zarr

        self.path, self.shape, self.dtype, self.lengths = path, shape, dtype, lengths
        self.name, self.origin, self.version = name, origin, version
        path.mkdir()
        self._group: Any = zarr.create_group(
            zarr.storage.LocalStore(path),
            zarr_format=3 if version == "0.5" else 2,
            attributes={MARK: {"software": software}},
        )
        section = shape[1] * shape[2] * dtype.itemsize
        self._layer = max(1, min(LAYER, shape[0], LAYER_BYTES // section))
        self._waiting = np.zeros((self._layer, *shape[1:]), dtype)
        self._written = 0
        self._level = self._create(0, shape)

    def _create(self, number: int, shape: tuple[int, ...]) -> Any:
        chunks = (min(self._layer, shape[0]), min(CHUNK, shape[1]), min(CHUNK, shape[2]))
        across = [
            chunk * min(CHUNKS_ACROSS, math.ceil(length / chunk))
            for chunk, length in zip(chunks[1:], shape[1:], strict=True)
        ]
        version_3 = {"shards": (chunks[0], *across), "dimension_names": ("z", "y", "x")}
        version_2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        return self._group.create_array(
            str(number),
            shape=shape,
            dtype=self.dtype,
            chunks=chunks,
            fill_value=0,
            **(version_3 if self.version == "0.5" else version_2),
        )

    def append(self, section: np.ndarray) -> None:
        """Keep the next section, and write the layer of chunks that it completes."""
        self._waiting[self._written % self._layer] = section
        self._written += 1
        if self._written % self._layer == 0 or self._written == self.shape[0]:
            first = (self._written - 1) // self._layer * self._layer
            self._level[first : self._written] = self._waiting[: self._written - first]

    def close(self) -> None:
        """Write the coarser levels and the metadata, and bring all files to the disk."""
        if self._written == self.shape[0]:
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
            layer = coarser.chunks[0]
            for first in range(0, shape[0], layer):
                source = slice(first * step[0], min((first + layer) * step[0], finer.shape[0]), step[0])
                coarser[first : first + layer] = finer[source, :: step[1], :: step[2]]
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
