"""The memory that one large section takes: 12,000 × 12,000 pixels, a field of a scanning microscope."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mitoda.volumes import write_sections
from tests.commands import ROOT

SIDE = 12_000
MEASURE = """
import resource, runpy, sys
try:
    runpy.run_module("mitoda", run_name="__main__")
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def section(tmp_path_factory) -> Path:
    """Noise with the structure of tissue, drawn once and repeated."""
    path = tmp_path_factory.mktemp("large") / "section.tif"
    patch = np.random.default_rng(0).integers(60, 190, (1000, 1000), dtype=np.uint8)
    whole = np.tile(patch, (SIDE // 1000, SIDE // 1000))
    write_sections(path, [whole], (1, SIDE, SIDE), np.dtype(np.uint8), (50, 5, 5))
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize(("command", "megabytes"), [("inspect", 600), ("segment", 2000)])
def test_a_section_of_12000_by_12000_pixels(section, tmp_path, command, megabytes):
    """`inspect` stays under 600 MB and `segment` under 2 GB."""
    arguments = [command, str(section)]
    if command == "segment":
        arguments += ["-o", str(tmp_path / "mask.tif"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.rsplit("peak", 1)[1]) / 1024 < megabytes
