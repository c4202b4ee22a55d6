"""Sections kept in a temporary file."""

import io

import numpy as np
import pytest

from mitoda.errors import FileError
from mitoda.postprocessing import spool
from mitoda.postprocessing.spool import Spool


def test_arrays_come_back_as_they_were():
    """Several a section, of any type and shape, also empty ones, in any order."""
    sections = [
        [np.arange(6, dtype=np.int32).reshape(2, 3)],
        [np.zeros((0, 4), np.float16), np.ones(3, bool)],
    ]
    kept = Spool()
    for arrays in sections:
        kept.append(*arrays)
    assert len(kept) == 2
    for number in (1, 0):
        for found, expected in zip(kept.read(number), sections[number], strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_a_full_disk_is_reported_with_what_to_do(monkeypatch):
    """The folder for temporary files has no room."""

    class Full(io.BytesIO):
        def write(self, _content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_options: Full())
    with pytest.raises(FileError, match=r"No space left on device; make room there, or name .* TMPDIR"):
        Spool().append(np.zeros(3))
