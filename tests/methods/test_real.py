"""Every method on the real volumes, on both backbones: that it runs there, not how well."""

import numpy as np
import pytest
import torch

from mitoda.methods import METHODS, PRESETS, method_named
from mitoda.training.adapt import Finished, adapt
from mitoda.training.loop import StepsDone
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import open_labels, open_volume, write_sections


@pytest.fixture(scope="session")
def crops(real_data, tmp_path_factory):
    """A corner of both halves of Lucchi, deep enough for pairs 50 nm apart, and the labels of the training half."""
    folder = tmp_path_factory.mktemp("lucchi")
    for name, opened in (
        ("training", open_volume),
        ("testing", open_volume),
        ("training_groundtruth", open_labels),
    ):
        volume = opened(real_data / "lucchi" / f"{name}.tif")
        corner = np.stack([volume.read(k, slice(256, 512), slice(256, 512)) for k in range(14)])
        write_sections(folder / f"{name}.tif", corner, corner.shape, corner.dtype, (5.0, 5.0, 5.0))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["compact", "codetection"])
@pytest.mark.parametrize("name", [*METHODS, *PRESETS])
def test_every_method_runs_on_the_real_volumes(name, backbone, real_data, crops, tmp_path):
    """VNC III to Lucchi's unlabelled half, a few steps through every stage and round; the oracle on the other half."""
    vnc3 = real_data / "vnc3" / "stack1"
    target = str(crops / "testing.tif")
    if method_named(name)[0].labels_from == "target":
        target = f"{crops / 'training.tif'}:{crops / 'training_groundtruth.tif'}"
    settings = TrainingSettings(method=name, backbone=backbone, steps=4, patch=128, batch_size=1)
    plan = Plan(
        source=f"{vnc3 / 'raw'}:{vnc3 / 'mitochondria'}",
        target=target,
        training=settings,
        start=None,
        source_voxel_size=(50.0, 4.6, 4.6),
        target_voxel_size=(5.0, 5.0, 5.0),
    )
    events = list(adapt(plan, tmp_path / "run", device="cpu"))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.step == 4
    assert finished.weights.is_file()
    losses = [event.losses for event in events if isinstance(event, StepsDone)]
    assert losses
    assert all(torch.isfinite(torch.tensor(list(one.values()))).all() for one in losses)
