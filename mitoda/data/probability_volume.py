"""A volume's foreground probabilities on the network's output grid, from which pseudo labels are made."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


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


def to_pixels(coarse: CoarseVolume, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate one map of a coarse volume to the pixels of its section, 0 to 1."""
    one = torch.from_numpy(coarse.probabilities[index].astype(np.float32) / 255)[None, None]
    whole = [round(cells * cell) for cells, cell in zip(one.shape[2:], coarse.cell, strict=True)]
    full = F.interpolate(one, whole, mode="bilinear", align_corners=False)[0, 0].numpy()
    rows, columns = shape
    if full.shape[0] < rows or full.shape[1] < columns:
        full = np.pad(full, ((0, max(0, rows - full.shape[0])), (0, max(0, columns - full.shape[1]))), "edge")
    return full[:rows, :columns]
