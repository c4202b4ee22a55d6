"""Pairs of sections of one volume."""

import numpy as np
import pytest

from mitoda.data.pairs import LabelledPairs, UnlabelledPairs
from mitoda.errors import InputError
from mitoda.volumes import ArrayVolume


def test_pairs_that_cannot_be_are_refused():
    """A stride past the stack, no labels, labels of another shape; stride 0 is a section with itself."""
    volume = ArrayVolume(np.zeros((3, 8, 8), np.uint8), name="stack.tif")
    assert UnlabelledPairs(volume, 0).count == 3
    assert UnlabelledPairs(volume, 2).count == 1
    with pytest.raises(InputError, match=r"stack.tif has 3 sections, too few for pairs 3 sections apart"):
        UnlabelledPairs(volume, 3)
    with pytest.raises(InputError, match="needs labels to be a source; give IMAGES:LABELS"):
        LabelledPairs(volume, 1)
    with pytest.raises(
        InputError, match=r"differ in shape: mask.tif is \(3, 8, 9\), stack.tif is \(3, 8, 8\)"
    ):
        LabelledPairs(volume, 1, labels=ArrayVolume(np.zeros((3, 8, 9), np.uint8), name="mask.tif"))
