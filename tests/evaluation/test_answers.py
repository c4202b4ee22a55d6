"""Answers to a spot check: tables are read back or refused, and show where to paint."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mitoda.errors import FileError, InputError
from mitoda.evaluation.answers import COLUMNS, Answer, places_to_paint, read_answers
from tests.evaluation.answer_tables import BOX, OBJECT, make_answers


def write(path: Path, answers: list[Answer], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(answer, name) for name in COLUMNS] for answer in answers)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_read_back(tmp_path, delimiter):
    """Also as a spreadsheet writes it: with a byte order mark and its own delimiter."""
    rows = make_answers([("small", 40, ["good", "bad", "unsure", ""])], 9, [2, 0, None])
    assert read_answers(write(tmp_path / "answers.csv", rows, delimiter)) == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "perhaps"}, "line 2 of .*: field 'answer'"),
        ({"answer": "searched"}, "object small 0 is answered 'searched'"),
        ({"probability": 0.9}, "drawn 4 of 40 with probability 0.9, which do not agree"),
        ({"total": 3}, "drawn 4 of 3"),
        ({"total": "many"}, "field 'total'"),
        ({"missed": "1:2:3"}, "is an object, but has marks"),
        ({"missed": "here"}, "expected section:row:column"),
        ({"number": "object small 1"}, "an object or box twice"),
        ({"stack": "b.tif"}, "several stacks"),
    ],
)
def test_a_table_that_was_spoilt_is_refused(tmp_path, change, message):
    """With the line and what is wrong."""
    rows = make_answers([("small", 40, ["good", "bad", "unsure", ""])], 9, [2, 0])
    rows[0] = replace(rows[0], **change)
    with pytest.raises(FileError, match=message):
        read_answers(write(tmp_path / "answers.csv", rows))


def test_rows_without_an_answer_belong_to_the_table(tmp_path):
    """Deleting them would change the sample."""
    rows = make_answers([("small", 40, ["good", "bad", "unsure", ""])], 9, [2, 0])[1:]
    with pytest.raises(FileError, match="3 rows of class 'small', and 4 were drawn"):
        read_answers(write(tmp_path / "answers.csv", rows))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", ",".join(COLUMNS).encode() + b"\n"])
def test_other_files_are_refused(tmp_path, content):
    """Empty, another table, no text, no rows."""
    (tmp_path / "answers.csv").write_bytes(content)
    with pytest.raises(FileError, match=r"answers\.csv"):
        read_answers(tmp_path / "answers.csv")


def test_places_to_paint_lie_around_what_is_wrong():
    """Around a mark of a missed mitochondrion and the middle of a bad object; overlapping ones are joined."""
    bad = replace(
        OBJECT,
        answer="bad",
        first_section=4,
        end_section=7,
        first_row=40,
        end_row=60,
        first_column=0,
        end_column=20,
    )
    box = replace(BOX, missed="2:10:90 2:12:88")
    places = places_to_paint([OBJECT, bad, box], (9, 100, 100), (10, 10), 200)
    assert [(one.section, one.rows, one.columns) for one in places] == [
        (2, slice(0, 20), slice(80, 100)),
        (5, slice(40, 60), slice(0, 20)),
    ]
    with pytest.raises(
        InputError, match="section 2, row 10, column 90 of the answers is outside of the stack"
    ):
        places_to_paint([box], (2, 100, 100), (10, 10), 200)
