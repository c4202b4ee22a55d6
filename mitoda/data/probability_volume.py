"""A volume's foreground probabilities on the network's output grid, and what can be read from them.

What pseudo labels are made of: probabilities of a whole stack, whose three-dimensional components have a size in nm³
and whose contours, at any level, run through the images somewhere.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from mitoda.data.geometry import component_limit


@dataclass(frozen=True)
class CoarseVolume:
    """Foreground probabilities of a slab of a volume on the network's output grid."""

    probabilities: np.ndarray
    """(sections, h, w), uint8: probability × 255."""
    first_section: int
    cell: tuple[float, float]
    """Volume pixels per grid pixel, along rows and columns."""
    voxel_size: tuple[float, float, float]
    """Of a grid voxel, nanometres."""


def without_crumbs(coarse: CoarseVolume, level: float, volume_nm3: float) -> np.ndarray:
    """Return the probabilities with components over `level` that are smaller than a volume set to 0.

    Components touch along faces, edges and corners.

    Parameters
    ----------
    volume_nm3 : float
        Cubic nanometres; what the stack cuts off counts only as far as it is in it.
    """
    above = coarse.probabilities >= round(level * 255)
    labels, count = ndimage.label(above, np.ones((3, 3, 3), bool))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    small = sizes < component_limit(volume_nm3, coarse.voxel_size, len(above))
    small[0] = False
    return np.where(small[labels], np.uint8(0), coarse.probabilities)


def to_pixels(coarse: CoarseVolume, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate one map of a coarse volume to the pixels of its section, 0 to 1."""
    one = torch.from_numpy(coarse.probabilities[index].astype(np.float32) / 255)[None, None]
    whole = [round(cells * cell) for cells, cell in zip(one.shape[2:], coarse.cell, strict=True)]
    full = F.interpolate(one, whole, mode="bilinear", align_corners=False)[0, 0].numpy()
    rows, columns = shape
    if full.shape[0] < rows or full.shape[1] < columns:
        full = np.pad(full, ((0, max(0, rows - full.shape[0])), (0, max(0, columns - full.shape[1]))), "edge")
    return full[:rows, :columns]
