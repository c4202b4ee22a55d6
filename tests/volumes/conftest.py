"""Stacks for the tests of volumes."""

import numpy as np
import pytest


@pytest.fixture
def stack():
    """Seven sections of 40 rows and 30 columns, no two voxels in a row alike; uint8."""
    return np.random.default_rng(0).integers(0, 256, (7, 40, 30), dtype=np.uint8)
