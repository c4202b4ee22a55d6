"""Writing: what Fiji and tifffile read back, and nothing under the final name before it is whole."""

import errno
import io

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mitoda.errors import FileError, InputError
from mitoda.volumes import SectionWriter, open_volume, write_sections
from mitoda.volumes import tiff_pages as writing

LENGTHS = st.floats(0.1, 1e4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32]),
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=9),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    st.none() | st.tuples(LENGTHS, LENGTHS, LENGTHS),
    st.sampled_from(["zlib", "none"]),
)
def test_what_is_written_is_read_back(tmp_path, array, voxel_size, compression):
    """Values, shape, type and voxel size of any stack come back, from us and from tifffile."""
    path = tmp_path / "stack.tif"
    with SectionWriter(
        path, array.shape, array.dtype, voxel_size, overwrite=True, compression=compression
    ) as writer:
        for section in array:
            writer.write(section)
    volume = open_volume(path)
    assert volume.shape == array.shape
    assert volume.dtype == array.dtype
    assert volume.voxel_size == (voxel_size and pytest.approx(voxel_size, rel=1e-3))
    np.testing.assert_array_equal([volume.read(index) for index in range(array.shape[0])], array)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(array.shape), array)
    assert not writer.partial.exists()


def test_metadata_are_imagejs(tmp_path, stack):
    """tifffile sees ImageJ's slices, unit, spacing and resolution; the run is in the Software tag."""
    write_sections(tmp_path / "mask.tif", stack, stack.shape, stack.dtype, (50, 4.6, 4), identity="a1b2")
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        assert tiff.is_imagej
        assert not tiff.is_bigtiff
        assert tiff.series[0].axes == "ZYX"
        assert tiff.series[0].shape == stack.shape
        assert tiff.imagej_metadata == {
            "ImageJ": "1.54f", "images": 7, "slices": 7, "unit": "nm", "spacing": 50.0, "loop": False,
        }  # fmt: skip
        across, down = (tiff.pages.first.tags[name].value for name in ("XResolution", "YResolution"))
        assert across[1] / across[0] == pytest.approx(4)
        assert down[1] / down[0] == pytest.approx(4.6)
        assert '"identity": "a1b2"' in tiff.pages.first.software
        assert tiff.pages[3].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_no_voxel_size_is_written_where_none_is_known(tmp_path, stack):
    """None leaves no unit and no spacing behind."""
    write_sections(tmp_path / "mask.tif", stack, stack.shape, stack.dtype, None)
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        assert not {"unit", "spacing"} & set(tiff.imagej_metadata)


def test_large_stacks_become_bigtiff(tmp_path, monkeypatch, stack):
    """Near 4 GiB of voxels the offsets grow to 64 bits, and the description stays."""
    assert not writing.needs_bigtiff((1000, 2000, 2000), np.dtype(np.uint8))
    assert writing.needs_bigtiff((1070, 2000, 2000), np.dtype(np.uint8))
    assert writing.needs_bigtiff((1000, 2000, 2000), np.dtype(np.uint16))
    monkeypatch.setattr(writing, "CLASSIC_LIMIT", 1000)
    write_sections(tmp_path / "mask.tif", stack, stack.shape, stack.dtype, (50, 4, 4))
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.series[0].shape == stack.shape
    assert open_volume(tmp_path / "mask.tif").voxel_size == pytest.approx((50, 4, 4))


def test_nothing_is_under_the_name_before_the_end(tmp_path, stack):
    """While sections are written the old file stays; after the last it is replaced."""
    path = tmp_path / "mask.tif"
    path.write_text("old")
    with SectionWriter(path, stack.shape, stack.dtype, None, overwrite=True) as writer:
        for section in stack:
            writer.write(section)
            assert path.read_text() == "old"
            assert writer.partial.name == "mask.tif.partial"
    assert open_volume(path).shape == stack.shape
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif"]


def test_an_exception_leaves_the_partial_file_only(tmp_path, stack):
    """What was written before an error stays in the partial file, and the error goes on."""

    def sections():
        yield stack[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sections(tmp_path / "mask.tif", sections(), stack.shape, stack.dtype, None)
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif.partial"]


def test_missing_sections_are_an_error(tmp_path, stack):
    """A stack that got too few sections does not get its name."""
    with pytest.raises(
        InputError, match=r"mask.tif got 5 of its 7 sections; they stay in .*mask.tif.partial"
    ):
        write_sections(tmp_path / "mask.tif", stack[:5], stack.shape, stack.dtype, None)
    assert not (tmp_path / "mask.tif").exists()


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (np.zeros((40, 31), np.uint8), r"section 0 for .* is \(40, 31\) uint8; it must be \(40, 30\) uint8"),
        (np.zeros((40, 30), np.uint16), r"is \(40, 30\) uint16; it must be"),
    ],
)
def test_sections_that_do_not_fit_are_refused(section, sentence, tmp_path, stack):
    """A section of another shape or type is not converted in silence."""
    with pytest.raises(InputError, match=sentence):
        write_sections(tmp_path / "mask.tif", [section], stack.shape, stack.dtype, None)


def test_sections_past_the_last_are_refused(tmp_path, stack):
    """One section too many is an error, not a deeper stack."""
    with pytest.raises(InputError, match="already has all its 7 sections"):
        write_sections(tmp_path / "mask.tif", [*stack, stack[0]], stack.shape, stack.dtype, None)


def test_taken_and_impossible_paths_are_refused(tmp_path, stack):
    """An existing file, a folder, a missing folder and an interrupted run are named, with the way out."""

    def write(name):
        write_sections(tmp_path / name, stack, stack.shape, stack.dtype, None)

    write("mask.tif")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "old.tif.partial").write_bytes(b"")
    for name, sentence in {
        "mask.tif": r"mask.tif exists; give another name, or --overwrite",
        "folder.tif": r"folder.tif is a folder; give the name of a file in it",
        "a/b/mask.tif": r"the folder .*a/b does not exist; create it first: mkdir -p .*a/b",
        "old.tif": r"old.tif.partial is left from an interrupted run; give --resume to continue",
    }.items():
        with pytest.raises(FileError, match=sentence):
            write(name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path": "mask.png"}, "must end in .tif"),
        ({"dtype": np.int16}, "cannot write int16"),
        ({"shape": (7, 40)}, "must be sections, rows, columns"),
        ({"shape": (0, 40, 30)}, "each at least 1"),
        ({"voxel_size": (1, 1)}, "is not three positive lengths"),
        ({"compression": "lzma"}, "compression is 'lzma'"),
        ({"identity": "µ"}, "must be printable ASCII"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(arguments, sentence, tmp_path):
    """A wrong argument leaves no file behind."""
    arguments = {"path": "mask.tif", "shape": (7, 40, 30), "dtype": np.uint8, "voxel_size": None, **arguments}
    with pytest.raises(InputError, match=sentence):
        SectionWriter(tmp_path / arguments.pop("path"), **arguments)
    assert not list(tmp_path.iterdir())


class FullDisk(io.FileIO):
    """A file on a disk with room for some bytes."""

    room = 2500

    def write(self, data):
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_told_and_the_partial_file_stays(tmp_path, stack, monkeypatch):
    """The message says how far it came and how to go on; the sections written so far can be read."""
    monkeypatch.setattr(writing, "open_new", lambda path: io.BufferedWriter(FullDisk(path, "wb")))
    with pytest.raises(
        FileError, match=r"the disk is full: 1 of 7 sections were written to .*partial, which stays; free"
    ):
        write_sections(tmp_path / "mask.tif", stack, stack.shape, stack.dtype, None)
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif.partial"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif.partial", key=0), stack[0])
