"""Records validated when they are read back."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from mitoda.errors import FileError
from mitoda.volumes.records import parse_record, read_record, write_record


@dataclass(frozen=True)
class Record:
    """An example."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}

    name: str
    lengths: tuple[float, float]
    count: int = 0


def test_a_written_record_is_read_back_equal(tmp_path):
    """Tuples stay tuples."""
    record = Record("stack", (4.5, 50.0), 3)
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json", Record) == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "EOF"),
        ('{"name": "a"}', "field 'lengths': Field required"),
        ('{"name": "a", "lengths": [1, "x"]}', "field 'lengths.1'.*found 'x'"),
        ('{"name": "a", "lengths": [1, NaN]}', "field 'lengths.1'"),
        ('{"name": "a", "lengths": [1, 2], "other": 1}', "field 'other'"),
        ("[" * 100_000, "recursion"),
        ('{"name": "' + "a" * 500 + '", "lengths": 5}', "field 'lengths'"),
    ],
)
def test_an_error_names_file_field_and_value(text, message):
    """One line, whatever is wrong."""
    with pytest.raises(FileError, match=message) as caught:
        parse_record(text, Record, "record.json")
    assert str(caught.value).startswith("record.json is not a valid record")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_or_huge_file_is_refused(tmp_path, monkeypatch):
    """Before it is read."""
    with pytest.raises(FileError, match="does not exist"):
        read_record(tmp_path / "nothing.json", Record)
    (tmp_path / "large.json").write_text("x" * 100)
    monkeypatch.setattr("mitoda.volumes.records.LARGEST_RECORD", 10)
    with pytest.raises(FileError, match="100 bytes"):
        read_record(tmp_path / "large.json", Record)
