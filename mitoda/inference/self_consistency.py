"""Scores of a network that need no labels: does it agree with itself on the volume it adapts to?

They are computed on the adaptation half only, for each checkpoint kept, and logged; nothing is selected by them.
The published logs of DA-ISC show a training-time consistency that ranks checkpoints the wrong way round once the common
trend in time is removed (Spearman +0.05 to +0.35 between loss and Dice, four tasks). `mitoda bench --keep` measures
whether any of these is better.

    two contexts   section k predicted as second of (k − n, k) and as first of (k, k + n): Dice
    residual       XOR of the two masks of a pair against the network's own residual: IoU
    student–EMA    the averaged network against the current one: Dice
    entropy        mean entropy of a pixel, in bits; with `diversity`, the entropy of the mean pixel, it makes the
                   mutual information of information maximisation
    foreground     share of pixels that are foreground, and whether it is 0.3 to 3 times the source's
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mitoda.data.pairs import LabelledPairs, PaintedPairs, UnlabelledPairs
from mitoda.errors import InputError
from mitoda.inference.predictor import SectionPredictor, foreground
from mitoda.inference.settings import PredictionSettings
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork

THRESHOLD = 0.5
"""Probability from which a pixel counts as foreground here."""
FOREGROUND_RANGE = (0.3, 3.0)
"""Share of foreground, as a multiple of the source's, that a usable network keeps within."""
EMPTY = 1e-4
"""Share of foreground below which a result counts as empty."""
FLOOD = 0.5
"""Share of foreground above that of any tissue."""
PATCH = 512
"""Largest side of a sample, in working pixels."""
SCORES = ("two_context_dice", "residual_iou", "student_ema_dice", "entropy", "diversity", "foreground")
"""The numbers among the scores; `foreground_ok` beside them is a claim."""


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of two masks; NaN where both are empty.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    return _ratio(2 * _count(one & other), _count(one) + _count(other))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two masks; NaN where both are empty."""
    return _ratio(_count(one & other), _count(one | other))


def entropy(probability: np.ndarray) -> float:
    """Mean entropy of foreground probabilities in bits: 0 where all are certain, 1 where all are 0.5.

    Examples
    --------
    >>> entropy(np.array([0.0, 0.5, 1.0, 0.5]))
    0.5
    """
    return float(_bits(probability).mean())


def diversity(probability: np.ndarray) -> float:
    """Entropy of the mean probability in bits: 0 where all pixels are of one class.

    Examples
    --------
    >>> diversity(np.array([0.0, 1.0])), diversity(np.zeros(4))
    (1.0, 0.0)
    """
    return float(_bits(np.array([probability.mean(dtype=np.float64)]))[0])


def foreground_is_plausible(share: float, source_share: float) -> bool:
    """Whether a share of foreground lies within `FOREGROUND_RANGE` times the source's.

    Examples
    --------
    >>> foreground_is_plausible(0.05, 0.06), foreground_is_plausible(0.0, 0.06)
    (True, False)
    """
    low, high = FOREGROUND_RANGE
    return low * source_share <= share <= high * source_share


def _bits(probability: np.ndarray) -> np.ndarray:
    p = np.clip(probability.astype(np.float64), 0.0, 1.0)
    certain = (p == 0.0) | (p == 1.0)
    p = np.where(certain, 0.5, p)
    return np.where(certain, 0.0, -p * np.log2(p) - (1 - p) * np.log2(1 - p))


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def foreground_share(pairs: LabelledPairs | None, samples: int = 12) -> float | None:
    """Share of a source's pixels labelled foreground, from sections evenly spread; of several sources the mean."""
    every = [] if pairs is None else [one for one in pairs.every() if not isinstance(one, PaintedPairs)]
    if not every:
        return None
    shares = []
    for one in every:
        labels = one.labels
        if labels is None:
            raise InputError(f"{one.volume.name} has no labels to take a share of foreground from")
        sections = sorted(
            {int(k) for k in np.linspace(0, labels.shape[0] - 1, min(samples, labels.shape[0]))}
        )
        shares += [np.mean([np.count_nonzero(labels.read(k)) / np.prod(labels.shape[1:]) for k in sections])]
    return float(np.mean(shares))


class PairMaps(NamedTuple):
    """Probabilities of one pair, float32, shape (rows, columns) on the network's output grid."""

    first: np.ndarray
    second: np.ndarray
    residual: np.ndarray | None


def consistency_scores(
    model: Model,
    pairs: UnlabelledPairs,
    *,
    student: PairNetwork | None = None,
    source_foreground: float | None = None,
    samples: int = 12,
    seed: int = 0,
) -> dict[str, float | None]:
    """Score a network on a few samples of a volume, without labels.

    Every score is pooled over the samples. The same seed chooses the same samples, whatever the network; torch's random
    state is not touched, and networks keep their mode (train or eval).

    Parameters
    ----------
    model : Model
        Its network may be in training.
    pairs : UnlabelledPairs
    student : PairNetwork, optional
        The current network, on the same device, for `student_ema_dice`; `model` is then its running average.
    source_foreground : float, optional
        Share of foreground of the source, for `foreground_ok`; see `foreground_share`.
    samples : int
        Each is up to 512 × 512 working pixels of sections k − n, k and k + n.

    Returns
    -------
    dict of str to float or None
        Those of `SCORES`, and the bool `foreground_ok`. None where a score does not exist: no section has two
        contexts (fewer than 2 n + 1 sections, or a network that sees each section alone), the network has no
        residual, there is no student or source share, or all masks are empty.
    """
    if samples < 1:
        raise InputError(f"samples is the number of places to look at, at least 1; got {samples}")
    found: list[list[PairMaps]] = []
    of_student: list[list[PairMaps]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(model.device.type, torch.bfloat16, enabled=model.bfloat16))
        for one in (model.network, student):
            if one is not None:
                stack.enter_context(evaluating(one))
        for sections in _read_samples(model, pairs, samples, seed):
            found.append(_predict(model.network, sections))
            if student is not None:
                of_student.append(_predict(student, sections))
    everything = [maps for sample in found for maps in sample]
    probability = _flat(_sections(found))
    mask = probability >= THRESHOLD
    share = float(mask.mean())
    # A network that sees each section alone always agrees with itself.
    twice = [sample for sample in found if len(sample) == 2] if model.network.joined else []
    with_residual = [maps for maps in everything if maps.residual is not None]
    return {
        "two_context_dice": _score(dice, (one.second for one, _ in twice), (two.first for _, two in twice)),
        "residual_iou": _score(
            iou,
            ((maps.first >= THRESHOLD) ^ (maps.second >= THRESHOLD) for maps in with_residual),
            (maps.residual for maps in with_residual if maps.residual is not None),
        ),
        "student_ema_dice": _score(dice, [mask] if of_student else [], _sections(of_student)),
        "entropy": entropy(probability),
        "diversity": diversity(probability),
        "foreground": share,
        "foreground_ok": None
        if source_foreground is None
        else foreground_is_plausible(share, source_foreground),
    }


def _sections(samples: list[list[PairMaps]]) -> Iterator[np.ndarray]:
    """Maps of both sections of every pair."""
    return (one for sample in samples for maps in sample for one in (maps.first, maps.second))


def _flat(maps: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([one.ravel() for one in maps])


def _score(
    score: Callable[[np.ndarray, np.ndarray], float], one: Iterable[np.ndarray], other: Iterable[np.ndarray]
) -> float | None:
    """A score of the masks of all samples together; None where there are none, or it does not exist."""
    ones, others = list(one), list(other)
    if not ones:
        return None
    value = score(_flat(ones) >= THRESHOLD, _flat(others) >= THRESHOLD)
    return None if math.isnan(value) else value


@contextmanager
def evaluating(network: PairNetwork) -> Iterator[None]:
    """Put a network into eval mode for a while."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def plan_samples(sections: int, stride: int, samples: int, seed: int) -> list[tuple[int, ...]]:
    """Sections to look at: (k − n, k, k + n), or pairs (k, k + n) where none has a neighbour on both sides.

    The middles are spread over the volume: one drawn from each of `samples` equal parts, none twice.

    Examples
    --------
    >>> plan_samples(3, 1, samples=4, seed=0), plan_samples(2, 1, samples=4, seed=0)
    ([(0, 1, 2)], [(0, 1)])
    """
    middles = range(stride, sections - stride) if stride else range(0)
    offsets: tuple[int, ...] = (-stride, 0, stride)
    if not middles:
        middles, offsets = range(sections - stride), (0, stride)
    generator = np.random.default_rng(seed)
    parts = np.array_split(np.array(middles), min(samples, len(middles)))
    return [tuple(k + offset for offset in offsets) for k in (int(generator.choice(part)) for part in parts)]


def _read_samples(model: Model, pairs: UnlabelledPairs, samples: int, seed: int) -> Iterator[list[Tensor]]:
    """Yield the sections of each sample as the network takes them, (1, 1, H, W) each."""
    volume = pairs.volume
    predictor = SectionPredictor(model, volume.shape[1:], pairs.scale, PredictionSettings(batch_size=1))
    generator = np.random.default_rng((seed, 1))
    multiple = model.network.multiple
    padded = predictor.tiling.padded
    height, width = (min(size, PATCH // multiple * multiple) for size in padded)
    for sample in plan_samples(volume.shape[0], pairs.stride, samples, seed):
        row, column = (
            int(generator.integers(whole - side + 1))
            for whole, side in zip(padded, (height, width), strict=True)
        )
        yield [
            predictor.prepare(volume.read(k))[..., row : row + height, column : column + width]
            for k in sample
        ]


def _predict(network: PairNetwork, sections: list[Tensor]) -> list[PairMaps]:
    """Predict the pairs of neighbours among the sections of a sample."""
    features = [network.encode(section) for section in sections]
    predicted = []
    for first, second in itertools.pairwise(features):
        output = network.decode(first, second)
        residual = None if output.residual is None else _map(output.residual)
        predicted.append(PairMaps(_map(output.first), _map(output.second), residual))
    return predicted


def _map(logits: Tensor) -> np.ndarray:
    return np.asarray(foreground(logits)[0].cpu().numpy())
