"""Voxel sizes: given by a person, or read from the metadata of files.

A file states edge lengths, not always all three, in

- ImageJ's `unit` with `spacing` and the X and Y resolution tags (voxels per unit); `yunit` and `zunit` may differ;
- OME's PhysicalSizeX, Y and Z, each with its own unit, micrometres by default;
- the attributes `resolution`, `voxel_size` or `element_size_um` of HDF5 and Zarr, section first;
- the tags of microscopes that tifffile parses: Thermo Fisher (FEI), Zeiss, TVIPS and Olympus SIS; pixel sizes only.

Plain resolution tags do not count: they say nothing about sections and usually hold the 72 dpi of a screen. ImageJ
leaves `spacing` out both when it is 1 and when nobody set it, so it is then unknown.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from mitoda.errors import InputError
from mitoda.volumes.volume import Lengths, Volume, VoxelSize

NANOMETRES = {
    **dict.fromkeys(("å", "a", "angstrom"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "micrometer", "micrometre"), 1e3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    "cm": 1e7,
    "inch": 2.54e7,
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
}
"""Length of a unit in nanometres; names in lower case and without a plural s."""


SHORTEST, LONGEST = 0.1, 1e4
"""Nanometres that an edge may have; sizes in micrometres, or of a screen's pixels, lie outside."""


def known_voxel_size(volume: Volume) -> VoxelSize:
    """Return the volume's voxel size; InputError where it is unknown."""
    if volume.voxel_size is None:
        raise InputError(
            f"the voxel size of {volume.name} is not in its metadata; give --voxel-size Z Y X in nanometres "
            "(section thickness, then pixel size along rows and columns, e.g. --voxel-size 50 4.6 4.6)"
        )
    return volume.voxel_size


def check_voxel_size(voxel_size: Sequence[float]) -> VoxelSize:
    """Return a voxel size as three floats.

    Raises
    ------
    InputError
        If there are not three numbers from `SHORTEST` to `LONGEST`.

    Examples
    --------
    >>> check_voxel_size([50, 4.6, 4.6])
    (50.0, 4.6, 4.6)
    """
    checked = complete(check_lengths(voxel_size))
    if checked is None:
        raise _not_three(voxel_size)
    return checked


def check_lengths(lengths: Sequence[float | None]) -> Lengths:
    """Return three edge lengths as floats; those that are None stay so.

    Raises
    ------
    InputError
        If there are not three, or one is not finite and positive.
    """
    try:
        section, row, column = (None if length is None else float(length) for length in lengths)
    except (TypeError, ValueError):
        raise _not_three(lengths) from None
    if plausible(section, row, column) != (section, row, column):
        raise _not_three(lengths)
    return section, row, column


def _not_three(lengths: object) -> InputError:
    return InputError(
        f"voxel size {lengths!r} is not three positive lengths, from {SHORTEST:g} to {LONGEST:g} nm; give section, "
        "row, column in nanometres, e.g. 50 4.6 4.6"
    )


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
) -> Lengths:
    """Return the edge lengths that ImageJ wrote.

    Parameters
    ----------
    metadata : mapping
        The `key=value` lines of the image description.
    x_resolution, y_resolution : (int, int)
        Voxels per unit, as a fraction: the XResolution and YResolution tags.
    """
    unit, spacing = metadata.get("unit", ""), metadata.get("spacing")
    units = (unit_in_nanometres(str(metadata.get(key, unit))) for key in ("zunit", "yunit", "unit"))
    section, row, column = units
    if spacing is None and column is not None and column >= NANOMETRES["cm"]:  # the 72 dpi of a screen
        return None, None, None
    return plausible(
        # ImageJ counts z downwards in some files, with a negative spacing
        None if section is None or isinstance(spacing, bool | str | None) else abs(spacing) * section,
        None if row is None or 0 in y_resolution else y_resolution[1] / y_resolution[0] * row,
        None if column is None or 0 in x_resolution else x_resolution[1] / x_resolution[0] * column,
    )


def from_ome(xml: str, image: int = 0) -> Lengths:
    """Return the edge lengths of one image of an OME-XML document.

    Parameters
    ----------
    xml : str
    image : int
        Number of the image in the document.
    """
    try:
        pixels = ElementTree.fromstring(xml).findall(".//{*}Pixels")
    except ElementTree.ParseError:
        pixels = []
    if image >= len(pixels):
        return None, None, None
    section, row, column = (_ome_length(pixels[image].attrib, axis) for axis in "ZYX")
    return plausible(section, row, column)


def _ome_length(attributes: Mapping[str, str], axis: str) -> float | None:
    scale = unit_in_nanometres(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        size = float(attributes[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return None if scale is None else size * scale


def from_microscope(
    fei: Mapping[str, Any], zeiss: Mapping[str, Any], tvips: Mapping[str, Any], sis: Mapping[str, Any]
) -> Lengths:
    """Return the pixel size in a microscope's own tag; the section thickness is not in it.

    Parameters
    ----------
    fei, zeiss, tvips, sis : mapping
        As tifffile parses them: `fei_metadata`, `sem_metadata`, `tvips_metadata`, `sis_metadata`; empty without the
        tag.
    """
    scan = fei.get("Scan", {})
    pixel: Sequence[Any] = zeiss.get("ap_image_pixel_size") or zeiss.get("ap_pixel_size") or ()
    if len(pixel) == 3 and (unit := unit_in_nanometres(str(pixel[2]))) is not None:
        return plausible(None, *[_number(pixel[1], unit)] * 2)
    for row, column, unit in (
        (scan.get("PixelHeight"), scan.get("PixelWidth"), 1e9),
        (tvips.get("PixelSizeY"), tvips.get("PixelSizeX"), 1.0),
        (sis.get("pixelsizey"), sis.get("pixelsizex"), 1e9),
    ):
        found = plausible(None, _number(row, unit), _number(column, unit))
        if found != (None, None, None):
            return found
    return None, None, None


def from_attributes(attributes: Mapping[str, Any]) -> list[float | None] | None:
    """Return the edge lengths in the attributes of an HDF5 or Zarr array, in nanometres and in the order stored.

    `element_size_um` (Fiji, ilastik, PlantSeg) is in micrometres. `resolution` (CREMI) and `voxel_size` (funlib) are
    in nanometres, unless `units` or `unit` names another unit of length; where it names none, the length is None, as is
    one that no microscope has. Of several attributes the one with most lengths counts; without any, the result is None.
    """
    named = attributes.get("units", attributes.get("unit", "nm"))
    best: list[float | None] | None = None
    for name in ("element_size_um", "resolution", "voxel_size"):
        try:
            values = [float(value) for value in attributes[name]]
            if name == "element_size_um":
                units = ["um"] * len(values)
            elif isinstance(named, str | bytes):
                units = [_text(named)] * len(values)
            else:
                units = list(map(_text, named))
            scales = map(unit_in_nanometres, units)
            found = [_plausible_length(*one) for one in zip(values, scales, strict=True)]
        except (KeyError, TypeError, ValueError):
            continue
        if _count(found) > _count(best or []):
            best = found
    return best


def _plausible_length(value: float, scale: float | None) -> float | None:
    return plausible(None if scale is None else value * scale, None, None)[0]


def _count(lengths: Sequence[float | None]) -> int:
    return sum(length is not None for length in lengths)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: object, unit: float) -> float | None:
    return float(value) * unit if isinstance(value, int | float) else None


def plausible(section: float | None, row: float | None, column: float | None) -> Lengths:
    """Drop lengths that no microscope has."""
    first, second, third = (
        length if length is not None and SHORTEST <= length <= LONGEST else None
        for length in (section, row, column)
    )
    return first, second, third


def complete(lengths: Lengths) -> VoxelSize | None:
    """Return the voxel size if all three lengths are known.

    Examples
    --------
    >>> complete((50.0, 4.6, 4.6)), complete((None, 4.6, 4.6))
    ((50.0, 4.6, 4.6), None)
    """
    section, row, column = lengths
    return None if section is None or row is None or column is None else (section, row, column)
