"""Streaming prediction: sections in, foreground probabilities out, with a few sections in memory.

    section j ──read (thread)──normalise──encode──┐
                                                  ├─ decode pair (j − stride, j) ─ add to both ─ section j − stride done
    section j − stride, its features kept ────────┘

Every section is in two pairs, as second and as first (DA-ISC); both predictions are averaged. Its features are computed
once and kept until its last pair, where they fit in memory. A batch size above 1 takes as many sections together.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from mitoda.data.filled import FilledVolume
from mitoda.errors import is_out_of_memory
from mitoda.inference.predictor import LazyFeatures, SectionPredictor, batched
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.tiling import plan_pairs
from mitoda.models.model import Model
from mitoda.models.pair_networks import SectionFeatures
from mitoda.volumes import ArrayVolume, Volume
from mitoda.volumes.voxel_size import known_voxel_size

Item = TypeVar("Item")

FEATURES_LIMIT = 2 * 2**30
"""Bytes of features kept between the two visits of a section; above it they are computed a second time, which makes
`codetection` a fifth slower. Eleven of Lucchi's sections wait at a time: 1.7 GB of features in bfloat16."""


def predict(
    volume: Volume,
    model: Model,
    settings: PredictionSettings = PredictionSettings(),
    start: int = 0,
    announce: Callable[[str], None] = lambda text: None,
    stop: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield the foreground probability of sections `start` to `stop`, float32, (rows, columns) of the volume.

    Padding and empty areas are filled with mirrored tissue, and have probability 0.
    Where memory runs out it continues with a smaller batch, then with smaller tiles.

    Parameters
    ----------
    volume : Volume
        Its voxel size must be known.
    model : Model
    settings : PredictionSettings
    start : int
        First section; the result does not depend on it.
    announce : callable
        Is given a sentence where something had to be changed.
    stop : int, optional
        The section after the last; only what these sections depend on is read.

    Raises
    ------
    InputError
        If the voxel size is unknown.

    Examples
    --------
    >>> from mitoda.models.model import load_model
    >>> from mitoda.volumes import ArrayVolume
    >>> stack = ArrayVolume(np.zeros((2, 64, 64), np.uint8), voxel_size=(50, 5, 5))
    >>> [probability.shape for probability in predict(stack, load_model("general", "cpu"))]
    [(64, 64), (64, 64)]
    """
    voxel_size = known_voxel_size(volume)
    filled = volume if isinstance(volume, FilledVolume) else FilledVolume(volume)
    smoothing = model.info.smoothing if settings.smoothing is None else settings.smoothing
    sigma = smoothing / voxel_size[0]
    stride = model.geometry.stride(voxel_size, volume.shape[0])
    scale = model.geometry.scale(voxel_size)
    following, stop = start, volume.shape[0] if stop is None else stop
    while True:
        predictor = SectionPredictor(model, volume.shape[1:], scale, settings)
        if settings.compiled:
            predictor.compile(announce)
        try:
            for section in _predict_from(predictor, filled, stride, sigma, following, stop):
                yield filled.tissue.clear(following, section)
                following += 1
            return
        except Exception as error:
            smaller = smaller_settings(predictor) if is_out_of_memory(error) else None
            if smaller is None:
                raise
            settings = smaller
        del predictor  # and with the error all tensors of its frames, before it is tried again
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        how = f"tiles of {settings.tile[0]}×{settings.tile[1]} pixels" if settings.tile else "smaller batches"
        announce(
            f"out of memory at section {following}: continuing there with {how} (batch {settings.batch_size})"
        )


def predict_section(volume: Volume, model: Model, section: int) -> np.ndarray:
    """Predict one section, without smoothing along the sections, at the cost of three: float32, (rows, columns)."""
    stride = model.geometry.stride(known_voxel_size(volume), volume.shape[0])
    near, index = neighbourhood(volume, section, stride, model.info.spacing)
    return list(predict(near, model, PredictionSettings(smoothing=0.0)))[index]


def neighbourhood(volume: Volume, k: int, stride: int, spacing: float) -> tuple[ArrayVolume, int]:
    """Cut section `k` and its partners `stride` sections away out of a volume, as neighbours `spacing` nm apart.

    Section `k` is then predicted as in the whole volume, at the cost of three sections.

    Returns
    -------
    ArrayVolume, int
        The sections, and which of them is `k`.
    """
    chosen = sorted({n for n in (k - stride, k, k + stride) if 0 <= n < volume.shape[0]})
    voxel_size = volume.voxel_size
    if voxel_size is not None:
        voxel_size = (spacing, *voxel_size[1:])
    return ArrayVolume(np.stack([volume.read(n) for n in chosen]), voxel_size, volume.name), chosen.index(k)


def _predict_from(
    predictor: SectionPredictor, volume: Volume, stride: int, sigma: float, start: int, stop: int
) -> Generator[np.ndarray, None, None]:
    """Predict sections `start` to `stop`, and those that smoothing needs around them."""
    reach = smoothing_reach(sigma)
    first, last = max(0, start - reach), min(stop + reach, volume.shape[0])
    with closing(predict_maps(predictor, volume, stride, first, last)) as maps:
        smooth = islice(smooth_along_sections(maps, sigma, first, start), stop - start)
        finished = map(predictor.finish, smooth)
        yield from (section() for section in delayed(finished, 1 if predictor.device.type == "cuda" else 0))


def delayed(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Pass items on, each after `count` more have been taken."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def smaller_settings(predictor: SectionPredictor) -> PredictionSettings | None:
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
    predictor: SectionPredictor, volume: Volume, stride: int, start: int = 0, stop: int | None = None
) -> Generator[Tensor, None, None]:
    """Yield the foreground probability of sections `start` to `stop` on the predictor's padded output grid.

    Both visits of a section are averaged. See `predict`.
    """
    wanted = range(start, volume.shape[0] if stop is None else stop)
    ending: dict[int, list[tuple[int, int]]] = {}
    for pair in plan_pairs(volume.shape[0], stride):
        if pair[0] in wanted or pair[1] in wanted:
            ending.setdefault(pair[1], []).append(pair)
    last_use = {k: second for second, pairs in ending.items() for pair in pairs for k in pair}
    kept: dict[int, list[SectionFeatures]] = {}
    prepared: dict[int, Tensor] = {}
    sums: dict[int, tuple[Tensor, int]] = {}
    following = start
    # Closed explicitly: an error that is kept would keep the generator, and with it the thread.
    with closing(
        read_ahead(
            ((k, predictor.prepare(volume.read(k))) for k in sorted(last_use)), 1 if predictor.is_large else 2
        )
    ) as sections_ahead:
        for group in batched(sections_ahead, predictor.batch_size):
            last = group[-1][0]
            features = _encode(predictor, dict(group))
            fitting = {
                k: encoded
                for k, encoded in features.items()
                if isinstance(encoded, list) and (stride + len(group)) * _bytes(encoded) <= FEATURES_LIMIT
            }
            kept |= fitting
            prepared |= {k: section for k, section in group if k not in fitting}
            pairs = [pair for k, _ in group for pair in ending.get(k, [])]
            again = sorted({k for pair in pairs for k in pair} - features.keys() - kept.keys())
            features |= _encode(predictor, {k: prepared[k] for k in again})
            features |= kept
            predicted = predictor.decode([(features[a], features[b]) for a, b in pairs])
            del features, fitting, group
            done = [k for k in (*kept, *prepared) if last_use[k] <= last]
            for k in done:  # before the maps are used, which takes memory too
                kept.pop(k, None)
                prepared.pop(k, None)
            for pair, maps in zip(pairs, predicted, strict=True):
                for k, probability in zip(pair, maps, strict=True):
                    if k in wanted:
                        total, visits = sums.get(k, (0.0, 0))
                        sums[k] = (total + probability, visits + 1)
            while following < wanted.stop and last_use[following] <= last:
                total, visits = sums.pop(following)
                yield total / visits
                following += 1


def _encode(
    predictor: SectionPredictor, prepared: dict[int, Tensor]
) -> dict[int, list[SectionFeatures] | LazyFeatures]:
    """Encode prepared sections, all at once unless they are large."""
    if predictor.is_large:
        return {k: LazyFeatures(predictor, section) for k, section in prepared.items()}
    encoded = predictor.encode(list(prepared.values()))
    return dict(zip(prepared, encoded, strict=True))


def _bytes(features: list[SectionFeatures]) -> int:
    return sum(tensor.numel() * tensor.element_size() for section in features for tensor in section)


def smoothing_reach(sigma: float) -> int:
    """Sections on either side that a Gaussian of `sigma` sections reaches: three standard deviations.

    0 below σ = 0.2, where the next section would have a weight under 4e-6.
    """
    return math.ceil(3 * sigma) if sigma >= 0.2 else 0


def smooth_along_sections(maps: Iterable[Tensor], sigma: float, first: int, start: int) -> Iterator[Tensor]:
    """Smooth maps by a Gaussian of `sigma` sections as they come; yield those of sections `start`, `start` + 1, ….

    At the ends of the stack the weights of the existing sections are scaled to a sum of 1.

    Parameters
    ----------
    maps : iterable of Tensor
        Of sections `first`, `first` + 1, … to the last.
    first : int
        0, or at most `start` − `smoothing_reach(sigma)`.
    """
    reach = smoothing_reach(sigma)
    if reach == 0:
        yield from (one for number, one in enumerate(maps, first) if number >= start)
        return
    window: deque[tuple[int, Tensor]] = deque()
    centre = start

    def smoothed_at(centre: int) -> Tensor:
        while window[0][0] < centre - reach:
            window.popleft()
        near = [
            (math.exp(-0.5 * ((number - centre) / sigma) ** 2), one)
            for number, one in window
            if number <= centre + reach
        ]
        total = sum(weight for weight, _ in near)
        result = near[0][1] * (near[0][0] / total)
        for weight, one in near[1:]:
            result = result.add(one, alpha=weight / total)
        return result

    number = first - 1
    for number, one in enumerate(maps, first):
        window.append((number, one))
        if number - reach >= start:
            yield smoothed_at(centre)
            centre += 1
    while centre <= number:
        yield smoothed_at(centre)
        centre += 1


def read_ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Run an iterator on another thread, at most `depth` items ahead; its error is raised here."""
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="mitoda-read-ahead")
    try:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield cast(Item, item)
    finally:
        pool.shutdown(cancel_futures=True)
