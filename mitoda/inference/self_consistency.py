"""Scores of a network that need no label: does it agree with itself on the volume it adapts to?

They are computed on the adaptation half only, for each checkpoint kept, and are written down, not acted upon.
The published logs of DA-ISC show a training-time consistency that ranks checkpoints the wrong way round once
the common trend in time is taken out (Spearman +0.05 to +0.35 between loss and Dice, four tasks). Whether any
of these deserves trust is what `mitoda bench --keep` measures.

    two contexts   section k predicted as second of (k − n, k) and as first of (k, k + n): Dice
    residual       XOR of the two masks of a pair against the network's own residual: IoU; empty maps earn
                   nothing
    student–EMA    the averaged network against the current one: Dice
    entropy        mean entropy of a pixel, in bits; with `diversity`, the entropy of the mean pixel, it makes
                   the mutual information that information maximisation looks at
    foreground     share of pixels that are foreground, and whether it is 0.3 to 3 times the source's
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.errors import InputError
from mitoda.inference.predictor import InferenceSettings, SectionPredictor
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork

THRESHOLD = 0.5
"""Probability from which a pixel counts as foreground here."""
FOREGROUND_RANGE = (0.3, 3.0)
"""Share of foreground, as a multiple of the source's, that a usable network keeps within."""
EMPTY = 1e-4
"""Share of foreground below which a result counts as empty."""
FLOOD = 0.5
"""Share of foreground that no tissue has."""
PATCH = 512
"""Largest side, in working pixels, of what is looked at of a section."""
SCORES = ("two_context_dice", "residual_iou", "student_ema_dice", "entropy", "diversity", "foreground")
"""The numbers among the scores; `foreground_ok` beside them is a claim."""


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of two masks; NaN where both are empty, which says nothing.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    return _ratio(2 * _count(one & other), _count(one) + _count(other))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two masks; NaN where both are empty, which says nothing."""
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
    if pairs is None:
        return None
    shares = []
    for one in pairs.every():
        labels = one.labels
        if labels is None:
            raise InputError(f"{one.volume.name} has no labels to take a share of foreground from")
        sections = sorted(
            {int(k) for k in np.linspace(0, labels.shape[0] - 1, min(samples, labels.shape[0]))}
        )
        shares += [np.mean([np.count_nonzero(labels.read(k)) / np.prod(labels.shape[1:]) for k in sections])]
    return float(np.mean(shares))


@dataclass
class PairMaps:
    """What a network says of one pair: probabilities, float32, shape (rows, columns) on its output grid."""

    first: np.ndarray
    second: np.ndarray
    residual: np.ndarray | None

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Both sections at the threshold."""
        return self.first >= THRESHOLD, self.second >= THRESHOLD


@dataclass
class _Gathered:
    """Masks and probabilities of all samples, flat, so that every score is pooled over them."""

    as_second: list[np.ndarray] = field(default_factory=list)
    as_first: list[np.ndarray] = field(default_factory=list)
    changed: list[np.ndarray] = field(default_factory=list)
    residual: list[np.ndarray] = field(default_factory=list)
    averaged: list[np.ndarray] = field(default_factory=list)
    student: list[np.ndarray] = field(default_factory=list)
    probability: list[np.ndarray] = field(default_factory=list)

    def add(self, sample: Sequence[PairMaps]) -> None:
        """Take the one or two pairs of a sample."""
        for maps in sample:
            first, second = maps.masks()
            self.probability += [maps.first.ravel(), maps.second.ravel()]
            self.averaged += [first.ravel(), second.ravel()]
            if maps.residual is not None:
                self.changed.append((first ^ second).ravel())
                self.residual.append((maps.residual >= THRESHOLD).ravel())
        if len(sample) == 2:
            self.as_second.append(sample[0].masks()[1].ravel())
            self.as_first.append(sample[1].masks()[0].ravel())

    def add_student(self, sample: Sequence[PairMaps]) -> None:
        """Take the same pairs from the second network."""
        self.student += [mask.ravel() for maps in sample for mask in maps.masks()]


def selection_scores(
    network: PairNetwork,
    backbone: Backbone,
    pairs: UnlabelledPairs,
    device: torch.device,
    *,
    student: PairNetwork | None = None,
    source_foreground: float | None = None,
    samples: int = 12,
    seed: int = 0,
    bfloat16: bool = False,
) -> dict[str, float | None]:
    """Score a network on a few places of the volume that it adapts to, without labels.

    Every score is pooled over the samples. The same seed looks at the same places, whatever the network;
    torch's random state is not touched, and networks keep their mode (train or eval).

    Parameters
    ----------
    network : PairNetwork
        The averaged network, which is the one saved.
    backbone : Backbone
        Its recipe.
    pairs : UnlabelledPairs
        Of the adaptation half.
    device : torch.device
        Where both networks are.
    student : PairNetwork, optional
        The current network, for `student_ema_dice`.
    source_foreground : float, optional
        Share of foreground of the source, for `foreground_ok`; see `foreground_share`.
    samples : int
        Places to look at, each up to 512 × 512 working pixels of sections k − n, k and k + n.
    seed : int
        Of the places.
    bfloat16 : bool
        Whether to convolve in bfloat16.

    Returns
    -------
    dict of str to float or None
        Those of `SCORES`, and the bool `foreground_ok`. None where a score does not exist: no section has two
        contexts (fewer than 2 n + 1 sections, or a network that sees each section alone), the network has no
        residual, nobody gave a student or the source's share, or all masks are empty.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; expected 1 or more")
    gathered = _Gathered()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=bfloat16))
        for one in (network, student):
            if one is not None:
                stack.enter_context(evaluating(one))
        for sections in _places(network, backbone, pairs, device, samples, seed):
            gathered.add(_predict(network, sections))
            if student is not None:
                gathered.add_student(_predict(student, sections))
    scores = _summarise(gathered, source_foreground)
    if not network.joined:  # such a network sees no context, and always agrees with itself
        scores["two_context_dice"] = None
    return scores


def _summarise(gathered: _Gathered, source_foreground: float | None) -> dict[str, float | None]:
    probability = np.concatenate(gathered.probability)
    averaged = np.concatenate(gathered.averaged)
    share = float(averaged.mean())
    return {
        "two_context_dice": _pooled(dice, gathered.as_second, gathered.as_first),
        "residual_iou": _pooled(iou, gathered.changed, gathered.residual),
        "student_ema_dice": _pooled(dice, gathered.averaged, gathered.student),
        "entropy": entropy(probability),
        "diversity": diversity(probability),
        "foreground": share,
        "foreground_ok": None
        if source_foreground is None
        else foreground_is_plausible(share, source_foreground),
    }


def _pooled(
    score: Callable[[np.ndarray, np.ndarray], float], one: list[np.ndarray], other: list[np.ndarray]
) -> float | None:
    """A score of all samples together; None where there are none, or it does not exist."""
    if not one or not other:
        return None
    value = score(np.concatenate(one), np.concatenate(other))
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


def plan_places(sections: int, stride: int, samples: int, seed: int) -> list[tuple[int, ...]]:
    """Sections to look at: (k − n, k, k + n), or pairs (k, k + n) where none has a neighbour on both sides.

    The middles are spread over the volume: one drawn from each of `samples` equal parts, none twice.

    Examples
    --------
    >>> plan_places(3, 1, samples=4, seed=0), plan_places(2, 1, samples=4, seed=0)
    ([(0, 1, 2)], [(0, 1)])
    """
    middles = range(stride, sections - stride) if stride else range(0)
    offsets: tuple[int, ...] = (-stride, 0, stride)
    if not middles:
        middles, offsets = range(sections - stride), (0, stride)
    generator = np.random.default_rng(seed)
    parts = np.array_split(np.array(middles), min(samples, len(middles)))
    return [tuple(k + offset for offset in offsets) for k in (int(generator.choice(part)) for part in parts)]


def _places(
    network: PairNetwork,
    backbone: Backbone,
    pairs: UnlabelledPairs,
    device: torch.device,
    samples: int,
    seed: int,
) -> Iterator[list[Tensor]]:
    """Yield the sections of each place as the network wants them, (1, 1, H, W) each."""
    volume = pairs.volume
    predictor = SectionPredictor(
        network, backbone, volume.shape[1:], pairs.scale, InferenceSettings(batch_size=1), device
    )
    generator = np.random.default_rng((seed, 1))
    multiple = network.multiple
    padded = predictor.tiling.padded
    height, width = (min(size, PATCH // multiple * multiple) for size in padded)
    for place in plan_places(volume.shape[0], pairs.stride, samples, seed):
        row, column = (
            int(generator.integers(whole - side + 1))
            for whole, side in zip(padded, (height, width), strict=True)
        )
        yield [
            predictor.prepare(volume.read(k))[..., row : row + height, column : column + width] for k in place
        ]


def _predict(network: PairNetwork, sections: list[Tensor]) -> list[PairMaps]:
    """Predict the pairs of neighbours among the sections of a place."""
    features = [network.encode(section) for section in sections]
    predicted = []
    for first, second in itertools.pairwise(features):
        output = network.decode(first, second)
        residual = None if output.residual is None else _probability(output.residual)
        predicted.append(PairMaps(_probability(output.first), _probability(output.second), residual))
    return predicted


def _probability(logits: Tensor) -> np.ndarray:
    return torch.sigmoid(logits[0, 1].float() - logits[0, 0].float()).cpu().numpy()
