"""Sections kept compressed in an unnamed temporary file, for a second look at them."""

import tempfile
import zlib

import numpy as np
from numpy.typing import DTypeLike


class Spool:
    """Sections of one type and shape, appended in order and read in any."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._shape: tuple[int, ...] = ()
        self._ends = [0]

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, section: np.ndarray) -> None:
        """Keep one more section."""
        self._shape = section.shape
        content = zlib.compress(np.ascontiguousarray(section, self.dtype).tobytes(), 1)
        self._file.seek(self._ends[-1])
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def read(self, number: int) -> np.ndarray:
        """Return a section."""
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        content = zlib.decompress(self._file.read(end - start))
        return np.frombuffer(content, self.dtype).reshape(self._shape)
