"""`mitoda instances`, `measure`, `score --instances` and `segment --instances` as a person sees them."""

import csv
import json

import numpy as np
import pytest

from mitoda.volumes import open_values, write_sections
from tests.commands import Commands


@pytest.fixture
def mitoda(monkeypatch, capsys):
    """Runs commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with mask.tif: two squares with a thin bridge, and a third at the border; sections of 20 nm."""
    mask = np.zeros((10, 60, 130), np.uint8)
    mask[1:9, 10:50, 10:50] = mask[1:9, 10:50, 52:92] = mask[1:9, 28:32, 50:52] = 255
    mask[:, 0:20, 100:120] = 255
    write_sections(tmp_path / "mask.tif", mask, mask.shape, mask.dtype, (20, 5, 5))
    write_sections(tmp_path / "unknown.tif", mask, mask.shape, mask.dtype, None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_mask_to_a_table(mitoda, folder):
    """instances, measure and score in a row; the summary says what is cut; means leave it out."""
    done = mitoda("instances", "mask.tif", "-o", "labels.tif")
    assert "wrote labels.tif: 3 mitochondria in 2 connected components" in done.err
    assert open_values("labels.tif").voxel_size == (20, 5, 5)
    done = mitoda(
        "measure", "labels.tif", "--image", "mask.tif", "-o", "table.csv", "--histograms", "all.png"
    )
    assert "3 mitochondria, 1 of them cut by the border and left out of the means" in done.out
    assert "volume_fraction" in done.out
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["touches_border"] for row in rows] == ["yes", "no", "no"]
    assert {row["mean_grey"] for row in rows} == {"255"}
    assert (folder / "all.png").read_bytes().startswith(b"\x89PNG")
    done = mitoda("score", "--instances", "labels.tif", "labels.tif", "--json")
    assert json.loads(done.out)["matched"][0]["average_precision"] == 1
    assert "0 labelled ones are split" in mitoda("score", "--instances", "labels.tif", "labels.tif").out


def test_components_need_no_voxel_size(mitoda, folder):
    """Splitting refuses a mask without one; --no-split and --voxel-size help."""
    assert "--voxel-size Z Y X, or --no-split" in mitoda.refused(
        "instances", "unknown.tif", "-o", "labels.tif"
    )
    assert "2 mitochondria in 2" in mitoda("instances", "unknown.tif", "-o", "parts.tif", "--no-split").err
    done = mitoda("instances", "unknown.tif", "-o", "labels.tif", "--voxel-size", 20, 5, 5)
    assert "3 mitochondria in 2" in done.err
    done = mitoda("measure", "parts.tif", "--json")
    assert "warning: parts.tif states no voxel size" in done.err
    assert json.loads(done.out)["unit"] == "voxels"


def test_small_mitochondria_can_be_left_out(mitoda, folder):
    """--min-size in voxels: the square at the border has 4,000."""
    assert (
        "2 mitochondria in 2" in mitoda("instances", "mask.tif", "-o", "labels.tif", "--min-size", 4001).err
    )


def test_nothing_is_replaced_without_being_told(mitoda, folder):
    """Outputs that exist or are inputs, masks where labels belong, and scores that do not exist are refused."""
    mitoda("instances", "mask.tif", "-o", "labels.tif")
    assert "--overwrite" in mitoda.refused("instances", "mask.tif", "-o", "labels.tif")
    assert "input" in mitoda.refused("instances", "mask.tif", "-o", "mask.tif", "--overwrite")
    assert "must end in .tif" in mitoda.refused("instances", "mask.tif", "-o", "labels.csv")
    assert "must end in .csv" in mitoda.refused("measure", "labels.tif", "-o", "table.xlsx")
    assert "must end in .png" in mitoda.refused("measure", "labels.tif", "--histograms", "sizes.tif")
    assert "must end in .csv" in mitoda.refused("score", "labels.tif", "mask.tif", "--csv", "sections.png")
    assert "must end in .tif" in mitoda.refused("suggest", "mask.tif", "-o", "few.png")
    assert "is a mask" in mitoda.refused("measure", "mask.tif")
    assert "is a mask" in mitoda.refused("score", "--instances", "mask.tif", "labels.tif")
    (folder / "table.csv").touch()
    assert "exists" in mitoda.refused("measure", "labels.tif", "-o", "table.csv")
    assert mitoda("score", "--instances", "labels.tif", "labels.tif", "--csv", "a.csv").status == 2


def test_a_stack_without_mitochondria_has_a_table_and_no_picture(mitoda, folder):
    """There is nothing to draw, which is no error."""
    empty = np.zeros((4, 20, 20), np.uint8)
    write_sections(folder / "empty.tif", empty, empty.shape, empty.dtype, (20, 5, 5))
    done = mitoda("measure", "empty.tif", "-o", "empty.csv", "--histograms", "empty.png")
    assert done.status == 0
    assert "empty.png was not written" in done.err
    assert (folder / "empty.csv").exists()
    assert not (folder / "empty.png").exists()
