"""The dataset of an HDF5 file that is written section by section."""

import json
import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from mitoda.volumes.volume import Lengths
from mitoda.volumes.voxel_size import complete

DATASET = "data"
GZIP_LEVEL = 4
CHUNK = 512
"""Rows and columns of a chunk; each lies in one section."""


class Hdf5Pages:
    """The dataset `/data`, gzip-compressed, with its axes and voxel size.

    `element_size_um` is what Fiji, ilastik and PlantSeg read; it needs all three lengths. Where some are unknown,
    `voxel_size` has NaN in their place. The axes are named by dimension labels and ilastik's `axistags`.

    Parameters
    ----------
    path, shape, dtype, lengths, software
        See `Pages`; the attribute `software` has that name.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, lengths: Lengths, software: str
    ) -> None:
        import h5py

        self.path = path
        path.open("xb").close()  # HDF5 itself would follow a link
        self._file = h5py.File(path, "w", locking=False)
        self._file.attrs["software"] = software
        self._file.flush()  # an interrupted file shows at once whose it is
        self._data = self._file.create_dataset(
            DATASET,
            shape,
            dtype,
            chunks=(1, min(shape[1], CHUNK), min(shape[2], CHUNK)),
            compression="gzip",
            compression_opts=GZIP_LEVEL,
        )
        size = complete(lengths)
        if size is not None:
            self._data.attrs["element_size_um"] = np.array(size) / 1000
        elif any(length is not None for length in lengths):
            self._data.attrs["voxel_size"] = np.array([math.nan if one is None else one for one in lengths])
            self._data.attrs["units"] = "nm"
        for dimension, axis in zip(self._data.dims, "zyx", strict=True):
            dimension.label = axis
        tags = [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in "zyx"]
        self._data.attrs["axistags"] = json.dumps({"axes": tags})
        self._written = 0

    def append(self, section: np.ndarray) -> None:
        """Write the next section."""
        self._data[self._written] = section
        self._written += 1

    def close(self) -> None:
        """Complete the file and bring it to the disk."""
        self._file.close()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Close the file as it is."""
        with suppress(OSError, RuntimeError, ValueError):
            self._file.close()
