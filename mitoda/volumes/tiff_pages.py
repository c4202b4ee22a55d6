"""The pages of a TIFF file that is written section by section."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import tifffile

from mitoda.volumes.volume import Lengths

ZLIB_LEVEL = 5
"""The fastest of the dense levels: masks at 356 MB of voxels a second to 1/162 (level 3: 529 to 1/103, 9: 120 to
1/175), measured on 20 FIB-SEM sections with libdeflate on one core."""

CLASSIC_LIMIT = (1 << 32) - (1 << 25)
"""Bytes. Offsets of a classic TIFF have 32 bits; a margin of 32 MiB, as in tifffile."""


class TiffPages:
    """Pages that carry ImageJ's description, from which Fiji and tifffile take shape and voxel size.

    A stack near 4 GiB (uncompressed) becomes a BigTIFF, which Fiji opens through Bio-Formats with the same description.

    Parameters
    ----------
    path, shape, dtype, lengths, software
        See `Pages`; the tag Software has `software`.
    compression : {"zlib", "none"}
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        lengths: Lengths,
        software: str,
        compression: Literal["zlib", "none"] = "zlib",
    ) -> None:
        self.shape, self.lengths, self.software, self.compression = shape, lengths, software, compression
        self._file = open_new(path)
        self._tiff = tifffile.TiffWriter(self._file, bigtiff=needs_bigtiff(shape, dtype), shaped=False)
        self._is_first = True

    def append(self, section: np.ndarray) -> None:
        """Write the next section, and hand it to the system."""
        compressed = self.compression == "zlib"
        size = self.lengths
        self._tiff.write(
            section,
            photometric="minisblack",
            description=imagej_description(self.shape, size, compressed) if self._is_first else None,
            metadata=None,
            software=self.software,
            resolution=None
            if size[1] is None or size[2] is None
            else (1 / size[2], 1 / size[1]),  # voxels per nanometre, x and y
            resolutionunit="none",
            compression="zlib" if compressed else None,
            compressionargs={"level": ZLIB_LEVEL} if compressed else None,
            contiguous=False,
        )
        self._file.flush()
        self._is_first = False

    def close(self) -> None:
        """Complete the file and bring it to the disk."""
        try:
            self._tiff.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is. On a full disk even that fails; the first error says more."""
        with suppress(OSError):
            self._file.close()


def open_new(path: Path) -> BinaryIO:
    """Create a file that must not exist."""
    return path.open("xb")


def needs_bigtiff(shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Whether a stack may outgrow 32-bit offsets (its voxels, 0.1 % for zlib at worst, 4 KiB a page), or is uint32."""
    if dtype == np.uint32:
        return True
    voxel_bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
    return voxel_bytes + voxel_bytes // 1000 + 4096 * shape[0] > CLASSIC_LIMIT


def imagej_description(shape: tuple[int, int, int], lengths: Lengths, compressed: bool) -> str:
    """Return ImageJ's description of a stack.

    In an uncompressed file `images` tells ImageJ that all sections follow the first without a gap, and that the other
    pages can be ignored. Ours have gaps, so the line is left out there.
    """
    lines = ["ImageJ=1.54f"]
    if compressed:
        lines.append(f"images={shape[0]}")
    lines.append(f"slices={shape[0]}")
    if any(lengths):
        section, has_pixel = lengths[0], None not in lengths[1:]
        lines.append(f"unit={'nm' if has_pixel else 'pixel'}")
        if has_pixel != (section is not None):  # or ImageJ would take one unit for all axes
            lines.append(f"zunit={'pixel' if has_pixel else 'nm'}")
        if section is not None:
            lines.append(f"spacing={section!r}")
    return "\n".join([*lines, "loop=false", ""])
