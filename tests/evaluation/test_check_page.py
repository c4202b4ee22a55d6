"""The page of a spot check, and the same page in a real browser: answer, reload, undo, save, read back."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mitoda.evaluation.answers import read_answers
from mitoda.evaluation.check_page import shown_sections, write_check_page
from mitoda.evaluation.estimates import summarise_answers
from mitoda.evaluation.spot_check import draw_boxes, draw_objects
from mitoda.volumes import ArrayVolume
from tests.browser import CHROMIUM, DRIVER, Browser

PIXEL = 20.0
NAME = 'my "stack", <1>.tif'


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page about six square objects in ten sections, and two boxes."""
    grey = np.random.default_rng(0).integers(0, 255, (10, 220, 200), np.uint8)
    labels = np.zeros(grey.shape, np.int64)
    starts = [(k, 10 + 30 * (k % 3), 10 + 30 * k) for k in range(6)]
    for number, (section, row, column) in enumerate(starts, 1):
        labels[section : section + 3, row : row + 20, column : column + 20] = number
    starts = np.array(starts)
    numbers = np.arange(1, 7)
    stack = ArrayVolume(grey, (50, PIXEL, PIXEL), f"/data/{NAME}")
    _, items = draw_objects(numbers, np.full(6, 1200), starts, starts + np.array([3, 20, 20]), 6, 0)
    items += draw_boxes(stack, 2, 0)
    path = tmp_path_factory.mktemp("page") / "check.html"
    write_check_page(path, stack, ArrayVolume(labels), items, stack.voxel_size, 0)
    return path


def data_of(page: Path) -> dict:
    """What the page's script reads."""
    content = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert content
    return json.loads(content[1])


def test_the_page_stands_alone_and_holds_the_design(page):
    """Nothing is loaded from elsewhere; each row has its class, totals and probability; names are not markup."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|@import|url\(", text)
    data = data_of(page)
    assert data["stack"] == NAME
    assert [len(item["row"]) for item in data["items"]] == [len(data["columns"]) - 2] * 8
    assert (
        sorted(item["row"][2:6] for item in data["items"])
        == [["all sizes", 6, 6, "1"]] * 6 + [["box", 4, 2, "0.5"]] * 2
    )


def test_the_outline_is_that_of_the_object(page):
    """20 pixels of 20 nm: it spans 400 nm around the object's place in the picture, and shows in three sections."""
    for item in data_of(page)["items"][:6]:
        outlined = [frame for frame in item["frames"] if frame["outline"]]
        assert [frame["section"] for frame in outlined] == list(range(item["row"][7], item["row"][10]))
        points = np.array(re.findall(r"([\d.]+) ([\d.]+)", outlined[0]["outline"]), float)
        row, column = item["frame_nm"][:2]
        assert points.min(0) == pytest.approx((column, row), abs=PIXEL / 2)
        assert points.max(0) == pytest.approx((column + 400, row + 400), abs=PIXEL / 2)


def test_a_box_shows_the_section_before_it_and_its_last(page):
    """A mitochondrion that begins in the box is absent from the section before it."""
    stack = ArrayVolume(np.random.default_rng(0).integers(0, 255, (400, 40, 40), np.uint8), (5, 50, 50))
    for item in draw_boxes(stack, 9, 0):
        shown = shown_sections(item, 5.0, 400)
        first, last = item.start[0], item.stop[0] - 1
        assert shown[0] == max(first - 1, 0)
        assert first in shown
        assert shown[-1] == last
        assert max(np.diff(shown)) <= 10


@pytest.fixture
def browser(tmp_path):
    """A browser; tests that want one are skipped without it."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    one = Browser(tmp_path)
    yield one
    one.close()


def save(browser: Browser) -> Path:
    """Press the button and wait for the file."""
    before = set(browser.downloads.glob("*.csv"))
    browser.script("document.getElementById('save').click()")
    return browser.wait(lambda: next(iter(set(browser.downloads.glob("*.csv")) - before), None))


def text(browser: Browser, name: str) -> str:
    """What an element shows."""
    return browser.script("return document.getElementById(arguments[0]).innerText", name)


def test_answers_survive_reloading_and_are_read_back(page, browser):
    """Keys answer, Z takes back, a reload goes on where it was, clicks mark, and the table gives the numbers."""
    browser.open(page)
    assert text(browser, "objects") == "0 of 6 objects"
    browser.press("g", "g", "b", "z", "u", "b", "g")
    assert text(browser, "objects") == "5 of 6 objects"
    browser.open(page)
    assert text(browser, "objects") == "5 of 6 objects"
    half = summarise_answers(read_answers(save(browser)))
    assert half.f1 is None
    assert [(one.good, one.bad, one.unsure, one.open) for one in half.classes] == [(3, 1, 1, 1)]

    browser.press("g")
    assert "missed" in text(browser, "question")
    place = browser.script(
        "const frame = document.querySelector('.frame').getBoundingClientRect();"
        "return [frame.x + frame.width / 2, frame.y + frame.height / 2, frame.x - 8]"
    )
    browser.click(place[0], place[1])
    browser.click(place[2], place[1])  # outside of the frame
    browser.press("ENTER", "ENTER")
    assert text(browser, "boxes") == "2 of 2 boxes"
    assert browser.script("return document.getElementById('done').className").endswith("shown")

    answers = read_answers(save(browser))
    assert {answer.stack for answer in answers} == {NAME}
    (marked,) = [answer for answer in answers if answer.marks]
    ((section, row, column),) = marked.marks
    assert marked.first_section <= section < marked.end_section
    assert row == pytest.approx((marked.first_row + marked.end_row) / 2, abs=2)
    assert column == pytest.approx((marked.first_column + marked.end_column) / 2, abs=2)
    found = summarise_answers(answers)
    assert found.precision.value == pytest.approx(0.8)
    assert (found.searched, found.missed) == (2, 1)
    assert found.recall.value == pytest.approx(4.8 / (4.8 + 2))


def test_saved_answers_can_be_loaded_into_an_empty_page(page, browser, tmp_path):
    """Another browser has no memory of them; the file brings them back, marks too."""
    browser.open(page)
    browser.press("g", "b", "g", "b", "g", "u")
    browser.script("set(items[here], { marks: [[4, 50, 60], [5, 70, 80]] })")
    browser.press("ENTER")
    saved = save(browser).read_text(encoding="utf-8")
    browser.script("localStorage.clear(); state = { answers: {}, undo: [] }; load(arguments[0])", saved)
    assert text(browser, "note") == "7 answers loaded"
    assert browser.script("return table()") == saved
    browser.script("load('stack,number,answer,missed\\nother.tif,object 1,good,\\n')")
    assert text(browser, "note") == "This file has no answers about this stack"
