"""Painted labels in training: F1 on their held-back part, and the weights and mask settings that suit them."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from mitoda.data.geometry import THIN_NM, voxels_in
from mitoda.data.painted import BACKGROUND, HELD_BACK, MITOCHONDRION, UNLABELLED, PaintedLabels
from mitoda.evaluation.metrics import Confusion
from mitoda.inference.streaming import predict, smoothing_reach
from mitoda.methods.mitoda import PAINTED_SHARE
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo
from mitoda.postprocessing.mask import MaskFinalizer
from mitoda.postprocessing.membrane_snapping import NEAR_SECTIONS_NM
from mitoda.volumes import ArrayVolume, Volume
from mitoda.volumes.voxel_size import known_voxel_size

HELD_BACK_UNTIL = PAINTED_SHARE
"""Share of the run for which a part of the labels is held back; after it, F1 is measured and all of them are used."""
MOST_SECTIONS = 4
"""Painted sections that are predicted, those with the most held-back mitochondrion."""
THRESHOLDS = np.arange(0.2, 0.81, 0.05)
"""Beyond these a network is too uncertain, or too certain, for a threshold to be a calibration."""
FEWEST_OBJECTS = 8
"""Held-back mitochondria, as components in their sections, below which all painted pixels decide, and only on the
threshold. From one painted rectangle of 2.4 µm (cdeep3m) six were held back: they chose 0.05, which has an F1 of 0.55
on the stack, where 0.5 has 0.63."""
GAIN = 0.01
"""F1 by which snapping, or removing small components, must be better than leaving it out."""
GOOD_START = 0.5
"""F1 on all paint from which the weights of the start label the rest of the stack from the beginning. From better
weights the paint alone makes them worse (cdeep3m: 0.77 to 0.79 in place of 0.83); labels of worse ones would teach
that there is nothing."""
SHARES = (0.5, 1.0, 0.0)
"""Shares of the trained weights in those that the run goes on with, the others are the weights it started from; a later
one must be better by `GAIN`. A few painted places teach what they show, and what they do not show is forgotten, which
the mean of both weights makes good (Wortsman et al. 2022, doi:10.1109/CVPR52688.2022.00780)."""


class Predicted(NamedTuple):
    """The surroundings of a painted section as a network predicts them."""

    classes: np.ndarray
    """(rows, columns), as `PaintedLabels.read` returns them."""
    place: int
    """Number of the painted section among `images`."""
    images: np.ndarray
    """(sections, rows, columns)."""
    probabilities: list[np.ndarray]
    """(rows, columns) of each of them."""


@dataclass(frozen=True)
class HeldBackScore:
    """Event: F1 on the held-back part of the labels, and the mask settings chosen from it."""

    step: int
    before: float | None
    """F1 of the weights that training started from; None from scratch."""
    after: float
    """F1 of the weights that the run goes on with, with the settings below."""
    threshold: float
    snap: bool
    smallest: float
    """Cubic nanometres."""
    objects: int
    """Held-back mitochondria, as components within their sections."""
    looks_inverted: bool
    """The weights that training started from see mitochondria where background is painted, and the reverse."""
    share: float = 1.0
    """Of the trained weights in those that the run goes on with; see `SHARES`."""
    after_low: float = 0.0
    after_high: float = 1.0
    """95 % interval of `after`; see `f1_interval`."""

    @property
    def sentence(self) -> str:
        """The score for a person."""
        before = "" if self.before is None else f"; {self.before:.3f} before training"
        moved = "snapped" if self.snap else "not snapped"
        return (
            f"F1 on the held-back part of the labels ({self.objects} mitochondria): {self.after:.3f} (95 % interval "
            f"{self.after_low:.2f} to {self.after_high:.2f}{before}); threshold {self.threshold:.2f}, boundaries "
            f"{moved} to membranes, "
            + (f"components under {self.smallest:g} nm³ removed" if self.smallest else "no component removed")
        )

    def calibrated(self, info: WeightsInfo) -> WeightsInfo:
        """Return the metadata of weights with the mask settings chosen here."""
        notes = {**info.notes, "F1 on held-back labels": f"{self.after:.3f}"}
        return replace(
            info,
            threshold=self.threshold,
            thin=None,
            snap=self.snap,
            smallest=self.smallest,
            notes=notes,
        )

    @property
    def warning(self) -> str:
        """Warning about inverted classes or too little paint; empty if there is no reason for one."""
        if self.looks_inverted:
            return (
                "the painted classes look inverted: the network finds mitochondria where class 1 is painted; expected "
                "1 for background and 2 for mitochondrion"
            )
        if self.objects < FEWEST_OBJECTS:
            return (
                f"only {self.objects} painted mitochondria could be held back, too few for a reliable F1 and "
                "threshold; paint more of them"
            )
        if self.share == 0:
            return (
                "training on the other labels lowered F1 on the held-back labels, so the run continues from its "
                "starting weights; paint more places that show how varied the tissue is"
            )
        return ""


def predict_painted(model: Model, volume: Volume, painted: PaintedLabels) -> list[Predicted]:
    """Predict painted sections and, where boundaries may be moved to membranes, those near enough to matter."""
    voxel_size = known_voxel_size(volume)
    stride = model.geometry.stride(voxel_size, volume.shape[0])
    reach = stride + smoothing_reach(model.info.smoothing / voxel_size[0])
    near = math.floor(2 * NEAR_SECTIONS_NM / voxel_size[0]) if voxel_size[0] <= THIN_NM else 0
    found = []
    for section in _most_useful(painted):
        first, stop = max(0, section - near), min(volume.shape[0], section + near + 1)
        start, end = max(0, first - reach), min(volume.shape[0], stop + reach)
        images = np.stack([volume.read(k) for k in range(start, end)])
        part = ArrayVolume(images, voxel_size, volume.name)
        probabilities = list(predict(part, model, start=first - start, stop=stop - start))
        found.append(
            Predicted(
                painted.read(section), section - first, images[first - start : stop - start], probabilities
            )
        )
    return found


def _most_useful(painted: PaintedLabels) -> list[int]:
    held = {k: int(np.count_nonzero(painted.read(k) == MITOCHONDRION + HELD_BACK)) for k in painted.index}
    return sorted(sorted(held, key=lambda k: -held[k])[:MOST_SECTIONS])


def score_start(start: Model, volume: Volume, painted: PaintedLabels) -> float:
    """Measure F1 of weights on all painted places, as `segment` writes the mask with them."""
    return _f1(predict_painted(start, volume, painted), start.info, known_voxel_size(volume), UNLABELLED)


def score_held_back(
    step: int, start: Model | None, model: Model, volume: Volume, painted: PaintedLabels
) -> tuple[HeldBackScore, PairNetwork]:
    """Measure F1 on the held-back part, and choose weights, threshold, snapping and smallest component to go on with.

    Parameters
    ----------
    start : Model or None
        Of the weights that training started from.
    model : Model
        The averaged network, trained without the held-back part.

    Returns
    -------
    HeldBackScore
    PairNetwork
        With the chosen weights.
    """
    voxel_size = known_voxel_size(volume)
    before, inverted = None, False
    best, result, objects = -1.0, (1.0, model.network, model.info, 0.0, (0.0, 1.0)), 0
    for share in (1.0,) if start is None else SHARES:
        network = model.network if start is None else mean_network(start.network, model.network, share)
        predicted = predict_painted(replace(model, network=network), volume, painted)
        objects = held_back_objects(predicted)
        info = calibrate(predicted, model.info, voxel_size)
        found = _f1(predicted, info, voxel_size, _deciding(objects))
        if found > best + GAIN:
            masks = _masks(predicted, info, voxel_size)
            after = _score(predicted, masks, HELD_BACK)
            best, result = found, (share, network, info, after, f1_interval(predicted, masks))
        if start is not None and share == 0:
            before = _f1(predicted, start.info, voxel_size)
            inverted = _looks_inverted(predicted)
    share, network, info, after, interval = result
    score = HeldBackScore(
        step, before, after, info.threshold, info.snap, info.smallest, objects, inverted, share, *interval
    )
    return score, network


def mean_network(start: PairNetwork, trained: PairNetwork, share: float) -> PairNetwork:
    """Return a network with the mean of two networks' weights, of which `share` are the trained ones."""
    network = copy.deepcopy(start)
    with torch.no_grad():
        for own, other in zip(network.parameters(), trained.parameters(), strict=True):
            own.lerp_(other, share)
    return network


def _deciding(objects: int) -> int:
    """Class above which pixels decide: the held-back ones if there are enough mitochondria, else all painted ones."""
    return HELD_BACK if objects >= FEWEST_OBJECTS else UNLABELLED


def calibrate(
    predicted: list[Predicted], info: WeightsInfo, voxel_size: tuple[float, float, float]
) -> WeightsInfo:
    """Return the metadata with the threshold, snapping and smallest component that suit the painted labels.

    The held-back pixels decide. The threshold is that nearest to 0.5 of those within `GAIN` of the best F1. Snapping,
    or removing components below the weights' smallest, must gain `GAIN` over the threshold alone. Snapping is tried
    where sections are thin only: on thick ones it lowered F1 on every stack, also where a painted section gained.
    With fewer than `FEWEST_OBJECTS` held-back mitochondria all painted pixels decide, and only on the threshold.
    """
    least = _deciding(held_back_objects(predicted))
    scores = [
        _score(predicted, [one.probabilities[one.place] >= threshold for one in predicted], least)
        for threshold in THRESHOLDS
    ]
    near = [t for t, score in zip(THRESHOLDS, scores, strict=True) if score >= max(scores) - GAIN]
    threshold = round(float(min(near, key=lambda t: abs(t - 0.5))), 2)
    best = replace(info, threshold=threshold, thin=None, snap=False, smallest=0.0)
    if least == UNLABELLED:
        return best
    candidates = [replace(best, threshold=0.5, snap=True)] if voxel_size[0] <= THIN_NM else []
    if info.smallest:
        candidates += [replace(one, smallest=info.smallest) for one in (best, *candidates)]
    highest = _f1(predicted, best, voxel_size) + GAIN
    for candidate in candidates:
        score = _f1(predicted, candidate, voxel_size)
        if score > highest:
            best, highest = candidate, score
    return best


def held_back_objects(predicted: list[Predicted]) -> int:
    """Count the held-back mitochondria, as components within their sections."""
    return sum(int(ndimage.label(one.classes == MITOCHONDRION + HELD_BACK)[1]) for one in predicted)


def _f1(
    predicted: list[Predicted],
    info: WeightsInfo,
    voxel_size: tuple[float, float, float],
    least: int = HELD_BACK,
) -> float:
    """F1, over the pixels whose class is above `least`, of the masks that `segment` would write."""
    return _score(predicted, _masks(predicted, info, voxel_size), least)


def _masks(
    predicted: list[Predicted], info: WeightsInfo, voxel_size: tuple[float, float, float]
) -> list[np.ndarray]:
    """Masks of the painted sections as `segment` would write them."""
    masks = []
    for one in predicted:
        smallest, own = voxels_in(info.smallest, voxel_size), info.for_sections(voxel_size[0])
        finalizer = MaskFinalizer(own.threshold, smallest, own.snap, voxel_size)
        pending = [finalizer.pending(probability) for probability in one.probabilities]
        for section, grey in zip(pending, one.images, strict=True):
            finalizer.add(section, grey if finalizer.needs_images else None)
        masks.append(finalizer.finalize(one.place, pending[one.place]))
    return masks


def f1_interval(predicted: list[Predicted], masks: list[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of F1 over the held-back pixels, by bootstrap of their objects.

    An object is a component of what is painted or found, within its section. The interval tells how much F1 depends on
    which of them happened to be held back; of other tissue elsewhere in the stack it knows nothing.
    """
    counts = []
    for one, mask in zip(predicted, masks, strict=True):
        truth = one.classes == MITOCHONDRION + HELD_BACK
        found = mask & (one.classes > HELD_BACK)
        objects, _ = ndimage.label(truth | found)
        counts.append(
            [
                np.bincount(objects[which], minlength=objects.max() + 1)[1:]
                for which in (truth, found, truth & found)
            ]
        )
    painted, marked, both = np.concatenate(counts, axis=1)
    if not painted.size:
        return 0.0, 1.0
    drawn = np.random.default_rng(seed).integers(0, painted.size, (1000, painted.size))
    draws = 2 * both[drawn].sum(1) / (painted[drawn] + marked[drawn]).sum(1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def _score(predicted: list[Predicted], masks: Iterable[np.ndarray], least: int) -> float:
    """F1 over the pixels of all sections whose class is above `least`; 0 if there is no mitochondrion."""
    total = Confusion()
    for one, mask in zip(predicted, masks, strict=True):
        seen = one.classes > least
        truth = (one.classes == MITOCHONDRION) | (one.classes == MITOCHONDRION + HELD_BACK)
        tp, fp = (int(np.count_nonzero(mask & seen & which)) for which in (truth, ~truth))
        total += Confusion(tp=tp, fp=fp, fn=int(np.count_nonzero(truth & seen & ~mask)))
    return 0.0 if np.isnan(total.f1) else total.f1


def _looks_inverted(predicted: list[Predicted]) -> bool:
    """Whether the network believes far more of the painted background than of the painted mitochondrion."""
    classes = np.concatenate([one.classes.ravel() for one in predicted])
    probability = np.concatenate([one.probabilities[one.place].ravel() for one in predicted])
    background, mitochondrion = (
        probability[(classes == value) | (classes == value + HELD_BACK)]
        for value in (BACKGROUND, MITOCHONDRION)
    )
    if not (background.size and mitochondrion.size):
        return False
    return bool(background.mean() > mitochondrion.mean() + 0.1)
