"""Precision, recall and F1 from answers: by hand, and intervals that contain the truth as often as they say."""

import numpy as np
import pytest

from mitoda.evaluation.estimates import summarise_answers, wilson
from tests.evaluation.answer_tables import make_answers


def test_the_estimates_can_be_checked_by_hand():
    """100 small with 5 of 10 good, 20 large with 10 of 10 good: TP 70 of 120. 4 missed in 10 of 50 boxes: FN 20."""
    classes = [("small", 100, ["good"] * 5 + ["bad"] * 5 + ["unsure"] * 2), ("large", 20, ["good"] * 10)]
    found = summarise_answers(make_answers(classes, 50, [1, 2, 1, *[0] * 7]))
    assert found.precision.value == pytest.approx(70 / 120)
    assert found.recall.value == pytest.approx(70 / 90)
    assert found.f1.value == pytest.approx(140 / (120 + 70 + 20))
    assert [(one.name, one.judged, one.unsure, one.precision.value) for one in found.classes] == [
        ("small", 10, 2, 0.5),
        ("large", 10, 0, 1.0),
    ]
    for one in (found.precision, found.recall, found.f1):
        assert 0 < one.low < one.value < one.high <= 1


def test_when_everything_was_judged_the_truth_is_known():
    """All objects and boxes: intervals of width 0."""
    found = summarise_answers(
        make_answers([("all sizes", 20, ["good"] * 15 + ["bad"] * 5)], 6, [0, 1, 0, 2, 0, 0])
    )
    for one, value in ((found.precision, 0.75), (found.recall, 15 / 18), (found.f1, 30 / 38)):
        assert (one.low, one.value, one.high) == pytest.approx((value, value, value))
    assert (found.objects_to_halve, found.boxes_to_halve) == (0, 0)


def test_nothing_wrong_in_a_sample_is_no_proof():
    """20 of 20 good and nothing missed: the intervals end at 1 and begin well below it."""
    found = summarise_answers(make_answers([("all sizes", 500, ["good"] * 20)], 100, [0] * 10))
    assert found.precision.value == found.recall.value == 1
    assert 0.8 < found.precision.low < 0.95
    assert 0.8 < found.recall.low < 0.99


def test_wilson_agrees_with_the_published_example():
    """Newcombe 1998 (10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81 of 263, 0 of 20."""
    assert (wilson(81, 263, 10**9).low, wilson(81, 263, 10**9).high) == pytest.approx(
        (0.2553, 0.3662), abs=1e-4
    )
    assert (wilson(0, 20, 10**9).low, wilson(0, 20, 10**9).high) == pytest.approx((0, 0.1611), abs=1e-4)


@pytest.mark.parametrize(
    ("totals", "shares", "drawn", "boxes", "searched", "rate", "spread"),
    [
        ([400, 150, 60], [0.6, 0.85, 0.97], [20, 20, 20], 150, 20, 0.8, 0.7),
        ([60, 60, 60], [0.99, 0.99, 1.0], [20, 20, 20], 60, 20, 0.05, 0.0),
        ([30], [0.8], [20], 25, 20, 1.5, 0.0),
    ],
    ids=["unequal classes, clustered misses", "nearly perfect", "most of a small stack"],
)
def test_intervals_contain_the_truth_95_times_in_100(totals, shares, drawn, boxes, searched, rate, spread):
    """300 simulated stacks with known truth: each interval contains it in at least 91 % (95 % − 3 deviations)."""
    rng = np.random.default_rng(5)
    hits = np.zeros(4)
    for repeat in range(300):
        good = [rng.random(total) < share for total, share in zip(totals, shares, strict=True)]
        missed = rng.poisson(rate * (rng.gamma(1 / spread, spread, boxes) if spread else np.ones(boxes)))
        sample = [rng.permutation(one)[:n] for one, n in zip(good, drawn, strict=True)]
        classes = [
            (f"class {k}", totals[k], ["good" if one else "bad" for one in answers])
            for k, answers in enumerate(sample)
        ]
        counts = rng.permutation(missed)[:searched].tolist()
        found = summarise_answers(make_answers(classes, boxes, counts), seed=repeat)
        tp, fn, objects = sum(one.sum() for one in good), missed.sum(), sum(totals)
        truths = (tp / objects, tp / (tp + fn), 2 * tp / (objects + tp + fn), good[0].mean())
        for k, (one, truth) in enumerate(
            zip((found.precision, found.recall, found.f1, found.classes[0].precision), truths, strict=True)
        ):
            hits[k] += one.low - 1e-9 <= truth <= one.high + 1e-9
    assert (hits >= 0.91 * 300).all(), hits / 300


@pytest.mark.parametrize(
    ("given", "counts", "message"),
    [
        (["good"] * 12, [None] * 8, "0 of 8 boxes are searched"),
        (["good"] * 9 + [""] * 11, [0] * 8, "9 of 20 objects are judged"),
        (
            [""] * 20,
            [None] * 8,
            "0 of 20 objects are judged, none of class 'small' and 0 of 8 boxes are searched",
        ),
        (["unsure"] * 12, [0] * 8, "0 of 12 objects are judged, none of class 'small'"),
    ],
)
def test_there_is_no_headline_until_both_halves_are_answered(given, counts, message):
    """`lacking` names the missing answers; the judged objects are counted."""
    found = summarise_answers(make_answers([("small", 100, given)], 50, counts))
    assert (found.precision, found.recall, found.f1) == (None, None, None)
    assert found.lacking == message
    assert found.classes[0].good == given.count("good")
