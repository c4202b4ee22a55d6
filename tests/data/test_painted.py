"""Painted labels: what is accepted, what is refused with which words, and what of them a training step sees."""

import numpy as np
import pytest
import tifffile
import torch

from mitoda.data.augmentation import AUGMENTATIONS
from mitoda.data.painted import BACKGROUND, MITOCHONDRION, OUTLINE, open_painted
from mitoda.data.pairs import IGNORE, PaintedPairs
from mitoda.data.sampling import BatchSettings, BatchStream, read_batch, seeded
from mitoda.errors import InputError
from mitoda.volumes import ArrayVolume

SHAPE = (5, 60, 80)


@pytest.fixture
def stack():
    """Five sections whose grey value is the section's number."""
    return ArrayVolume(
        np.arange(5, dtype=np.uint8)[:, None, None] * np.ones(SHAPE, np.uint8), (50, 5, 5), "stack"
    )


def paint(section: int = 2) -> np.ndarray:
    """A rectangle of background with a square of mitochondrion in one section."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[section, 10:50, 20:70] = 1
    labels[section, 20:40, 30:60] = 2
    return labels


def write(path, labels, **options):
    tifffile.imwrite(path, labels, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32])
def test_a_layer_of_the_stacks_shape_is_read(tmp_path, stack, dtype):
    """Napari saves integers of 32 or 64 bits, others floats: the classes are the same."""
    painted = open_painted(write(tmp_path / "few.tif", paint().astype(dtype)), stack)
    assert painted.index == {2: 2}
    assert painted.boxes == {2: (slice(10, 50), slice(20, 70))}
    held = painted.read(2) > 2
    np.testing.assert_array_equal(painted.read(2) - 2 * held, paint()[2])
    assert not painted.read(1).any()
    assert painted.read(1, slice(3, 9), slice(4, 5)).shape == (6, 1)


def test_a_single_section_needs_its_number(tmp_path, stack):
    """And the number must exist."""
    path = write(tmp_path / "few.tif", paint()[2])
    with pytest.raises(InputError, match="single section, and stack has 5"):
        open_painted(path, stack)
    with pytest.raises(InputError, match="label section 5 does not exist: stack has sections 0 to 4"):
        open_painted(path, stack, section=5)
    assert open_painted(path, stack, section=3).index == {3: 0}


def test_a_folder_is_matched_by_the_numbers_in_its_names(tmp_path, stack):
    """The last number of a name is the section."""
    for number in (1, 4):
        write(tmp_path / f"cell2_{number:03d}.tif", paint()[2])
    assert open_painted(tmp_path, stack).index == {1: 0, 4: 1}
    write(tmp_path / "cell2_009.tif", paint()[2])
    with pytest.raises(InputError, match=r"cell2_009.tif .* 0 to 4"):
        open_painted(tmp_path, stack)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "nothing is painted"),
        (paint() * 100, "section 2 of the labels .* values 100, 200; expected 0 unlabelled, 1 background"),
        (np.minimum(paint(), 1), "0 pixels of class 2 .mitochondrion. and 2000 of class 1; paint both"),
        (np.where(paint() == 2, 2, 0).astype(np.uint8), "0 pixels of class 1 .background."),
        (paint()[:, :50], "50 × 80 pixels, the stack stack 60 × 80"),
        (paint()[:3], "3 sections, the stack stack has 5"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tmp_path, stack, labels, message):
    """One sentence with what was found and what was expected."""
    with pytest.raises(InputError, match=message):
        open_painted(write(tmp_path / "few.tif", labels), stack)


def test_an_outline_is_unlabelled(tmp_path, stack):
    """`mitoda suggest` draws it; nothing is learnt from it."""
    labels = paint()
    labels[4, 5:50, 5] = OUTLINE
    painted = open_painted(write(tmp_path / "few.tif", labels), stack)
    assert list(painted.index) == [2]
    assert not painted.read(4).any()


def test_the_held_back_part_is_a_third_of_the_mitochondrion_at_one_end(tmp_path, stack):
    """A contiguous part, so that it is not what was learnt a pixel further."""
    painted = open_painted(write(tmp_path / "few.tif", paint()), stack)
    classes = painted.read(2)
    columns = np.flatnonzero((classes > 2).any(0))
    np.testing.assert_array_equal(columns, np.arange(columns[0], 70))
    share = np.count_nonzero(classes == 4) / np.count_nonzero((classes == 2) | (classes == 4))
    assert 0.2 < share <= 0.35
    assert not ((classes < 3) & (classes > 0))[:, columns[0] :].any()


def painted_pairs(tmp_path, stack) -> PaintedPairs:
    """Pairs two sections apart."""
    return PaintedPairs(stack, 2, labels=open_painted(write(tmp_path / "few.tif", paint()), stack))


def test_every_draw_has_paint_in_it(tmp_path, stack):
    """The painted section is first or second of its pair, and the window reaches the paint."""
    pairs = painted_pairs(tmp_path, stack)
    assert pairs.pairs_of(2) == [(2, 4), (0, 2)]
    assert PaintedPairs(stack, 4, labels=pairs.labels).pairs_of(1) == [(1, 4)]
    draw = read_batch(pairs, 40, 32, AUGMENTATIONS["strong"], seeded(3))
    assert {crop.sections for crop in draw.crops} == {(0, 2), (2, 4), (2, 0), (4, 2)}
    assert all(crop.labels.any() for crop in draw.crops)


def test_no_draw_is_wasted_on_what_is_held_back(tmp_path, stack):
    """Windows of the whole paint would often show nothing but its held-back end."""
    pairs = painted_pairs(tmp_path, stack)
    for hold_back in (True, False):
        draw = read_batch(pairs, 60, 16, AUGMENTATIONS["none"], seeded(3), hold_back=hold_back)
        learnt = [np.isin(crop.labels, (BACKGROUND, MITOCHONDRION)).any() for crop in draw.crops]
        assert all(learnt) == hold_back


def test_unpainted_and_held_back_pixels_are_ignored(tmp_path, stack):
    """Labels of a batch are 0, 1 or IGNORE, and the held-back part is IGNORE while it is held back."""
    settings = BatchSettings(8, 32, AUGMENTATIONS["none"], "standard", seed=1, grid=4)
    counts = []
    for hold_back in (True, False):
        with BatchStream(
            painted_pairs(tmp_path, stack), None, settings, torch.device("cpu"), workers=1
        ) as stream:
            source, _ = stream.batch(0, hold_back=hold_back)
        labels = source.labels(4)
        assert set(labels.unique().tolist()) == {0, 1, IGNORE}
        for index in range(8):  # one section of each pair is not painted at all
            assert (labels[index] == IGNORE).flatten(1).all(1).sum() == 1
        counts.append(int((labels != IGNORE).sum()))
    assert counts[0] < counts[1]
