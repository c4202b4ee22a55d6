"""Arrays of each section kept compressed in an unnamed temporary file, for a second look at them."""

import io
import tempfile
import weakref
import zlib
from collections.abc import Iterable

import numpy as np

from mitoda.errors import FileError


class Spool:
    """One or several arrays a section, appended in order and read in any."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mitoda-")  # noqa: SIM115 (lives as long as the object)
        weakref.finalize(self, self._file.close)
        self._ends = [0]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, *arrays: np.ndarray) -> None:
        """Keep the arrays of one more section.

        Raises
        ------
        FileError
            If the folder for temporary files has no room.
        """
        packed = pack(arrays)
        try:
            self._file.seek(self._ends[-1])
            self._file.write(packed)
        except OSError as error:
            raise FileError(
                f"cannot write to the folder for temporary files, {tempfile.gettempdir()}: {error.strerror or error}; "
                "make room there, or name another folder in the environment variable TMPDIR"
            ) from None
        self._ends.append(self._ends[-1] + len(packed))

    def read(self, section: int) -> list[np.ndarray]:
        """Return the arrays of a section."""
        start, end = self._ends[section : section + 2]
        self._file.seek(start)
        return unpack(self._file.read(end - start))


def pack(arrays: Iterable[np.ndarray]) -> bytes:
    """Compress arrays of any type and shape."""
    content = io.BytesIO()
    for array in arrays:
        np.save(content, array)
    return zlib.compress(content.getbuffer(), 1)


def unpack(packed: bytes) -> list[np.ndarray]:
    """Return the arrays that were packed."""
    content = io.BytesIO(zlib.decompress(packed))
    arrays = []
    while content.tell() < len(content.getbuffer()):
        arrays.append(np.load(content))
    return arrays
