"""Stacks for the tests of volumes."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def stack():
    """Seven sections of 40 rows and 30 columns, no two voxels in a row alike; uint8."""
    return np.random.default_rng(0).integers(0, 256, (7, 40, 30), dtype=np.uint8)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real volumes; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MITODA_TEST_DATA", default))
    if not (folder / "lucchi").is_dir():
        pytest.skip(f"no real volumes in {folder}; set MITODA_TEST_DATA")
    return folder
