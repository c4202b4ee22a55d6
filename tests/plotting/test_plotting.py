"""Pictures: that the colours are where they must be, and that files are whole and stand alone."""

import base64
import io
import re
from html.parser import HTMLParser

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoda.errors import InputError
from mitoda.plotting import (
    FALSE_ALARM,
    FOUND,
    LINES,
    MISSED,
    PREDICTED,
    contact_sheet,
    curve_figure,
    overlay,
    round_ticks,
    stretch,
    write_picture,
    write_report,
)

SECTION = np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros(SECTION.shape, np.uint8)
    mask[top : top + size, left : left + size] = 255
    return mask


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(-1)


def test_overlay_draws_the_contour_inside_the_mask():
    """Without a tint exactly the rim of the mask is coloured; all else is the stretched section."""
    picture = overlay(SECTION, square(2, 3, 5), tint=0)
    rim = (square(2, 3, 5) > 0) & (square(3, 4, 3) == 0)
    assert picture.shape == (*SECTION.shape, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(has_colour(picture, PREDICTED), rim)
    assert np.array_equal(picture[~rim], np.repeat(stretch(SECTION)[..., None], 3, axis=2)[~rim])


def test_overlay_with_label_tells_found_from_false_and_missed():
    """With a label three colours mark what both, only the prediction, and only the label call foreground."""
    predicted, label = square(1, 1, 4), square(1, 3, 4)
    picture = overlay(SECTION, predicted, label, tint=1.0)
    assert np.array_equal(has_colour(picture, FOUND), (predicted > 0) & (label > 0))
    assert np.array_equal(has_colour(picture, FALSE_ALARM), (predicted > 0) & (label == 0))
    assert np.array_equal(has_colour(picture, MISSED), (predicted == 0) & (label > 0))


def test_tint_leaves_the_inside_visible():
    """Inside the contour a quarter of the colour is mixed with the section, so that cristae stay visible."""
    picture = overlay(SECTION, square(2, 3, 5), tint=0.25)
    grey = int(stretch(SECTION)[4, 5])
    expected = [grey + 0.25 * (channel - grey) for channel in PREDICTED]
    assert picture[4, 5] == pytest.approx(expected, abs=1)


def test_empty_mask_and_constant_section_are_drawn():
    """An empty mask colours nothing; a constant section becomes mid-grey."""
    picture = overlay(np.full((4, 5), 7, np.uint16), np.zeros((4, 5)))
    assert (picture == 128).all()


def test_stretch_ignores_one_percent_at_each_end():
    """A few very bright pixels do not darken the rest."""
    section = np.tile(np.arange(100, dtype=np.float32), (100, 1))
    section[0, 0] = 1e6
    assert stretch(section)[1, 99] == 255
    assert stretch(section)[1, 50] == pytest.approx(128, abs=3)


def test_overlay_refuses_unequal_shapes():
    """A mask or a label of another shape is refused with both shapes."""
    with pytest.raises(InputError, match=r"the mask has shape \(2, 2\), the section \(10, 12\)"):
        overlay(SECTION, np.zeros((2, 2)))
    with pytest.raises(InputError, match="the label has shape"):
        overlay(SECTION, SECTION, np.zeros((2, 2)))


def test_contact_sheet_holds_every_picture_at_one_width():
    """Grey and colour panels of different sizes stand side by side, each scaled to the same width."""
    red = np.zeros((30, 60, 3), np.uint8)
    red[..., 0] = 255
    sheet = contact_sheet([("red", red), ("black", np.zeros((40, 20), np.uint8))], panel_width=50)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * 50 + 3 * 10
    assert has_colour(sheet, (255, 0, 0))[:, 10:60].sum() == 25 * 50
    assert has_colour(sheet, (0, 0, 0))[:, 70:120].sum() >= 100 * 50 * 0.99


def test_contact_sheet_starts_a_row_when_one_is_full():
    """Three panels in two columns take two rows; no panel at all is refused."""
    panel = ("caption", np.zeros((20, 20), np.uint8))
    one, two = (contact_sheet([panel] * n, columns=2, panel_width=20) for n in (2, 3))
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] == 2 * one.shape[0] - 10
    with pytest.raises(InputError, match="no panels"):
        contact_sheet([])


def rows_of(picture: np.ndarray, colour: tuple[int, int, int], columns: slice) -> np.ndarray:
    """Rows of pixels near a colour."""
    near = abs(picture[:, columns].astype(int) - colour).max(-1) < 30
    return np.flatnonzero(near.any(1))


def test_curves_fall_where_losses_fall():
    """A falling loss is drawn from the upper left to the lower right, a rising one the other way."""
    records = [{"step": step, "falling": 1.0 / step, "rising": 0.01 * step} for step in range(1, 101)]
    picture = curve_figure(records)
    for colour, sign in ((LINES[0], 1), (LINES[1], -1)):
        start, end = rows_of(picture, colour, slice(83, 100)), rows_of(picture, colour, slice(720, 738))
        assert sign * (end.mean() - start.mean()) > 100


def test_curves_survive_what_a_log_may_hold():
    """Text, claims, missing, infinite, zero and negative values, one step, and an empty log are all drawn."""
    odd = [
        {"step": 1, "loss": 0.5, "event": "saved", "ok": True},
        {"step": 2, "loss": float("nan"), "other": -1.0},
        {"step": 3, "loss": float("inf"), "other": 0.0},
        {"event": "end", "loss": 1.0},
    ]
    for records in ([], odd, odd[:1], odd[1:2], [{"step": 5, "loss": 2.0}] * 3, [{"step": 1, "event": "x"}]):
        assert curve_figure(records).shape == (480, 960, 3)


def test_only_the_named_entries_are_drawn():
    """Names choose the curves: an entry left out takes no colour."""
    records = [{"step": step, "loss": 1.0 + step, "rate": 2.0} for step in range(9)]
    inside = slice(83, 738)
    assert len(rows_of(curve_figure(records), LINES[1], inside)) > 0
    assert len(rows_of(curve_figure(records, names=["loss"]), LINES[1], inside)) == 0


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_in_their_range(low, span):
    """Ticks are between the ends, ascending, and never more than eight."""
    ticks = round_ticks(low, low + span)
    slack = 1e-9 * max(1.0, abs(low), span)
    assert len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


def test_a_picture_is_written_whole(tmp_path):
    """A PNG reads back as the array written, and nothing else is left in the folder."""
    picture = overlay(SECTION, square(2, 3, 5))
    write_picture(picture, tmp_path / "a.png")
    assert np.array_equal(imageio.imread(tmp_path / "a.png"), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class Tags(HTMLParser):
    """Collects tags, and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_page_that_stands_alone(tmp_path):
    """The page is well formed, refers to nothing outside, and holds the curves and the overlays."""
    picture = overlay(SECTION, square(2, 3, 5))
    records = [{"step": step, "loss": 1.0 / step} for step in range(1, 20)]
    path = write_report(
        tmp_path,
        "vnc3 → <lucchi>",
        settings={"seed": 1, "adam": {"rate": 1e-4}},
        records=records,
        tables={"Scores": {"F1": 0.8531234}},
        pictures=[("section 7 & its mask", picture)],
        notes=["The mask of section 3 is empty."],
    )
    page = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"https?:|<script|<link|url\(", page)
    sources = [attributes["src"] or "" for tag, attributes in tags.seen if tag == "img"]
    shown = [imageio.imread(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    assert np.array_equal(shown[0], curve_figure(records))
    assert np.array_equal(shown[1], picture)
    for text in (
        "vnc3 → &lt;lucchi&gt;",
        "adam.rate",
        "0.0001",
        "0.8531",
        "section 7 &amp; its mask",
        "section 3",
    ):
        assert text in page
    assert np.array_equal(imageio.imread(tmp_path / "curves.png"), shown[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["curves.png", "report.html"]


def test_report_without_training_has_no_curves(tmp_path):
    """With settings alone the page holds the table and no picture."""
    page = write_report(tmp_path, "segment", settings={"weights": None}).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<th>weights</th><td>–</td>" in page
    assert not (tmp_path / "curves.png").exists()


def test_the_key_says_what_is_compared(tmp_path):
    """Without a second mask one colour; with labels, or with what was before, three in their words."""
    picture = [("", np.zeros((4, 4, 3), np.uint8))]
    alone = write_report(tmp_path, "run", settings={}, pictures=picture).read_text(encoding="utf-8")
    assert alone.count("■") == 1
    words = ("now and before", "now only", "before only")
    both = write_report(tmp_path, "run", settings={}, pictures=picture, compared=words).read_text(
        encoding="utf-8"
    )
    assert both.count("■") == 3
    assert all(word in both for word in words)
    assert "labelled" not in both
