"""The table of mitochondria: units, borders, streaming, and what is refused."""

import csv
import json
import math

import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.evaluation.measuring import measure
from mitoda.volumes import ArrayVolume, write_sections


def boxes(shape, *places):
    """Boxes with the numbers 1, 2, …, given as slices."""
    labels = np.zeros(shape, np.uint16)
    for number, place in enumerate(places, 1):
        labels[place] = number
    return labels


BOX = boxes((12, 30, 40), np.s_[2:8, 5:15, 10:30], np.s_[9:12, 0:4, 36:40])


def test_a_box_has_its_size_and_place():
    """In micrometres, at 50 × 10 × 20 nm: volume, centroid from the centre of the first voxel, box, axes."""
    row, cut = measure(BOX, voxel_size=(50, 10, 20)).rows
    assert (row["voxels"], row["volume_um3"]) == (1200, pytest.approx(0.3 * 0.1 * 0.4))
    centre = [row[f"centroid_{axis}_um"] for axis in "zyx"]
    assert centre == pytest.approx([4.5 * 0.05, 9.5 * 0.01, 19.5 * 0.02])
    assert (row["first_section"], row["last_section"], row["first_column"], row["last_column"]) == (
        2,
        7,
        10,
        29,
    )
    lengths = [row[f"axis_{n}_length_um"] for n in (1, 2, 3)]
    assert lengths == pytest.approx([2 * math.sqrt(5 / 12) * side for side in (0.4, 0.3, 0.1)])
    assert [abs(row[f"axis_1_{axis}"]) for axis in "zyx"] == pytest.approx([0, 0, 1], abs=1e-9)
    assert row["section_area_um2"] == pytest.approx(0.1 * 0.4)
    assert (row["touches_border"], cut["touches_border"]) == (False, True)


def test_means_leave_out_what_the_border_cuts():
    """Unless asked for; the count has all."""
    found = measure(BOX, voxel_size=(50, 10, 20))
    assert found.statistics()["voxels"]["mean"] == 1200
    assert measure(BOX, voxel_size=(50, 10, 20), include_cut=True).statistics()["voxels"]["mean"] == 624
    summary = found.to_dict()
    assert (summary["count"], summary["cut_by_border"], summary["averaged"]) == (2, 1, 1)
    assert summary["volume_fraction"] == pytest.approx(1248 / BOX.size)


def test_without_a_voxel_size_lengths_are_voxels():
    """The columns and a note say so; no column is in micrometres."""
    found = measure(BOX)
    assert "give --voxel-size" in found.notes[0]
    assert not [name for name in found.rows[0] if "_um" in name]
    assert found.rows[0]["volume_voxels3"] == 1200
    assert measure(BOX, image=ArrayVolume(BOX, (50.0, 10.0, 20.0))).notes == ()


def test_grey_values_are_those_of_the_image():
    """The mean over the voxels of each; an image of another shape is refused."""
    image = np.arange(BOX.size, dtype=np.float32).reshape(BOX.shape)
    found = measure(BOX, image=image, voxel_size=(50, 10, 20))
    assert [row["mean_grey"] for row in found.rows] == pytest.approx([image[n == BOX].mean() for n in (1, 2)])
    with pytest.raises(InputError, match=r"has shape .*; expected equal shapes"):
        measure(BOX, image=image[1:])


def test_numbers_may_be_large_and_come_back_after_a_gap():
    """A 64-bit number, in two parts with sections between them, is one row."""
    labels = np.zeros((9, 10, 10), np.int64)
    labels[1:3, 2:5, 2:5] = labels[6:8, 3:9, 2:5] = 5_000_000_000
    (row,) = measure(labels, voxel_size=(10, 10, 10)).rows
    assert (row["label"], row["voxels"], row["first_section"], row["last_section"]) == (
        5_000_000_000,
        54,
        1,
        7,
    )


def test_a_single_section_gives_the_2d_table():
    """Area, perimeter, circularity, Feret diameter, aspect ratio; sections do not cut it."""
    labels = boxes((30, 40), np.s_[5:15, 10:30])
    (row,) = measure(labels, voxel_size=(50, 10, 10)).rows
    assert (row["pixels"], row["area_um2"]) == (200, pytest.approx(0.02))
    assert row["feret_diameter_um"] == pytest.approx(math.hypot(0.1, 0.2))
    assert row["aspect_ratio"] == pytest.approx(2)
    assert row["perimeter_um"] == pytest.approx(0.6, rel=0.05)
    assert not row["touches_border"]
    assert not [name for name in row if "volume" in name or "section" in name or "_z_" in name]


def test_the_density_counts_each_mitochondrion_in_one_of_many_stacks():
    """The counts of eight neighbouring stacks add up to that of the stack they were cut from, once its first faces
    are cut off."""
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 40, 40), np.uint16)
    for number in range(1, 200):
        z, y, x = rng.integers(1, 36, 3)
        if not labels[z - 1 : z + 5, y - 1 : y + 5, x - 1 : x + 5].any():
            labels[z : z + 4, y : y + 4, x : x + 4] = number
    whole = measure(labels, voxel_size=(10, 10, 10))
    parts = [
        measure(labels[z : z + 20, y : y + 20, x : x + 20], voxel_size=(10, 10, 10))
        for z in (0, 20)
        for y in (0, 20)
        for x in (0, 20)
    ]
    volume = 0.2**3
    counted = sum(part.density * volume for part in parts)
    assert len(whole.rows) > 50
    assert counted == pytest.approx(whole.density * volume * 8, abs=0.2 * len(whole.rows))


def test_the_table_and_the_json_hold_the_same(tmp_path):
    """Names, numbers to six digits, yes and no; values that do not exist are empty and null."""
    found = measure(BOX, voxel_size=(50, 10, 20))
    found.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first) == list(found.rows[0])
    assert float(first["surface_um2"]) == pytest.approx(found.rows[0]["surface_um2"], rel=1e-5)
    assert first["touches_border"] == "no"
    assert json.loads(json.dumps(found.to_dict()))["mitochondria"][0]["voxels"] == 1200


def test_labels_without_mitochondria_have_an_empty_table(tmp_path):
    """No rows, a note, and a table of one line."""
    found = measure(np.zeros((3, 8, 8), np.uint8), voxel_size=(5, 5, 5))
    assert found.rows == ()
    assert "holds no mitochondria" in found.notes[0]
    found.write_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().split() == ["label"]


def test_masks_and_fractions_are_refused(tmp_path):
    """0 and 255 is a mask: the error says how to number it; one other number is suspicious."""
    mask = (BOX > 0).astype(np.uint8)
    write_sections(tmp_path / "mask.tif", mask * np.uint8(255), mask.shape, np.uint8, (50, 10, 20))
    with pytest.raises(InputError, match=r"is a mask.*mitoda instances .*mask\.tif -o labels\.tif"):
        measure(tmp_path / "mask.tif")
    with pytest.raises(InputError, match="whole numbers from 1"):
        measure(mask * 0.5)
    with pytest.raises(InputError, match="looks like an image"):
        measure(np.arange(1000).reshape(10, 10, 10))
    assert "holds a single number" in measure(mask, voxel_size=(5, 5, 5)).notes[0]
