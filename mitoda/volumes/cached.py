"""A volume that remembers the sections read last, for random access."""

import threading
from collections import OrderedDict

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import EVERYTHING, Volume


class CachedVolume:
    """A volume that keeps recently used sections in memory, the longest unused going first.

    A section too large for the limit is never kept, and only the region asked for is read. Two threads that
    miss the same section at once both read it; neither waits for the other.

    Parameters
    ----------
    volume : Volume
    limit_bytes : int
        Most bytes of sections to keep.

    Raises
    ------
    InputError
        If the limit is negative.
    """

    def __init__(self, volume: Volume, limit_bytes: int = 1 << 30) -> None:
        if limit_bytes < 0:
            raise InputError(f"the cache limit is {limit_bytes} bytes; give 0 (keep nothing) or more")
        self.volume = volume
        self.limit_bytes = limit_bytes
        self.name = volume.name
        self.shape = volume.shape
        self.dtype = volume.dtype
        self.voxel_size = volume.voxel_size
        self.section_bytes = volume.shape[1] * volume.shape[2] * volume.dtype.itemsize
        self._sections: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the sections kept now."""
        with self._lock:
            return len(self._sections) * self.section_bytes

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return a copy of part of one section; see `Volume.read`."""
        if self.section_bytes > self.limit_bytes:
            return self.volume.read(section, rows, columns)
        with self._lock:
            kept = self._sections.get(section)
            if kept is not None:
                self._sections.move_to_end(section)
        if kept is None:
            kept = self.volume.read(section)
            with self._lock:
                self._sections[section] = kept
                while len(self._sections) * self.section_bytes > self.limit_bytes:
                    self._sections.popitem(last=False)
        return kept[rows, columns].copy()
