"""`mitoda check` and `mitoda view` as a person uses them."""

import json
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from mitoda.data.painted import OUTLINE
from mitoda.evaluation.answers import COLUMNS
from mitoda.volumes import open_labels, open_volume, write_sections
from mitoda.volumes.volume import origin_of
from tests.commands import Commands
from tests.fakes import compact_weights


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    """Run commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture
def stack(tmp_path, target_phantom):
    """stack.tif and mask.tif in a folder of their own."""
    for volume, name in zip(target_phantom, ("stack", "mask"), strict=True):
        write_sections(tmp_path / f"{name}.tif", volume.array, volume.shape, volume.dtype, volume.voxel_size)
    return tmp_path / "stack.tif"


def answer(page, path, given, missed=""):
    """What the page saves when every object gets the same answer."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])
    rows = [
        [*item["row"], "searched" if item["size_class"] == "box" else given,
         missed if item["size_class"] == "box" else ""]
        for item in data["items"]
    ]  # fmt: skip
    lines = [",".join(map(str, row)) for row in (COLUMNS, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_page_then_its_answers_then_places_to_paint(mitoda, stack, tmp_path):
    """The three commands, from the stack to numbers and to a label file with outlines."""
    page, answers, few = tmp_path / "check.html", tmp_path / "answers.csv", tmp_path / "few.tif"
    made = mitoda("check", stack, tmp_path / "mask.tif", "-o", page)
    assert made.status == 0, made.err
    assert made.out == ""
    assert "found objects" in made.err
    assert "1 boxes" in made.err

    answer(page, answers, "good", "3:50:60")
    result = mitoda("check", "--answers", answers)
    assert result.status == 0, result.err
    assert "1.00–1.00" in result.out
    assert "1 of 1 searched, 1 mitochondria missed" in result.out
    numbers = json.loads(mitoda("check", "--answers", answers, "--json").out)
    assert numbers["precision"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    found = numbers["classes"][0]["found"]
    assert numbers["recall"]["value"] == pytest.approx(found / (found + 1))

    painted = mitoda("check", stack, "--answers", answers, "--paint", few)
    assert painted.status == 0, painted.err
    assert "section 3, rows" in painted.err
    assert "mitoda adapt --target" in painted.err
    labels = tifffile.imread(few)
    assert labels.shape == open_volume(stack).shape
    assert set(np.unique(labels)) == {0, OUTLINE}
    assert np.flatnonzero(labels.any((1, 2))).tolist() == [3]


def test_labels_to_paint_lie_where_the_stack_lies(mitoda, tmp_path, target_phantom):
    """Of an OME-Zarr with an origin, those of `check` and of `suggest` have it too."""
    for volume, name in zip(target_phantom, ("stack.zarr", "mask.zarr"), strict=True):
        lengths, array = volume.voxel_size, volume.array
        write_sections(tmp_path / name, array, array.shape, array.dtype, lengths, origin=(30, 20, 10))
    stack, answers, page = (tmp_path / name for name in ("stack.zarr", "answers.csv", "check.html"))
    compact_weights(tmp_path / "random.safetensors", pixel=target_phantom[0].voxel_size[1:])
    assert mitoda("check", stack, tmp_path / "mask.zarr", "-o", page).status == 0
    answer(page, answers, "good", "3:50:60")
    few = tmp_path / "few.zarr", tmp_path / "more.zarr"
    done = mitoda("check", stack, "--answers", answers, "--paint", few[0])
    assert done.status == 0, done.err
    done = mitoda("suggest", stack, "-o", few[1], "--weights", tmp_path / "random.safetensors", "--side", 400)
    assert done.status == 0, done.err
    assert [origin_of(open_labels(path)) for path in few] == [(30, 20, 10)] * 2


def test_half_of_the_answers_give_no_headline(mitoda, stack, tmp_path):
    """Exit 1 with what is lacking; the table of the answered half is printed."""
    page, answers = tmp_path / "check.html", tmp_path / "answers.csv"
    mitoda("check", stack, tmp_path / "mask.tif", "-o", page)
    answer(page, answers, "")
    result = mitoda("check", "--answers", answers)
    assert result.status == 1
    assert result.message.startswith("mitoda: no precision, recall and F1 yet: 0 of")
    assert "F1" not in result.out
    assert json.loads(mitoda("check", "--answers", answers, "--json").out)["f1"] is None


def test_wrong_files_are_refused(mitoda, stack, tmp_path):
    """Nothing is written, and the message says what to do."""
    mask = tmp_path / "mask.tif"
    assert "must end in .html" in mitoda.refused("check", stack, mask, "-o", tmp_path / "page.tif")
    (tmp_path / "mine.html").write_text("mine")
    assert "exists" in mitoda.refused("check", stack, mask, "-o", tmp_path / "mine.html")
    tifffile.imwrite(tmp_path / "other.tif", np.ones((5, 20, 20), np.uint8))
    message = mitoda.refused("check", stack, tmp_path / "other.tif", "-o", tmp_path / "page.html")
    assert "(5, 20, 20); expected equal shapes" in message
    unknown = tmp_path / "unknown.tif"
    tifffile.imwrite(unknown, open_volume(stack).read(0)[None])
    assert "--voxel-size" in mitoda.refused("check", unknown, unknown, "-o", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.tif"],
        ["a.tif", "b.tif"],
        ["a.tif", "--answers", "x.csv"],
        ["--answers", "x.csv", "--paint", "y.tif"],
    ],
)
def test_a_check_needs_a_page_or_answers(mitoda, arguments):
    """Anything in between is wrong usage."""
    assert mitoda("check", *arguments).status == 2


def test_without_napari_view_says_how_to_install_it(mitoda, stack, monkeypatch):
    """No traceback."""
    monkeypatch.setitem(sys.modules, "napari", None)
    assert "pip install 'mitoda[view]'" in mitoda.refused("view", stack)


class Viewer:
    """Records what napari is given."""

    def __init__(self, title: str) -> None:
        self.title, self.layers, self.point = title, {}, None
        self.dims = SimpleNamespace(set_point=lambda axis, value: setattr(self, "point", value))
        self.scale_bar = SimpleNamespace(visible=False)

    def add_image(self, data, name, **how):
        self.layers[name] = (data, how)

    def add_labels(self, data, name, **how):
        self.layers[name] = (data, how)
        return SimpleNamespace()


def test_view_gives_napari_the_stack_at_its_scale(mitoda, stack, tmp_path, monkeypatch):
    """Stack and mask, in nanometres, read section by section."""
    shown = []
    napari = SimpleNamespace(Viewer=lambda title: shown.append(Viewer(title)) or shown[-1], run=lambda: None)
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setenv("DISPLAY", ":0")
    assert mitoda("view", stack, tmp_path / "mask.tif").status == 0
    (viewer,) = shown
    image, how = viewer.layers["stack"]
    volume = open_volume(stack)
    assert how["scale"] == volume.voxel_size
    assert (image.shape, image.ndim, image.dtype) == (volume.shape, 3, volume.dtype)
    assert np.array_equal(image[4], volume.read(4))
    assert np.array_equal(np.asarray(image), tifffile.imread(stack))
    assert viewer.layers["mask"][1]["units"] == ("nm", "nm", "nm")
    assert viewer.scale_bar.visible
    tifffile.imwrite(tmp_path / "other.tif", np.ones((5, 20, 20), np.uint8))
    assert "expected equal shapes" in mitoda.refused("view", stack, tmp_path / "other.tif")


def test_view_shows_masks_of_the_same_name_beside_each_other(mitoda, stack, tmp_path, monkeypatch):
    """Two runs often write a mask.tif each; the second has its path as its name."""
    shown = []
    napari = SimpleNamespace(Viewer=lambda title: shown.append(Viewer(title)) or shown[-1], run=lambda: None)
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setenv("DISPLAY", ":0")
    second = tmp_path / "run" / "mask.tif"
    second.parent.mkdir()
    shutil.copy(tmp_path / "mask.tif", second)
    assert mitoda("view", stack, tmp_path / "mask.tif", second).status == 0
    assert list(shown[0].layers) == ["stack", "mask", str(second)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says by variables whether there is a screen")
def test_without_a_screen_view_says_so(mitoda, stack, monkeypatch):
    """Qt would abort the process."""
    monkeypatch.setitem(sys.modules, "napari", SimpleNamespace())
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert "needs a screen" in mitoda.refused("view", stack)


def test_the_next_command_names_what_was_given(mitoda, stack, tmp_path):
    """Without them, adapt would read the stack differently."""
    compact_weights(tmp_path / "random.safetensors")
    few = tmp_path / "few places.tif"
    given = ("--voxel-size", 50, 5, 5, "--invert")
    done = mitoda(
        "suggest", stack, "-o", few, "--weights", tmp_path / "random.safetensors", "--side", 400, *given
    )
    assert f"adapt --target {stack} --labels '{few}' --voxel-size 50 5 5 --invert" in done.err
