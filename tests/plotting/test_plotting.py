"""Pictures: colours are where they must be, curves have the values of the log, files are whole and stand alone."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import imageio.v3 as imageio
import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.plotting import (
    BOTH,
    FIRST_ONLY,
    PREDICTED,
    SECOND_ONLY,
    Bar,
    bar_figure,
    curve_figure,
    overlay,
    stretch,
    write_png,
    write_report,
)
from mitoda.plotting.frames import window_around
from mitoda.plotting.html import write_page
from mitoda.plotting.section_view import view_sections
from mitoda.volumes import ArrayVolume

SECTION = np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros(SECTION.shape, np.uint8)
    mask[top : top + size, left : left + size] = 255
    return mask


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(-1)


def test_the_contour_lies_inside_the_mask_and_the_rest_is_the_section():
    """The rim of the mask has its colour, also not the edge of the picture; inside, a quarter of it is mixed in."""
    picture = overlay(SECTION, square(2, 3, 5))
    rim = (square(2, 3, 5) > 0) & (square(3, 4, 3) == 0)
    grey = np.repeat(stretch(SECTION)[..., None], 3, axis=2)
    assert picture.dtype == np.uint8
    assert np.array_equal(has_colour(picture, PREDICTED), rim)
    outside = square(2, 3, 5) == 0
    assert np.array_equal(picture[outside], grey[outside])
    expected = [grey[4, 5, 0] + 0.25 * (channel - float(grey[4, 5, 0])) for channel in PREDICTED]
    assert picture[4, 5] == pytest.approx(expected, abs=1)


def test_beyond_the_picture_a_mask_goes_on():
    """A mask that covers the whole section has no contour."""
    assert not has_colour(overlay(SECTION, np.ones(SECTION.shape)), PREDICTED).any()


def test_two_masks_have_three_colours():
    """Three colours mark contours of what is in both, in the first only, and in the second only."""
    first, second = square(1, 1, 4), square(1, 3, 4)
    picture = overlay(SECTION, first, second)
    parts = {
        BOTH: (first > 0) & (second > 0),
        FIRST_ONLY: (first > 0) & (second == 0),
        SECOND_ONLY: (first == 0) & (second > 0),
    }
    for colour, part in parts.items():
        assert np.array_equal(has_colour(picture, colour), part)  # two columns wide: all of it is contour


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
    """A mask of another shape is refused with both shapes."""
    with pytest.raises(InputError, match=r"the mask has shape \(2, 2\), the section \(10, 12\)"):
        overlay(SECTION, np.zeros((2, 2)))
    with pytest.raises(InputError, match="the other mask has shape"):
        overlay(SECTION, SECTION, np.zeros((2, 2)))


def test_curves_have_the_values_of_the_log():
    """Steps and losses as they are, on a logarithmic axis; the last value is in the legend."""
    records = [{"step": step, "falling": 1.0 / step, "rising": 0.01 * step} for step in range(1, 101)]
    figure = curve_figure(records)
    (axes,) = figure.axes
    falling, rising = axes.lines
    assert np.allclose(falling.get_ydata(), [1 / step for step in range(1, 101)])
    assert np.allclose(rising.get_xdata(), range(1, 101))
    assert axes.get_yscale() == "log"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["falling: last 0.01", "rising: last 1"]


def test_many_steps_are_grouped_over_a_band_of_their_extremes():
    """400 values that alternate between 1 and 3 become 200 points of 2, with a band from 1 to 3."""
    (axes,) = curve_figure([{"step": step, "loss": 1.0 + 2 * (step % 2)} for step in range(400)]).axes
    assert np.array_equal(axes.lines[0].get_ydata(), np.full(200, 2.0))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1.0, 3.0)


def test_curves_survive_what_a_log_may_hold():
    """Values that are not finite are left out; zero and negative values make the axis linear; a log may be empty."""
    odd = [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": math.nan, "other": -1.0},
        {"step": 3, "loss": math.inf, "other": 0.0, "never": math.nan},
    ]
    (axes,) = curve_figure(odd).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.5], [-1.0, 0.0]]
    assert axes.get_yscale() == "linear"
    for records in ([], odd[1:2], [{"step": 5, "loss": 2.0}] * 3):
        assert curve_figure(records).axes


def test_twelve_curves_can_be_told_apart():
    """No two have the same colour and dashes."""
    records = [{"step": step, **{f"loss {k}": k + 1.0 for k in range(12)}} for step in (1, 2)]
    (axes,) = curve_figure(records).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 12


def test_bars_are_as_long_as_their_numbers():
    """What does not exist has no bar and is marked as none; a spread is written beside its value."""
    bars = [Bar("isc", 50.0, None, 25.0), Bar("dann", None, None, 75.0), Bar("ours", 90, 1.5, 80)]
    (axes,) = bar_figure(bars, "F1").axes
    assert [bar.get_width() for bar in axes.patches] == [50.0, 0.0, 90.0, 25.0, 75.0, 80.0]
    assert [text.get_text() for text in axes.texts] == ["50.0", "none", "90.0 ± 1.5", "25.0", "75.0", "80.0"]
    with pytest.raises(InputError, match="no bars"):
        bar_figure([], "F1")


def test_a_picture_is_written_whole(tmp_path):
    """A PNG reads back as the array written, and nothing else is left in the folder."""
    picture = overlay(SECTION, square(2, 3, 5))
    write_png(picture, tmp_path / "a.png")
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
        if tag not in {"meta", "img", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_page_that_stands_alone(tmp_path):
    """The page is well formed, refers to nothing outside, and holds the curves and the overlays."""
    picture = overlay(SECTION, square(2, 3, 5))
    curves = curve_figure([{"step": step, "loss": 1.0 / step} for step in range(1, 20)])
    path = tmp_path / "report.html"
    write_report(
        path,
        "vnc3 → <lucchi>",
        notes=["1 < 2"],
        warnings=["The mask of section 3 is empty."],
        losses=curves,
        pictures=[("section 7 & its mask", picture)],
        tables={
            "Scores": {"F1": 0.8531234},
            "Settings": {"seed": 1, "adam": {"rate": 1e-4}, "weights": None},
        },
    )
    page = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|@import|url\(", page)
    sources = [attributes["src"] or "" for tag, attributes in tags.seen if tag == "img"]
    shown = [imageio.imread(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    write_png(curves, tmp_path / "curves.png")
    assert np.array_equal(shown[0], imageio.imread(tmp_path / "curves.png"))
    assert np.array_equal(shown[1], picture)
    for text in (
        "vnc3 → &lt;lucchi&gt;", "adam: rate", "0.0001", "0.8531", "section 7 &amp; its mask", "section 3",
        "<th>weights</th><td>–</td>", "1 &lt; 2",
    ):  # fmt: skip
        assert text in page


def test_a_report_without_sections_has_no_data_for_its_script(tmp_path):
    """Tables alone: no picture, no warning."""
    write_report(tmp_path / "report.html", "run", tables={"Settings": {"seed": 1}})
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<img" not in page
    assert "Check this first" not in page
    assert '<script type="application/json" id="data">null</script>' in page


def test_sections_have_outlines_and_foreground():
    """Outlines in nanometres where the masks are; pictures of the wanted sections only."""
    stack = ArrayVolume(np.stack([SECTION] * 3), (50, 5, 10), "/data/stack.tif")
    masks = [(k, square(2, 3, 4), square(0, 0, 2) if k else None) for k in range(3)]
    view = view_sections(stack, masks, [1])
    assert view["foreground"] == [(k, round(16 / 120, 6)) for k in range(3)]
    assert view["before"] == [(k, round(4 / 120, 6)) for k in (1, 2)]
    assert view["size"] == [50, 120]
    (frame,) = view["frames"]
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", frame["outline"]), float)
    assert points.min(0) == pytest.approx((30, 10), abs=5)
    assert points.max(0) == pytest.approx((70, 30), abs=5)
    picture = imageio.imread(io.BytesIO(base64.b64decode(frame["image"].split(",")[1])))
    assert picture.shape[:2] == SECTION.shape


def test_a_window_stays_in_the_section():
    """It has its side where there is room, is moved from the border, and takes all of a small section."""
    assert window_around((50, 2), (54, 6), 200, (10, 10), (100, 100)) == (slice(42, 62), slice(0, 20))
    assert window_around((10, 10), (40, 90), 200, (10, 10), (50, 100)) == (slice(10, 40), slice(10, 90))
    assert window_around((0, 0), (4, 4), 1000, (10, 10), (30, 200)) == (slice(0, 30), slice(0, 100))


def test_text_in_the_data_cannot_close_the_script(tmp_path):
    """A name with markup stays a name."""
    name = "</script><script>alert(1)</script>"
    write_page(tmp_path / "a.html", "report", "t", {"name": name}, notes="", facts="", more="")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["name"] == name
