"""Metrics of one section, against scikit-learn and against values checked by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, matthews_corrcoef

from mitoda.errors import InputError
from mitoda.evaluation import metrics
from mitoda.evaluation.metrics import Confusion, Ranking, rank_section

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9))
DTYPES = st.sampled_from(["uint8", "uint16", "float16", "float32", "float64"])


def reference(probability: np.ndarray, label: np.ndarray, threshold: float) -> list[float]:
    """AP, F1, MCC and IoU by scikit-learn."""
    truth, predicted = label.ravel() != 0, probability.ravel() >= threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            average_precision_score(truth, probability.ravel()),
            f1_score(truth, predicted, zero_division=0),
            matthews_corrcoef(truth, predicted),
            jaccard_score(truth, predicted, zero_division=0),
        ]


def score_section(*args: object, **options: object) -> metrics.SectionScore:
    return rank_section(*args, **options)[0]  # type: ignore[arg-type]


def as_list(score: metrics.SectionScore) -> list[float]:
    return [score.average_precision, score.f1, score.mcc, score.iou]


@st.composite
def sections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A map of any type, often with ties, zeros, ones and tiny values, and a label with foreground."""
    shape, dtype = draw(SHAPES), np.dtype(draw(DTYPES))
    if dtype.kind == "f":
        tied = st.sampled_from([0.0, -0.0, 1e-7, 0.25, 0.5, 0.75, 1.0])
        values = st.one_of(tied, st.floats(0, 1, width=dtype.itemsize * 8))
    else:
        values = st.one_of(st.integers(0, 3), st.integers(0, np.iinfo(dtype).max))
    label = draw(hnp.arrays(bool, shape))
    label[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return draw(hnp.arrays(dtype, shape, elements=values)), label


@settings(max_examples=300, deadline=None)
@given(sections(), st.sampled_from([0.5, 0.25, 1.0]))
def test_probabilities_score_as_in_scikit_learn(section, threshold):
    """Where the label has foreground all four metrics equal scikit-learn's to 1e-9, ties included."""
    prediction, label = section
    score = score_section(prediction, label, threshold, kind="probability")
    probability = prediction if prediction.dtype.kind == "f" else prediction / np.iinfo(prediction.dtype).max
    assert as_list(score) == pytest.approx(reference(probability, label, threshold), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.data(), SHAPES, st.sampled_from([bool, np.uint8, np.uint16, np.int64, np.float32]), st.integers(1, 100)
)
def test_masks_score_as_in_scikit_learn(data, shape, dtype, foreground):
    """A mask of any type and foreground value scores as a map of zeros and ones does in scikit-learn."""
    mask, label = data.draw(hnp.arrays(bool, shape)), data.draw(hnp.arrays(bool, shape))
    label[0, 0] = True
    score = score_section(np.where(mask, foreground, 0).astype(dtype), label.astype(np.uint8), kind="mask")
    assert as_list(score) == pytest.approx(reference(mask.astype(float), label, 0.5), abs=1e-9)


def crowded(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Large maps that crowd into few bins, or into many."""
    tiny = np.exp(-60 * rng.random(size))
    return {
        "uniform": rng.random(size),
        "near zero": tiny,
        "near one": 1 - tiny,
        "ties": np.round(rng.random(size), 2),
        "constant": np.full(size, 0.3),
        "two values": (rng.random(size) > 0.5) * 1.0,
        "subnormal": rng.integers(0, 5, size) * 1e-44,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(crowded(np.random.default_rng(0), 1)))
@pytest.mark.parametrize("few", [0, 1000, 10**9], ids=["parted twice", "by size", "parted once"])
def test_parting_scores_before_sorting_changes_nothing(monkeypatch, name, dtype, few):
    """However scores crowd, and whether they are parted once or twice, AP is scikit-learn's."""
    monkeypatch.setattr(metrics, "FEW", few)
    monkeypatch.setattr(metrics, "CHUNK", 999)
    rng = np.random.default_rng(3)
    prediction = crowded(rng, 5000)[name].astype(dtype).reshape(50, 100)
    label = rng.random((50, 100)) < 0.06
    label |= (prediction > 0.8) & (rng.random((50, 100)) < 0.5)
    score = score_section(prediction, label, kind="probability")
    assert as_list(score) == pytest.approx(reference(prediction, label, 0.5), abs=1e-9)


def test_average_precision_of_four_pixels():
    """Scores .9+ .8− .7+ .1−: AP = ½·1 + ½·⅔; at 0.75 one of two is found with one false alarm."""
    score = score_section(np.array([[0.9, 0.8, 0.7, 0.1]]), np.array([[1, 0, 1, 0]]), threshold=0.75)
    assert score.average_precision == pytest.approx(1 / 2 + 1 / 3)
    assert score.confusion == Confusion(tp=1, fp=1, fn=1, tn=1)
    assert (score.f1, score.mcc, score.iou) == (0.5, 0.0, pytest.approx(1 / 3))


def test_integer_probabilities_are_shares_of_the_largest_value():
    """128 of 255 reaches the threshold 0.5 and 127 does not; 32768 of 65535 does and 32767 does not."""
    label = np.array([[1, 1]])
    for values in (np.array([[127, 128]], np.uint8), np.array([[32767, 32768]], np.uint16)):
        assert score_section(values, label).confusion == Confusion(tp=1, fn=1)


def test_confusions_add_up_to_the_pooled_one():
    """The sum of two confusions counts all their pixels, in Python's unbounded integers."""
    assert Confusion(1, 2, 3, 4) + Confusion(10, 20, 30, 40) == Confusion(11, 22, 33, 44)
    assert Confusion(10**10, 10**10, 10**10, 10**10).mcc == 0.0
    assert Confusion(10**10, 0, 0, 10**10).mcc == 1.0


def test_empty_label_and_empty_prediction_have_no_score():
    """Nothing to find and nothing found: all four are NaN, and the section says that it has no label."""
    score = score_section(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    assert all(math.isnan(value) for value in as_list(score))
    assert not score.has_label
    assert score.confusion == Confusion(tn=16)


def test_empty_label_with_false_alarms_has_overlap_zero():
    """Nothing to find but something found: F1 and IoU are 0, AP and MCC are NaN."""
    score = score_section(np.array([[0.9, 0.1]]), np.zeros((1, 2)))
    assert (score.f1, score.iou) == (0.0, 0.0)
    assert math.isnan(score.average_precision)
    assert math.isnan(score.mcc)


@pytest.mark.parametrize("kind", ["mask", "probability"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_mask_of_zero_and_full_scale_scores_the_same_as_either_kind(kind, dtype):
    """Zeros and 255 (65535, 1.0) give the same numbers read as mask or as probability."""
    rng = np.random.default_rng(0)
    mask, label = rng.random((20, 30)) < 0.3, rng.random((20, 30)) < 0.3
    prediction = np.where(mask, metrics.full_scale(np.dtype(dtype)), 0).astype(dtype)
    assert as_list(score_section(prediction, label, kind=kind)) == pytest.approx(
        reference(mask.astype(float), label, 0.5)
    )


def test_pooled_average_precision_is_that_of_all_pixels():
    """Rankings add up to the AP of all pixels: exact for uint8, of scores cut to 2⁻¹⁶ for floats."""
    rng = np.random.default_rng(1)
    label = rng.random((3, 40, 50)) < 0.1
    probability = np.clip(0.4 * label + 0.6 * rng.random(label.shape), 0, 1)
    for prediction in (np.round(255 * probability).astype(np.uint8), probability.astype(np.float32)):
        pooled: Ranking | None = None
        for section, truth in zip(prediction, label, strict=True):
            _, ranking = rank_section(section, truth)
            pooled = ranking if pooled is None else pooled + ranking
        rounded = prediction if prediction.dtype == np.uint8 else np.floor(prediction * 65536).clip(max=65535)
        assert pooled is not None
        assert pooled.average_precision == pytest.approx(
            average_precision_score(label.ravel(), rounded.ravel()), abs=1e-9
        )


def test_sections_that_are_not_contiguous_are_scored():
    """Views with steps and transposes score as their copies do."""
    rng = np.random.default_rng(2)
    prediction, label = rng.random((12, 14)), rng.random((12, 14)) < 0.4
    assert score_section(prediction[::2, ::-1].T, label[::2, ::-1].T) == score_section(
        prediction[::2, ::-1].T.copy(), label[::2, ::-1].T.copy()
    )


@pytest.mark.parametrize(
    ("prediction", "threshold", "sentence"),
    [
        (np.array([[0.2, 1.5]]), 0.5, r"probabilities range from 0.2 to 1.5; expected 0 to 1"),
        (np.array([[-3.0, 2.0]]), 0.5, r"probabilities range from -3 to 2"),
        (np.array([[0.5, np.nan]]), 0.5, r"some are NaN"),
        (np.array([[0.5, 0.2]]), 0.0, r"the threshold is 0.0; expected more than 0 and at most 1"),
        (np.array([[0.5], [0.2]]), 0.5, r"the prediction has shape \(2, 1\), the label \(1, 2\)"),
        (np.array([[3, 2]], np.int32), 0.5, r"probabilities have type int32"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction, threshold, sentence):
    """Logits, not-a-number, a threshold of 0, unequal shapes and odd types are refused."""
    with pytest.raises(InputError, match=sentence):
        score_section(prediction, np.array([[1, 0]]), threshold)
