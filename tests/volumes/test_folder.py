"""Folders of sections."""

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

from mitoda.errors import FileError, InputError
from mitoda.volumes import open_labels, open_volume


def write_png(path, value=0, shape=(8, 9), dtype=np.uint8):
    iio.imwrite(path, np.full(shape, value, dtype))


def test_sections_are_in_natural_order(tmp_path):
    """8, 9 and 10 follow each other as numbers, not as words."""
    for value in (10, 8, 9):
        write_png(tmp_path / f"{value}.png", value)
    volume = open_volume(tmp_path)
    assert [int(volume.read(index)[0, 0]) for index in range(3)] == [8, 9, 10]
    assert volume.name == str(tmp_path)


def test_what_is_no_section_is_ignored(tmp_path):
    """Thumbs.db, hidden files, notes and folders do not count."""
    write_png(tmp_path / "a.png", 7)
    for name in ("Thumbs.db", ".DS_Store", "._a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "more.png").mkdir()
    assert open_volume(tmp_path).shape == (1, 8, 9)


def test_empty_folders_are_refused(tmp_path):
    """A folder without sections says so, and what it holds instead."""
    with pytest.raises(FileError, match=r"holds no PNG, JPEG or TIFF sections \(it is empty\)"):
        open_volume(tmp_path)
    (tmp_path / "raw").mkdir()
    with pytest.raises(FileError, match=r"sections \(raw\); give the folder that holds them"):
        open_volume(tmp_path)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"shape": (8, 10)}, r"differ in shape: 1.png has \(8, 9\), 3.png has \(8, 10\)"),
        ({"dtype": np.uint16}, r"differ in type: 1.png has uint8, 3.png has uint16"),
    ],
)
def test_the_first_section_that_differs_is_named(other, sentence, tmp_path):
    """Sections of another shape or type are refused with both."""
    for number in (1, 2):
        write_png(tmp_path / f"{number}.png")
    for number in (3, 4):
        write_png(tmp_path / f"{number}.png", **other)
    with pytest.raises(InputError, match=sentence):
        open_volume(tmp_path)


def test_several_kinds_of_file_are_refused(tmp_path):
    """PNG and TIFF sections side by side are two stacks, or one stack and something else."""
    write_png(tmp_path / "1.png")
    tifffile.imwrite(tmp_path / "overview.tif", np.zeros((8, 9), np.uint8))
    with pytest.raises(InputError, match=r"several formats \(PNG and TIFF\)"):
        open_volume(tmp_path)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["s_0", "s_1", "s_3"], r"missing between s_1.png and s_3.png"),
        (["s_000", "s_010", "s_030"], r"missing between s_010.png and s_030.png"),
        (["s_1", "s_01", "s_2"], r"missing between s_1.png and s_2.png"),
        (["s_0", "s_0_mask", "s_1", "s_1_mask"], r"such as s_0.png and s_0_mask.png"),
        (["s_0", "s_1", "s_2", "overview"], r"such as s_0.png and overview.png"),
    ],
)
def test_gaps_and_strangers_are_refused(names, sentence, tmp_path):
    """A missing number would shift the sections, another kind of name would mix two stacks."""
    for name in names:
        write_png(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=sentence):
        open_volume(tmp_path)


@pytest.mark.parametrize("names", [["a", "b", "d"], ["s_000", "s_010", "s_020"], ["x1_y2", "x3_y5", "x4_y9"]])
def test_names_without_one_series_of_numbers_are_taken(names, tmp_path):
    """Words, every tenth section and names with several numbers tell of no gap."""
    for name in names:
        write_png(tmp_path / f"{name}.png")
    assert open_volume(tmp_path).shape[0] == 3


def test_a_broken_link_is_named(tmp_path):
    """A section that is a link to a missing file is not left out."""
    write_png(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "missing.png")
    with pytest.raises(FileError, match=r"1.png is a link to a missing file"):
        open_volume(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_grey_in_colour_modes_is_taken(mode, tmp_path):
    """Equal channels are one grey channel."""
    values = np.arange(72, dtype=np.uint8).reshape(8, 9) * np.uint8(3)
    Image.fromarray(values).convert("RGB").convert(mode).save(tmp_path / "0.png")
    np.testing.assert_array_equal(
        open_volume(tmp_path / "0.png").read(0), np.array(Image.open(tmp_path / "0.png").convert("L"))
    )


def test_a_stack_among_sections_is_refused(tmp_path, stack):
    """A file of several sections in a folder is named."""
    tifffile.imwrite(tmp_path / "1.tif", stack, photometric="minisblack")
    with pytest.raises(InputError, match=r"1.tif holds 7 sections, but in a folder each file is one"):
        open_volume(tmp_path)


def test_damaged_sections_are_named(tmp_path):
    """A section cut off in the middle is named when it is read."""
    for number in range(3):
        iio.imwrite(
            tmp_path / f"{number}.png",
            np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8),
        )
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    volume = open_volume(tmp_path)
    volume.read(2)
    with pytest.raises(FileError, match=r"1.png is damaged"):
        volume.read(1)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_one_bit_and_grey_tables_read_as_grey(mode, tmp_path):
    """1-bit images are 0 and 255 beside 8-bit ones, and a grey colour table is followed."""
    values = np.zeros((8, 9), np.uint8)
    values[2:5, 3:6] = 255
    image = Image.fromarray(values).convert(mode)
    image.save(tmp_path / "0.png")
    Image.fromarray(values).save(tmp_path / "1.png")
    volume = open_volume(tmp_path)
    np.testing.assert_array_equal(volume.read(0), volume.read(1))
    np.testing.assert_array_equal(
        open_volume(tmp_path / "0.png").read(0, slice(2, 4), slice(3, 9)), values[2:4, 3:9]
    )


@pytest.mark.parametrize(
    ("mode", "what"),
    [("RGB", r"in colour \(RGB\)"), ("RGBA", r"in colour \(RGBA\)"), ("LA", "grey with an alpha channel")],
)
def test_colours_are_refused(mode, what, tmp_path):
    """A colour section is refused, with the way to convert it."""
    Image.new(mode, (9, 8), "red" if mode == "RGB" else 0).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=rf"0.png is {what}; mitoda reads grey values, so convert it first"):
        open_volume(tmp_path / "0.png")


def test_colour_tables_are_refused(tmp_path):
    """A section coloured by a table is not taken for its indices."""
    image = Image.new("P", (9, 8))
    image.putpalette([200, 0, 0, 255, 0, 0])
    image.save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"in colour \(P\)"):
        open_volume(tmp_path / "0.png")


def test_large_sections_are_no_attack(tmp_path):
    """A mask of 200 megapixels opens without a warning; Pillow alone would refuse it."""
    Image.new("1", (20000, 10000)).save(tmp_path / "0.png")
    assert open_labels(tmp_path / "0.png").shape == (1, 10000, 20000)


def test_real_masks_open_as_labels(real_data):
    """The VNC III masks, three of them 1-bit, have the known count of voxels that are not zero."""
    labels = open_labels(real_data / "vnc3" / "stack1" / "mitochondria", voxel_size=(50, 4.6, 4.6))
    assert labels.shape == (20, 1024, 1024)
    assert labels.voxel_size == (50, 4.6, 4.6)
    assert sum(int(labels.read(index).sum()) for index in range(20)) == 1_130_084


def test_a_stack_in_several_ome_tiff_files_is_read_as_a_folder(tmp_path):
    """Each file's metadata name all others; alone it is refused with what to do, in a folder it is one section."""
    sections = np.arange(4 * 32 * 48, dtype=np.uint8).reshape(4, 32, 48)
    planes = "".join(
        f'<TiffData FirstZ="{i}" IFD="0" PlaneCount="1"><UUID FileName="s{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i in range(4)
    )
    for i, section in enumerate(sections):
        metadata = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="48" SizeY="32" '
            'SizeZ="4" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{planes}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / f"s{i}.ome.tif", section, description=metadata, metadata=None)
    volume = open_volume(tmp_path)
    assert volume.shape == (4, 32, 48)
    assert all(np.array_equal(volume.read(i), sections[i]) for i in range(4))
    with pytest.raises(FileError, match="give the folder"):
        open_volume(tmp_path / "s0.ome.tif")
