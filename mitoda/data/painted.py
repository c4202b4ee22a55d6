"""A few painted places of a stack: 0 unlabelled, 1 background, 2 mitochondrion, as in ilastik's and napari's layers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitoda.data.filled import FilledVolume, TissueMap
from mitoda.errors import InputError
from mitoda.volumes import Volume, VoxelSize, open_values
from mitoda.volumes.folder import FolderVolume
from mitoda.volumes.volume import EVERYTHING

UNLABELLED, BACKGROUND, MITOCHONDRION = 0, 1, 2
OUTLINE = 3
"""Value with which `mitoda suggest` outlines places to paint; read as unlabelled."""
HELD_BACK = 2
"""Added to the class of pixels that are held back: 3 and 4 are held-back background and mitochondrion."""
HELD_BACK_SHARE = 0.3
"""Share of the painted mitochondrion that is held back to measure F1 before the final weights use it too."""
FEWEST_PIXELS = 50
"""Painted pixels of each class below which nothing can be learnt."""

Box = tuple[slice, slice]


class PaintedLabels:
    """Painted sections of a stack, read as a volume of classes.

    `read` returns 0 where nothing is painted, 1 or 2 for background and mitochondrion, 3 or 4 for the same in the part
    that is held back. In each painted section, the held-back part lies at one end of the paint's bounding box and has
    about `HELD_BACK_SHARE` of its mitochondrion, so that most of it is away from what is learnt.

    Parameters
    ----------
    volume : Volume
        Values 0, 1, 2 and `OUTLINE` in the stack's rows and columns.
    index : dict of int to int
        Section of the stack -> section of `volume`, painted sections only.
    boxes : dict of int to (slice, slice)
        Bounding box of the paint in each of them.
    sections : int
        Number of sections of the stack.
    tissue : TissueMap, optional
        Of the stack: paint where it has no tissue is not read, because images have mirrored tissue there.
    """

    def __init__(
        self,
        volume: Volume,
        index: dict[int, int],
        boxes: dict[int, Box],
        sections: int,
        tissue: TissueMap | None = None,
    ) -> None:
        self.volume = volume
        self.index = index
        self.boxes = boxes
        self.tissue = tissue
        self.name = volume.name
        self.shape = (sections, *volume.shape[1:])
        self.dtype = np.dtype(np.uint8)
        self.voxel_size: VoxelSize | None = None
        self.held_back = {section: self._held_back_box(section) for section in index}

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return the classes of a part of a section, uint8."""
        if section not in self.index:
            height, width = (
                len(range(size)[part]) for size, part in zip(self.shape[1:], (rows, columns), strict=True)
            )
            return np.zeros((height, width), np.uint8)
        classes = self.volume.read(self.index[section]).astype(np.uint8)
        classes[classes == OUTLINE] = UNLABELLED
        held = classes[self.held_back[section]]
        held[held != UNLABELLED] += HELD_BACK
        if self.tissue is not None:
            self.tissue.clear(section, classes)
        return classes[rows, columns]

    def learnt_box(self, section: int, hold_back: bool) -> Box:
        """Box of the paint in a painted section; without the held-back part, if that is held back."""
        if not hold_back:
            return self.boxes[section]
        rows, columns = (
            slice(box.start, held.start if held.start > box.start else box.stop)
            for box, held in zip(self.boxes[section], self.held_back[section], strict=True)
        )
        return rows, columns

    def _held_back_box(self, section: int) -> Box:
        rows, columns = self.boxes[section]
        found = self.volume.read(self.index[section], rows, columns) == MITOCHONDRION
        along_rows = found.shape[0] >= found.shape[1]
        counts = found.sum(1 if along_rows else 0).cumsum()
        first = round(len(counts) * (1 - HELD_BACK_SHARE))
        if counts[-1] > 0:
            first = int(np.searchsorted(counts, (1 - HELD_BACK_SHARE) * counts[-1], side="right"))
            first = min(max(first, len(counts) // 2), len(counts) - 1)
        if along_rows:
            return slice(rows.start + first, rows.stop), columns
        return rows, slice(columns.start + first, columns.stop)


@dataclass(frozen=True)
class Rectangle:
    """A place to paint."""

    section: int
    rows: slice
    columns: slice

    @property
    def text(self) -> str:
        """Section, rows and columns for a person."""
        return (
            f"section {self.section}, rows {self.rows.start}–{self.rows.stop - 1}, "
            f"columns {self.columns.start}–{self.columns.stop - 1}"
        )

    def overlaps(self, other: "Rectangle") -> bool:
        """Whether they share a pixel."""
        return self.section == other.section and all(
            a.start < b.stop and b.start < a.stop
            for a, b in ((self.rows, other.rows), (self.columns, other.columns))
        )


def label_sections(
    volume: Volume, rectangles: Sequence[Rectangle], painted: PaintedLabels | None = None
) -> Iterator[np.ndarray]:
    """Yield the label layer to paint in, section by section, uint8: existing paint, and the outline of each rectangle.

    Outlines have the value `OUTLINE`, which is read as unlabelled; everything else is 0.
    """
    for section in range(volume.shape[0]):
        labels = np.zeros(volume.shape[1:], np.uint8) if painted is None else painted.read(section)
        labels[labels > HELD_BACK] -= HELD_BACK
        for one in rectangles:
            if one.section == section:
                edge = np.ones((one.rows.stop - one.rows.start, one.columns.stop - one.columns.start), bool)
                edge[1:-1, 1:-1] = False
                part = labels[one.rows, one.columns]
                part[edge & (part == 0)] = OUTLINE
        yield labels


def open_painted(
    source: str | Path | np.ndarray, stack: Volume, *, section: int | None = None
) -> PaintedLabels:
    """Open a label layer with a few painted places.

    Parameters
    ----------
    source : path or ndarray
        A volume of the stack's shape; a single section (then `section` says which); or a folder with only the painted
        sections, whose names end in the section's number.
    stack : Volume
        The images that were painted.
    section : int, optional
        Number of the painted section, from 0.

    Raises
    ------
    InputError
        If the shape or the values are not those of labels, if `section` does not exist, or if not both classes are
        painted.
    """
    values = open_values(source, gaps=True)
    if values.shape[1:] != stack.shape[1:]:
        raise InputError(
            f"the labels {values.name} have {values.shape[1]} × {values.shape[2]} pixels, the stack {stack.name} "
            f"{stack.shape[1]} × {stack.shape[2]} (rows × columns); paint on the images of the stack, uncropped and "
            "at their full size"
        )
    numbers = _section_numbers(values, stack, section)
    index: dict[int, int] = {}
    boxes: dict[int, Box] = {}
    counts = np.zeros(3, np.int64)
    for number, own in numbers.items():
        classes = values.read(own)
        if not classes.any():
            continue
        counts += _count(classes, values.name, number)
        painted = (classes == BACKGROUND) | (classes == MITOCHONDRION)
        if painted.any():
            index[number] = own
            boxes[number] = _bounding_box(painted)
    _check_classes(counts, values.name)
    tissue = stack.tissue if isinstance(stack, FilledVolume) else None
    return PaintedLabels(values, index, boxes, stack.shape[0], tissue)


def _section_numbers(values: Volume, stack: Volume, section: int | None) -> dict[int, int]:
    """Section of the stack -> section of the labels."""
    count, sections = values.shape[0], stack.shape[0]
    if section is not None:
        if not 0 <= section < sections:
            raise InputError(
                f"label section {section} does not exist: {stack.name} has sections 0 to {sections - 1}"
            )
        if count not in (1, sections):
            raise InputError(
                f"the labels {values.name} have {count} sections; with a label section given, expected 1 or {sections}"
            )
        return {section: 0 if count == 1 else section}
    if count == sections:
        return {k: k for k in range(sections)}
    if isinstance(values, FolderVolume):
        return _numbers_in_names(values.files, values.name, sections)
    if count == 1:
        raise InputError(
            f"the labels {values.name} are a single section, and {stack.name} has {sections}; say which one was "
            f"painted with the label section, 0 to {sections - 1}"
        )
    raise InputError(
        f"the labels {values.name} have {count} sections, the stack {stack.name} has {sections}; expected as many, one "
        "(with the label section given), or a folder with only the painted sections, named by their number"
    )


def _numbers_in_names(files: list[Path], name: str, sections: int) -> dict[int, int]:
    """Number at the end of each file's name -> its place in the folder."""
    found: dict[int, int] = {}
    for place, file in enumerate(files):
        digits = re.findall(r"\d+", file.stem)
        number = int(digits[-1]) if digits else None
        if number is None or not 0 <= number < sections or number in found:
            raise InputError(
                f"{file.name} in the folder of labels {name} does not name a section of its own: the last number in "
                f"its name must be that of the painted section, 0 to {sections - 1}"
            )
        found[number] = place
    return found


def _count(classes: np.ndarray, name: str, section: int) -> np.ndarray:
    """How many pixels have each class."""
    values = np.unique(classes)
    wrong = values[~np.isin(values, (UNLABELLED, BACKGROUND, MITOCHONDRION, OUTLINE))]
    if wrong.size:
        shown = ", ".join(f"{value:g}" for value in wrong[:5].tolist())
        raise InputError(
            f"section {section} of the labels {name} holds the value{'s' if wrong.size > 1 else ''} {shown}"
            f"{', …' if wrong.size > 5 else ''}; expected 0 unlabelled, 1 background, 2 mitochondrion"
        )
    return np.array([np.count_nonzero(classes == value) for value in range(3)])


def _check_classes(counts: np.ndarray, name: str) -> None:
    """Refuse labels from which nothing can be learnt."""
    if counts[1] + counts[2] == 0:
        raise InputError(
            f"nothing is painted in the labels {name}; paint 1 for background and 2 for mitochondrion"
        )
    for value, class_name in ((BACKGROUND, "background"), (MITOCHONDRION, "mitochondrion")):
        if counts[value] < FEWEST_PIXELS:
            other = BACKGROUND + MITOCHONDRION - value
            raise InputError(
                f"the labels {name} have {counts[value]} pixels of class {value} ({class_name}) and {counts[other]} of "
                f"class {other}; paint both: 1 for background and 2 for mitochondrion, 0 where you do not know"
            )


def _bounding_box(painted: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
