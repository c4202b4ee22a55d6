"""An MRC file that is written section by section, in the modes that every reader takes alike.

MRC has no unsigned bytes: 255 in mode 0 is −1 to mrcfile, and 255 to IMOD. So uint8 is written as mode 6 (uint16), and
uint32 as mode 2 (float32), which is exact up to 2²⁴; a label in the header notes the type, in which `mitoda` reads it.
"""

import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.mrc import HEADER, NARROWED
from mitoda.volumes.volume import Lengths

STORED = {"uint8": (6, "<u2"), "uint16": (6, "<u2"), "float32": (2, "<f4"), "uint32": (2, "<f4")}
"""Mode and stored type of each type."""
LARGEST_EXACT = 1 << 24
"""Largest whole number up to which float32 holds all."""
VERSION = 20141


class MrcPages:
    """A stack of mode 6 or 2, with its voxel size and the statistics of its values.

    Parameters
    ----------
    path, shape, dtype, lengths, software
        See `Pages`. A length that is None is 0 in the header; the first 80 characters of `software` are a label.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, lengths: Lengths, software: str
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        mode, self._stored = STORED[dtype.name]
        sections, rows, columns = shape
        header = np.zeros((), np.dtype(HEADER).newbyteorder("<"))
        header["shape"] = header["intervals"] = columns, rows, sections
        header["mode"] = mode
        header["cell"] = [
            10 * (length or 0) * count for length, count in zip(lengths[::-1], shape[::-1], strict=True)
        ]
        header["angles"] = 90
        header["axes"] = 1, 2, 3
        header["space_group"] = 1
        header["version"] = VERSION
        header["map"] = b"MAP "
        header["machine"] = b"\x44\x44\0\0"
        header["label_count"] = 2
        header["labels"][:2] = software.encode("ascii")[:80], f"{NARROWED}{dtype.name}".encode()
        self._header = header
        self._low, self._high, self._sum, self._squares = math.inf, -math.inf, 0.0, 0.0
        self._file = path.open("xb")
        self._file.write(header.tobytes())

    def append(self, section: np.ndarray) -> None:
        """Write the next section.

        Raises
        ------
        InputError
            If a label is too large for this format.
        """
        low, high = float(section.min()), float(section.max())
        if self.dtype == np.uint32 and high > LARGEST_EXACT:
            raise InputError(
                f"{self.path} cannot hold the label {high:.0f}; write .tif, .zarr or .h5 instead"
            )
        wide = section.astype(np.float64)
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._sum += float(wide.sum())
        self._squares += float(np.square(wide).sum())
        self._file.write(section.astype(self._stored).tobytes())
        self._file.flush()

    def close(self) -> None:
        """Write the statistics, and bring the file to the disk."""
        voxels = math.prod(self.shape)
        mean = self._sum / voxels
        self._header["low"], self._header["high"], self._header["mean"] = self._low, self._high, mean
        self._header["rms"] = math.sqrt(max(self._squares / voxels - mean**2, 0))
        try:
            self._file.seek(0)
            self._file.write(self._header.tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):
            self._file.close()
