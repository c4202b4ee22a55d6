"""Where to paint: uncertain places of typical tissue, none twice, none that is painted."""

import numpy as np
import pytest

from mitoda.data.painted import OUTLINE, Rectangle, label_sections, open_painted
from mitoda.errors import InputError
from mitoda.inference import suggest
from mitoda.inference.suggest import suggest_rectangles
from mitoda.volumes import ArrayVolume
from tests.fakes import LocalNetwork, model_of

MODEL = model_of(LocalNetwork(), (10.0, 10.0), 50.0)


@pytest.fixture
def stack():
    """Four sections of noise."""
    values = np.random.default_rng(0).integers(80, 180, (4, 128, 160)).astype(np.uint8)
    return ArrayVolume(values, (50.0, 10.0, 10.0), "stack")


def test_the_least_certain_place_comes_first(stack, monkeypatch):
    """Everywhere certain but in one corner of one section."""

    def certain(volume, model, section):
        probability = np.zeros(volume.shape[1:], np.float32)
        if section == 2:
            probability[:40, :40] = 0.5
        return probability

    monkeypatch.setattr(suggest, "predict_section", certain)
    first = suggest_rectangles(stack, MODEL, 1, side_nm=400)[0]
    assert first.section == 2
    assert first.rows.start < 40
    assert first.columns.start < 40


def test_rectangles_do_not_overlap_and_leave_painted_places_out(stack, tmp_path):
    """Also in a second call, after painting."""
    rectangles = suggest_rectangles(stack, MODEL, 5, side_nm=500)
    assert len(rectangles) == 5
    labels = np.stack(list(label_sections(stack, rectangles)))
    assert set(np.unique(labels)) == {0, OUTLINE}
    for one in rectangles:
        labels[one.section, one.rows, one.columns] = 1
    one = rectangles[0]
    labels[one.section, one.rows.start : one.rows.start + 10, one.columns] = 2
    painted = open_painted(labels, stack)
    again = suggest_rectangles(stack, MODEL, 5, side_nm=500, painted=painted)
    for one in again:
        assert not painted.read(one.section, one.rows, one.columns).any()
    kept = np.stack(list(label_sections(stack, again, painted)))
    np.testing.assert_array_equal(kept[labels > 0], labels[labels > 0])


def test_constant_areas_are_not_tissue(stack):
    """Padding is not offered."""
    stack.array[:, :, :80] = 0
    assert all(one.columns.start >= 60 for one in suggest_rectangles(stack, MODEL, 4, side_nm=400))
    stack.array[:] = 0
    with pytest.raises(InputError, match="no unpainted tissue"):
        suggest_rectangles(stack, MODEL, 1, side_nm=400)


@pytest.mark.parametrize("options", [{"count": 0}, {"side_nm": -1.0}, {"side_nm": float("nan")}])
def test_numbers_must_be_positive(stack, options):
    """One line."""
    with pytest.raises(InputError, match="must be positive"):
        suggest_rectangles(stack, MODEL, **{"count": 1, **options})


def test_a_rectangle_says_where_it_is():
    """First and last row and column, from 0."""
    assert Rectangle(3, slice(10, 20), slice(0, 5)).text == "section 3, rows 10–19, columns 0–4"
