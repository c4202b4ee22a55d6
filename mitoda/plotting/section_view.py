"""Sections of a stack with outlines of one or two masks, and foreground by section, for the script of a report."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mitoda.plotting.frames import embed_grey, outline_path
from mitoda.volumes import Volume

LARGEST = 900
"""Pixels of a picture's longer side."""
OUTLINE_PIXELS = 2000
"""Pixels of a section's longer side up to which outlines are drawn at full resolution."""

Masks = tuple[int, np.ndarray, np.ndarray | None]
"""Number of a section, its mask, and an earlier mask to compare with."""


def view_sections(stack: Volume, masks: Iterable[Masks], shown: Container[int]) -> dict[str, Any]:
    """Describe sections for `write_report`; of the stack, only the sections that are shown are read.

    Parameters
    ----------
    stack : Volume
        Lengths are in nanometres if it has a voxel size, else in pixels.
    masks : iterable of (section, mask, earlier mask or None)
        In the order of the sections; anything but 0 is foreground.
    shown : container of int
        Sections that get a picture; the others have their foreground only.
    """
    sections, rows, columns = stack.shape
    pixel = stack.voxel_size[1:] if stack.voxel_size else (1.0, 1.0)
    step = max(1, round(max(rows, columns) / OUTLINE_PIXELS))

    def outline(mask: np.ndarray) -> str:
        return outline_path(mask[::step, ::step] != 0, (step * pixel[0], step * pixel[1]))

    foreground, before, frames = [], [], []
    for section, mask, earlier in masks:
        foreground.append((section, _share(mask)))
        if earlier is not None:
            before.append((section, _share(earlier)))
        if section in shown:
            frames.append(
                {
                    "section": section,
                    "image": embed_grey(stack.read(section), LARGEST),
                    "outline": outline(mask),
                    "before": "" if earlier is None else outline(earlier),
                }
            )
    return {
        "stack": Path(stack.name).name,
        "sections": sections,
        "size": [rows * pixel[0], columns * pixel[1]],
        "nanometres": stack.voxel_size is not None,
        "foreground": foreground,
        "before": before,
        "frames": frames,
    }


def evenly_spaced(sections: int, count: int) -> list[int]:
    """Numbers of at most `count` sections, the first and the last among them.

    Examples
    --------
    >>> evenly_spaced(9, 3), evenly_spaced(2, 3)
    ([0, 4, 8], [0, 1])
    """
    return [int(k) for k in np.linspace(0, sections - 1, min(sections, count)).round()]


def _share(mask: np.ndarray) -> float:
    return round(float(np.count_nonzero(mask)) / mask.size, 6)
