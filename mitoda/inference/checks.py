"""Whether a stack and its mask look as they should."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from mitoda.data.filled import FilledVolume, TissueMap
from mitoda.data.geometry import Geometry
from mitoda.volumes import ArrayVolume, Volume, VoxelSize
from mitoda.volumes.volume import stated_lengths

ASSUMED_PIXEL_NM = 5.0
"""To check the contrast of a stack without a voxel size."""
SHOWN = 10
"""Constant sections that a warning names."""
OBLONG = 2.0
"""Times that a pixel's longer side may be the shorter one without a warning."""
MIDDLE = 2048
"""Largest side, in pixels, of the middle of a section whose contrast is checked."""
MOST_VALUES = 2**22
"""Grey values of a section that its share of the median is taken from."""
SMALLEST_PIXEL_NM = 0.5
"""Smaller pixels are taken for this size when the contrast is checked: a wider blur would take minutes."""


def contrast_looks_inverted(section: np.ndarray, pixel_nm: float) -> bool:
    """Whether thin structures are bright, which are dark in electron micrographs of stained tissue.

    Membranes and cristae, dark and thin, make the skewness of a difference of Gaussians (σ = 10 and 40 nm) negative.
    Measured: VNC III −0.31 to −0.25, Lucchi −0.21 to −0.12; inverted, with the other sign.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
    pixel_nm : float
        Pixel size.
    """
    section = section[middle_of(section.shape)]
    # Hot and dead pixels are thin and bright or dark too.
    low, high = np.percentile(section[::4, ::4], (0.2, 99.8))
    values = section.astype(np.float32).clip(low, high)
    pixel_nm = max(pixel_nm, SMALLEST_PIXEL_NM)
    thin = ndimage.gaussian_filter(values, 10 / pixel_nm) - ndimage.gaussian_filter(values, 40 / pixel_nm)
    thin -= thin.mean()
    deviation = float(thin.std())
    return deviation > 0 and float((thin**3).mean()) / deviation**3 > 0.05


def middle_of(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the middle of a section, at most `MIDDLE` of each."""
    rows, columns = (slice(max(0, (size - MIDDLE) // 2), (size + MIDDLE) // 2) for size in shape)
    return rows, columns


def mask_warnings(
    volume: FilledVolume, voxel_size: VoxelSize, geometry: Geometry, found: float, left: float
) -> Iterator[str]:
    """Warn about a stack and its mask; `found` and `left` are its foreground before and after removing components."""
    yield from _tissue_warnings(volume.tissue, volume.shape[0])
    yield from result_warnings(volume, voxel_size, geometry, found, left)


def result_warnings(
    volume: Volume, voxel_size: VoxelSize, geometry: Geometry, found: float, left: float
) -> Iterator[str]:
    """Warn about a mask as `mask_warnings` does, from one section of the stack."""
    sections = volume.shape[0]
    if contrast_looks_inverted(volume.read(sections // 2), voxel_size[1]):
        yield "the contrast looks inverted (thin structures bright on dark); if membranes are bright, give --invert"
    if found == 0:
        yield (
            "the mask is empty: no pixel reached the threshold. Check the voxel size (--voxel-size) and the contrast "
            "(--invert), or adapt to this volume with 'mitoda adapt --target'"
        )
    elif left == 0:
        yield "the mask is empty: every component is smaller than --min-size"
    elif left > 0.5:
        yield f"{left:.0%} of the volume is foreground, more than any tissue has; check --voxel-size and --invert"
    apart = geometry.stride(voxel_size, sections) * voxel_size[0]
    if sections == 1:
        yield "the volume is a single section, which is paired with itself: no neighbour helps to predict it"
    elif not 0.5 <= apart / geometry.spacing <= 2:
        yield (
            f"the sections of a pair are {apart:g} nm apart here and were {geometry.spacing:g} nm apart in training; "
            "the mask may be less accurate"
        )


def oblong_pixels(voxel_size: VoxelSize) -> str:
    """Warn about pixels that are much longer than wide; empty if they are not.

    Examples
    --------
    >>> oblong_pixels((50, 5, 5))
    ''
    """
    rows, columns = voxel_size[1:]
    if max(rows, columns) <= OBLONG * min(rows, columns):
        return ""
    return (
        f"pixels are {rows:g} × {columns:g} nm, though microscopes make square ones; voxel sizes are given in the "
        "order Z Y X: section thickness, then pixel size along rows and columns"
    )


def _tissue_warnings(tissue: TissueMap, sections: int) -> Iterator[str]:
    """Tell which sections are constant, and how much of the stack is not tissue."""
    findings = [tissue.findings(section) for section in range(sections)]
    constant = {k: one.constant for k, one in enumerate(findings) if one.constant is not None}
    for section in list(constant)[:SHOWN]:
        mask = "that of the nearest section" if tissue.is_lost(section) else "0"
        yield f"section {section} is constant (all its pixels are {constant[section]:g}): its mask is {mask}"
    if len(constant) > SHOWN:
        yield f"{len(constant) - SHOWN} more sections are constant"
    outside = sum(one.share for one in findings) / sections
    if outside > 0:
        yield (
            f"{_percent(outside)} of the stack is padding, labels or empty: there the mask is 0, and the network sees "
            "mirrored tissue"
        )
    hot = sum(one.hot for one in findings) / sections
    if hot > 0:
        yield (
            f"{_percent(hot)} of the stack is hot pixels, isolated and far brighter or darker than all others; for the "
            "network they were replaced by pixels near them"
        )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def inspect_volume(volume: Volume) -> dict[str, Any]:
    """Describe a volume from its first, middle and last section.

    Returns
    -------
    dict
        name, sections, rows, columns, dtype, voxel_size_nm (None where unknown), grey values (least, median,
        greatest) and whether the contrast of any of them looks inverted.
    """
    sections, rows, columns = volume.shape
    least, median, greatest, middles = [], [], [], []
    for k in _three(sections):
        section = volume.read(k)
        least.append(section.min())
        greatest.append(section.max())
        median.append(section[:: math.ceil(section.size / MOST_VALUES)].copy())
        middles.append(section[middle_of(section.shape)].copy())
        del section  # before the next is read: it may be large
    stated = stated_lengths(volume)
    pixel_nm = stated[1] or ASSUMED_PIXEL_NM
    middle = ArrayVolume(np.stack(middles), name=volume.name)
    filled = FilledVolume(middle, TissueMap(middle, (pixel_nm, pixel_nm)))
    return {
        "name": volume.name,
        "sections": sections,
        "rows": rows,
        "columns": columns,
        "dtype": str(volume.dtype),
        "voxel_size_nm": list(stated) if any(stated) else None,
        "least_grey_value": float(min(least)),
        "median_grey_value": float(np.median(np.concatenate(median))),
        "greatest_grey_value": float(max(greatest)),
        "contrast_looks_inverted": any(
            contrast_looks_inverted(filled.read(k), pixel_nm) for k in range(middle.shape[0])
        ),
    }


def _three(sections: int) -> list[int]:
    """First, middle and last section."""
    return sorted({0, sections // 2, sections - 1})
