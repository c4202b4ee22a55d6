"""Voxel sizes from metadata: right, or not at all."""

import numpy as np
import pytest
import tifffile

from mitoda.volumes import open_volume
from mitoda.volumes.voxel_size import from_imagej, from_ome, unit_in_nanometres


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
        ({"unit": "um", "zunit": "sec", "spacing": 50.0}, None),
        ({"unit": "um"}, None),
        ({"spacing": 0.05}, None),
        ({"unit": "pixel", "spacing": 1.0}, None),
        ({"unit": "um", "spacing": 0.0}, None),
        ({"unit": "um", "spacing": "?"}, None),
    ],
)
def test_imagej_sizes_need_unit_spacing_and_resolution(metadata, expected):
    """250 and 200 voxels per micrometre are 4 and 5 nm; without unit or spacing the size is unknown."""
    assert from_imagej(metadata, (250, 1), (200, 1)) == (expected and pytest.approx(expected))
    assert from_imagej(metadata, (0, 1), (200, 1)) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.004" PhysicalSizeY="0.005" PhysicalSizeZ="0.05"', (50, 5, 4)),
        (
            'PhysicalSizeX="4" PhysicalSizeXUnit="nm" PhysicalSizeY="50" PhysicalSizeYUnit="Å" '
            'PhysicalSizeZ="0.00005" PhysicalSizeZUnit="mm"',
            (50, 5, 4),
        ),
        ('PhysicalSizeX="4" PhysicalSizeY="5"', None),
        ('PhysicalSizeX="4" PhysicalSizeY="5" PhysicalSizeZ="5" PhysicalSizeZUnit="reference frame"', None),
        ('PhysicalSizeX="4" PhysicalSizeY="5" PhysicalSizeZ="?"', None),
    ],
)
def test_ome_sizes_with_their_units(attributes, expected):
    """Micrometres by default, each axis with its own unit, and None where one is missing."""
    xml = f'<OME xmlns="http://openmicroscopy.org/OME/2016-06"><Image><Pixels {attributes}/></Image></OME>'
    assert from_ome(xml) == (expected and pytest.approx(expected))
    assert from_ome(xml, image=1) is None
    assert from_ome(xml[:-9]) is None


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
