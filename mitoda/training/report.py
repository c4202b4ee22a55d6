"""What a run ends with: checks of its result without labels, and a page with losses, settings and pictures."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mitoda.data.painted import HELD_BACK, MITOCHONDRION
from mitoda.inference.self_consistency import (
    EMPTY,
    FLOOD,
    consistency_scores,
    foreground_is_plausible,
    foreground_share,
)
from mitoda.inference.streaming import predict_section
from mitoda.models.model import Model, load_model
from mitoda.plotting import curve_figure, overlay, write_png, write_report
from mitoda.plotting.section_view import evenly_spaced, view_sections
from mitoda.training.domains import Prepared, choose_source
from mitoda.training.loop import Ended
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan
from mitoda.volumes import Volume
from mitoda.volumes.voxel_size import known_voxel_size

SAMPLES = 12
"""Samples of the target that the checks look at."""
LEAST_KEPT = 0.6
"""Share of the foreground before the run below which mitochondria count as lost. It is a judgement: few runs were
compared with labels (one that raised F1 by 0.08 ended at 1.18)."""
MOST_DISAGREEMENT = 0.02
"""By how much the agreement of a section's two predictions (Dice) may fall."""
PICTURES = 9
"""Sections of the target that are shown."""
PAINTED_PICTURES = 3
"""Painted places that are shown."""
HELD_BACK_ROWS = {
    "objects": "mitochondria held back",
    "before": "F1 before training",
    "after": "F1 at half of the run",
    "after_low": "95 % interval, from",
    "after_high": "95 % interval, to",
    "threshold": "chosen threshold",
    "snap": "boundaries moved to membranes",
    "smallest": "components removed below (nm³)",
    "share": "share of the trained weights, the rest is the start",
}
"""What the report calls the fields of `HeldBackScore`."""


@dataclass(frozen=True)
class Check:
    """What weights predict in samples of the target."""

    foreground: float
    """Share of pixels predicted as mitochondrion."""
    agreement: float | None
    """Dice between the two predictions of a section, in the pair before it and in the pair after it."""


@dataclass(frozen=True)
class Checks:
    """Checks of a run's result that need no label of the target."""

    now: Check
    before: Check | None
    """Of the weights that the run began from; None from scratch."""
    source_foreground: float | None
    """Share of the source's pixels labelled as mitochondrion; None without a source."""
    kept_start: bool = False
    """The weights that the run began from are its result, since what it ended with is worse."""

    @property
    def sentence(self) -> str:
        """The numbers in one line."""
        foreground, dice = f"{self.now.foreground:.2%}", _number(self.now.agreement)
        if self.before is not None:
            foreground += f" (before the run {self.before.foreground:.2%})"
            dice += f" (before the run {_number(self.before.agreement)})"
        return (
            f"checks without labels, on {SAMPLES} samples of the target: foreground {foreground}; "
            f"agreement of a section's two predictions (Dice) {dice}"
        )

    @property
    def rows(self) -> dict[str, str | None]:
        """The numbers by what they mean, for the report."""
        earlier, labelled = self.before, self.source_foreground
        return {
            f"foreground of {SAMPLES} samples": f"{self.now.foreground:.2%}",
            "foreground before the run": None if earlier is None else f"{earlier.foreground:.2%}",
            "labelled foreground of the source": None if labelled is None else f"{labelled:.2%}",
            "agreement of a section's two predictions (Dice)": _number(self.now.agreement),
            "agreement before the run": None if earlier is None else _number(earlier.agreement),
        }

    @property
    def is_worse(self) -> bool:
        """Whether the result is less credible than the weights that the run began from.

        It is if a section's two predictions agree less than before, or if much of what was found is lost.
        """
        if self.before is None:
            return False
        lost = self.now.foreground < LEAST_KEPT * self.before.foreground
        if self.now.agreement is None or self.before.agreement is None:
            return lost
        return lost or self.now.agreement < self.before.agreement - MOST_DISAGREEMENT

    @property
    def warnings(self) -> list[str]:
        """Reasons to look at the result before using the weights."""
        share = self.now.foreground
        if self.kept_start and self.before is not None:
            return [
                "adapting did not help, so the result is the starting weights; the final weights are kept as "
                f"weights-STEP.safetensors: foreground {share:.2%} (before "
                f"{self.before.foreground:.2%}), agreement {_number(self.now.agreement)} (before "
                f"{_number(self.before.agreement)}). A painted section may help: see mitoda suggest"
            ]
        found = f"{share:.2%} of {SAMPLES} samples of the target is predicted as mitochondrion"
        advice = "check --voxel-size and --invert, and look at the pictures in the report"
        if share < EMPTY:
            return [f"the result is almost empty: {found}; {advice}"]
        if share > FLOOD:
            return [f"{found}, more than in any tissue; {advice}"]
        if self.source_foreground is not None and not foreground_is_plausible(share, self.source_foreground):
            return [f"{found}, but {self.source_foreground:.2%} of the source is labelled so; {advice}"]
        if self.before is not None and not foreground_is_plausible(share, self.before.foreground):
            return [f"{found}, but {self.before.foreground:.2%} before the run; {advice}"]
        return []


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def check_result(plan: Plan, prepared: Prepared, weights: Path, device: torch.device) -> Checks:
    """Check a run's weights, and those that it began from, on samples of the target; no label of it is read."""

    def check(path: Path) -> Check:
        model = load_model(path, device, plan.precision)
        scores = consistency_scores(model, prepared.target, samples=SAMPLES)
        return Check(scores["foreground"] or 0.0, scores["two_context_dice"])

    before = None if prepared.start is None else check(prepared.start)
    return Checks(check(weights), before, foreground_share(prepared.source))


def loss_records(folder: RunFolder) -> list[dict[str, float]]:
    """Losses in a run's log: one record for each line, with its step and the losses by name."""
    return [
        {"step": record["step"], **record["losses"]} for record in folder.read_log() if record.get("losses")
    ]


def draw_curves(folder: RunFolder) -> None:
    """Write `curves.png` into a run's folder; nothing before the first line of the log."""
    if records := loss_records(folder):
        write_png(curve_figure(records), folder.curves)


def write_run_report(
    plan: Plan,
    prepared: Prepared,
    folder: RunFolder,
    finished: Ended,
    device: torch.device,
    checks: Checks | None = None,
) -> Path:
    """Write `report.html` and `curves.png` into a run's folder; return the path of the page.

    With `checks`, the page has them, and pictures of what the last weights predict in the target.
    """
    settings = asdict(plan)
    settings["source"] = choose_source(plan)
    training = settings.pop("training")
    state = "complete" if finished.complete else "stopped before its end"
    exception = " except as the oracle's training labels" if plan.training.method == "oracle" else ""
    if prepared.painted is not None:
        exception = f" except the painted ones in {prepared.painted.name}"
    held_back: dict[str, object] = {}
    for record in folder.read_log():
        held_back = record.get("held_back", held_back)
    scores = {row: held_back[name] for name, row in HELD_BACK_ROWS.items() if name in held_back}
    view, figures = (None, []) if checks is None else _view(plan, prepared, folder.weights, device)
    records = loss_records(folder)
    write_report(
        folder.report,
        f"mitoda adapt: {plan.training.method} on {plan.training.backbone}",
        notes=[
            f"{finished.step} steps in {finished.seconds:.0f} s, {state}. The weights are averaged over the last "
            f"steps; no label of the target was read{exception}."
        ],
        warnings=[] if checks is None else checks.warnings,
        view=view,
        figures=figures,
        losses=curve_figure(records) if records else None,
        pictures=[] if checks is None else _painted_pictures(plan, prepared, folder.weights, device),
        tables={
            **({"F1 on the held-back part of the labels": scores} if scores else {}),
            **({} if checks is None else {"Checks of the target without labels": checks.rows}),
            "Geometry": _geometry(prepared),
            "Settings": {**settings, **training},
        },
    )
    draw_curves(folder)
    return folder.report


def _geometry(prepared: Prepared) -> dict[str, object]:
    pixel = prepared.geometry.pixel
    rows: dict[str, object] = {
        "working pixel": f"{pixel[0]:g} × {pixel[1]:g} nm",
        "distance of a pair": f"{prepared.info.spacing:g} nm",
    }
    for name, pairs in prepared.domains():
        size = pairs.volume.voxel_size
        rows[name] = {
            "sections, rows, columns": " × ".join(map(str, pairs.volume.shape)),
            "voxel size (nm)": " × ".join(f"{length:g}" for length in size) if size else None,
            "stride (sections)": pairs.stride,
            "resampling factor": f"{1 / pairs.scale[0]:.3f} × {1 / pairs.scale[1]:.3f}",
        }
    return rows


def _view(
    plan: Plan, prepared: Prepared, weights: Path, device: torch.device
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Evenly spaced sections with what the weights predict there, now and before the run, and figures of them."""
    volume = prepared.stack
    now = load_model(weights, device, plan.precision)
    before = None if prepared.start is None else load_model(prepared.start, device, plan.precision)
    chosen = evenly_spaced(volume.shape[0], PICTURES)
    masks = ((k, _mask(now, volume, k), None if before is None else _mask(before, volume, k)) for k in chosen)
    view = view_sections(volume, masks, chosen)
    figures = [
        (f"{np.mean([share for _, share in view[name]]):.1%}".replace("%", " %"), meaning)
        for name, meaning in (
            ("foreground", "of these sections is mitochondrion"),
            ("before", "before the run"),
        )
        if view[name]
    ]
    return view, figures


def _painted_pictures(
    plan: Plan, prepared: Prepared, weights: Path, device: torch.device
) -> list[tuple[str, np.ndarray]]:
    """Captions and overlays of painted places, with what the weights predict there before and after the run."""
    painted, volume = prepared.painted, prepared.stack
    if painted is None:
        return []
    models = {
        when: load_model(path, device, plan.precision)
        for when, path in (("before the run", prepared.start), ("after the run", weights))
        if path is not None
    }
    pictures = []
    for k in list(painted.index)[:PAINTED_PICTURES]:
        rows, columns = painted.boxes[k]
        truth = np.isin(painted.read(k, rows, columns), (MITOCHONDRION, MITOCHONDRION + HELD_BACK))
        for when, model in models.items():
            mask = _mask(model, volume, k)[rows, columns]
            caption = (
                f"painted place in section {k}, {when}. Green: painted as mitochondrion and predicted, red: predicted "
                "only, blue: painted only"
            )
            pictures.append((caption, overlay(volume.read(k, rows, columns), mask, truth)))
    return pictures


def _mask(model: Model, volume: Volume, k: int) -> np.ndarray:
    """Mask of a single section, without smoothing along the sections."""
    threshold = model.info.for_sections(known_voxel_size(volume)[0]).threshold
    return np.asarray(predict_section(volume, model, k) >= threshold)
