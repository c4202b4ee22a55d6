"""Pseudo labels from a whole volume: predict it, smooth along the sections, find the boundary's level, drop crumbs.

This is where inter-section consistency is enforced over the stack and not within one pair: what a network believes of a
section is averaged with what it believes of the neighbours a few nanometres away, and what is left of it in three
dimensions must be as large as a mitochondrion can be.
"""

import math
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from mitoda.data.geometry import Geometry
from mitoda.data.probability_volume import CoarseVolume, to_pixels
from mitoda.inference.predictor import InferenceSettings, SectionPredictor
from mitoda.inference.smoothing import smooth_along_sections
from mitoda.inference.streaming import predict_maps
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork
from mitoda.postprocessing.membrane_snapping import MembraneSnapping
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


class ImageBoundary:
    """Where the images of a volume say that a prediction of it should end; see `methods.method.TargetBoundary`.

    Images are read when first asked for, once.

    Parameters
    ----------
    coarse : CoarseVolume
        The prediction.
    volume : Volume
        The images.
    """

    def __init__(self, coarse: CoarseVolume, volume: Volume) -> None:
        self.coarse = coarse
        self.volume = volume

    @cached_property
    def snapping(self) -> MembraneSnapping:
        """Grey values on the contours of the prediction."""
        thickness, height, width = self.coarse.voxel_size
        pixel = (height / self.coarse.cell[0], width / self.coarse.cell[1])
        snapping = MembraneSnapping(self.coarse.cell, (thickness, *pixel))
        for index, one in enumerate(self.coarse.probabilities):
            grey = self.volume.read(self.coarse.first_section + index)
            levels = np.rint(to_pixels(self.coarse, index, grey.shape) * 255).astype(np.uint8)
            snapping.add(grey, levels, one >= CORE)
        return snapping

    def level(self, fallback: float) -> float:
        """One level for the whole volume: where the contours of all mitochondria together are darkest."""
        level = self.snapping.curves.overall
        return fallback if level is None else level

    def snapped(self, reference: float) -> CoarseVolume:
        """The prediction, shifted until the level whose contour is darkest is `reference` at each place."""
        moved = np.empty_like(self.coarse.probabilities)
        for index, one in enumerate(self.coarse.probabilities):
            shifts = np.rint(self.snapping.shifts(index, one >= CORE, reference) * 255)
            moved[index] = np.where(one > 0, (one + shifts).clip(0, 255), 0)
        return replace(self.coarse, probabilities=moved)
