"""JSON records, validated when they are read back."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mitoda.errors import FileError
from mitoda.volumes.files import atomic_write, check_regular

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

LARGEST_RECORD = 16 * 2**20
"""Bytes above which a JSON file is not one that mitoda wrote."""


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass or a dictionary as JSON."""
    values = record if isinstance(record, dict) else asdict(record)
    try:
        text = json.dumps(values, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = ascii(error.object[max(error.start - 20, 0) : error.end + 20])
        raise FileError(
            f"{path} cannot hold a file name that is not UTF-8: {found}; rename that file"
        ) from error
    with atomic_write(path) as partial:
        partial.write_bytes(text + b"\n")


def read_record(path: Path, kind: type[T]) -> T:
    """Read a JSON file into a dataclass; see `parse_record`.

    Raises
    ------
    FileError
        If the file is missing or larger than `LARGEST_RECORD`, or its content is not what `kind` describes.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > LARGEST_RECORD:
        raise FileError(
            f"{path} has {size:,} bytes; expected a JSON file of at most {LARGEST_RECORD:,} bytes"
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse_record(text, kind, str(path))


def parse_record(text: str | bytes, kind: type[T], name: str) -> T:
    """Validate JSON against the annotations of a dataclass.

    A dataclass sets its strictness in `__pydantic_config__`, for example `{"extra": "forbid", "allow_inf_nan": False}`.

    Parameters
    ----------
    text : str or bytes
        JSON.
    kind : type
        A dataclass, or any type that pydantic validates.
    name : str
        Of the file, for error messages.

    Raises
    ------
    FileError
        Names the file, the field, the value found and the value expected.
    """
    from pydantic import ValidationError

    try:
        record: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]
        return record
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"field '{field}'" if field else "the content"
        found = "" if first["type"] in ("missing", "json_invalid") else f", found {_short(first['input'])}"
        raise FileError(
            f"{name} is not a valid record: {where}: {first['msg']}{found}; it is damaged, was edited, or was written "
            "by another version of mitoda"
        ) from error


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _short(value: object, length: int = 60) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
