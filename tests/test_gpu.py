"""What only a CUDA device runs: the same results as the CPU, batches that fit, and a training step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.inference.predictor import SectionPredictor
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.streaming import predict
from mitoda.models.backbones import build_network
from mitoda.models.model import Model, load_model
from mitoda.models.weights import WeightsInfo
from mitoda.synthetic import SOURCE, TARGET, draw_phantom
from mitoda.training.adapt import Finished, adapt
from mitoda.training.loop import StepsDone
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import ArrayVolume, write_sections

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def predict_all(
    volume: ArrayVolume, device: torch.device, precision: str = "float32", **settings: object
) -> np.ndarray:
    """All sections by the default weights, without smoothing."""
    model = load_model(device=device, precision=precision)
    return np.stack(list(predict(volume, model, PredictionSettings(smoothing=0.0, **settings))))


def drawn_target() -> ArrayVolume:
    """A drawn stack with mitochondria."""
    image, _ = draw_phantom(TARGET, (12, 256, 320), 2)
    return ArrayVolume(image, TARGET.voxel_size, "target")


@pytest.mark.parametrize(("bfloat16", "mean"), [(False, 1e-4), (True, 3e-3)])
@pytest.mark.parametrize("batch", [1, 5, None])
def test_a_card_gives_what_the_processor_gives(bfloat16, mean, batch):
    """Probabilities of the bundled weights, in both types and in batches of any size."""
    volume = drawn_target()
    expected = predict_all(volume, CPU)
    found = predict_all(volume, CUDA, "bfloat16" if bfloat16 else "float32", batch_size=batch)
    assert np.abs(found - expected).mean() < mean


def test_compiled_for_a_card_it_gives_the_same():
    """`--compile` changes the speed only."""
    volume = drawn_target()
    plain = predict_all(volume, CUDA)
    assert np.abs(predict_all(volume, CUDA, compiled=True) - plain).mean() < 1e-3


def test_the_batch_is_sized_to_the_memory_that_is_free():
    """More than one small pair fits; with nearly all memory taken only one does."""
    model = Model(build_network("compact"), WeightsInfo("compact", (5.0, 5.0), 50.0), CUDA, bfloat16=True)

    def fitting(side: int) -> int:
        return SectionPredictor(model, (side, side), (1.0, 1.0)).batch_size

    assert fitting(512) > 1
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 2**30), dtype=torch.uint8, device=CUDA)
    assert fitting(4096) == 1
    del taken


@pytest.mark.parametrize("backbone", ["compact", "codetection"])
def test_isc_learns_on_a_card(backbone, tmp_path: Path):
    """A few steps in the precision the device likes: finite losses that fall, and weights on disk."""
    for name, domain, sections in (("source", SOURCE, 6), ("target", TARGET, 12)):
        image, label = draw_phantom(domain, (sections, 256, 256), 3)
        for suffix, array in (("", image), ("_mask", label)):
            write_sections(
                tmp_path / f"{name}{suffix}.tif", array, array.shape, array.dtype, domain.voxel_size
            )
    settings = TrainingSettings(method="isc", backbone=backbone, steps=40, patch=128)
    source = f"{tmp_path / 'source.tif'}:{tmp_path / 'source_mask.tif'}"
    plan = Plan(target=str(tmp_path / "target.tif"), source=source, training=settings)
    events = list(adapt(plan, tmp_path / "run", device="cuda"))
    losses = [event.losses["first"] for event in events if isinstance(event, StepsDone)]
    assert losses[-1] < losses[0]
    assert isinstance(events[-1], Finished)
    assert events[-1].weights.is_file()
