"""Files written whole or not at all, and JSON records validated when they are read back."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from mitoda.errors import FileError

T = TypeVar("T")

LARGEST_RECORD = 16 * 2**20
"""Bytes above which a JSON file is not one that mitoda wrote."""


def partial_path(path: Path) -> Path:
    """Name that a file has until it is complete."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an error.

    The earlier content of `path` stays until the new content is on disk. After an error the temporary file is removed.

    Raises
    ------
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "table.csv") as partial:
    ...         _ = partial.write_text("a,b")
    ...     (Path(folder) / "table.csv").read_text()
    'a,b'
    """
    partial = partial_path(path)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        kept = "; its earlier content is unchanged" if path.exists() else ""
        raise FileError(f"{path} cannot be written ({error.strerror or error}){kept}") from error
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass or a dictionary as JSON."""
    values = record if isinstance(record, dict) else asdict(record)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path, kind: type[T]) -> T:
    """Read a JSON file into a dataclass; see `parse_record`.

    Raises
    ------
    FileError
        If the file is missing or larger than `LARGEST_RECORD`, or its content is not what `kind` describes.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_RECORD:
            raise FileError(
                f"{path} has {size:,} bytes; expected a JSON file of at most {LARGEST_RECORD:,} bytes"
            )
        text = path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
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
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"field '{field}'" if field else "the content"
        found = "" if first["type"] in ("missing", "json_invalid") else f", found {_short(first['input'])}"
        raise FileError(
            f"{name} is not a valid record: {where}: {first['msg']}{found}; it is damaged, was edited, or was written "
            "by another version of mitoda"
        ) from error


def _short(value: object, length: int = 60) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
