"""`mitoda demo`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.options import DeviceOption
from mitoda.cli.terminal import say

SEED = 5
STEPS = 130
PATCH = 256
EMA_DECAY = 0.98
"""Enough for the drawn volumes: about two minutes on two cores."""


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")] = Path("mitoda-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = STEPS,
    device: DeviceOption = "auto",
) -> None:
    """Adapt, segment and score on two synthetic volumes, offline, within three minutes."""
    from mitoda.cli.score import score
    from mitoda.cli.segment import segment
    from mitoda.cli.training import run_plan
    from mitoda.training.domains import AdaptationPlan
    from mitoda.training.run_folder import RunFolder
    from mitoda.training.settings import TrainingSettings

    RunFolder(out / "run").check_free(overwrite)
    out.mkdir(parents=True, exist_ok=True)
    say("The data of this demo are synthetic: two drawn volumes that imitate two electron microscopes.")
    say("drawing a labelled source (serial-section TEM, 50 nm) and a target (FIB-SEM, 10 nm) …")
    draw_volumes(out)
    plan = AdaptationPlan(
        source=f"{out / 'source.tif'}:{out / 'source_mask.tif'}",
        target=str(out / "target.tif"),
        training=TrainingSettings(method="isc", steps=steps, patch=PATCH, ema_decay=EMA_DECAY, seed=SEED),
    )
    say(
        f"$ mitoda adapt --source {plan.source} --target {plan.target} --method isc --steps {steps} "
        f"--patch {PATCH} --ema {EMA_DECAY:g} --seed {SEED} --out {out / 'run'}"
    )
    run_plan(plan, out / "run", device, overwrite=overwrite)
    mask, weights = out / "mask.tif", RunFolder(out / "run").weights
    say(f"$ mitoda segment {out / 'target.tif'} -o {mask} --weights {weights}")
    segment(str(out / "target.tif"), mask, weights=str(weights), device=device, overwrite=True)
    say(f"$ mitoda score {mask} {out / 'target_mask.tif'}    (the target's labels are used here only)")
    score(str(mask), str(out / "target_mask.tif"))
    picture = draw_overlay(out)
    say(
        f"look at {picture}: green is found and right, red is found and wrong, blue is missed (synthetic data)"
    )


def draw_volumes(out: Path) -> None:
    """Draw both domains and write them with their labels."""
    from mitoda.synthetic import SOURCE, TARGET, draw_phantom
    from mitoda.volumes import write_sections

    for name, domain, shape, seed in (
        ("source", SOURCE, (10, 512, 512), SEED),
        ("target", TARGET, (24, 512, 512), SEED + 1),
    ):
        image, label = draw_phantom(domain, shape, seed)
        for path, array in ((out / f"{name}.tif", image), (out / f"{name}_mask.tif", label)):
            write_sections(path, array, array.shape, array.dtype, domain.voxel_size, overwrite=True)


def draw_overlay(out: Path) -> Path:
    """Draw one source section with its label, and three target sections with what was found."""
    import imageio.v3 as iio
    import numpy as np

    from mitoda.plotting import overlay
    from mitoda.volumes import open_labels, open_volume

    target, found, label = (
        open_volume(out / "target.tif"),
        open_labels(out / "mask.tif"),
        open_labels(out / "target_mask.tif"),
    )
    source, source_label = open_volume(out / "source.tif"), open_labels(out / "source_mask.tif")
    panels = [overlay(source.read(4), source_label.read(4))]
    panels += [overlay(target.read(k), found.read(k), label.read(k)) for k in (4, 12, 20)]
    picture = out / "overlay.png"
    iio.imwrite(
        picture, np.concatenate([np.concatenate(panels[:2], axis=1), np.concatenate(panels[2:], axis=1)])
    )
    return picture
