"""Files written whole or not at all."""

import os

import pytest

from mitoda.errors import FileError
from mitoda.volumes.files import (
    atomic_write,
    check_claim,
    check_output,
    check_signature,
    partial_path,
    partial_paths,
)


def test_the_earlier_content_stays_when_writing_fails(tmp_path):
    """Neither half a file nor a temporary one is left."""
    path = tmp_path / "table.csv"
    path.write_text("before")

    def write() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half of it")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    """OSError becomes FileError, with the file's name."""
    path = tmp_path / "missing" / "table.csv"
    with pytest.raises(FileError, match="cannot be written"), atomic_write(path) as partial:
        partial.write_text("x")


def test_outputs_that_would_destroy_something_are_refused(tmp_path):
    """An input under any name, a folder, a device, a missing folder, and what exists."""
    (tmp_path / "labels.tif").write_text("labels")
    (tmp_path / "link.csv").symlink_to(tmp_path / "labels.tif")
    (tmp_path / "sections").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    inputs = [tmp_path / "labels.tif", tmp_path / "sections"]
    for name, sentence in {
        "labels.tif": "replace or join the input",
        "link.csv": "replace or join the input",
        "sections/a.csv": "replace or join the input",
        "sections": "is a folder",
        "pipe.csv": "not a regular file",
        "missing/a.csv": "does not exist",
    }.items():
        with pytest.raises(FileError, match=sentence):
            check_output(tmp_path / name, inputs, overwrite=True)
    (tmp_path / "old.csv").touch()
    check_output(tmp_path / "old.csv", inputs, overwrite=True)
    with pytest.raises(FileError, match=r"old.csv exists"):
        check_output(tmp_path / "old.csv", inputs)


def test_a_pipe_is_not_waited_for(tmp_path):
    """Reading a FIFO would block for ever."""
    os.mkfifo(tmp_path / "stack.tif")
    with pytest.raises(FileError, match="not a regular file"):
        check_signature(tmp_path / "stack.tif", "TIFF")


def test_nobody_elses_file_is_replaced_or_written_through_on_the_way(tmp_path):
    """A link and a file with a partial file's name stay; what a killed process left is found by its name."""
    path, thesis = tmp_path / "table.csv", tmp_path / "thesis.txt"
    thesis.write_text("five years")
    partial_path(path).symlink_to(thesis)
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert partial_paths(path) == [partial]
    assert (path.read_text(), thesis.read_text()) == ("new", "five years")
    assert partial_paths(path) == []


def test_small_files_with_large_claims_are_refused(monkeypatch):
    """A gigabyte in a megabyte is no micrograph; a small section may be compressed as much; memory must be there."""
    check_claim("noise.tif", 10 * 2**30, 2**30, 9 * 2**30)
    check_claim("empty.tif", 2**26, 2**26, 100)
    with pytest.raises(
        FileError, match=r"bomb.tif claims 1.0 GiB of pixels in a file of 1,000,000 bytes, 1,073 times"
    ):
        check_claim("bomb.tif", 2**30, 2**30, 10**6)
    monkeypatch.setattr("mitoda.volumes.files.available_memory", lambda: 2.0**29)
    with pytest.raises(
        FileError, match=r"a section of large.tif takes 1.0 GiB, and 0.5 GiB of memory are free"
    ):
        check_claim("large.tif", 2**30, 2**30, 2**30)
