"""`mitoda demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import draw_training, say
from mitoda.cli.options import DeviceOption
from mitoda.cli.score import print_scores
from mitoda.cli.segment import draw_segmentation

if TYPE_CHECKING:
    from mitoda import Plan

SEED = 5
STEPS = 130
PATCH = 256
EMA_DECAY = 0.98
"""Enough for the drawn volumes: about two minutes on two cores."""
FILES = ("source.tif", "source_mask.tif", "target.tif", "target_mask.tif", "mask.tif", "overlay.png")


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")] = Path("mitoda-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = STEPS,
    device: DeviceOption = "auto",
) -> None:
    """Adapt, segment and score on two synthetic volumes: offline, in about three minutes."""
    from mitoda.errors import FileError
    from mitoda.training.run_folder import RunFolder

    taken = [out / name for name in FILES if (out / name).exists()]
    if taken and not overwrite:
        raise FileError(f"{taken[0]} exists; give another folder with --out, or --overwrite to replace it")
    RunFolder(out / "run").check_free(overwrite)
    plan = _plan(out, steps)
    out.mkdir(parents=True, exist_ok=True)
    say("The data of this demo are synthetic: two drawn volumes that imitate two electron microscopes.")
    say("drawing a labelled source (serial-section TEM, 50 nm) and a target (FIB-SEM, 10 nm) …")
    draw_volumes(out)
    adapt_segment_score(out, plan, device, overwrite)
    draw_overlay(out)
    say(f"see {out / FILES[-1]}: green is correct, red is false, blue is missed (synthetic data)")


def _plan(out: Path, steps: int) -> "Plan":
    from mitoda import Plan, TrainingSettings

    return Plan(
        source=f"{out / FILES[0]}:{out / FILES[1]}",
        target=str(out / FILES[2]),
        training=TrainingSettings(method="isc", steps=steps, patch=PATCH, ema_decay=EMA_DECAY, seed=SEED),
    )


def adapt_segment_score(out: Path, plan: "Plan", device: str, overwrite: bool) -> None:
    """Do what three commands do, and print each of them."""
    from functools import partial

    from mitoda import SegmentSettings, adapt, load_model, open_volume, score, segment
    from mitoda.models.device import describe_device

    target, target_mask, mask = (out / name for name in FILES[2:5])
    run = out / "run"
    say(
        f"$ mitoda adapt --source {plan.source} --target {target} --method isc --steps {plan.training.steps} "
        f"--patch {PATCH} --ema {EMA_DECAY:g} --seed {SEED} --out {run}"
    )
    draw_training(partial(adapt, plan, run, device=device, overwrite=overwrite), run)
    say(f"$ mitoda segment {target} -o {mask} --weights {run}")
    model = load_model(run, device)
    settings = SegmentSettings(output=mask, overwrite=True)
    draw_segmentation(segment(open_volume(target), model, settings), settings, describe_device(model.device))
    say(f"$ mitoda score {mask} {target_mask}    (the labels of the target are used only here)")
    print_scores(score(mask, target_mask))


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


def draw_overlay(out: Path) -> None:
    """Draw one source section with its label, and three target sections with the mask found."""
    import numpy as np

    from mitoda.plotting import overlay, write_png
    from mitoda.volumes import open_labels, open_volume

    source, target = open_volume(out / "source.tif"), open_volume(out / "target.tif")
    source_label, label, found = (
        open_labels(out / f"{name}.tif") for name in ("source_mask", "target_mask", "mask")
    )
    panels = [overlay(source.read(4), source_label.read(4))]
    panels += [overlay(target.read(k), found.read(k), label.read(k)) for k in (4, 12, 20)]
    write_png(np.vstack([np.hstack(panels[:2]), np.hstack(panels[2:])]), out / "overlay.png")
