"""One contract for every format: what was written is what is read, region by region, from any thread."""

from concurrent.futures import ThreadPoolExecutor

import h5py
import imageio.v3 as iio
import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr

from mitoda.volumes import CachedVolume, SectionWriter, open_values, open_volume, write_sections

VOXEL_SIZE = (50.0, 4.6, 4.5)
IMAGEJ = {
    "imagej": True,
    "resolution": (1 / 4.5, 1 / 4.6),
    "metadata": {"axes": "ZYX", "unit": "nm", "spacing": 50},
}
OME = {
    "ome": True,
    "metadata": {
        "axes": "ZYX",
        **{f"PhysicalSize{axis}": size / 1000 for axis, size in zip("ZYX", VOXEL_SIZE, strict=True)},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"},
    },
}


def tiff(**options):
    """Return a function that writes one TIFF file with tifffile."""

    def write(folder, array):
        tifffile.imwrite(folder / "stack.tif", array, photometric="minisblack", **options)
        return folder / "stack.tif"

    return write


def pages(folder, array):
    """Write pages that know nothing of each other."""
    with tifffile.TiffWriter(folder / "stack.tif") as writer:
        for section in array:
            writer.write(section, metadata=None, compression="lzw", contiguous=False)
    return folder / "stack.tif"


def sections(suffix):
    """Return a function that writes a folder of sections, numbered without zeros in front."""

    def write(folder, array):
        for index, section in enumerate(array):
            if suffix == ".tif":
                tifffile.imwrite(folder / f"s{8 + index}{suffix}", section)
            else:
                iio.imwrite(folder / f"s{8 + index}{suffix}", section)
        return folder

    return write


def ours(name="stack.tif", **options):
    """Return a function that writes with `SectionWriter`."""

    def write(folder, array):
        with SectionWriter(folder / name, array.shape, array.dtype, VOXEL_SIZE, **options) as writer:
            for section in array:
                writer.write(section)
        return folder / name

    return write


def hdf5(attributes, order=(0, 1, 2), **options):
    """Return a function that writes one dataset, its axes in this order."""

    def write(folder, array):
        with h5py.File(folder / "stack.h5", "w") as file:
            data = file.create_dataset("volumes/raw", data=array.transpose(order), **options)
            data.attrs.update(attributes)
        return f"{folder / 'stack.h5'}:/volumes/raw"

    return write


def ome_zarr(version, axes="zyx", **options):
    """Return a function that writes an image of two levels with zarr; micrometres, each level scaled as a whole."""

    def write(folder, array):
        group = zarr.open_group(folder / "stack.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
        datasets = []
        for level in (0, 1):
            data = array[:, :: 2**level, :: 2**level]
            data = data.transpose(["zyx".index(axis) for axis in axes if axis in "zyx"])
            data = data.reshape([1 for axis in axes if axis in "tc"] + list(data.shape))
            stored = group.create_array(str(level), shape=data.shape, dtype=data.dtype, **options)
            stored[...] = data
            known = dict(zip("zyx", np.array(VOXEL_SIZE) / 2000 * (1, 2**level, 2**level), strict=True))
            scale = [float(known.get(axis, 1)) for axis in axes]
            datasets.append(
                {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            )
        kinds = {"t": "time", "c": "channel"}
        image = {
            "axes": [
                {"name": axis, "type": kinds[axis]}
                if axis in kinds
                else {"name": axis, "type": "space", "unit": "micrometer"}
                for axis in axes
            ],
            "datasets": datasets,
            "coordinateTransformations": [
                {"type": "scale", "scale": [2.0 if a in "zyx" else 1.0 for a in axes]}
            ],
        }
        if version == "0.4":
            group.attrs["multiscales"] = [{"version": "0.4", **image}]
        else:
            group.attrs["ome"] = {"version": version, "multiscales": [image]}
        return folder / "stack.zarr"

    return write


def plain_zarr(zarr_format, **options):
    """Return a function that writes one array."""

    def write(folder, array):
        stored = zarr.create_array(
            folder / "stack.zarr", shape=array.shape, dtype=array.dtype, zarr_format=zarr_format, **options
        )
        stored[...] = array
        return folder / "stack.zarr"

    return write


def mrc(folder, array):
    """Write with mrcfile, which makes uint8 uint16."""
    with mrcfile.new(folder / "stack.rec") as file:
        file.set_data(array)
        file.voxel_size = [10 * length for length in VOXEL_SIZE[::-1]]
    return folder / "stack.rec"


def nifti(ending):
    """Return a function that writes with nibabel."""

    def write(folder, array):
        image = nibabel.Nifti1Image(array.T.copy(), np.eye(4))
        image.header.set_zooms([length / 1000 for length in VOXEL_SIZE[::-1]])
        image.header.set_xyzt_units("micron")
        nibabel.save(image, folder / f"stack{ending}")
        return folder / f"stack{ending}"

    return write


def nrrd_file(name="stack.nrrd", **options):
    """Return a function that writes with pynrrd."""

    def write(folder, array):
        header = {"space dimension": 3, "space units": ["nm"] * 3, "encoding": "raw", **options}
        header["space directions"] = np.diag(VOXEL_SIZE[::-1])
        nrrd.write(str(folder / name), array.T, header, detached_header=name.endswith(".nhdr"))
        return folder / name

    return write


AXISTAGS = '{"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]}'


ALL = ("uint8", "uint16", "float32")
INTEGERS = ("uint8", "uint16")
OURS = (*ALL, "uint32")
FORMATS = {
    "plain": (tiff(), ALL, None),
    "big-endian": (tiff(byteorder=">"), ALL, None),
    "strips": (tiff(rowsperstrip=7), ALL, None),
    "bigtiff": (tiff(bigtiff=True), ALL, None),
    "zlib": (tiff(compression="zlib", rowsperstrip=7), ALL, None),
    "zlib-predictor": (tiff(compression="zlib", predictor=True, byteorder=">"), ALL, None),
    "lzw": (tiff(compression="lzw"), ALL, None),
    "zstd": (tiff(compression="zstd"), ALL, None),
    "packbits": (tiff(compression="packbits"), INTEGERS, None),
    "tiled": (tiff(tile=(16, 16)), ALL, None),
    "tiled-zlib": (tiff(tile=(16, 32), compression="zlib"), ALL, None),
    "single-pages": (pages, ALL, None),
    "imagej": (tiff(**IMAGEJ), ALL, VOXEL_SIZE),
    "imagej-big-endian": (tiff(byteorder=">", **IMAGEJ), ALL, VOXEL_SIZE),
    "ome": (tiff(**OME), ALL, VOXEL_SIZE),
    "ome-zlib": (tiff(compression="zlib", **OME), ALL, VOXEL_SIZE),
    "folder-png": (sections(".png"), INTEGERS, None),
    "folder-tiff": (sections(".tif"), ALL, None),
    "array": (lambda folder, array: array, ALL, None),
    "array-big-endian": (lambda folder, array: array.astype(array.dtype.newbyteorder(">")), ALL, None),
    "array-transposed": (lambda folder, array: np.asfortranarray(array), ALL, None),
    "ours": (ours(), ALL, VOXEL_SIZE),
    "ours-uncompressed": (ours(compression="none"), ALL, VOXEL_SIZE),
    "ours-hdf5": (ours("stack.h5"), OURS, VOXEL_SIZE),
    "ours-zarr-0.5": (ours("stack.zarr"), OURS, VOXEL_SIZE),
    "ours-zarr-0.4": (ours("stack.ome.zarr", zarr_version="0.4"), OURS, VOXEL_SIZE),
    "ours-mrc": (ours("stack.mrc"), OURS, VOXEL_SIZE),
    "hdf5": (hdf5({}), ALL, None),
    "hdf5-cremi": (hdf5({"resolution": VOXEL_SIZE}, chunks=(3, 16, 16), compression="gzip"), ALL, VOXEL_SIZE),
    "hdf5-fiji": (hdf5({"element_size_um": np.array(VOXEL_SIZE) / 1000}, chunks=True), ALL, VOXEL_SIZE),
    "hdf5-ilastik": (hdf5({"axistags": AXISTAGS}, (2, 1, 0), chunks=(8, 8, 2)), ALL, None),
    "hdf5-big-endian": (hdf5({}, dtype=">u2"), ("uint16",), None),
    "zarr-0.4": (ome_zarr("0.4", chunks=(3, 16, 16)), ALL, VOXEL_SIZE),
    "zarr-0.5-sharded": (ome_zarr("0.5", chunks=(2, 10, 10), shards=(4, 20, 20)), ALL, VOXEL_SIZE),
    "zarr-0.5-xyz": (ome_zarr("0.5", "xyz", chunks=(9, 9, 3)), ALL, VOXEL_SIZE),
    "zarr-0.5-tczyx": (ome_zarr("0.5", "tczyx", chunks=(1, 1, 3, 16, 16)), ALL, VOXEL_SIZE),
    "zarr-2": (plain_zarr(2, chunks=(3, 9, 9)), ALL, None),
    "zarr-3": (plain_zarr(3, chunks=(1, 40, 30), attributes={"voxel_size": VOXEL_SIZE}), ALL, VOXEL_SIZE),
    "mrc": (mrc, ("uint16", "float32"), VOXEL_SIZE),
    "nifti": (nifti(".nii"), ALL, VOXEL_SIZE),
    "nifti-gz": (nifti(".nii.gz"), ALL, VOXEL_SIZE),
    "nrrd": (nrrd_file(), ALL, VOXEL_SIZE),
    "nrrd-gzip": (nrrd_file(encoding="gzip"), ALL, VOXEL_SIZE),
    "nrrd-detached": (nrrd_file("stack.nhdr"), ALL, VOXEL_SIZE),
}
CASES = [
    pytest.param((name, dtype), id=f"{name}-{dtype}")
    for name, (_, types, _) in FORMATS.items()
    for dtype in types
]
REGIONS = [
    (slice(None), slice(None)),
    (slice(3, 31), slice(5, 22)),
    (slice(39, 40), slice(29, 30)),
    (slice(15, 17), slice(None)),
    (slice(-9, None), slice(None, -3)),
    (slice(35, 99), slice(2, 2)),
    (slice(2, 30, 3), slice(None, None, -1)),
]


@pytest.fixture(params=CASES)
def case(request, tmp_path, stack):
    name, dtype = request.param
    write, _, voxel_size = FORMATS[name]
    values = stack.astype(dtype)
    if dtype != "uint8":
        values = values * np.array(200.5, dtype).astype(dtype)
    opener = open_values if dtype == "uint32" else open_volume  # grey values of 32 bits are read as floats
    return opener(write(tmp_path, values)), values, voxel_size


def test_volume_has_the_shape_type_and_voxel_size_of_what_was_written(case):
    """Shape, native dtype and voxel size come back from every format that can hold them."""
    volume, values, voxel_size = case
    assert volume.shape == values.shape
    assert volume.dtype == values.dtype
    assert volume.dtype.isnative
    assert volume.voxel_size == (voxel_size and pytest.approx(voxel_size, rel=1e-6))


def test_regions_equal_the_array(case):
    """Any slice of any section, even an empty or reversed one, equals the same slice of the array."""
    volume, values, _ = case
    for index in (0, 3, 6):
        for rows, columns in REGIONS:
            region = volume.read(index, rows, columns)
            assert region.dtype == values.dtype
            np.testing.assert_array_equal(region, values[index, rows, columns])


@pytest.mark.parametrize("cached", [False, True])
def test_eight_threads_read_what_one_reads(case, cached):
    """Reading from eight threads at once returns what reading in turn returns, with and without a cache."""
    volume, values, _ = case
    if cached:
        volume = CachedVolume(volume, limit_bytes=3 * values[0].nbytes)
    order = np.random.default_rng(1).integers(0, len(values), 64).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, section in zip(order, pool.map(volume.read, order), strict=True):
            np.testing.assert_array_equal(section, values[index])


@pytest.mark.parametrize("section", [-1, 7])
def test_sections_outside_are_refused(case, section):
    """There is no section before the first or past the last, and the message says which there are."""
    with pytest.raises(IndexError, match="sections 0 to 6"):
        case[0].read(section)


def test_jpeg_sections_are_near_what_was_written(tmp_path, stack):
    """A folder of JPEG sections opens as uint8 in order, as exact as JPEG is."""
    smooth = np.clip(np.add.outer(np.arange(12) * 15, np.zeros((40, 30))), 0, 255).astype(np.uint8)
    sections(".jpg")(tmp_path, smooth)
    volume = open_volume(tmp_path)
    assert volume.shape == smooth.shape
    for index, section in enumerate(smooth):
        assert np.abs(volume.read(index).astype(int) - section).max() <= 1


def test_a_slice_of_a_written_stack_equals_write_sections_of_an_iterator(tmp_path, stack):
    """`write_sections` takes an iterator, and what it wrote is read back."""
    write_sections(tmp_path / "stack.tif", iter(stack), stack.shape, stack.dtype, None)
    volume = open_volume(tmp_path / "stack.tif")
    assert volume.voxel_size is None
    np.testing.assert_array_equal([volume.read(index) for index in range(7)], stack)
