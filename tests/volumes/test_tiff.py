"""TIFF files: lazy, bounded, and clear about what is wrong."""

import os
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoda.errors import FileError, InputError
from mitoda.volumes import open_labels, open_volume

SECTIONS, SIDE = 4200, 1024


@pytest.fixture
def huge(tmp_path):
    """An ImageJ hyperstack of 4200 MiB as ImageJ writes it: one page, all sections behind; sparse."""
    path = tmp_path / "huge.tif"
    description = (
        f"ImageJ=1.54f\nimages={SECTIONS}\nslices={SECTIONS}\nunit=\\u00B5m\nspacing=0.05\nloop=false\n"
    )
    section = np.zeros((SIDE, SIDE), np.uint8)
    tifffile.imwrite(
        path, section, description=description, metadata=None, resolution=(200, 200), resolutionunit="none"
    )
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    os.truncate(path, start + SECTIONS * SIDE**2)
    with path.open("r+b") as file:
        file.seek(start + (SECTIONS - 1) * SIDE**2 + 5 * SIDE + 7)
        file.write(b"\x2a")
    if path.stat().st_blocks * 512 > 100 << 20:
        pytest.skip("this file system has no sparse files")
    return path


def test_imagej_stack_over_4_gb_has_all_its_sections(huge):
    """A stack that is one page for TIFF has its true depth and voxel size, and its last section is read."""
    volume = open_volume(huge)
    assert volume.shape == (SECTIONS, SIDE, SIDE)
    assert volume.voxel_size == pytest.approx((50, 5, 5))
    last = volume.read(SECTIONS - 1)
    assert np.argwhere(last).tolist() == [[5, 7]]
    assert last[5, 7] == 42


def test_reading_one_section_takes_the_memory_of_one_section(huge):
    """Opening 4200 sections and reading one takes less memory than four; a row takes far less than one."""
    tracemalloc.start()
    try:
        volume = open_volume(huge)
        volume.read(2000)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 4 * SIDE**2
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        volume.read(3000, slice(100, 101))
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < SIDE**2 // 8
    finally:
        tracemalloc.stop()


def test_truncated_imagej_stack_is_refused(huge):
    """Where the promised sections are not in the file, it does not pass for a single section."""
    os.truncate(huge, 3000 * SIDE**2)
    with pytest.raises(
        FileError, match=r"huge.tif is truncated: it announces 4200 sections, but only 1 could"
    ):
        open_volume(huge)


def test_a_cut_list_of_sections_is_named(tmp_path, stack):
    """Where the description announces no more than was found, the message does not speak of more sections."""
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(
        FileError, match=r"cut.tif is truncated: it says that more follows after its end; copy"
    ):
        open_volume(path)


LAYOUTS = {
    "plain": {},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "zlib": {"compression": "zlib"},
    "tiled": {"tile": (16, 16), "compression": "zstd"},
    "bigtiff": {"bigtiff": True},
    "ome": {"ome": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncated_files_never_pass_for_something_else(layout, tmp_path, stack):
    """Cut anywhere, a file raises a FileError, or still holds every voxel."""
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, stack, photometric="minisblack", **LAYOUTS[layout])
    data = whole.read_bytes()
    cut = tmp_path / "cut.tif"

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(data) - 1))
    def check(length):
        cut.write_bytes(data[:length])
        try:
            volume = open_volume(cut)
            values = np.stack([volume.read(index) for index in range(volume.shape[0])])
        except FileError:
            return
        np.testing.assert_array_equal(values, stack)

    check()


def test_a_damaged_section_is_named_when_it_is_read(tmp_path, stack):
    """Where a section does not decompress, reading says which; the others are read."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[4].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset + 20)
        file.write(b"\0" * 40)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(3), stack[3])
    with pytest.raises(FileError, match=r"section 4 of .*stack.tif is damaged"):
        volume.read(4)


def test_several_series_are_refused_with_their_shapes(tmp_path, stack):
    """A file with two different stacks says which it holds; none is chosen."""
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(stack, photometric="minisblack")
        writer.write(stack[:, :20], photometric="minisblack")
    with pytest.raises(InputError, match=r"2 image series \(7 × 40 × 30 uint8, 7 × 20 × 30 uint8\)"):
        open_volume(tmp_path / "two.tif")


def test_thumbnails_are_no_series(tmp_path, stack):
    """A page marked as reduced copy does not count."""
    with tifffile.TiffWriter(tmp_path / "stack.tif") as writer:
        writer.write(stack, photometric="minisblack")
        writer.write(stack[0, ::4, ::4], photometric="minisblack", subfiletype=1)
    assert open_volume(tmp_path / "stack.tif").shape == stack.shape


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((40, 30, 3), {"photometric": "rgb"}, "a colour image"),
        ((7, 40, 30, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, "a colour image"),
        (
            (7, 2, 40, 30),
            {"imagej": True, "metadata": {"axes": "ZCYX"}},
            r"shape \(7, 2, 40, 30\) with axes ZCYX: several",
        ),
        (
            (3, 40, 30),
            {"imagej": True, "metadata": {"axes": "CYX"}},
            "if these are sections, give --axes ZYX",
        ),
        ((6, 7, 40, 30), {"imagej": True, "metadata": {"axes": "TZYX"}}, "several time points"),
        ((6, 7, 40, 30), {"photometric": "minisblack"}, r"reads stacks \(section, row, column\)"),
    ],
)
def test_colours_channels_and_time_are_refused(shape, options, sentence, tmp_path):
    """More than a grey stack is refused with its shape, its axes and the way out."""
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", values, **options)
    with pytest.raises(InputError, match=sentence):
        open_volume(tmp_path / "image.tif")


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}], ids=["strips", "tiles"])
def test_grey_jpeg_is_decoded(layout, tmp_path):
    """JPEG-compressed sections equal what tifffile reads, whole and in part."""
    smooth = np.clip(np.add.outer(np.arange(4) * 40, np.arange(30 * 40).reshape(30, 40) // 9), 0, 255)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, smooth.astype(np.uint8), photometric="minisblack", compression="jpeg", **layout)
    volume = open_volume(path)
    expected = tifffile.imread(path)
    np.testing.assert_array_equal([volume.read(index) for index in range(4)], expected)
    np.testing.assert_array_equal(volume.read(2, slice(9, 21), slice(3, 35)), expected[2, 9:21, 3:35])
    with pytest.raises(InputError, match="JPEG-compressed"):
        open_labels(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("sections", [3, 4])
def test_few_sections_stored_as_colour_planes_are_sections(sections, compression, tmp_path, stack):
    """tifffile stored arrays of 3 or 4 sections as planes of RGB or RGBA."""
    options = {"planarconfig": "separate", "extrasamples": ["unassalpha"] if sections == 4 else []}
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack[:sections], photometric="rgb", compression=compression, **options)
    volume = open_volume(path)
    assert volume.shape == (sections, 40, 30)
    np.testing.assert_array_equal([volume.read(index) for index in range(sections)], stack[:sections])
    np.testing.assert_array_equal(volume.read(2, slice(3, 9), slice(5, 8)), stack[2, 3:9, 5:8])
    tifffile.imwrite(path, stack[:sections], photometric="rgb", metadata=None, **options)
    with pytest.raises(InputError, match="if these are sections, give --axes ZYX"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(path, axes="ZYX").read(1), stack[1])


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=["plain", "zlib", "tiles"]
)
def test_grey_stored_as_rgb_is_read(options, tmp_path, stack):
    """Equal channels are one grey channel; a section where they differ is refused when it is read."""
    path = tmp_path / "stack.tif"
    colour = np.stack([stack] * 3, axis=-1)
    tifffile.imwrite(path, colour, photometric="rgb", **options)
    volume = open_volume(path)
    assert volume.shape == stack.shape
    np.testing.assert_array_equal(volume.read(3, slice(5, 30), slice(2, 20)), stack[3, 5:30, 2:20])
    colour[4, 7, 7, 1] ^= 1
    tifffile.imwrite(path, colour, photometric="rgb", **options)
    with pytest.raises(InputError, match="the channels of section 4 differ"):
        open_volume(path).read(4)


CLAIMS = {
    "shaped": '{"shape": [1000000000, 64, 64]}',
    "imagej": "ImageJ=1.54f\nimages=1000000000\nslices=1000000000\n",
    "ome": '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels DimensionOrder="XYZCT" '
    'Type="uint8" SizeX="64" SizeY="64" SizeZ="1000000000" SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>',
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_beyond_the_file_takes_no_memory(claim, tmp_path):
    """A file of 4 kB that announces a thousand million sections is refused before they are listed."""
    path = tmp_path / "claim.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), description=CLAIMS[claim], metadata=None)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="announces 1000000000 sections"):
            open_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_a_compressed_bomb_is_refused(tmp_path):
    """A small file with a section of gigabytes is not decoded."""
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[name].overwrite(60000)
    with pytest.raises(FileError, match=r"claims sections of 3.4 GiB in a file of"):
        open_volume(path)


@pytest.mark.parametrize("axes", ["CYX", "TYX", "ZYX", None])
def test_a_deep_only_axis_is_sections_whatever_its_name(axes, tmp_path, stack):
    """Seven "channels" or "time points" are sections: tifffile names them so."""
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": axes} if axes else {})
    assert open_volume(tmp_path / "stack.tif").shape == stack.shape


def test_axes_of_length_one_are_dropped(tmp_path, stack):
    """A hyperstack of one channel and one time point is a stack."""
    array = stack[None, :, None]
    tifffile.imwrite(tmp_path / "stack.tif", array, imagej=True, metadata={"axes": "TZCYX"})
    volume = open_volume(tmp_path / "stack.tif")
    assert volume.shape == stack.shape
    np.testing.assert_array_equal(volume.read(2), stack[2])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_bit_files_read_as_0_and_255(compression, tmp_path, stack):
    """A 1-bit mask has the values 0 and 255, and the same foreground as a label, whatever is called white."""
    mask = stack > 127
    tifffile.imwrite(tmp_path / "mask.tif", mask, compression=compression)
    volume = open_volume(tmp_path / "mask.tif")
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(3), mask[3] * np.uint8(255))
    np.testing.assert_array_equal(
        volume.read(3, slice(9, 20), slice(3, 14)), mask[3, 9:20, 3:14] * np.uint8(255)
    )
    np.testing.assert_array_equal(open_labels(tmp_path / "mask.tif").read(3), mask[3])


def test_white_is_zero_is_turned_over_in_volumes_and_ignored_in_labels(tmp_path, stack):
    """Grey values where white is zero come out with dark small; `invert` undoes it; labels stay as stored."""
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="miniswhite")
    np.testing.assert_array_equal(open_volume(tmp_path / "stack.tif").read(1), 255 - stack[1])
    np.testing.assert_array_equal(open_volume(tmp_path / "stack.tif", invert=True).read(1), stack[1])
    tifffile.imwrite(tmp_path / "mask.tif", stack // 64, photometric="miniswhite")
    np.testing.assert_array_equal(open_labels(tmp_path / "mask.tif").read(1), stack[1] >= 64)


def test_real_stack_equals_tifffile(real_data):
    """The Lucchi stack has its published shape, and a section equals what tifffile reads."""
    path = real_data / "lucchi" / "training.tif"
    volume = open_volume(path)
    assert volume.shape == (165, 768, 1024)
    assert volume.dtype == np.uint8
    assert volume.voxel_size is None
    np.testing.assert_array_equal(volume.read(100), tifffile.imread(path, key=100))
    np.testing.assert_array_equal(
        volume.read(100, slice(250, 260), slice(3, 900)), tifffile.imread(path, key=100)[250:260, 3:900]
    )
