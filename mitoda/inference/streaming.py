"""Streaming prediction: sections in, sections of foreground probability out, in memory that a few sections fill.

    section j ──read (thread)──normalise──encode──┐
                                                  ├─ decode pair (j − stride, j) ─ add to both ─ section j − stride done
    section j − stride, its features kept ────────┘

Every section is in two pairs, as second and as first (DA-ISC; both visits are averaged). Its features are computed once
and kept until its last pair, where they fit in memory. With a batch size above 1, as many sections are taken together.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mitoda.data.geometry import Geometry
from mitoda.errors import InputError, is_out_of_memory
from mitoda.inference.predictor import InferenceSettings, SectionPredictor, batched
from mitoda.inference.prefetch import read_ahead
from mitoda.inference.smoothing import smooth_along_sections, smoothing_reach
from mitoda.inference.tiling import plan_pairs
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork, SectionFeatures
from mitoda.volumes import Volume

Item = TypeVar("Item")

FEATURES_LIMIT = 2 * 2**30
"""Bytes of features kept between the two visits of a section; above it they are computed a second time, which makes
`codetection` a fifth slower. Eleven of Lucchi's sections wait at a time: 1.7 GB of features in bfloat16."""


def check_volume(volume: Volume) -> tuple[float, float, float]:
    """Return the volume's voxel size; InputError where nobody has said it."""
    if volume.voxel_size is None:
        raise InputError(
            f"the voxel size of {volume.name} is not in its metadata; give --voxel-size Z Y X in nanometres "
            "(section thickness, then pixel size along rows and columns, e.g. --voxel-size 50 4.6 4.6)"
        )
    return volume.voxel_size


def predict_sections(
    network: PairNetwork,
    backbone: Backbone,
    geometry: Geometry,
    volume: Volume,
    settings: InferenceSettings,
    device: torch.device,
    start: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> Iterator[np.ndarray]:
    """Yield the foreground probability of section `start`, `start` + 1, …, float32 in the volume's own pixels.

    Where memory runs out it goes on with a smaller batch, then with smaller tiles, and says so.

    Parameters
    ----------
    network : PairNetwork
    backbone : Backbone
        The network's recipe.
    geometry : Geometry
        Pixel size and pair spacing the network was trained at.
    volume : Volume
        Its voxel size must be known.
    start : int
        First section wanted; what comes out does not depend on it.
    announce : callable
        Gets a sentence for the person where something had to be changed.

    Raises
    ------
    InputError
        If the voxel size is unknown.
    """
    voxel_size = check_volume(volume)
    sigma = settings.smoothing / voxel_size[0]
    stride = geometry.stride(voxel_size, volume.shape[0])
    following = start
    while True:
        scale = geometry.scale(voxel_size)
        predictor = SectionPredictor(network, backbone, volume.shape[1:], scale, settings, device)
        if settings.compiled:
            predictor.compile(announce)
        first = max(0, following - smoothing_reach(sigma))
        try:
            for section in _predict_from(predictor, volume, stride, sigma, first, following):
                yield section
                following += 1
            return
        except Exception as error:
            smaller = smaller_settings(predictor) if is_out_of_memory(error) else None
            if smaller is None:
                raise
            settings = smaller
        del predictor  # and with the error all tensors of its frames, before it is tried again
        if device.type == "cuda":
            torch.cuda.empty_cache()
        how = f"tiles of {settings.tile[0]}×{settings.tile[1]} pixels" if settings.tile else "smaller batches"
        announce(
            f"out of memory at section {following}: going on there with {how} (batch {settings.batch_size})"
        )


def _predict_from(
    predictor: SectionPredictor, volume: Volume, stride: int, sigma: float, first: int, start: int
) -> Generator[np.ndarray, None, None]:
    """Predict from section `first`, smooth, and yield from section `start`."""
    with closing(predict_maps(predictor, volume, stride, first)) as maps:
        finished = map(predictor.finish, smooth_along_sections(maps, sigma, first, start))
        yield from (section() for section in behind(finished, 1 if predictor.device.type == "cuda" else 0))


def behind(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Pass items on, each after `count` more have been taken."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def smaller_settings(predictor: SectionPredictor) -> InferenceSettings | None:
    """Settings that need about half the memory: half the batch, then half a tile; None where that is small already."""
    settings = replace(predictor.settings, batch_size=max(1, predictor.batch_size // 2))
    if predictor.batch_size > 1:
        return settings
    least = 4 * predictor.network.multiple
    rows, columns = predictor.tiling.tile
    if max(rows, columns) <= least:
        return None
    tile = (max(rows // 2, least), columns) if rows >= columns else (rows, max(columns // 2, least))
    return replace(settings, tile=tile)


def predict_maps(
    predictor: SectionPredictor, volume: Volume, stride: int, start: int = 0
) -> Generator[Tensor, None, None]:
    """Yield the foreground probability of section `start`, `start` + 1, … on the predictor's padded output grid.

    Both visits of a section are averaged. See `predict_sections`.
    """
    sections = volume.shape[0]
    ending: dict[int, list[tuple[int, int]]] = {}
    for pair in plan_pairs(sections, stride):
        if max(pair) >= start:
            ending.setdefault(pair[1], []).append(pair)
    last_use = {k: second for second, pairs in ending.items() for pair in pairs for k in pair}
    kept: dict[int, list[SectionFeatures]] = {}
    prepared: dict[int, Tensor] = {}
    sums: dict[int, tuple[Tensor, int]] = {}
    following = start
    # Closed here, not when the garbage is collected: an error that is kept would keep the thread.
    with closing(
        read_ahead((k, predictor.prepare(volume.read(k))) for k in sorted(last_use))
    ) as sections_ahead:
        for group in batched(sections_ahead, predictor.batch_size):
            last = group[-1][0]
            features = dict(zip((k for k, _ in group), predictor.encode([s for _, s in group]), strict=True))
            for k, section in group:
                if (stride + len(group)) * _bytes(features[k]) <= FEATURES_LIMIT:
                    kept[k] = features[k]
                else:
                    prepared[k] = section
            pairs = [pair for k, _ in group for pair in ending.get(k, [])]
            again = sorted({k for pair in pairs for k in pair} - features.keys() - kept.keys())
            features |= dict(zip(again, predictor.encode([prepared[k] for k in again]), strict=True))
            features |= kept
            predicted = predictor.decode([(features[a], features[b]) for a, b in pairs])
            del features, group
            for pair, maps in zip(pairs, predicted, strict=True):
                for k, probability in zip(pair, maps, strict=True):
                    total, visits = sums.get(k, (0.0, 0))
                    sums[k] = (total + probability, visits + 1)
            while following < sections and last_use[following] <= last:
                total, visits = sums.pop(following)
                yield total / visits
                following += 1
            for done in [k for k in (*kept, *prepared) if last_use[k] <= last]:
                kept.pop(done, None)
                prepared.pop(done, None)
                if done < start:
                    sums.pop(done, None)


def _bytes(features: list[SectionFeatures]) -> int:
    return sum(tensor.numel() * tensor.element_size() for section in features for tensor in section)
