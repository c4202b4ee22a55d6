"""Self-training that goes wrong says so: a start that knows nothing, and tissue without mitochondria."""

from dataclasses import replace

import pytest
import torch

from mitoda.synthetic import SOURCE, TARGET, draw_phantom
from mitoda.training.adapt import Finished, adapt
from mitoda.training.loop import RoundBegun
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import write_sections

CPU = torch.device("cpu")
WITHOUT = replace(TARGET, mitochondria_share=0.0)


def test_a_phantom_without_mitochondria_has_none():
    """Nothing is labelled, and what is drawn is still tissue."""
    image, label = draw_phantom(WITHOUT, (3, 96, 96), 1)
    assert label.max() == 0
    assert image.std() > 5


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "target"), [(40, TARGET), (240, WITHOUT)])
def test_it_ends_in_a_plausible_result_or_with_a_warning(steps, target, tmp_path):
    """Ten source steps are a bad start; where there are no mitochondria the source's share cannot be right."""
    for name, domain, shape in (("source", SOURCE, (6, 256, 256)), ("target", target, (24, 256, 256))):
        image, label = draw_phantom(domain, shape, 3)
        for kind, array in (("", image), ("_mask", label)):
            write_sections(tmp_path / f"{name}{kind}.tif", array, array.shape, array.dtype, domain.voxel_size)
    early = {"supervised_share": "0.25", "rounds": "8"}
    settings = TrainingSettings(method="mitoda", steps=steps, patch=192, ema_decay=0.9, assignments=early)
    plan = Plan(
        str(tmp_path / "target.tif"), f"{tmp_path / 'source.tif'}:{tmp_path / 'source_mask.tif'}", settings
    )
    events = list(adapt(plan, tmp_path / "run", device="cpu"))
    assert isinstance(events[-1], Finished)
    checks = events[-1].checks
    said = [event.warning for event in events if isinstance(event, RoundBegun) and event.warning]
    share, of_source = checks.now.foreground, checks.source_foreground
    assert share < 0.5
    if target is WITHOUT:
        assert share < 0.3 * of_source
    assert checks.warnings or said or 0.3 * of_source <= share <= 3 * of_source
