"""Scores of instances: hand-made cases, and reference values of StarDist."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mitoda.errors import InputError
from mitoda.evaluation.instance_scores import Overlaps, score_instances


def row(*runs):
    """A volume of one row: numbers with how often each is repeated."""
    return np.concatenate([np.full(count, number) for number, count in runs])[None, None]


def test_numbers_do_not_matter():
    """Equal instances under other numbers have the best scores, at every threshold."""
    labels = row((1, 4), (0, 2), (2, 3), (3, 5))
    result = score_instances(row((70000, 4), (0, 2), (9, 3), (4, 5)), labels)
    assert (result.predicted, result.labelled, result.splits, result.merges) == (3, 3, 0, 0)
    for one in result.matched:
        assert (one.tp, one.average_precision, one.panoptic_quality, one.f1) == (3, 1, 1, 1)


def test_a_hand_made_case():
    """IoU 3/4 and 2/5: one is found at 0.5 and 0.75, one is false and one missed."""
    labels = row((1, 4), (0, 1), (2, 5), (0, 3))
    result = score_instances(row((1, 3), (0, 2), (2, 2), (0, 6)), labels)
    for one in result.matched:
        assert (one.tp, one.fp, one.fn) == (1, 1, 1)
        assert (one.precision, one.recall, one.f1) == (0.5, 0.5, 0.5)
        assert one.average_precision == pytest.approx(1 / 3)
        assert one.panoptic_quality == pytest.approx(0.75 / 2)


def test_splits_and_merges_are_counted():
    """One label cut in three pieces, and one prediction over two labels; slivers at the ends count for neither."""
    labels = row((1, 9), (0, 1), (2, 5), (3, 5), (0, 1), (4, 6))
    predicted = row((1, 3), (2, 3), (3, 3), (0, 1), (4, 10), (5, 1), (5, 6))
    result = score_instances(predicted, labels)
    assert (result.splits, result.merges) == (1, 1)


def test_a_label_in_two_equal_halves_is_matched_once():
    """At IoU 0.5 exactly both halves could be the match; one is."""
    one = score_instances(row((1, 4), (2, 4)), row((1, 8)), thresholds=[0.5]).matched[0]
    assert (one.tp, one.fp, one.fn, one.total_iou) == (1, 1, 0, 0.5)


def test_ties_are_matched_as_often_as_possible():
    """Two exact halves of one label, and an exact match: the halves are worth one match."""
    halves = score_instances(row((1, 2), (2, 2), (3, 8)), row((1, 4), (2, 8)), thresholds=[0.5]).matched[0]
    assert (halves.tp, halves.total_iou) == (2, 1.5)


def test_nothing_predicted_and_nothing_labelled():
    """Without predictions the scores are 0 and precision does not exist; without both, none exists."""
    empty, one = np.zeros((1, 2, 3), int), np.ones((1, 2, 3), int)
    missed = score_instances(empty, one).matched[0]
    assert (missed.average_precision, missed.recall, missed.panoptic_quality) == (0, 0, 0)
    assert math.isnan(missed.precision)
    nothing = score_instances(empty, empty)
    assert all(math.isnan(one.average_precision) for one in nothing.matched)
    assert nothing.to_dict()["matched"][0]["average_precision"] is None


def blobs(seed, shift):
    """Squares of random sizes, moved and with some missing, as instance numbers."""
    rng = np.random.default_rng(seed)
    labels, predicted = np.zeros((2, 3, 60, 60), np.uint16)
    for number in range(1, 25):
        z, y, x = rng.integers(0, (3, 50, 50))
        size = rng.integers(4, 12)
        labels[z, y : y + size, x : x + size] = number
        if rng.random() < 0.85:
            dy, dx = rng.integers(0, shift + 1, 2)
            predicted[z, y + dy : y + dy + size, x + dx : x + dx + size] = number + 100
    return labels, predicted


STARDIST = {
    (0, 1, 0.5): (14, 5, 10, 0.48275862, 0.48203996),
    (0, 1, 0.75): (6, 13, 18, 0.16216216, 0.24493153),
    (1, 2, 0.5): (12, 8, 12, 0.37500000, 0.37120568),
    (1, 2, 0.75): (5, 15, 19, 0.12820513, 0.18927914),
    (2, 3, 0.5): (13, 6, 11, 0.43333333, 0.44245662),
    (2, 3, 0.75): (6, 13, 18, 0.16216216, 0.24162707),
    (3, 4, 0.5): (5, 18, 18, 0.12195122, 0.15352715),
    (3, 4, 0.75): (3, 20, 20, 0.06976744, 0.10507246),
    (4, 0, 0.5): (15, 0, 9, 0.62500000, 0.76923077),
    (4, 0, 0.75): (15, 0, 9, 0.62500000, 0.76923077),
}
"""(seed, shift, threshold): tp, fp, fn, accuracy, panoptic_quality of stardist.matching.matching (StarDist 0.9.2)."""


@pytest.mark.parametrize("case", STARDIST, ids=str)
def test_scores_are_those_of_stardist(case):
    """AP is its `accuracy`; counts and panoptic quality carry the same names. The numbers were recorded once."""
    seed, shift, threshold = case
    labels, predicted = blobs(seed, shift)
    one = score_instances(predicted, labels, thresholds=[threshold]).matched[0]
    found = (one.tp, one.fp, one.fn, one.average_precision, one.panoptic_quality)
    assert found == pytest.approx(STARDIST[case], abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**16), shift=st.integers(0, 4), threshold=st.sampled_from([0.5, 0.6, 0.75]))
def test_matching_is_the_best_assignment(seed, shift, threshold):
    """As many matches, and as much total IoU, as an assignment over the whole table of IoU (Kuhn 1955)."""
    labels, predicted = blobs(seed, shift)
    one = score_instances(predicted, labels, thresholds=[threshold]).matched[0]
    table = np.array(
        [
            [
                np.sum((predicted == p) & (labels == t)) / np.sum((predicted == p) | (labels == t))
                for t in numbers(labels)
            ]
            for p in numbers(predicted)
        ]
    )
    rows, columns = linear_sum_assignment(-1.0 * (table >= threshold) - table / 1000)
    good = table[rows, columns] >= threshold
    assert (one.tp, one.total_iou) == (good.sum(), pytest.approx(table[rows, columns][good].sum()))


def numbers(labels):
    """The instances of a volume."""
    return [number for number in np.unique(labels) if number]


def test_sections_add_up():
    """Counting section by section equals counting the whole volume at once."""
    labels, predicted = blobs(1, 2)
    whole = Overlaps()
    whole.add(predicted, labels)
    assert score_instances(predicted, labels).matched == tuple(whole.match(iou) for iou in (0.5, 0.75))


def test_ignored_voxels_are_left_out():
    """A false mitochondrion in the ignored region, by mask or by label, does not count."""
    labels, predicted = row((1, 4), (0, 4)), row((1, 4), (2, 4))
    ignore = row((0, 4), (1, 4))
    assert score_instances(predicted, labels).matched[0].fp == 1
    assert score_instances(predicted, labels, ignore=ignore).matched[0].fp == 0
    assert score_instances(predicted, row((1, 4), (7, 4)), ignore_value=7).matched[0].fp == 0


def test_what_is_no_instance_numbers_is_refused():
    """A mask of 255, fractions, negative numbers, other shapes, and thresholds below one half."""
    labels = row((1, 4), (0, 2))
    with pytest.raises(InputError, match=r"is a mask.*mitoda instances"):
        score_instances(labels * 255, labels)
    for wrong in (labels * 0.5, -labels):
        with pytest.raises(InputError, match="whole numbers from 1"):
            score_instances(wrong, labels)
    image = np.arange(1, 101).reshape(1, 10, 10)
    with pytest.raises(InputError, match="looks like an image"):
        score_instances(image % 2, image)
    with pytest.raises(InputError, match="shape"):
        score_instances(labels[..., 1:], labels)
    with pytest.raises(InputError, match=r"0\.4; expected 0\.5 to 1"):
        score_instances(labels, labels, thresholds=[0.4])


def test_large_numbers_of_mixed_types_stay_apart():
    """Numbers beyond 2⁵³, as proofreading tools give, in uint64 and int64."""
    first = 864691135000000001
    labels = row((first, 4), (first + 1, 4), (first + 2, 4))
    result = score_instances(labels.astype(np.int64), labels.astype(np.uint64))
    assert (result.predicted, result.labelled) == (3, 3)
    assert result.matched[0].f1 == 1


def test_ignored_numbers_need_not_be_instances():
    """−1 often marks what was not labelled; it is refused only where it is not to be ignored."""
    labels = row((1, 4), (-1, 4), (2, 4))
    result = score_instances(row((1, 4), (7, 4), (2, 4)), labels, ignore_value=-1)
    assert (result.predicted, result.labelled, result.matched[0].tp) == (2, 2, 2)
    with pytest.raises(InputError, match="holds -1"):
        score_instances(row((1, 4), (7, 4), (2, 4)), labels)
