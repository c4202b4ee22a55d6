"""Broken, hostile and unusual files of the formats that hold arrays, and what is written to each."""

import json
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import yaozarrs
import zarr

from mitoda.errors import FileError, InputError
from mitoda.volumes import open_labels, open_values, open_volume, write_sections
from mitoda.volumes.address import split_pair
from mitoda.volumes.chunked import SECTIONS_KEPT, ChunkedVolume, StoredArray
from mitoda.volumes.files import check_output
from mitoda.volumes.partial import check_partial
from mitoda.volumes.volume import origin_of, remark_of, stated_lengths
from mitoda.volumes.writer import SectionWriter

AXES = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
SCALE = [{"type": "scale", "scale": [50, 4, 4]}]


def image(folder, array, version="0.5", levels=1, **changes):
    """Write an OME-Zarr image whose metadata are changed."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    for level in range(levels):
        data = array[:, :: 2**level, :: 2**level]
        group.create_array(str(level), shape=data.shape, dtype=data.dtype)[...] = data
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [50, 4 * 2**level, 4 * 2**level]}],
        }
        for level in range(levels)
    ]
    entry = {"axes": AXES, "datasets": datasets, **changes}
    group.attrs["ome"] = {
        "version": version,
        "multiscales": [{key: value for key, value in entry.items() if value is not None}],
    }
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"axes": None}, "name no axes"),
        ({"datasets": []}, "without a resolution level"),
        ({"datasets": [{"path": "5", "coordinateTransformations": SCALE}]}, "lists the level '5'"),
        ({"axes": AXES[1:]}, "a scale of 3 values .* for 2 axes"),
        ({"axes": AXES[1:], "datasets": [{"path": "0"}]}, "has 3 axes, and its OME-Zarr metadata name 2"),
        ({"datasets": [{"path": "0", "coordinateTransformations": [{"type": "affine"}]}]}, "type 'affine'"),
        ({"version": "0.9"}, "is OME-Zarr 0.9; mitoda reads 0.1 to 0.5"),
        ({"datasets": "no list"}, "not as the specification says"),
    ],
)
def test_broken_ome_zarr_is_refused(tmp_path, stack, changes, sentence):
    """The message names what is wrong with the metadata."""
    with pytest.raises(FileError, match=sentence):
        open_volume(image(tmp_path / "stack.zarr", stack, **changes))


def test_ome_zarr_without_scale_has_no_voxel_size(tmp_path, stack):
    """Neither has one without units; both are read."""
    bare = image(tmp_path / "a.zarr", stack, datasets=[{"path": "0"}])
    unitless = image(tmp_path / "b.zarr", stack, axes=[{"name": axis, "type": "space"} for axis in "zyx"])
    assert open_volume(bare).voxel_size is None
    assert open_volume(unitless).voxel_size is None


def test_damaged_zarr_is_one_error(tmp_path, stack):
    """Invalid JSON, a torn chunk, and a folder that only has the name."""
    folder = image(tmp_path / "stack.zarr", stack)
    chunk = next(path for path in (folder / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(FileError, match="section 0 of"):
        open_volume(folder).read(0)
    (folder / "zarr.json").write_text("{")
    with pytest.raises(FileError, match="is damaged"):
        open_volume(folder)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(FileError, match="is no Zarr array or group"):
        open_volume(tmp_path / "empty.zarr")


def test_pickled_and_object_zarr_is_not_read(tmp_path):
    """A codec that unpickles could run any program."""
    folder = tmp_path / "evil.zarr"
    folder.mkdir()
    described = {
        "zarr_format": 2, "shape": [2, 4, 4], "chunks": [2, 4, 4], "dtype": "|u1", "order": "C",
        "fill_value": 0, "compressor": None, "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(described))
    with pytest.raises(FileError, match="pickle"):
        open_volume(folder)


def test_the_level_nearest_to_the_working_pixel_is_read(tmp_path, stack):
    """Levels of 4 and 8 nm: 7 nm takes the second and says so; `scale` and the path choose too."""
    folder = image(tmp_path / "stack.zarr", stack, levels=2)
    nearest = open_volume(folder, pixel=(7.0, 7.0))
    assert nearest.voxel_size == (50, 8, 8)
    assert "level 1 of 2 is read" in remark_of(nearest)
    assert open_volume(folder).voxel_size == (50, 4, 4)
    assert open_volume(folder, scale=1).voxel_size == open_volume(folder / "1").voxel_size == (50, 8, 8)
    with pytest.raises(InputError, match="levels 0 to 1, but not 2"):
        open_volume(folder, scale=2)


def test_channels_are_refused_and_single_images_found(tmp_path, stack):
    """Two channels are an error; the only image of a bioformats2raw group is read, one of two must be named."""
    axes = [{"name": "c", "type": "channel"}, *AXES]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 50, 4, 4]}]}]
    with pytest.raises(InputError, match="several channels"):
        open_volume(image(tmp_path / "c.zarr", np.stack([stack, stack]), axes=axes, datasets=datasets))
    zarr.open_group(tmp_path / "raw.zarr", mode="w").attrs["ome"] = {"bioformats2raw.layout": 3}
    image(tmp_path / "raw.zarr" / "0", stack)
    assert open_volume(tmp_path / "raw.zarr").voxel_size == (50, 4, 4)
    image(tmp_path / "raw.zarr" / "1", stack)
    with pytest.raises(FileError, match=r"several arrays: 0 .*, 1 .*raw.zarr/0"):
        open_volume(tmp_path / "raw.zarr")


def test_hdf5_reads_nothing_but_itself(tmp_path, stack):
    """Links, virtual datasets and external storage that lead to other files are refused."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = stack
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "/x")
        layout = h5py.VirtualLayout(stack.shape, stack.dtype)
        layout[...] = h5py.VirtualSource("other.h5", "x", stack.shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("stored", stack.shape, stack.dtype, external=[("/etc/passwd", 0, stack.nbytes)])
        file["circle"] = h5py.SoftLink("/circle")
    for key, sentence in {
        "linked": "a link to another file",
        "virtual": "data in another file",
        "stored": "data in another file",
        "circle": "leads to itself",
        "nothing": "has no dataset nothing; it has",
    }.items():
        with pytest.raises(FileError, match=sentence):
            open_volume(f"{tmp_path / 'stack.h5'}:{key}")


@pytest.mark.parametrize(
    ("attributes", "stated"),
    [
        ({"element_size_um": [0.0, 0.004, 0.005]}, (None, 4.0, 5.0)),
        ({"resolution": [50.0, 4.0, 5.0], "units": ["slice", "nm", "nm"]}, (None, 4.0, 5.0)),
        ({"voxel_size": [np.nan, 4.0, 5.0], "unit": "nm"}, (None, 4.0, 5.0)),
        ({"element_size_um": [0.0, 0.004, 0.005], "resolution": [50.0, 4.0, 5.0]}, (50.0, 4.0, 5.0)),
        ({"element_size_um": [1.0, 1.0], "resolution": [0.0, 0.0, 0.0]}, (None, None, None)),
    ],
)
def test_hdf5_keeps_the_lengths_that_it_knows(tmp_path, stack, attributes, stated):
    """As TIFF does: the voxel size is unknown, but what is known of it is stated; the fullest attribute counts."""
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["raw"] = stack
        file["raw"].attrs.update(attributes)
    volume = open_volume(tmp_path / "stack.h5")
    assert stated_lengths(volume) == pytest.approx(stated)
    assert volume.voxel_size == (None if None in stated else stated)


@pytest.mark.parametrize("ending", [".h5", ".tif"])
def test_what_is_known_of_a_voxel_size_is_written(tmp_path, stack, ending):
    """A mask of a stack whose pixels are known, but not its thickness, says as much as the stack."""
    path = tmp_path / f"mask{ending}"
    write_sections(path, stack, stack.shape, stack.dtype, (None, 4.0, 5.0))
    assert stated_lengths(open_volume(path)) == pytest.approx((None, 4.0, 5.0))


def test_the_only_stack_of_hdf5_is_taken(tmp_path, stack):
    """Two are listed with shape and type; tables of other types are none."""
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["a/raw"] = stack
        file["table"] = np.zeros((3, 4), [("x", "f4")])
    assert open_volume(path).name == f"{path}:/a/raw"
    with h5py.File(path, "a") as file:
        file["labels"] = stack
    with pytest.raises(FileError, match=r"several arrays: /a/raw \(7, 40, 30\) uint8, /labels"):
        open_volume(path)
    with pytest.raises(InputError, match="expected integers, booleans or floats"):
        open_volume(f"{path}:table")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FileError, match="is damaged"):
        open_volume(path)


@pytest.mark.parametrize(
    ("stamp", "flags", "low", "high", "signed"),
    [
        (1146047817, 1, 0, 255, True),
        (1146047817, 0, -128, 127, False),
        (0, 0, -128, 127, True),
        (0, 0, 0, 255, False),
        (0, 0, 0, 0, False),
    ],
)
def test_bytes_of_mrc_are_signed_as_imod_decides(tmp_path, stack, stamp, flags, low, high, signed):
    """IMOD's flag counts where its stamp is, else the smallest and largest value of the header."""
    path = tmp_path / "stack.mrc"
    with mrcfile.new(path) as file:
        file.set_data(stack.view(np.int8))
    content = bytearray(path.read_bytes())
    content[76:84] = np.array([low, high], "<f4").tobytes()
    content[152:160] = np.array([stamp, flags], "<i4").tobytes()
    path.write_bytes(content)
    volume = open_values(path)
    assert volume.dtype == (np.int8 if signed else np.uint8)
    assert f"read as {'signed' if signed else 'unsigned'}" in remark_of(volume)
    path.write_bytes(content[:5000])
    with pytest.raises(FileError, match="is truncated"):
        open_values(path)


def test_what_we_write_is_what_others_read(tmp_path, stack):
    """255 is 255 to mrcfile; yaozarrs accepts both versions; origin and value of a mask stay."""
    mask = np.where(stack > 99, np.uint8(255), np.uint8(0))
    large = np.tile(mask, (1, 8, 10))
    write_sections(tmp_path / "mask.mrc", mask, mask.shape, mask.dtype, (50, 4, 4))
    with mrcfile.open(tmp_path / "mask.mrc") as file:
        np.testing.assert_array_equal(file.data, mask)
        assert file.voxel_size.x == pytest.approx(40)
    for version in ("0.4", "0.5"):
        folder = tmp_path / f"mask{version}.zarr"
        write_sections(
            folder, large, large.shape, large.dtype, (50, 4, 4), origin=(1, 2, 3), zarr_version=version
        )
        yaozarrs.validate_zarr_store(str(folder))
        assert origin_of(open_labels(folder)) == (1, 2, 3)
        coarser = open_values(folder, axes=None) if version == "" else open_values(folder / "1")
        assert coarser.voxel_size == (50, 8, 8)
        np.testing.assert_array_equal(coarser.read(3), large[3, ::2, ::2])


@pytest.mark.parametrize("name", ["mask.zarr", "mask.h5", "mask.mrc"])
def test_nothing_partial_takes_the_name(tmp_path, stack, name):
    """An error leaves what was there before, and nothing else; only --overwrite replaces it."""
    path = tmp_path / name
    write_sections(path, stack, stack.shape, stack.dtype, None)
    with pytest.raises(FileError, match="exists"):
        write_sections(path, stack, stack.shape, stack.dtype, None)

    def torn():
        yield stack[1]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_sections(path, torn(), stack.shape, stack.dtype, None, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(open_values(path).read(0), stack[0])
    write_sections(path, stack[::-1], stack.shape, stack.dtype, None, overwrite=True)
    np.testing.assert_array_equal(open_values(path).read(0), stack[6])
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_folders_that_are_no_zarr_or_an_input_stay(tmp_path, stack):
    """--overwrite replaces only a Zarr group, never the one that is read."""
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "thesis.txt").touch()
    with pytest.raises(FileError, match="is a folder"):
        check_output(tmp_path / "thesis.zarr", (), overwrite=True)
    folder = image(tmp_path / "stack.zarr", stack)
    with pytest.raises(FileError, match="would replace or join the input"):
        check_output(folder, [folder / "0"], overwrite=True)


def test_colons_of_keys_and_of_labels(tmp_path, monkeypatch):
    """One place decides; existing files count first."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "b.tif"):
        (tmp_path / name).touch()
    assert split_pair("a.h5:/raw:a.h5:/labels") == ("a.h5:/raw", "a.h5:/labels")
    assert split_pair("a.h5:/raw:b.tif") == ("a.h5:/raw", "b.tif")
    assert split_pair("b.tif:a.h5:/raw") == ("b.tif", "a.h5:/raw")
    assert split_pair("a.h5:/raw") is None


def test_an_interrupted_hdf5_of_others_is_not_replaced(tmp_path):
    """Only what carries our mark is, from the first section on."""
    partial = tmp_path / "mask.h5.partial"
    with h5py.File(partial, "w") as file:
        file["theirs"] = np.zeros((3, 3))
    with pytest.raises(FileError, match="was not written by mitoda; move it away"):
        SectionWriter(tmp_path / "mask.h5", (2, 8, 8), np.uint8, None, overwrite=True)
    partial.unlink()
    writer = SectionWriter(tmp_path / "mask.h5", (2, 8, 8), np.uint8, None)
    writer.write(np.zeros((8, 8), np.uint8))
    check_partial(partial)


def test_chunks_are_decoded_once_and_few_are_kept():
    """A deep stack read as `segment` reads it: pairs ten sections apart, and each section again thirty later."""
    depth, sections = 16, 400
    decoded = []

    def load(selection):
        decoded.append(selection[0].start)
        return np.zeros((selection[0].stop - selection[0].start, 20, 30), np.uint8)

    stored = StoredArray(
        "deep", Path("deep"), (sections, 20, 30), np.dtype(np.uint8), "ZYX", load, chunks=(depth, 20, 30)
    )
    volume = ChunkedVolume(stored)
    most = 0
    for section in range(sections):
        for read in (section, min(section + 10, sections - 1), max(0, section - 30)):
            volume.read(read)
        most = max(most, sum(slab.shape[0] for slab in volume._slabs.values()))
    assert decoded == list(range(0, sections, depth))
    assert most <= SECTIONS_KEPT + depth
