"""Prediction of a whole target volume, which a method turns into pseudo labels.

Here inter-section consistency is enforced over the whole stack: what the network predicts of a section is averaged with
what it predicts of the sections a few nanometres away.
"""

import math
from collections.abc import Collection
from contextlib import closing

import numpy as np

from mitoda.data.pairs import Pairs
from mitoda.data.probability_volume import CoarseVolume
from mitoda.inference.predictor import SectionPredictor
from mitoda.inference.streaming import predict_maps, smooth_along_sections, smoothing_reach
from mitoda.models.model import Model
from mitoda.volumes import Volume

VOXELS_LIMIT = 40_000_000
"""Grid voxels labelled at a time, in about 100 s on two cores; of a larger volume a slab is, another one each round."""
PAINTED_LIMIT = 4_000_000
"""The same with painted labels, whose run takes three minutes: labelled in about ten seconds on two cores."""


def choose_slab(sections: int, pixels: int, stride: int, seed: int, limit: int) -> range:
    """Choose which sections to label: all, or a slab at a random place where all would be too many.

    Parameters
    ----------
    sections, pixels : int
        Of the volume, and of a section on the network's output grid.
    stride : int
        Sections between the two of a pair; the slab holds several pairs.
    seed : int
    limit : int
        Voxels of the grid.
    """
    depth = max(2 * stride, 2, min(sections, limit // max(pixels, 1)))
    start = int(np.random.default_rng(seed).integers(0, max(sections - depth, 0) + 1))
    return range(start, min(start + depth, sections))


def sections_near(painted: Collection[int], pairs: Pairs, grid: int) -> range | None:
    """Choose sections around painted ones that are labelled soon; None where sections are too large for that.

    Parameters
    ----------
    painted : collection of int
        Numbers of the painted sections.
    pairs : Pairs
        Of the stack.
    grid : int
        Side of the network's output pixels in working pixels.
    """
    sections, *sides = pairs.volume.shape
    cells = math.prod(side / (factor * grid) for side, factor in zip(sides, pairs.scale, strict=True))
    depth = min(sections, max(pairs.stride + 1, int(PAINTED_LIMIT / cells)))
    if depth * cells > 2 * PAINTED_LIMIT:
        return None
    middle = sorted(painted)[len(painted) // 2]
    start = min(max(0, middle - depth // 2), sections - depth)
    return range(start, start + depth)


def predict_coarse(
    model: Model,
    volume: Volume,
    stride: int,
    *,
    smoothing: float,
    within: range | None = None,
    seed: int = 0,
) -> CoarseVolume:
    """Predict a volume (or a slab) on the network's output grid, smoothed along the sections.

    Parameters
    ----------
    stride : int
        Sections between the two of a pair.
    smoothing : float
        Standard deviation of the Gaussian along the sections, in nanometres.
    within : range, optional
        Sections to predict; by default all, or a slab where the volume is too large.
    seed : int
        Chooses the slab.
    """
    if volume.voxel_size is None:
        raise ValueError(f"the voxel size of {volume.name} is unknown")
    network, geometry = model.network, model.geometry
    scale = geometry.scale(volume.voxel_size)
    predictor = SectionPredictor(model, volume.shape[1:], scale)
    rows, columns = (math.ceil(size / network.grid) for size in predictor.working)
    slab = (
        choose_slab(volume.shape[0], rows * columns, stride, seed, VOXELS_LIMIT) if within is None else within
    )
    probabilities = np.empty((len(slab), rows, columns), np.uint8)
    sigma = smoothing / volume.voxel_size[0]
    stop = min(slab.stop + smoothing_reach(sigma), volume.shape[0])
    with closing(predict_maps(predictor, volume, stride, slab.start, stop)) as maps:
        smoothed = smooth_along_sections(maps, sigma, slab.start, slab.start)
        for index, one in zip(range(len(slab)), smoothed, strict=False):
            probabilities[index] = (one[:rows, :columns] * 255).round().byte().cpu().numpy()
    cell = (network.grid * scale[0], network.grid * scale[1])
    size = (volume.voxel_size[0], network.grid * geometry.pixel[0], network.grid * geometry.pixel[1])
    return CoarseVolume(probabilities, slab.start, cell, size)
