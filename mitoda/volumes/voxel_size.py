"""Voxel sizes: given by a person, or read from the metadata of TIFF files.

A file states its voxel size if it has one of

- ImageJ's `unit` with `spacing` and the X and Y resolution tags (voxels per unit); `yunit` and `zunit` may differ;
- OME's PhysicalSizeX, Y and Z, each with its own unit, micrometres by default.

Plain resolution tags do not count: they say nothing about sections and usually hold the 72 dpi of a screen. ImageJ
leaves `spacing` out both when it is 1 and when nobody set it, so it is then unknown.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from mitoda.errors import InputError
from mitoda.volumes.volume import VoxelSize

NANOMETRES = {
    **dict.fromkeys(("å", "a", "angstrom"), 0.1),
    "pm": 1e-3,
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "micrometer", "micrometre"), 1e3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    "cm": 1e7,
    "inch": 2.54e7,
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
}
"""Length of a unit in nanometres; names in lower case and without a plural s."""


def check_voxel_size(voxel_size: Sequence[float]) -> VoxelSize:
    """Return a voxel size as three floats.

    Raises
    ------
    InputError
        If there are not three finite, positive numbers.

    Examples
    --------
    >>> check_voxel_size([50, 4.6, 4.6])
    (50.0, 4.6, 4.6)
    """
    try:
        section, row, column = (float(size) for size in voxel_size)
    except (TypeError, ValueError):
        checked = None
    else:
        checked = _complete(section, row, column)
    if checked is None:
        raise InputError(
            f"voxel size {voxel_size!r} is not three positive lengths; give section, row, column in "
            "nanometres, e.g. 50 4.6 4.6"
        )
    return checked


def unit_in_nanometres(unit: str) -> float | None:
    r"""Return the length of a unit, or None for "pixel" and everything else that is not a length.

    Examples
    --------
    >>> unit_in_nanometres("\\u00B5m"), unit_in_nanometres("microns"), unit_in_nanometres("pixel")
    (1000.0, 1000.0, None)
    """
    name = unit.strip().strip('"').lower()
    # ImageJ escapes what is not ASCII; the Greek mu and the micro sign look alike
    for written, meant in (("\\u00b5", "µ"), ("\u03bc", "µ"), ("\\u00c5", "å"), ("\\u00e5", "å")):
        name = name.replace(written, meant)
    return NANOMETRES.get(name) or NANOMETRES.get(name.removesuffix("s"))


def from_imagej(
    metadata: Mapping[str, Any], x_resolution: tuple[int, int], y_resolution: tuple[int, int]
) -> VoxelSize | None:
    """Return the voxel size that ImageJ wrote, or None.

    Parameters
    ----------
    metadata : mapping
        The `key=value` lines of the image description.
    x_resolution, y_resolution : (int, int)
        Voxels per unit, as a fraction: the XResolution and YResolution tags.
    """
    unit, spacing = metadata.get("unit", ""), metadata.get("spacing")
    units = (unit_in_nanometres(str(metadata.get(key, unit))) for key in ("zunit", "yunit", "unit"))
    z_unit, y_unit, x_unit = units
    if z_unit is None or y_unit is None or x_unit is None or isinstance(spacing, bool | str | None):
        return None
    if 0 in (*x_resolution, *y_resolution):
        return None
    row = y_resolution[1] / y_resolution[0] * y_unit
    column = x_resolution[1] / x_resolution[0] * x_unit
    # ImageJ counts z downwards in some files, with a negative spacing
    return _complete(abs(spacing) * z_unit, row, column)


def from_ome(xml: str, image: int = 0) -> VoxelSize | None:
    """Return the voxel size of one image of an OME-XML document, or None.

    Parameters
    ----------
    xml : str
    image : int
        Number of the image in the document.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    pixels = root.findall(".//{*}Pixels")
    if image >= len(pixels):
        return None
    return _complete(*(_ome_length(pixels[image].attrib, axis) for axis in "ZYX"))


def _ome_length(attributes: Mapping[str, str], axis: str) -> float | None:
    scale = unit_in_nanometres(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        size = float(attributes[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return None if scale is None else size * scale


def _complete(section: float | None, row: float | None, column: float | None) -> VoxelSize | None:
    """Return three finite, positive lengths, or None."""
    if section is None or row is None or column is None:
        return None
    size = section, row, column
    return size if all(math.isfinite(length) and length > 0 for length in size) else None
