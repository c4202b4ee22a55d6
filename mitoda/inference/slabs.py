"""Sections of a block in a Zarr array, written and read a shard's depth at a time."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mitoda.inference.tiling import Block
from mitoda.volumes.zarr_pages import write_files


class Slabs:
    """Writes the sections of a block to an array, a shard's depth at a time."""

    def __init__(self, array: Any, block: Block, depth: int) -> None:
        self._array, self._core = array, block.core
        self._buffer = np.empty((min(depth, block.shape[0]), *block.shape[1:]), array.dtype)
        self._written = self._held = 0
        self.crc = 0
        """Checksum of what was added."""

    def add(self, section: np.ndarray) -> None:
        """Add the next section of the block's core."""
        self._buffer[self._held] = section
        self.crc = zlib.crc32(self._buffer[self._held], self.crc)
        self._held += 1
        first = self._core[0].start + self._written
        if self._held == len(self._buffer) or first + self._held == self._core[0].stop:
            region = (slice(first, first + self._held), *self._core[1:])
            write_files(self._array, region, self._buffer[: self._held])
            self._written, self._held = self._written + self._held, 0


def read_slabs(array: Any, block: Block, depth: int) -> Iterator[np.ndarray]:
    """The sections of a block's core, read a shard's depth at a time."""
    sections, rows, columns = block.core
    for first in range(sections.start, sections.stop, depth):
        yield from array[first : min(first + depth, sections.stop), rows, columns]


def checksum(sections: Iterator[np.ndarray]) -> int:
    """Return that of `Slabs.crc`."""
    crc = 0
    for section in sections:
        crc = zlib.crc32(section.tobytes(), crc)
    return crc
