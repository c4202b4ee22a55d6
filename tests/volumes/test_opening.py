"""Opening: what is taken, what is refused, and the words of the refusal."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mitoda.errors import FileError, InputError
from mitoda.volumes import open_labels, open_volume
from mitoda.volumes.axes import reorder
from mitoda.volumes.volume import ArrayVolume


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.tif", None, r"missing.tif does not exist"),
        ("missing.png", None, r"missing.png does not exist"),
        ("missing", None, r"missing does not exist"),
        ("stack.tif", b"some notes on the stack", r"stack.tif is not a TIFF file: it looks like text"),
        ("stack.tif", b"\n<!DOCTYPE html><html>", r"is not a TIFF file: it looks like a web page \(HTML\)"),
        ("stack.tif", b"", "is not a TIFF file: it is empty"),
        ("stack.tif", b"\x89PNG\r\n\x1a\n", "it looks like a PNG; give it the file name extension of a PNG"),
        ("stack.tif", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("stack.tif", b"\0\1\2\3", r"it begins with b'\\x00\\x01\\x02\\x03'"),
        ("stack.tif", b"II*\0\x08", "stack.tif is damaged"),
        ("section.png", b"<html>", "section.png is not a PNG file: it looks like a web page"),
        ("stack.h5", b"\x89HDF", r"stack.h5 is not an HDF5 file"),
    ],
)
def test_files_of_another_kind_are_refused(name, content, sentence, tmp_path):
    """The message says what the file is instead, and what to do."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=sentence):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "int64", "float16", "float64"])
def test_every_real_type_is_read(dtype, tmp_path, stack):
    """Small signed integers are shifted to start at 0, other types become float32; non-zero is foreground."""
    values = (stack.astype(int) - 128).astype(dtype) if dtype.startswith("int") else stack.astype(dtype)
    tifffile.imwrite(tmp_path / "stack.tif", values, photometric="minisblack")
    expected = {"int8": (np.uint8, 128), "int16": (np.uint16, 32768)}.get(dtype, (np.float32, 0))
    for source in (tmp_path / "stack.tif", values):
        volume = open_volume(source)
        assert volume.dtype == expected[0]
        assert volume.read(4).dtype == expected[0]
        np.testing.assert_array_equal(volume.read(4), values[4].astype(float) + expected[1])
    np.testing.assert_array_equal(open_labels((values > 9).astype(dtype)).read(4), values[4] > 9)


def test_a_float64_beyond_float32_is_refused(stack):
    """It would become infinite."""
    with pytest.raises(InputError, match="NaN or infinite"):
        open_volume(np.full((1, 4, 4), 1e300)).read(0)


@pytest.mark.parametrize("opened", [open_volume, open_labels])
def test_complex_values_are_refused(opened, stack):
    """Neither grey values nor labels are complex."""
    with pytest.raises(InputError, match="complex128"):
        opened(stack.astype(complex))


def test_boolean_arrays_are_0_and_1(stack):
    """A boolean array opens as uint8 0 and 1."""
    volume = open_volume(stack > 127)
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(2), stack[2] > 127)


def test_arrays_are_not_copied(stack):
    """An array in native order is read in place."""
    assert np.shares_memory(open_volume(stack).read(3), stack)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_where_they_are_read(bad, tmp_path, stack):
    """The section that holds a value that is none is named; other sections and regions are read."""
    values = stack.astype(np.float32) % 9
    values[5, 20, 10] = bad
    tifffile.imwrite(tmp_path / "stack.tif", values, photometric="minisblack")
    for volume in (open_volume(tmp_path / "stack.tif"), open_labels(values)):
        volume.read(4)
        volume.read(5, slice(0, 20))
        with pytest.raises(InputError, match=r"section 5 of .* holds 1 values that are NaN or infinite"):
            volume.read(5)


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255), ("uint16", 65535), ("float32", 0)])
def test_invert_turns_the_contrast_over(dtype, largest, stack):
    """255 − v, 65535 − v and −v."""
    values = stack.astype(dtype)
    inverted = open_volume(values, invert=True).read(0)
    assert inverted.dtype == dtype
    np.testing.assert_array_equal(inverted, np.asarray(largest, dtype) - values[0])
    labels = values // 64
    np.testing.assert_array_equal(open_labels(labels, invert=True).read(0), labels[0] == 0)


def test_an_image_is_no_mask():
    """Nor is a probability map. Numbers of mitochondria of which some touch, classes, and masks are labels."""
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 40), np.uint8)
    smooth = ndimage.gaussian_filter(image, (0, 2, 2)).astype(int)
    for wrong in (image, image / 255 + 0.001, image[0], (smooth - 127).clip(0) * 6):
        with pytest.raises(InputError, match=r"not labels: section \d has \d+ values"):
            open_labels(wrong)
    numbers = np.zeros((3, 40, 40), int)
    numbers[:, ::4] = np.arange(3 * 10 * 40).reshape(3, 10, 40) // 5
    numbers[:, :, ::5] = 0
    numbers[:, 4, :20] = np.arange(1, 21)
    for right in (numbers, image % 20 + 1, np.full_like(image, 255), image > 9):
        assert open_labels(right).shape == (3, 40, 40)


def test_a_jpeg_is_no_mask(tmp_path):
    """JPEG leaves grey values beside a mask, so a mask in JPEG is refused."""
    Image.new("L", (9, 8)).save(tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="JPEG-compressed, which leaves grey values around a mask"):
        open_labels(tmp_path / "mask.jpg")
    assert open_volume(tmp_path / "mask.jpg").shape == (1, 8, 9)


@pytest.mark.parametrize("axes", ["ZYX", "ZXY", "YXZ", "XYZ", "YZX", "XZY", "yxz", "YXCZ"])
@pytest.mark.parametrize("kind", ["array", "tiff", "folder"])
def test_axes_put_the_stack_in_order(axes, kind, tmp_path, stack):
    """Named axes bring every stored order to (section, row, column), from arrays, files and folders."""
    order = axes.upper().replace("C", "")
    stored = stack.transpose(["ZYX".index(letter) for letter in order]).copy()
    source = stored
    if kind == "tiff":
        source = tmp_path / "stack.tif"
        tifffile.imwrite(source, stored, photometric="minisblack")
    if kind == "folder":
        source = tmp_path
        for index, section in enumerate(stored):
            tifffile.imwrite(tmp_path / f"{index}.tif", section)
    volume = open_volume(source, axes=axes, voxel_size=(5, 4, 3))
    assert volume.shape == stack.shape
    assert volume.voxel_size == (5, 4, 3)
    np.testing.assert_array_equal(volume.read(2, slice(3, 20), slice(1, 30)), stack[2, 3:20, 1:30])


def test_voxel_size_of_a_file_follows_its_axes(tmp_path, stack):
    """The file's lengths belong to its stored axes, so they move with them."""
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 50}
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, resolution=(1 / 4, 1 / 5), metadata=metadata)
    assert open_volume(tmp_path / "stack.tif").voxel_size == pytest.approx((50, 5, 4))
    assert open_volume(tmp_path / "stack.tif", axes="ZXY").voxel_size == pytest.approx((50, 4, 5))
    assert open_volume(tmp_path / "stack.tif", axes="YXZ").voxel_size == pytest.approx((4, 50, 5))


def test_a_single_image_is_one_section(tmp_path, stack):
    """A 2-D array, TIFF or PNG has one section; XY means its columns come first."""
    tifffile.imwrite(tmp_path / "image.tif", stack[0])
    Image.fromarray(stack[0]).save(tmp_path / "image.png")
    for source in (stack[0], tmp_path / "image.tif", tmp_path / "image.png"):
        np.testing.assert_array_equal(open_volume(source).read(0), stack[0])
        assert open_volume(source, axes="ZYX").shape == (1, 40, 30)
        assert open_volume(source, axes="XY").shape == (1, 30, 40)
    np.testing.assert_array_equal(open_volume(tmp_path / "image.tif", axes="XY").read(0), stack[0].T)


@pytest.mark.parametrize(
    ("shape", "axes", "sentence"),
    [
        ((7, 40, 30), "TCYX", "axes 'TCYX' do not fit array"),
        ((7, 40, 30), "ZZX", "must name each axis once"),
        ((7, 40, 30), "ZX", "must name each axis once, Y and X among them"),
        ((7, 40, 30), "YX", r"axes 'YX' do not fit array, which has shape \(7, 40, 30\)"),
        ((7, 2, 40, 30), "ZCYX", "several channels"),
        ((40, 30, 3), None, "a colour image"),
        ((5, 40, 30, 3), None, "a colour image"),
        ((2, 3, 40, 30), None, "reads stacks"),
        ((12,), None, "at least one row"),
        ((0, 4, 4), None, "at least one row"),
    ],
)
def test_arrays_that_are_no_stack_are_refused(shape, axes, sentence):
    """Axes that do not fit, colours and channels are refused."""
    with pytest.raises(InputError, match=sentence):
        open_volume(np.zeros(shape, np.uint8), axes=axes)


def test_a_narrow_stack_can_be_named(stack):
    """What looks like colours is a stack if its axes say so."""
    assert open_volume(np.zeros((20, 40, 3), np.uint8), axes="ZYX").shape == (20, 40, 3)


def test_reordering_what_does_not_fit_memory_is_refused():
    """A stack whose sections cross all pages is not read whole beyond the limit."""
    vast = ArrayVolume(np.broadcast_to(np.uint8(0), (2000, 2000, 2000)), name="vast.tif")
    with pytest.raises(
        InputError, match=r"vast.tif is stored as YXZ, and its 7.5 GiB are too much to reorder"
    ):
        reorder(vast, "YXZ")


@pytest.mark.parametrize(
    "voxel_size", [(1, 2), (1, 2, 0), (1, 2, -3), (1, 2, float("nan")), "abc", (None, 1, 1)]
)
def test_voxel_sizes_that_are_none_are_refused(voxel_size, stack):
    """Three positive lengths, or the value found and an example."""
    with pytest.raises(InputError, match="is not three positive lengths"):
        open_volume(stack, voxel_size=voxel_size)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.permutations("ZYX"))
def test_any_small_array_is_put_in_order(sections, rows, columns, axes):
    """Axes of length one confuse no order."""
    array = np.arange(sections * rows * columns, dtype=np.uint16).reshape(sections, rows, columns)
    stored = array.transpose(["ZYX".index(letter) for letter in axes])
    volume = open_volume(stored, axes="".join(axes))
    np.testing.assert_array_equal([volume.read(index) for index in range(sections)], array)
