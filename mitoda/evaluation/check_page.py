"""The page of a spot check: each object and box of the sample with its sections, to be answered in a browser."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mitoda.evaluation.answers import COLUMNS
from mitoda.evaluation.spot_check import Item
from mitoda.plotting.frames import Window, embed_grey, outline_path, window_around
from mitoda.plotting.html import write_page
from mitoda.volumes import Volume, VoxelSize

OBJECT_MARGIN, BOX_MARGIN = 400.0, 400.0
"""Nanometres that are shown around an object and around the frame of a box."""
SMALLEST_SIDE = 1600.0
"""Nanometres of the picture of an object, at least."""
STEP = 50.0
"""Nanometres between the pictures of a box, where sections are thinner."""
OBJECT_PICTURES = 5
"""Sections of an object that are shown, evenly spaced; one more before and after it."""
LARGEST = 360
"""Pixels of a picture's side."""


def shown_sections(item: Item, thickness_nm: float, sections: int) -> list[int]:
    """Return the sections that are shown of an object or a box, in order.

    Of a box: the section before it, then steps from its first to its last.
    """
    first, last = item.start[0], item.stop[0] - 1
    step = max(1, round(STEP / thickness_nm))
    if item.is_box:
        return sorted({max(first - 1, 0), *range(first, last, step), last})
    inside = np.linspace(first, last, min(OBJECT_PICTURES, last - first + 1)).round().astype(int).tolist()
    return sorted({max(first - step, 0), *inside, min(last + step, sections - 1)})


def write_check_page(
    path: Path,
    stack: Volume,
    numbers: Volume,
    items: Sequence[Item],
    voxel_size: VoxelSize,
    seed: int,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> None:
    """Write the page; each section that is shown is read once.

    Parameters
    ----------
    stack, numbers : Volume
        Grey values, and the number of the object of each pixel.
    items : sequence of Item
    voxel_size : (float, float, float)
        Nanometres.
    seed : int
        With which the sample was drawn.
    progress : callable
        Gets the numbers of the sections, returns them in the same order.
    """
    name = Path(stack.name).name
    pages = [_Card(item, voxel_size, stack.shape) for item in items]
    wanted = defaultdict(list)
    for card in pages:
        for section in card.sections:
            wanted[section].append(card)
    for section in progress(sorted(wanted)):
        grey, found = stack.read(section), numbers.read(section)
        for card in wanted[section]:
            card.add(section, grey, found)
    data = {
        "page": _fingerprint([name, stack.shape, seed], numbers),
        "stack": name,
        "pixel_nm": voxel_size[1:],
        "columns": COLUMNS,
        "command": "mitoda check --answers answers.csv",
        "items": [card.as_dict(name) for card in pages],
    }
    write_page(path, "check", "How good is this mask?", data)


def _fingerprint(facts: list[object], numbers: Volume) -> str:
    """Name under which the browser keeps the answers; the same for a larger sample of the same mask."""
    content = hashlib.sha256(repr(facts).encode())
    for section in sorted({0, numbers.shape[0] // 2, numbers.shape[0] - 1}):
        content.update(np.packbits(numbers.read(section) > 0).tobytes())
    return content.hexdigest()[:16]


class _Card:
    """One item of the page."""

    def __init__(self, item: Item, voxel_size: VoxelSize, shape: tuple[int, int, int]) -> None:
        self.item = item
        self.pixel_nm = voxel_size[1:]
        self.volume_um3 = item.voxels * math.prod(voxel_size) / 1e9
        self.sections = shown_sections(item, voxel_size[0], shape[0])
        sides = (
            (stop - start) * pixel
            for start, stop, pixel in zip(item.start[1:], item.stop[1:], self.pixel_nm, strict=True)
        )
        side = max(sides) + 2 * (BOX_MARGIN if item.is_box else OBJECT_MARGIN)
        side = side if item.is_box else max(side, SMALLEST_SIDE)
        self.window: Window = window_around(item.start[1:], item.stop[1:], side, self.pixel_nm, shape[1:])
        self.frames: list[dict[str, object]] = []

    def add(self, section: int, grey: np.ndarray, numbers: np.ndarray) -> None:
        """Take what is shown out of a whole section."""
        part = numbers[self.window]
        own = part == self.item.label if self.item.label else np.zeros(part.shape, bool)
        self.frames.append(
            {
                "section": section,
                "before": self.item.is_box and section < self.item.start[0],
                "image": embed_grey(grey[self.window], LARGEST),
                "outline": outline_path(own, self.pixel_nm),
                "others": outline_path((part > 0) & ~own, self.pixel_nm),
            }
        )

    def _to_nm(self, point: tuple[int, ...], origin: tuple[int, ...]) -> list[float]:
        return [(a - b) * pixel for a, b, pixel in zip(point, origin, self.pixel_nm, strict=True)]

    def as_dict(self, stack: str) -> dict[str, Any]:
        """What the page's script reads."""
        item, corner = self.item, (self.window.rows.start, self.window.columns.start)
        begins = " and it is absent from the section before the box" if self.frames[0]["before"] else ""
        volume = f"{self.volume_um3:.3g}"
        return {
            "number": item.number,
            "size_class": item.size_class,
            "size_text": f"{volume} µm³",
            "corner": corner,
            "size_nm": self.window.size_nm(self.pixel_nm),
            "frame_nm": [*self._to_nm(item.start[1:], corner), *self._to_nm(item.stop[1:], item.start[1:])],
            "first_shown": len(self.frames) // 2 if not item.is_box else int(bool(self.frames[0]["before"])),
            "hint": (
                "Go through the sections. Click each mitochondrion that has no outline, or less than half of one, if "
                f"its middle lies in the dashed frame{begins}."
            ),
            "frames": self.frames,
            "row": [
                stack, item.number, item.size_class, item.total, item.drawn, f"{item.probability:.6g}", volume,
                *item.start, *item.stop,
            ],
        }  # fmt: skip
