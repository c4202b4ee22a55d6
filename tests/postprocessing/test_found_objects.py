"""Objects of masks and label volumes: sizes and places equal those of the whole volume at once."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.postprocessing.found_objects import FoundObjects
from mitoda.volumes import ArrayVolume

RNG = np.random.default_rng(3)
MASK = (ndimage.gaussian_filter(RNG.normal(size=(9, 40, 50)), 2) > 0.02).astype(np.uint8) * 255
# within a section along corners too, between sections only where they overlap
STRUCTURE = np.zeros((3, 3, 3), bool)
STRUCTURE[1] = STRUCTURE[:, 1, 1] = True
LABELS, COUNT = ndimage.label(MASK, STRUCTURE)


def rows(found: FoundObjects) -> set[tuple[int, ...]]:
    return {
        (int(size), *start.tolist(), *stop.tolist())
        for size, start, stop in zip(found.voxels, found.starts, found.stops, strict=True)
    }


EXPECTED = {
    (int(np.count_nonzero(number == LABELS)), *(part.start for part in box), *(part.stop for part in box))
    for number, box in enumerate(ndimage.find_objects(LABELS), 1)
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32])
def test_labels_and_mask_have_the_same_objects(dtype):
    """As `scipy.ndimage` finds them in the whole volume; label numbers may have gaps."""
    assert COUNT > 3
    labels = FoundObjects(ArrayVolume((LABELS * 5).astype(dtype)))
    assert rows(labels) == rows(FoundObjects(ArrayVolume(MASK))) == EXPECTED
    assert labels.numbers.tolist() == [5 * number for number in range(1, COUNT + 1)]


def test_each_pixel_has_the_number_of_its_object():
    """Number and label are one to one, in parts of sections too."""
    found = FoundObjects(ArrayVolume(MASK))
    for section in range(len(MASK)):
        part = found.read(section, slice(5, 30), slice(10, 45))
        own = LABELS[section, 5:30, 10:45]
        assert len({*zip(part.ravel().tolist(), own.ravel().tolist(), strict=True)}) == len(np.unique(own))
        assert ((part == 0) == (own == 0)).all()
        assert set(np.unique(part)) - {0} <= set(found.numbers)


def test_what_has_no_objects_is_refused():
    """An empty mask, and a probability map."""
    with pytest.raises(InputError, match="is empty"):
        FoundObjects(ArrayVolume(np.zeros((2, 5, 5), np.uint8)))
    with pytest.raises(InputError, match="holds probabilities"):
        FoundObjects(ArrayVolume(RNG.random((2, 9, 9)).astype(np.float32)))
