"""What several test modules need: real data, and small phantoms."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from mitoda.synthetic import SOURCE, TARGET, draw_phantom
from mitoda.volumes import ArrayVolume

REAL_DATA = Path(os.environ.get("MITODA_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real volumes; a test that wants them is skipped without them, or fails if they must be there."""
    if not all((REAL_DATA / name).is_dir() for name in ("vnc3", "lucchi", "cdeep3m", "fib25")):
        missing = (
            f"the real volumes (vnc3, lucchi, cdeep3m, fib25) are not at {REAL_DATA}; set MITODA_TEST_DATA"
        )
        if os.environ.get("MITODA_REQUIRE_DATA"):
            pytest.fail(missing)
        pytest.skip(missing)
    return REAL_DATA


@lru_cache(maxsize=4)
def _phantom(name: str, shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    return draw_phantom({"source": SOURCE, "target": TARGET}[name], shape, seed)


@pytest.fixture(scope="session")
def source_phantom() -> tuple[ArrayVolume, ArrayVolume]:
    """A small labelled volume: images and labels, 50 nm sections."""
    image, label = _phantom("source", (4, 160, 192), 1)
    return ArrayVolume(image, SOURCE.voxel_size, "source"), ArrayVolume(
        label, SOURCE.voxel_size, "source labels"
    )


@pytest.fixture(scope="session")
def target_phantom() -> tuple[ArrayVolume, ArrayVolume]:
    """A small target volume and its labels, 10 nm sections."""
    image, label = _phantom("target", (8, 160, 192), 2)
    return ArrayVolume(image, TARGET.voxel_size, "target"), ArrayVolume(
        label, TARGET.voxel_size, "target labels"
    )
