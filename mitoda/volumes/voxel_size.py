"""Voxel sizes: checked when a person gives them, read from the metadata of TIFF files otherwise.

What counts as known:

- ImageJ: `unit` together with `spacing` and the X and Y resolution tags (voxels per unit).
- OME: PhysicalSizeX, Y and Z with their units; micrometres where the unit is left out, as the schema says.
- Everything else is None. Plain resolution tags say nothing about the distance of sections, and usually hold
  the 72 dpi of some screen. ImageJ leaves `spacing` out both when it is 1 and when nobody set it, so it is
  unknown too. A size known in one direction only is never completed by a guess.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from mitoda.errors import InputError
from mitoda.volumes.volume import VoxelSize

NANOMETRES = {
    "pm": 1e-3,
    "å": 0.1,
    "a": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "cm": 1e7,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
    "inch": 2.54e7,
}
"""Length of a unit in nanometres; names in lower case and without a plural s."""


def check_voxel_size(voxel_size: Sequence[float]) -> VoxelSize:
    """Return a voxel size as three floats, or say why it is none.

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
        sizes = tuple(float(size) for size in voxel_size)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != 3 or not all(_is_length(size) for size in sizes):
        raise InputError(
            f"voxel size {voxel_size!r} is not three positive lengths; give section, row, column in "
            "nanometres, e.g. 50 4.6 4.6"
        )
    return sizes[0], sizes[1], sizes[2]


def unit_in_nanometres(unit: str) -> float | None:
    r"""Return how many nanometres a unit has, or None for "pixel" and others that are no length.

    Examples
    --------
    >>> unit_in_nanometres("\\u00B5m"), unit_in_nanometres("microns"), unit_in_nanometres("pixel")
    (1000.0, 1000.0, None)
    """
    # ImageJ escapes what is not ASCII; Greek mu and the micro sign look alike
    name = (
        unit.strip().strip('"').lower().replace("\\u00b5", "µ").replace("\u03bc", "µ").replace("\\u00c5", "å")
    )
    return NANOMETRES.get(name) or NANOMETRES.get(name.removesuffix("s"))


def from_imagej(
    metadata: Mapping[str, Any], x_resolution: tuple[int, int], y_resolution: tuple[int, int]
) -> VoxelSize | None:
    """Return the voxel size that ImageJ wrote, or None where it did not.

    Parameters
    ----------
    metadata : mapping
        The `key=value` lines of the image description.
    x_resolution, y_resolution : (int, int)
        Voxels per `unit`, as a fraction: the XResolution and YResolution tags.
    """
    scale = unit_in_nanometres(str(metadata.get("unit", "")))
    spacing = metadata.get("spacing")
    if scale is None or isinstance(spacing, bool | str | None):
        return None
    if 0 in (*x_resolution, *y_resolution):
        return None
    row = y_resolution[1] / y_resolution[0] * scale
    column = x_resolution[1] / x_resolution[0] * scale
    # ImageJ counts z downwards in some files, with a negative spacing
    return _complete(abs(spacing) * scale, row, column)


def from_ome(xml: str, image: int = 0) -> VoxelSize | None:
    """Return the voxel size of one image of an OME-XML document, or None where it does not say.

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
    pixels = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
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
    if section is None or row is None or column is None:
        return None
    if not all(_is_length(size) for size in (section, row, column)):
        return None
    return section, row, column


def _is_length(size: float) -> bool:
    return math.isfinite(size) and size > 0
