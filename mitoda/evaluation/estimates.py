"""Answers to a spot check: precision, recall and F1 by object, with 95 % intervals.

With N_c found objects in size class c, n_c judged, x_c of them good, and m missed mitochondria in b of B boxes:

    TP = Σ N_c x_c / n_c      FN = B m / b      precision = TP / Σ N_c      recall = TP / (TP + FN)

A class is a simple proportion and has Wilson's interval, for its finite number of objects. What combines classes and
boxes has the interval of a parametric bootstrap. Resampling the answers themselves would give an interval of width 0
where all are good or none is missed. So the unjudged objects of each class are drawn from the binomial distribution
with x_c and n_c under Jeffreys' prior, and the unsearched boxes from a Poisson distribution, widened by the dispersion
of the counts (L. D. Brown, T. T. Cai, A. DasGupta, Stat. Sci. 16, 2001, 10.1214/ss/1009213286).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mitoda.errors import InputError
from mitoda.evaluation.answers import Answer

FEWEST_OBJECTS, FEWEST_BOXES = 10, 5
"""Judged objects and searched boxes below which there is no headline, unless there are no more."""
DRAWS = 4000
Z95 = 1.959964
"""Normal quantile of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassResult:
    """What was answered about the objects of a size class."""

    name: str
    smallest_um3: float
    """Least volume among the drawn objects."""
    largest_um3: float
    found: int
    good: int
    bad: int
    unsure: int
    open: int
    """Drawn and not answered."""

    @property
    def judged(self) -> int:
        """Good or bad."""
        return self.good + self.bad

    @property
    def precision(self) -> Estimate | None:
        """Share of good ones with Wilson's interval; None without an answer."""
        return wilson(self.good, self.judged, self.found) if self.judged else None


@dataclass(frozen=True)
class SpotCheck:
    """The result of a spot check."""

    classes: list[ClassResult]
    boxes: int
    """In the stack."""
    boxes_drawn: int
    searched: int
    missed: int
    """In the searched boxes."""
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    """None, like precision and recall, until both halves have enough answers."""
    lacking: str
    """Which answers are lacking for a headline; empty if none are."""

    @property
    def objects_to_halve(self) -> int:
        """More objects to judge so that the interval of precision is half as wide."""
        return more_to_halve(sum(c.judged for c in self.classes), sum(c.found for c in self.classes))

    @property
    def boxes_to_halve(self) -> int:
        """More boxes to search so that the interval of what was missed is half as wide."""
        return more_to_halve(self.searched, self.boxes)


def summarise_answers(answers: Sequence[Answer], seed: int = 0) -> SpotCheck:
    """Estimate precision, recall and F1 from answers.

    Answers "unsure" are left out, as if these objects had not been drawn.

    Parameters
    ----------
    answers : sequence of Answer
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        If there is no object or no box among them.
    """
    objects = [answer for answer in answers if not answer.is_box]
    boxes = [answer for answer in answers if answer.is_box]
    if not objects or not boxes:
        raise InputError("a spot check has found objects and boxes; save the table from the page again")
    classes = sorted(
        (
            _class_result([one for one in objects if one.size_class == name])
            for name in {one.size_class for one in objects}
        ),
        key=lambda one: one.smallest_um3,
    )
    counts = np.array([len(one.marks) for one in boxes if one.answer])
    total = boxes[0].total
    lacking = _lacking(classes, len(counts), boxes)
    precision, recall, f1 = (None, None, None) if lacking else _headline(classes, counts, total, seed)
    missed = int(counts.sum())
    return SpotCheck(classes, total, len(boxes), len(counts), missed, precision, recall, f1, lacking)


def _class_result(rows: list[Answer]) -> ClassResult:
    answered = [row.answer for row in rows]
    return ClassResult(
        rows[0].size_class,
        min(row.volume_um3 for row in rows),
        max(row.volume_um3 for row in rows),
        rows[0].total,
        *(answered.count(one) for one in ("good", "bad", "unsure", "")),
    )


def _lacking(classes: list[ClassResult], searched: int, boxes: list[Answer]) -> str:
    """Say which answers are lacking for a headline."""
    parts = []
    judged, still_open = sum(one.judged for one in classes), sum(one.open for one in classes)
    drawn = judged + still_open + sum(one.unsure for one in classes)
    unjudged = "".join(f", none of class {one.name!r}" for one in classes if not one.judged)
    if judged < min(FEWEST_OBJECTS, judged + still_open) or unjudged:
        parts.append(f"{judged} of {drawn} objects are judged{unjudged}")
    if searched < min(FEWEST_BOXES, len(boxes)):
        parts.append(f"{searched} of {len(boxes)} boxes are searched")
    return " and ".join(parts)


def _headline(
    classes: list[ClassResult], counts: np.ndarray, boxes: int, seed: int
) -> tuple[Estimate, Estimate, Estimate]:
    """Precision, recall and F1."""
    found = sum(one.found for one in classes)
    rng = np.random.default_rng(seed)
    good = np.zeros(DRAWS)
    prior = 0.5 / len(classes)  # Jeffreys', shared among the classes: one for each would pull the whole down
    for one in classes:
        share = rng.beta(one.good + prior, one.bad + prior, DRAWS)
        good += one.good + rng.binomial(one.found - one.judged, share)
    missed = _missed_draws(counts, boxes, rng)
    good_estimate = np.array(sum(one.found * one.good / one.judged for one in classes))
    values = _rates(good_estimate, np.array(boxes * counts.mean()), found)
    draws = _rates(good, missed, found)
    precision, recall, f1 = (_interval(value, many) for value, many in zip(values, draws, strict=True))
    return precision, recall, f1


def _rates(good: np.ndarray, missed: np.ndarray, found: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1; recall is 0 where nothing good was found."""
    return good / found, good / np.maximum(good + missed, 1e-9), 2 * good / (found + good + missed)


def _missed_draws(counts: np.ndarray, boxes: int, rng: np.random.Generator) -> np.ndarray:
    """Missed mitochondria of the stack: those counted, and draws for the boxes that were not searched."""
    searched, missed = len(counts), counts.sum()
    if searched == boxes:
        return np.full(DRAWS, float(missed))
    dispersion = np.ones(DRAWS)
    if searched > 1 and missed:
        # variance over mean, itself uncertain in a few boxes; 1 of a Poisson distribution
        variance = counts.var(ddof=1) * (searched - 1) / rng.chisquare(searched - 1, DRAWS)
        dispersion = np.maximum(1.0, variance / counts.mean())
    mean = rng.gamma((missed + 0.5) / dispersion, dispersion / searched)
    shape = (boxes - searched) * mean / dispersion
    return np.asarray(missed + dispersion * rng.poisson(shape))


def _interval(value: np.ndarray, draws: np.ndarray) -> Estimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def wilson(successes: int, trials: int, population: int) -> Estimate:
    """Wilson's 95 % interval of a proportion in a sample without replacement.

    With z = 1.96 and n = trials (N − 1) / (N − trials), which is the finite-population correction:
    (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n); E. B. Wilson, JASA 22, 1927, 10.1080/01621459.1927.10502953.

    Parameters
    ----------
    successes, trials : int
        `trials` is 1 or more.
    population : int
        `trials` or more. If all were judged, the interval has width 0.

    Examples
    --------
    >>> found = wilson(8, 10, 10**9)
    >>> round(found.low, 3), found.value, round(found.high, 3)
    (0.49, 0.8, 0.943)
    >>> wilson(8, 10, 10)
    Estimate(value=0.8, low=0.8, high=0.8)
    """
    share = successes / trials
    if trials == population:
        return Estimate(share, share, share)
    n = trials * (population - 1) / (population - trials)
    centre = share + Z95**2 / (2 * n)
    reach = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return Estimate(share, max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale))


def more_to_halve(answered: int, total: int) -> int:
    """More answers that halve an interval whose width is proportional to √(1/answered − 1/total).

    Examples
    --------
    >>> more_to_halve(20, 10**9), more_to_halve(50, 100), more_to_halve(5, 5), more_to_halve(0, 9)
    (60, 30, 0, 9)
    """
    if answered == 0:
        return total
    return math.ceil(1 / (0.25 / answered + 0.75 / total) - 1e-9) - answered
