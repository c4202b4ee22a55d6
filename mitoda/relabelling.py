"""Pseudo labels from a whole volume: predict it, smooth along the sections, find the boundary's level, drop crumbs.

This is where inter-section consistency is enforced over the stack and not within one pair: what a network believes of a
section is averaged with what it believes of the neighbours a few nanometres away, and what is left of it in three
dimensions must be as large as a mitochondrion can be.
"""

import math
from contextlib import closing

import numpy as np
import torch

from mitoda.coarse import LEVELS, CoarseVolume, contour_darkness, darkest_level, to_pixels
from mitoda.geometry import Geometry
from mitoda.inference import predict_maps
from mitoda.networks import Backbone, PairNetwork
from mitoda.predictor import InferenceSettings, SectionPredictor
from mitoda.smoothing import smooth_along_sections
from mitoda.volumes import Volume

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
