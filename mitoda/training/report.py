"""The page a training leaves: its settings, its losses, and what its weights make of the target."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitoda.data.geometry import Geometry
from mitoda.inference.predictor import InferenceSettings
from mitoda.inference.streaming import predict_sections
from mitoda.models.pair_networks import backbone_named
from mitoda.models.weights import load_weights
from mitoda.plotting import curve_figure, overlay, write_report
from mitoda.training.domains import AdaptationPlan, Prepared
from mitoda.training.loop import Finished
from mitoda.training.state import read_log
from mitoda.training.verdict import Verdict
from mitoda.volumes import ArrayVolume, Volume

PICTURES = 3
"""Sections of the target that are shown."""
CANDIDATES = 9
"""Sections among which those that changed most are sought, where the run began from weights."""
PICTURE_SIDE = 1024
"""Pixels; of larger sections the middle is shown."""


def loss_records(folder: Path) -> list[dict[str, Any]]:
    """Losses of a run's log, one flat record for each line: step and loss by name."""
    return [
        {"step": record["step"], **record["losses"]} for record in read_log(folder) if record.get("losses")
    ]


def draw_curves(folder: Path) -> None:
    """Write `curves.png` into a run's folder; nothing before the first line of the log."""
    records = loss_records(folder)
    if records:
        curve_figure(records, folder / "curves.png")


def write_run_report(
    plan: AdaptationPlan,
    prepared: Prepared,
    folder: Path,
    finished: Finished,
    device: torch.device,
    *,
    bfloat16: bool = False,
    verdict: Verdict | None = None,
) -> Path:
    """Write `report.html` (and `curves.png`) into a run's folder.

    Parameters
    ----------
    verdict : Verdict, optional
        Of the weights saved last; with it, what they make of a few target sections is shown. No label is read.

    Returns
    -------
    Path
        Of the page.
    """
    settings = asdict(plan)
    if plan.source_free:
        settings["source"] = None  # the plan holds the name that is the default; nothing of it was read
    shown = settings.pop("training")
    state = "complete" if finished.complete else "stopped before its end"
    notes = [
        f"{finished.step} steps in {finished.seconds:.0f} s, {state}. The weights are averaged over the last steps; no "
        "label of the target was read"
        + (" except as the oracle's training labels." if plan.training.method == "oracle" else ".")
    ]
    return write_report(
        folder,
        f"mitoda adapt: {plan.training.method} on {plan.training.backbone}",
        settings={**settings, **shown},
        records=loss_records(folder),
        tables={"Geometry": _geometry_table(prepared)}
        | ({"The target, without labels": verdict.table()} if verdict is not None else {}),
        pictures=_pictures(prepared, finished.weights, device, bfloat16) if verdict is not None else (),
        compared=None if prepared.start is None else ("now and before", "now only", "before only"),
        notes=notes,
    )


def _geometry_table(prepared: Prepared) -> dict[str, object]:
    geometry = prepared.geometry
    rows: dict[str, object] = {
        "working pixel": f"{geometry.pixel[0]:g} × {geometry.pixel[1]:g} nm",
        "pairs": f"{prepared.info.spacing:g} nm apart",
    }
    for name, pairs in prepared.domains():
        size = pairs.volume.voxel_size
        rows[name] = {
            "sections, rows, columns": " × ".join(map(str, pairs.volume.shape)),
            "voxel (nm)": " × ".join(f"{length:g}" for length in size) if size else None,
            "stride": pairs.stride,
            "resampled by": f"{1 / pairs.scale[0]:.3f} × {1 / pairs.scale[1]:.3f}",
        }
    return rows


def _pictures(
    prepared: Prepared, weights: Path, device: torch.device, bfloat16: bool
) -> list[tuple[str, np.ndarray]]:
    """Draw masks over sections spread over the target; where it began from weights, over those that changed most."""
    now = _Masks(prepared, weights, device, bfloat16)
    if prepared.start is None:
        return [_picture(prepared, k, now.of(k), None) for k in _spread(prepared, PICTURES)]
    before = _Masks(prepared, prepared.start, device, bfloat16)
    masks = {k: (now.of(k), before.of(k)) for k in _spread(prepared, CANDIDATES)}
    changed = sorted(masks, key=lambda k: np.count_nonzero(masks[k][0] ^ masks[k][1]), reverse=True)
    return [_picture(prepared, k, *masks[k]) for k in sorted(changed[:PICTURES])]


def _spread(prepared: Prepared, count: int) -> list[int]:
    """Sections evenly spread over the target."""
    sections = prepared.target.volume.shape[0]
    return sorted({(2 * place + 1) * sections // (2 * count) for place in range(count)})


def _picture(
    prepared: Prepared, k: int, mask: np.ndarray, before: np.ndarray | None
) -> tuple[str, np.ndarray]:
    """The middle of a section with its mask, and with what changed since before; and its caption."""
    rows, columns = (_middle(size) for size in mask.shape)
    grey = prepared.target.volume.read(k, rows, columns)
    caption = (
        f"section {k}, before smoothing along the sections: {mask.mean():.1%} predicted as mitochondrion"
    )
    if before is None:
        return caption, overlay(grey, mask[rows, columns])
    caption += f", {before.mean():.1%} before: green in both, red new, blue gone"
    return caption, overlay(grey, mask[rows, columns], before[rows, columns])


class _Masks:
    """Masks of single sections of the target by some weights, before smoothing along the sections."""

    def __init__(self, prepared: Prepared, weights: Path, device: torch.device, bfloat16: bool) -> None:
        self.target = prepared.target
        self.network, self.info = load_weights(weights)
        self.settings = InferenceSettings(bfloat16=bfloat16)
        self.device = device

    def of(self, k: int) -> np.ndarray:
        """The mask of section `k`, boolean."""
        info = self.info
        near, index = neighbourhood(self.target.volume, k, self.target.stride, info.spacing)
        predicted = predict_sections(
            self.network,
            backbone_named(info.backbone),
            Geometry(info.pixel, info.spacing),
            near,
            self.settings,
            self.device,
        )
        return np.asarray(list(predicted)[index] >= info.threshold)


def neighbourhood(volume: Volume, k: int, stride: int, spacing: float) -> tuple[ArrayVolume, int]:
    """Cut section `k` and its partners `stride` sections away out of a volume, as neighbours `spacing` nm apart.

    Both visits of the section are in it, so it is predicted as in the whole volume, at the cost of three sections.

    Returns
    -------
    ArrayVolume, int
        The sections, and which of them is `k`.
    """
    chosen = sorted({n for n in (k - stride, k, k + stride) if 0 <= n < volume.shape[0]})
    voxel_size = volume.voxel_size
    if voxel_size is not None:
        voxel_size = (spacing, *voxel_size[1:])
    return ArrayVolume(np.stack([volume.read(n) for n in chosen]), voxel_size, volume.name), chosen.index(k)


def _middle(size: int) -> slice:
    start = max(0, (size - PICTURE_SIDE) // 2)
    return slice(start, start + PICTURE_SIDE)
