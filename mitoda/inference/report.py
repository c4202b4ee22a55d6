"""The page of a segmentation, from the events it yielded."""

import copy
from collections.abc import Iterable
from pathlib import Path

import mitoda
from mitoda.inference.events import Event, Notice, Segmented
from mitoda.inference.segment import NO_MEMBRANES
from mitoda.inference.settings import Resolved, SegmentSettings
from mitoda.inference.voxel_size import VoxelSizeFound
from mitoda.models.model import Model
from mitoda.plotting.html import write_report
from mitoda.plotting.section_view import evenly_spaced, view_sections
from mitoda.volumes import Volume, open_labels

PICTURES = 25
"""Sections that are shown at most."""


def write_segmentation_report(
    path: Path, stack: Volume, model: Model, settings: SegmentSettings, events: Iterable[Event]
) -> None:
    """Write one HTML page: sections with outlines, foreground by section, warnings and settings.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    stack : Volume
    model : Model
    settings : SegmentSettings
        Its `output` is complete.
    events : iterable of Event
        What `segment` yielded; those of single sections may be left out.
    """
    stack = copy.copy(stack)
    facts: dict[str, object] = {}
    warnings: list[str] = []
    estimated = ""
    for event in events:
        if isinstance(event, VoxelSizeFound):
            stack.voxel_size, estimated = event.voxel_size, ", estimated"
            warnings.append(event.sentence)
        elif isinstance(event, Resolved):
            facts |= _mask_facts(event, settings)
        elif isinstance(event, Notice):
            warnings.append(event.text)
        elif isinstance(event, Segmented):
            warnings += event.warnings
            if NO_MEMBRANES in event.warnings:
                facts["boundaries"] = "of the network"
            facts["time"] = f"{event.seconds:.0f} s on {model.device}"
    size = " × ".join(f"{length:g}" for length in stack.voxel_size or ())
    shape = " × ".join(map(str, stack.shape))
    trained = f"{model.info.source} → {model.info.target}" if model.info.target else model.info.source
    rows = {
        "mask": Path(settings.output).name,
        "shape": shape,
        "voxel": f"{size} nm{estimated}",
        "weights": trained,
        **facts,
        "mitoda": mitoda.__version__,
    }
    mask = open_labels(settings.output)
    sections = stack.shape[0]
    view = view_sections(
        stack, ((k, mask.read(k), None) for k in range(sections)), evenly_spaced(sections, PICTURES)
    )
    share = sum(share for _, share in view["foreground"]) / sections
    write_report(
        path,
        "Mitochondria found",
        warnings=warnings,
        view=view,
        figures=[
            (f"{share:.2%}".replace("%", " %"), "of the stack is mitochondrion"),
            (f"{sections}", "section" if sections == 1 else "sections"),
        ],
        facts=rows,
    )


def _mask_facts(resolved: Resolved, settings: SegmentSettings) -> dict[str, object]:
    moved = {"moved by": f"{settings.boundary:g} nm"} if settings.boundary else {}
    return {
        "threshold": resolved.threshold,
        "smallest": f"{resolved.min_size} voxels",
        "boundaries": "on membranes" if resolved.snap else "of the network",
        **moved,
    }
