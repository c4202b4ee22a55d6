"""What can be told of a stack by looking at a few of its sections."""

from typing import Any

import numpy as np

from mitoda.inference.checks import contrast_looks_inverted
from mitoda.volumes import Volume

ASSUMED_PIXEL = 5.0
"""Nanometres, for the look at the contrast of a stack without a voxel size."""


def inspect_volume(volume: Volume) -> dict[str, Any]:
    """Describe a volume from its first, middle and last section.

    Returns
    -------
    dict
        name, sections, rows, columns, dtype, voxel_size_nm (or None), grey values (least, median, greatest) and
        whether the contrast looks inverted.
    """
    sections, rows, columns = volume.shape
    looked_at = np.stack([volume.read(k) for k in sorted({0, sections // 2, sections - 1})])
    pixel = volume.voxel_size[1] if volume.voxel_size else ASSUMED_PIXEL
    return {
        "name": volume.name,
        "sections": sections,
        "rows": rows,
        "columns": columns,
        "dtype": str(volume.dtype),
        "voxel_size_nm": list(volume.voxel_size) if volume.voxel_size else None,
        "least_grey_value": float(looked_at.min()),
        "median_grey_value": float(np.median(looked_at)),
        "greatest_grey_value": float(looked_at.max()),
        "contrast_looks_inverted": any(contrast_looks_inverted(section, pixel) for section in looked_at),
    }
