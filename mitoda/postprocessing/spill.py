"""Arrays that wait on disk, in a temporary file, until they are needed again."""

import os
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np

from mitoda.errors import FileError


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
        """Put arrays of any kinds at the end, as one entry.

        Raises
        ------
        FileError
            If there is no room for them.
        """
        try:
            place = self._file.seek(0, os.SEEK_END)
            for array in arrays:
                np.save(self._file, array)
        except OSError as error:
            raise FileError(
                f"cannot write to the folder for temporary files, {tempfile.gettempdir()}: {error.strerror or error}; "
                "make room there, or name another folder in the environment variable TMPDIR"
            ) from None
        self._places.append((place, len(arrays)))

    def read(self, entry: int) -> list[np.ndarray]:
        """Return the arrays of an entry."""
        place, count = self._places[entry]
        self._file.seek(place)
        return [np.load(self._file) for _ in range(count)]
