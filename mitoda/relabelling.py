"""Pseudo labels from a whole volume: predict it, smooth along the sections, find the boundary's level, drop crumbs.

This is where inter-section consistency is enforced over the stack and not within one pair: what a network believes of a
section is averaged with what it believes of the neighbours a few nanometres away, and what is left of it in three
dimensions must be as large as a mitochondrion can be.
"""

import math
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from mitoda.coarse import LEVELS, CoarseVolume, contour_darkness, darkest_level, to_pixels
from mitoda.geometry import Geometry
from mitoda.inference import predict_maps
from mitoda.networks import Backbone, PairNetwork
from mitoda.predictor import InferenceSettings, SectionPredictor
from mitoda.rings import Rings
from mitoda.smoothing import smooth_along_sections
from mitoda.volumes import Volume

CORE = 128
"""Probability × 255 from which a grid voxel belongs to a component whose own boundary is sought."""
VOXELS_LIMIT = 400_000_000
"""Grid voxels labelled at a time (400 MB); of a larger volume a slab of sections is, another one each round."""


def choose_slab(sections: int, pixels: int, seed: int, limit: int = VOXELS_LIMIT) -> range:
    """Choose which sections to label: all, or a slab at a random place where all would be too many."""
    depth = max(2, min(sections, limit // max(pixels, 1)))
    start = int(np.random.default_rng(seed).integers(0, max(sections - depth, 0) + 1))
    return range(start, min(start + depth, sections))


def predict_coarse(
    network: PairNetwork,
    backbone: Backbone,
    geometry: Geometry,
    volume: Volume,
    stride: int,
    device: torch.device,
    *,
    smoothing: float,
    bfloat16: bool = False,
    seed: int = 0,
) -> CoarseVolume:
    """Predict a volume (or a slab) on the network's output grid, smoothed along the sections.

    Parameters
    ----------
    stride : int
        Sections between the two of a pair.
    smoothing : float
        Standard deviation of the Gaussian along the sections, in nanometres.
    seed : int
        Chooses the slab where the volume is too large.
    """
    if volume.voxel_size is None:
        raise ValueError(f"the voxel size of {volume.name} is unknown")
    scale = geometry.scale(volume.voxel_size)
    predictor = SectionPredictor(
        network, backbone, volume.shape[1:], scale, InferenceSettings(bfloat16=bfloat16), device
    )
    rows, columns = (math.ceil(size / network.grid) for size in predictor.working)
    slab = choose_slab(volume.shape[0], rows * columns, seed)
    probabilities = np.empty((len(slab), rows, columns), np.uint8)
    sigma = smoothing / volume.voxel_size[0]
    with closing(predict_maps(predictor, volume, stride, slab.start)) as maps:
        smoothed = smooth_along_sections(maps, sigma, slab.start, slab.start)
        for index, one in zip(range(len(slab)), smoothed, strict=False):
            probabilities[index] = (one[:rows, :columns] * 255).round().byte().cpu().numpy()
    cell = (network.grid * scale[0], network.grid * scale[1])
    size = (volume.voxel_size[0], network.grid * geometry.pixel[0], network.grid * geometry.pixel[1])
    return CoarseVolume(probabilities, slab.start, cell, size)


@dataclass(frozen=True)
class ImageBoundary:
    """Where the images of a volume say that a prediction of it should end; see `methods.method.TargetBoundary`."""

    coarse: CoarseVolume
    volume: Volume

    def level(self, fallback: float) -> float:
        """One level for the whole volume."""
        return calibrate_level(self.coarse, self.volume, fallback)

    def snapped(self, reference: float) -> CoarseVolume:
        """A level for each component, moved to `reference`; see `rings`."""
        return snap_to_rings(self.coarse, self.volume, reference)


def snap_to_rings(coarse: CoarseVolume, volume: Volume, reference: float) -> CoarseVolume:
    """Shift probabilities until the level whose contour is darkest is `reference`, for each component on its own.

    Parameters
    ----------
    volume : Volume
        The images.
    """
    thickness, height, width = coarse.voxel_size
    pixel = (height / coarse.cell[0], width / coarse.cell[1])
    rings = Rings(coarse.cell, (thickness, *pixel), reference)
    for index, cells in enumerate(coarse.probabilities >= CORE):
        grey = volume.read(coarse.first_section + index)
        rings.add(grey, np.rint(to_pixels(coarse, index, grey.shape) * 255).astype(np.uint8), cells)
    moved = np.empty_like(coarse.probabilities)
    for index, one in enumerate(coarse.probabilities):
        shifts = np.rint(rings.shifts(index, one >= CORE) * 255)
        moved[index] = np.where(one > 0, (one + shifts).clip(0, 255), 0)
    return replace(coarse, probabilities=moved)


def calibrate_level(coarse: CoarseVolume, volume: Volume, fallback: float, samples: int = 16) -> float:
    """Find the boundary's level in a volume without labels, from the dark ring that outer membranes make.

    Parameters
    ----------
    coarse : CoarseVolume
    volume : Volume
        The images.
    fallback : float
        Where there is no clear ring.
    samples : int
        Sections to look at, evenly spaced.
    """
    depth = coarse.probabilities.shape[0]
    sums, counts = np.zeros(len(LEVELS)), np.zeros(len(LEVELS))
    for index in np.unique(np.linspace(0, depth - 1, samples).round().astype(int)):
        grey = volume.read(coarse.first_section + int(index)).astype(np.float32)
        grey = (grey - grey.mean()) / max(float(grey.std()), 1e-6)
        more_sums, more_counts = contour_darkness(grey, to_pixels(coarse, int(index), grey.shape))
        sums, counts = sums + more_sums, counts + more_counts
    return darkest_level(sums, counts, 1.0, fallback)
