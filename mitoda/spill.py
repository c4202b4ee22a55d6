"""Arrays that wait on disk, in a temporary file, until they are needed again."""

import tempfile
import weakref
from collections.abc import Sequence

import numpy as np


class ArrayFile:
    """A list of lists of arrays, appended to and read from at any place.

    The file lies in the system's folder for temporary files (`TMPDIR` moves it) and is gone with the object.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mitoda-")  # noqa: SIM115, lives as long as the object
        weakref.finalize(self, self._file.close)
        self._places: list[tuple[int, int]] = []
        """Where each entry begins, and how many arrays it has."""

    def __len__(self) -> int:
        return len(self._places)

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Put arrays of any kinds at the end, as one entry."""
        self._places.append((self._file.seek(0, 2), len(arrays)))
        for array in arrays:
            np.save(self._file, array, allow_pickle=False)

    def read(self, entry: int) -> list[np.ndarray]:
        """Return the arrays of an entry."""
        place, count = self._places[entry]
        self._file.seek(place)
        return [np.load(self._file, allow_pickle=False) for _ in range(count)]
