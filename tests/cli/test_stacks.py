"""Many stacks in one command, and the page of a segmentation."""

import html
import json
import re

import numpy as np
import pytest
import tifffile

from mitoda.synthetic import TARGET
from mitoda.volumes import write_sections
from tests.commands import Commands
from tests.fakes import compact_weights


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    """Run commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path, target_phantom):
    """a.tif and c.tif are stacks, b.tif is damaged; out/ is empty."""
    image, _ = target_phantom
    for name in ("a", "c"):
        write_sections(
            tmp_path / f"{name}.tif", image.array[:3], (3, 160, 192), image.dtype, image.voxel_size
        )
    (tmp_path / "b.tif").write_bytes(b"II*\0 and nothing more")
    (tmp_path / "out").mkdir()
    compact_weights(tmp_path / "random.safetensors", pixel=TARGET.voxel_size[1:], spacing=20.0)
    return tmp_path


def test_a_stack_that_fails_does_not_stop_the_others(mitoda, folder):
    """A pattern, two masks, a table with all three, exit 1; their pages are written too."""
    weights = ["--weights", folder / "random.safetensors"]
    out = folder / "out"
    done = mitoda("segment", folder / "*.tif", "--output-folder", out, "--report", out, *weights)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert done.message == "1 of 3 stacks failed"
    assert {path.name for path in out.iterdir()} == {"a.tif", "c.tif", "a.html", "c.html"}
    table = " ".join(done.out.split())
    assert table.count("foreground") == 2
    assert re.search(r"b\.tif\W+failed: ", table)
    again = mitoda(
        "segment", folder / "a.tif", folder / "c.tif", "--output-folder", out, "--resume", *weights
    )
    assert again.status == 0, again.err
    assert again.out.count("complete already") == 2


def test_the_page_shows_the_mask_that_was_written(mitoda, folder):
    """Foreground of each section as in the file, warnings and settings; it loads nothing from elsewhere."""
    mask, page = folder / "mask.tif", folder / "page.html"
    done = mitoda(
        "segment", folder / "a.tif", "-o", mask, "--report", page, "--threshold", 0.4, "--min-size", 0,
        "--weights", folder / "random.safetensors",
    )  # fmt: skip
    assert done.status == 0, done.err
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|@import|url\(", text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    written = (tifffile.imread(mask) > 0).mean((1, 2))
    assert [share for _, share in data["foreground"]] == pytest.approx(written, abs=1e-6)
    assert [frame["section"] for frame in data["frames"]] == [0, 1, 2]
    assert "<th>threshold</th><td>0.4</td>" in text
    warnings = re.findall(r"<li>(.*?)</li>", text)
    assert warnings
    assert all(html.unescape(warning) in done.err for warning in warnings)


@pytest.mark.parametrize(("none_found", "where"), [(False, "on membranes"), (True, "of the network")])
def test_the_page_says_where_boundaries_are(mitoda, folder, monkeypatch, none_found, where):
    """On membranes only if some stand out."""
    monkeypatch.setattr("mitoda.postprocessing.mask.MaskFinalizer.found_no_membranes", none_found)
    page = folder / "page.html"
    done = mitoda(
        "segment", folder / "a.tif", "-o", folder / "m.tif", "--report", page, "--threshold", 0.1, "--min-size", 0,
        "--snap", "--weights", folder / "random.safetensors",
    )  # fmt: skip
    assert ("no dark membrane stands out" in done.err) == none_found
    assert f"<th>boundaries</th><td>{where}</td>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a.tif", "c.tif", "-o", "mask.tif"], 2, "--output-folder"),
        (["a.tif", "-o", "mask.tif", "--output-folder", "out"], 2, "either -o or"),
        (["a.tif"], 2, "-o"),
        (["nothing*.tif", "-o", "mask.tif"], 1, "no file matches nothing*.tif"),
        (["a.tif", "c.tif", "--output-folder", "missing"], 1, "mkdir -p missing"),
        (["a.tif", "./a.tif", "--output-folder", "out"], 1, "would both be written to"),
        (["a.tif", "-o", "mask.tif", "--report", "page.tif"], 1, "must end in .html"),
    ],
)
def test_names_that_cannot_work_are_refused_before_any_work(
    mitoda, folder, monkeypatch, arguments, status, message
):
    """Nothing is written."""
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    done = mitoda("segment", *arguments, "--weights", "random.safetensors")
    assert done.status == status
    assert message in " ".join(done.err.replace("│", " ").split())
    assert sorted(folder.rglob("*")) == before


def test_masks_are_named_after_their_stacks(tmp_path):
    """Folders of sections and fetched data sets too."""
    from mitoda.cli.stacks import plan_jobs

    (tmp_path / "cell.2").mkdir()
    jobs = plan_jobs(
        [str(tmp_path / "cell.2"), "lucchi:training", "x/y.tif"],
        None,
        tmp_path,
        tmp_path / "cell.2",
        None,
        None,
    )
    assert [job.output.name for job in jobs] == ["cell.2.tif", "lucchi-training.tif", "y.tif"]
    assert jobs[2].probability == tmp_path / "cell.2" / "y.tif"
    assert np.all([job.report is None for job in jobs])
