"""Arrays that wait on disk."""

import numpy as np
import pytest

from mitoda.errors import FileError
from mitoda.postprocessing.spill import ArrayFile


def test_entries_are_read_back_in_any_order_and_between_appends():
    """Kinds, shapes and values stay, empty arrays too."""
    rng = np.random.default_rng(0)
    entries = [
        [rng.random((k, 3)).astype(np.float16), np.arange(k, dtype=np.int32), np.zeros((0, 4), np.uint16)]
        for k in range(5)
    ]
    file = ArrayFile()
    for number, entry in enumerate(entries):
        file.append(entry)
        assert len(file) == number + 1
        for earlier in (number, 0):
            for found, expected in zip(file.read(earlier), entries[earlier], strict=True):
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)


def test_a_full_disk_is_said_with_what_to_do(monkeypatch):
    """No traceback of the system's error."""
    file = ArrayFile()

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(FileError, match=r"No space left on device; make room there, or name .* TMPDIR"):
        file.append([np.zeros(3)])
    assert len(file) == 0
