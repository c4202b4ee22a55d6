"""The table of answers to a spot check: read from the file that the page saves, and turned into places to paint."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mitoda.data.painted import Rectangle
from mitoda.errors import FileError, InputError
from mitoda.evaluation.spot_check import BOX_CLASS
from mitoda.plotting.frames import window_around
from mitoda.volumes.files import check_regular
from mitoda.volumes.records import LARGEST_RECORD, parse_record

COLUMNS = (
    "stack", "number", "size_class", "total", "drawn", "probability", "volume_um3",
    "first_section", "first_row", "first_column", "end_section", "end_row", "end_column", "answer", "missed",
)  # fmt: skip
"""Of the table that the page saves. Ends are the first section, row and column beyond the object or box."""


@dataclass(frozen=True)
class Answer:
    """One row of the table."""

    stack: str
    number: str
    size_class: str
    total: int
    drawn: int
    probability: float
    volume_um3: float
    first_section: int
    first_row: int
    first_column: int
    end_section: int
    end_row: int
    end_column: int
    answer: Literal["good", "bad", "unsure", "searched", ""]
    missed: str
    """Where missed mitochondria were marked in a box: section:row:column, with spaces between them."""

    @property
    def is_box(self) -> bool:
        """Whether it is a box that was searched, not a found object."""
        return self.size_class == BOX_CLASS

    @property
    def marks(self) -> list[tuple[int, int, int]]:
        """Section, row and column of each missed mitochondrion."""
        places = []
        for text in self.missed.split():
            section, row, column = map(int, text.split(":"))
            places.append((section, row, column))
        return places


def read_answers(path: Path | str) -> list[Answer]:
    """Read the table that the page of `mitoda check` saves; a spreadsheet may have written it again.

    Raises
    ------
    FileError
        If it is not such a table; the message names the line.
    """
    path = Path(path)
    check_regular(path)
    if path.stat().st_size > LARGEST_RECORD:
        raise FileError(f"{path} is too large for a table of answers; give the file that the page saved")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text in UTF-8; give the file that the page saved") from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise FileError(
                f"{path} has no column {', '.join(missing)}; give the table that the page of 'mitoda check' saves"
            )
        answers = [_parse(row, f"line {rows.line_num} of {path}") for row in rows]
    except csv.Error as error:
        raise FileError(
            f"{path} is not a table ({error}); give the table that the page of 'mitoda check' saves"
        ) from error
    _check_together(answers, path)
    return answers


def _parse(row: dict[str, str], where: str) -> Answer:
    import json

    answer = parse_record(json.dumps({name: row[name] for name in COLUMNS}), Answer, where)
    allowed = ("searched", "") if answer.is_box else ("good", "bad", "unsure", "")
    if answer.answer not in allowed:
        raise FileError(f"{where}: {answer.number} is answered {answer.answer!r}; expected one of {allowed}")
    is_design = 1 <= answer.drawn <= answer.total and math.isclose(
        answer.probability, answer.drawn / answer.total, rel_tol=1e-3
    )
    if not is_design:
        raise FileError(
            f"{where}: drawn {answer.drawn} of {answer.total} with probability {answer.probability:g}, which do not "
            "agree; save the table from the page again"
        )
    try:
        marks = answer.marks
    except ValueError:
        raise FileError(
            f"{where}: missed is {answer.missed!r}; expected section:row:column for each mark"
        ) from None
    if marks and not answer.is_box:
        raise FileError(f"{where}: {answer.number} is an object, but has marks of missed mitochondria")
    return answer


def _check_together(answers: list[Answer], path: Path) -> None:
    if not answers:
        raise FileError(f"{path} has no rows; save the table from the page again")
    if len({answer.number for answer in answers}) < len(answers):
        raise FileError(f"{path} has an object or box twice; save the table from the page again")
    if len({answer.stack for answer in answers}) > 1:
        raise FileError(f"{path} has answers about several stacks; give one table at a time")
    for name in {answer.size_class for answer in answers}:
        rows = [answer for answer in answers if answer.size_class == name]
        if len({(row.total, row.drawn) for row in rows}) > 1 or len(rows) != rows[0].drawn:
            raise FileError(
                f"{path} has {len(rows)} rows of class {name!r}, and {rows[0].drawn} were drawn; rows without an "
                "answer belong to the table too, so save it from the page again"
            )


def places_to_paint(
    answers: Sequence[Answer], shape: tuple[int, int, int], pixel_nm: tuple[float, float], side_nm: float
) -> list[Rectangle]:
    """Squares around the bad objects and the missed mitochondria; of those that overlap in a section, the first.

    Parameters
    ----------
    answers : sequence of Answer
    shape : (int, int, int)
        Of the stack.
    pixel_nm : (float, float)
    side_nm : float
        Of a square.

    Raises
    ------
    InputError
        If an answer lies outside of the stack.
    """
    points = [mark for one in answers for mark in one.marks]
    points += [
        (
            (one.first_section + one.end_section - 1) // 2,
            (one.first_row + one.end_row) // 2,
            (one.first_column + one.end_column) // 2,
        )
        for one in answers
        if one.answer == "bad"
    ]
    places: list[Rectangle] = []
    for point in points:
        if not all(0 <= value < size for value, size in zip(point, shape, strict=True)):
            raise InputError(
                f"section {point[0]}, row {point[1]}, column {point[2]} of the answers is outside of the stack, which "
                f"has shape {shape}; give the stack that was checked"
            )
        section, *middle = point
        start = (middle[0], middle[1])
        place = Rectangle(section, *window_around(start, start, side_nm, pixel_nm, shape[1:]))
        if not any(place.overlaps(other) for other in places):
            places.append(place)
    return places
