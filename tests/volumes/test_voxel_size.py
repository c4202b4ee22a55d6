"""Voxel sizes from metadata: right, or not at all."""

import numpy as np
import pytest
import tifffile

from mitoda.errors import InputError
from mitoda.volumes import open_volume, write_sections
from mitoda.volumes.volume import stated_lengths
from mitoda.volumes.voxel_size import (
    check_voxel_size,
    from_imagej,
    from_microscope,
    from_ome,
    unit_in_nanometres,
)

UNKNOWN = (None, None, None)


@pytest.mark.parametrize(
    ("unit", "nanometres"),
    [
        ("nm", 1),
        ("um", 1000),
        ("\u00b5m", 1000),
        ("\u03bcm", 1000),
        ("\\u00B5m", 1000),
        ("micron", 1000),
        ("microns", 1000),
        ("Micrometers", 1000),
        ("mm", 1e6),
        ("cm", 1e7),
        ("\u00c5", 0.1),
        ("\\u00C5", 0.1),
        ("inch", 2.54e7),
        ("pixel", None),
        ("", None),
        ("sec", None),
    ],
)
def test_units_by_all_their_names(unit, nanometres):
    """Every way that Fiji and others write a length is known, and nothing else is a length."""
    assert unit_in_nanometres(unit) == nanometres


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"unit": "um", "spacing": 0.05}, (50, 5, 4)),
        ({"unit": "um", "spacing": -0.05}, (50, 5, 4)),
        ({"unit": "um", "zunit": "nm", "spacing": 50.0}, (50, 5, 4)),
        ({"unit": "um", "yunit": "mm", "spacing": 0.05}, (50, 5000, 4)),
        ({"unit": "um", "zunit": "sec", "spacing": 50.0}, (None, 5, 4)),
        ({"unit": "um", "yunit": "pixel", "spacing": 0.05}, (50, None, 4)),
        ({"unit": "um"}, (None, 5, 4)),
        ({"spacing": 0.05}, UNKNOWN),
        ({"unit": "pixel", "spacing": 1.0}, UNKNOWN),
        ({"unit": "inch"}, UNKNOWN),
        ({"unit": "um", "spacing": 0.0}, (None, 5, 4)),
        ({"unit": "um", "spacing": "?"}, (None, 5, 4)),
    ],
)
def test_each_length_of_imagej_has_its_own_unit(metadata, expected):
    """250 and 200 voxels per micrometre are 4 and 5 nm; unknown without a unit, and at a screen's resolution."""
    assert from_imagej(metadata, (250, 1), (200, 1)) == pytest.approx(expected)
    assert from_imagej(metadata, (0, 1), (200, 1))[2] is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.004" PhysicalSizeY="0.005" PhysicalSizeZ="0.05"', (50, 5, 4)),
        (
            'PhysicalSizeX="4" PhysicalSizeXUnit="nm" PhysicalSizeY="50" PhysicalSizeYUnit="Å" '
            'PhysicalSizeZ="0.00005" PhysicalSizeZUnit="mm"',
            (50, 5, 4),
        ),
        ('PhysicalSizeX="4" PhysicalSizeY="5"', (None, 5000, 4000)),
        (
            'PhysicalSizeX="4" PhysicalSizeY="5" PhysicalSizeZ="5" PhysicalSizeZUnit="frame"',
            (None, 5000, 4000),
        ),
        ('PhysicalSizeX="4" PhysicalSizeY="nan" PhysicalSizeZ="-5"', (None, None, 4000)),
    ],
)
def test_ome_sizes_with_their_units(attributes, expected):
    """Micrometres by default, each axis with its own unit, and None for those that are missing."""
    xml = f'<OME xmlns="http://openmicroscopy.org/OME/2016-06"><Image><Pixels {attributes}/></Image></OME>'
    assert from_ome(xml) == pytest.approx(expected)
    assert from_ome(xml, image=1) == UNKNOWN
    assert from_ome(xml[:-9]) == UNKNOWN


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"fei": {"Scan": {"PixelWidth": 4e-9, "PixelHeight": 5e-9}}}, (None, 5, 4)),
        ({"zeiss": {"ap_image_pixel_size": ("Image Pixel Size", 7.5, "nm")}}, (None, 7.5, 7.5)),
        ({"zeiss": {"ap_pixel_size": ("Pixel Size", 0.0075, "µm")}}, (None, 7.5, 7.5)),
        ({"tvips": {"PixelSizeX": 4.0, "PixelSizeY": 5.0}}, (None, 5, 4)),
        ({"sis": {"pixelsizex": 4e-9, "pixelsizey": 5e-9}}, (None, 5, 4)),
        ({"fei": {"Scan": {"PixelWidth": 0.0, "PixelHeight": "?"}}}, UNKNOWN),
        ({"zeiss": {"ap_pixel_size": ("Pixel Size", "7,5 nm")}}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_microscopes_state_pixel_sizes(tags, expected):
    """Each in its own unit; none states a section thickness, and nonsense is no size."""
    every = {"fei": {}, "zeiss": {}, "tvips": {}, "sis": {}, **tags}
    assert from_microscope(**every) == pytest.approx(expected)


def test_the_tag_of_a_thermo_fisher_microscope_is_read(tmp_path, stack):
    """The pixel size is known and kept, also in axes that are stored otherwise; the voxel size is not complete."""
    text = "[Scan]\r\nPixelWidth=4e-009\r\nPixelHeight=5e-009\r\n"
    path = tmp_path / "helios.tif"
    tifffile.imwrite(
        path, stack, photometric="minisblack", metadata=None, extratags=[(34682, 2, 0, text, True)]
    )
    volume = open_volume(path)
    assert volume.voxel_size is None
    assert stated_lengths(volume) == pytest.approx((None, 5, 4))
    assert stated_lengths(open_volume(path, axes="ZXY")) == pytest.approx((None, 4, 5))
    assert stated_lengths(open_volume(path, voxel_size=(9, 8, 7))) == (9, 8, 7)


def test_what_is_known_of_a_voxel_size_is_written_and_read_back(tmp_path, stack):
    """Pixels without a thickness, and a thickness without pixels."""
    for lengths in ((None, 5.0, 4.0), (50.0, None, None)):
        path = tmp_path / f"{lengths[0]}.tif"
        write_sections(path, stack, stack.shape, stack.dtype, lengths)
        assert stated_lengths(open_volume(path)) == pytest.approx(lengths)


def test_plain_resolution_is_not_believed(tmp_path, stack):
    """72 dpi, or voxels per centimetre without a distance of sections, are no voxel size; a word is."""
    for resolution, unit in (((72, 72), "inch"), ((2e6, 2e6), "centimeter")):
        tifffile.imwrite(
            tmp_path / "stack.tif",
            stack,
            photometric="minisblack",
            resolution=resolution,
            resolutionunit=unit,
        )
        assert open_volume(tmp_path / "stack.tif").voxel_size is None
        assert open_volume(tmp_path / "stack.tif", voxel_size=np.array([5, 5, 5])).voxel_size == (5, 5, 5)


@pytest.mark.parametrize("size", [(0.05, 0.005, 0.005), (50000, 5000, 5000)])
def test_sizes_in_another_unit_are_refused(size):
    """Micrometres or picometres in place of nanometres would make volumes wrong by 10⁹."""
    with pytest.raises(InputError, match=r"from 0\.1 to 10000 nm"):
        check_voxel_size(size)
