"""Scores of volumes: the mean over sections, pooled numbers, and what becomes of empty sections."""

import csv
import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, matthews_corrcoef

from mitoda.errors import InputError
from mitoda.evaluation import scoring
from mitoda.evaluation.metrics import Confusion
from mitoda.evaluation.scoring import decide_kind
from mitoda.volumes.volume import ArrayVolume


def score_volume(prediction, labels, **options):
    """`score` under another name, since the tests call its result `score`."""
    return scoring.score(prediction, labels, **options)


@pytest.fixture
def label() -> np.ndarray:
    return (np.random.default_rng(0).random((5, 30, 40)) < 0.1).astype(np.uint8)


@pytest.fixture
def probability(label: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).random(label.shape)
    return (0.35 * label + 0.6 * noise).astype(np.float32)


def test_mean_over_sections_is_the_papers_protocol(probability, label):
    """The means of AP, F1, MCC and IoU over sections equal scikit-learn's, section by section, to 1e-9."""
    score = score_volume(ArrayVolume(probability), ArrayVolume(label))
    expected = np.mean(
        [
            [
                metric(truth.ravel(), (p >= 0.5).ravel())
                for metric in (f1_score, matthews_corrcoef, jaccard_score)
            ]
            for p, truth in zip(probability, label, strict=True)
        ],
        axis=0,
    )
    precision = [
        average_precision_score(t.ravel(), p.ravel()) for p, t in zip(probability, label, strict=True)
    ]
    assert [score.mean.f1, score.mean.mcc, score.mean.iou] == pytest.approx(expected, abs=1e-9)
    assert score.mean.average_precision == pytest.approx(np.mean(precision), abs=1e-9)
    assert score.kind == "probability"


def test_pooled_scores_are_those_of_all_pixels_as_one_section(probability, label):
    """Pooled F1, MCC and IoU equal scikit-learn's over all pixels; pooled AP equals it for 16-bit scores."""
    stored = np.round(probability * 65535).astype(np.uint16)
    score = score_volume(ArrayVolume(stored), ArrayVolume(label))
    truth, predicted = label.ravel(), (stored / 65535 >= 0.5).ravel()
    assert score.pooled.f1 == pytest.approx(f1_score(truth, predicted), abs=1e-9)
    assert score.pooled.mcc == pytest.approx(matthews_corrcoef(truth, predicted), abs=1e-9)
    assert score.pooled.iou == pytest.approx(jaccard_score(truth, predicted), abs=1e-9)
    assert score.pooled.average_precision == pytest.approx(
        average_precision_score(truth, stored.ravel()), abs=1e-9
    )
    floats = score_volume(ArrayVolume(probability), ArrayVolume(label))
    assert floats.pooled.average_precision == pytest.approx(score.pooled.average_precision, abs=1e-3)


def test_sections_without_label_are_left_out_of_means_and_counted(label):
    """An empty label leaves the means over the others; its false alarms are shown, and pooled."""
    label[2] = 0
    mask = label.copy()
    mask[2, :3, :4] = 1
    score = score_volume(ArrayVolume(mask), ArrayVolume(label))
    assert score.mean.f1 == score.mean.iou == score.mean.mcc == score.mean.average_precision == 1.0
    assert score.empty_sections == 1
    assert score.false_share_in_empty == pytest.approx(12 / 1200)
    assert score.pooled.f1 == pytest.approx(2 * label.sum() / (2 * label.sum() + 12))
    assert score.sections[2].confusion == Confusion(fp=12, tn=1188)


def test_kind_is_decided_for_the_whole_volume():
    """A first section of 0 and 1 does not make a probability map a mask: 1 of 255 is then background."""
    label = np.ones((2, 1, 2), np.uint8)
    prediction = np.array([[[0, 1]], [[2, 200]]], np.uint8)
    assert score_volume(ArrayVolume(prediction), ArrayVolume(label)).sections[0].confusion == Confusion(fn=2)
    assert score_volume(ArrayVolume(prediction[:1]), ArrayVolume(label[:1])).sections[0].confusion.tp == 1
    assert (
        score_volume(ArrayVolume(prediction), ArrayVolume(label), kind="mask").sections[0].confusion.tp == 1
    )


@pytest.mark.parametrize(
    ("volume", "kind"),
    [
        (np.array([[[0, 255]], [[0, 0]]], np.uint8), "mask"),
        (np.array([[[0, 1]], [[0, 2]]], np.uint8), "mask"),
        (np.array([[[0, 0, 1, 1, 0, 2, 2]]], np.int32), "mask"),
        (np.array([[[0, 0, 1, 1, 0, 200, 200, 0]]], np.uint8), "mask"),
        (np.array([[[0, 1, 80, 200, 255, 90, 3, 0]]], np.uint8), "probability"),
        (np.array([[[0, 255, 255, 7, 0, 255, 255, 0]]], np.uint8), "probability"),
        (np.array([[[0.0, 3.0, 0.0, 4.0]]], np.float64), "mask"),
        (np.array([[[0, 0]], [[0, 0]]], np.uint16), "mask"),
        (np.array([[[0.0, 1.0]], [[0.5, 0.0]]], np.float32), "probability"),
    ],
)
def test_a_mask_holds_zero_and_one_other_value(volume, kind):
    """All values of all sections decide; several values that border on 0 are instance numbers."""
    decided, note = decide_kind(ArrayVolume(volume), range(len(volume)))
    assert decided == kind
    assert ("instance numbers" in note) == (kind == "mask" and len(np.unique(volume)) > 2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.array([0, 10, 40, 99, 100, 70], np.uint8), "uint8 values from 0 to 100, which are neither"),
        (np.array([0, 900, 4095, 70], np.uint16), "uint16 values from 0 to 4095, which are neither"),
        (np.array([0, -1, 1], np.int16), "int16 values from -1 to 1"),
        (np.array([7, 7], np.uint8), "uint8 values from 7 to 7"),
    ],
)
def test_values_of_unknown_meaning_are_refused(values, sentence):
    """A map of another range is not scored as if 255 or 65535 were 1."""
    with pytest.raises(InputError, match=sentence):
        score_volume(values[None, None], (values > 0)[None, None])


def test_labels_that_mean_ignore_are_asked_for():
    """-1, or 255 beside 1, is refused until `ignore_value` says that it is not to be scored."""
    prediction = np.array([[[0, 1, 1, 0]]], np.uint8)
    for value, dtype in ((-1, np.int16), (255, np.uint8)):
        label = np.array([[[0, 1, value, value]]], dtype)
        with pytest.raises(InputError, match=f"holds the label {value}, .* give --ignore-value {value}"):
            score_volume(prediction, label)
        assert score_volume(prediction, label, ignore_value=value).confusion == Confusion(tp=1, tn=1)


def test_labels_without_background_are_noted():
    """They are probably inverted, or hold -1 for background."""
    assert "all pixels of array are labelled" in score_volume(np.ones((1, 2, 2)), np.ones((1, 2, 2))).notes[0]


def passed_on(prediction, labels, workers):
    """What `progress` gets to see."""
    seen = []

    def progress(scored, total):
        for one in scored:
            seen.append(one)
            yield one

    score_volume(prediction, labels, workers=workers, progress=progress)
    return seen


def test_sections_come_in_order_whatever_the_number_of_workers(probability, label):
    """One worker or several yield the same scores in the order of the sections."""
    runs = [
        [(one.section, one.score) for one in passed_on(ArrayVolume(probability), ArrayVolume(label), n)]
        for n in (1, 3, 9)
    ]
    assert [section for section, _ in runs[0]] == [0, 1, 2, 3, 4]
    assert runs[0] == runs[1] == runs[2]


def test_chosen_sections_only(probability, label):
    """Only the sections asked for are scored, by their index in the volume."""
    score = score_volume(ArrayVolume(probability), ArrayVolume(label), sections=[3, 1])
    assert list(score.sections) == [1, 3]


def test_no_section_at_all_has_no_scores(probability, label):
    """Without a section every number is NaN, and None in JSON."""
    score = score_volume(ArrayVolume(probability), ArrayVolume(label), sections=[])
    assert math.isnan(score.mean.f1)
    assert math.isnan(score.pooled.average_precision)
    assert json.loads(json.dumps(score.to_dict(), allow_nan=False))["predicted_share"] is None


def test_ignored_pixels_do_not_count(probability, label):
    """Pixels to ignore score as if they were cut out of both volumes."""
    ignore = np.zeros_like(label)
    ignore[:, :, 20:] = 1
    ignored = score_volume(ArrayVolume(probability), ArrayVolume(label), ignore=ArrayVolume(ignore))
    cut = score_volume(ArrayVolume(probability[:, :, :20]), ArrayVolume(label[:, :, :20]))
    assert ignored.sections == cut.sections


def test_shares_of_foreground(label):
    """The shares of foreground in prediction and label are counted over all pixels."""
    score = score_volume(ArrayVolume(np.ones_like(label) * np.uint8(255)), ArrayVolume(label))
    assert score.predicted_share == 1.0
    assert score.labelled_share == pytest.approx(label.mean())


def test_json_and_csv_hold_each_section(tmp_path, probability, label):
    """The dictionary is JSON without NaN, the table has a line per section with the same numbers."""
    label[4] = 0
    score = score_volume(ArrayVolume(probability), ArrayVolume(label))
    written = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert written["sections"] == 5
    assert written["empty_sections"] == 1
    assert written["mean"]["f1"] == score.mean.f1
    assert written["per_section"][4]["average_precision"] is None
    score.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["f1"]) for row in rows] == [section.f1 for section in score.sections.values()]
    assert rows[4]["average_precision"] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_unequal_shapes_are_refused_with_both(label):
    """Volumes of different shapes are refused with both shapes; swapped axes are recognised."""
    with pytest.raises(
        InputError, match=r"prediction a.tif has shape \(5, 30, 40\), the labels b.tif \(5, 30, 39\)"
    ):
        score_volume(ArrayVolume(label, name="a.tif"), ArrayVolume(label[:, :, 1:], name="b.tif"))
    with pytest.raises(InputError, match="the same in another order"):
        score_volume(ArrayVolume(label), ArrayVolume(label.transpose(2, 1, 0)))
    with pytest.raises(InputError, match="region to ignore"):
        score_volume(ArrayVolume(label), ArrayVolume(label), ignore=ArrayVolume(label[1:]))


def test_logits_are_refused_with_the_section_they_are_in(probability, label):
    """A value outside [0, 1] is refused with its volume, section and range."""
    probability[3, 0, 0] = 7
    with pytest.raises(
        InputError, match=r"section 3 of array: probabilities range from .* to 7; expected 0 to 1"
    ):
        score_volume(ArrayVolume(probability), ArrayVolume(label))
    with pytest.raises(InputError, match="workers is 0"):
        score_volume(ArrayVolume(probability), ArrayVolume(label), workers=0)
