"""Small valid files to start from."""

from pathlib import Path

import numpy as np
import pytest

from mitoda.training.adapt import adapt
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import write_sections
from tests.fakes import compact_weights
from tests.robustness.mutations import noise

SIZE = (10.0, 10.0, 10.0)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """A stack, labels, weights, a run of one step, and a file that nobody names; nothing here may change."""
    folder = tmp_path_factory.mktemp("kept")
    stack = noise(3, 48, 48)
    labels = np.zeros_like(stack)
    labels[:, 10:30, 10:30] = 1
    found = {"stack": folder / "stack.tif", "labels": folder / "labels.tif"}
    for name, array in (("stack", stack), ("labels", labels)):
        write_sections(found[name], array, array.shape, array.dtype, SIZE)
    found["weights"] = folder / "weights.safetensors"
    compact_weights(found["weights"], threshold=0.5)
    found["run"] = folder / "run"
    settings = TrainingSettings(steps=1, patch=128, batch_size=1, workers=1, method="source-only")
    plan = Plan(
        source=f"{found['stack']}:{found['labels']}",
        target=str(found["stack"]),
        training=settings,
        start=None,
    )
    for _ in adapt(plan, found["run"], device="cpu"):
        pass
    found["bystander"] = folder / "thesis.txt"
    found["bystander"].write_text("five years of work\n")
    found["folder"] = folder
    return found
