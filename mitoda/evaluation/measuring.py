"""Measuring all mitochondria of a stack: labels are read twice, section by section.

    first reading     where each number begins and ends
    second reading    outlines and grey values by section; a mitochondrion is measured after its last section

So memory holds the outlines of the mitochondria of one section, packed, and one of them at a time as an array.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from mitoda.evaluation import morphometry
from mitoda.evaluation.instance_scores import check_numbered, read_instances
from mitoda.evaluation.instance_table import Measures, Row, Scale
from mitoda.evaluation.scoring import mean_of
from mitoda.volumes import Volume, open_volume
from mitoda.volumes.opening import Source, as_volume, refuse_image
from mitoda.volumes.volume import check_same_shape
from mitoda.volumes.voxel_size import check_voxel_size

Slices = tuple[slice, slice]


def measure(
    labels: Volume | Source,
    *,
    image: Volume | Source | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    include_cut: bool = False,
    progress: Callable[..., Iterable[int]] | None = None,
) -> Measures:
    """Measure the mitochondria of a stack, or of a 2-D image, one row each.

    Parameters
    ----------
    labels : Volume, path or ndarray
        Whole numbers, one for each mitochondrion; 0 is background. A single section, or a 2-D array, gives the 2-D
        table.
    image : Volume, path or ndarray, optional
        The stack that the labels belong to, for the mean grey value.
    voxel_size : (float, float, float), optional
        Nanometres: section thickness, rows, columns. By default that of the labels, or of the image. If neither states
        it, lengths are in voxels, as if voxels were cubes.
    include_cut : bool
        Let mitochondria that the border of the stack cuts count in means.
    progress : callable
        Gets an iterable and `total`, returns an equal iterable; for example `rich.progress.track`.

    Raises
    ------
    InputError
        If the labels are a mask or hold fractions, or the image has another shape.

    Examples
    --------
    >>> labels = np.zeros((20, 20, 20), np.uint8)
    >>> labels[5:15, 5:15, 5:15] = 3
    >>> row = measure(labels, voxel_size=(10, 10, 10)).rows[0]
    >>> row["label"], row["voxels"], round(row["volume_um3"], 6), row["touches_border"]
    (3, 1000, 0.001, False)
    """
    volume = as_volume(labels)
    grey = None if image is None else as_volume(image, open_volume)
    if grey is not None:
        check_same_shape(grey, volume)
    size = volume.voxel_size or (None if grey is None else grey.voxel_size)
    scale = Scale.of(size if voxel_size is None else check_voxel_size(voxel_size))
    refuse_image(volume)
    boxes = find_boxes(volume)
    check_numbered(volume.name, boxes)
    rows: dict[int, Row] = {}
    active: dict[int, _Outlines] = {}
    order: Iterable[int] = range(volume.shape[0])
    for section in progress(order, total=volume.shape[0]) if progress else order:
        values = read_instances(volume, section)
        image_section = None if grey is None else grey.read(section)
        for number, place in _places(values):
            one = active.setdefault(number, _Outlines(number, boxes[number], volume.shape, scale))
            one.add(
                section,
                place,
                values[place] == number,
                None if image_section is None else image_section[place],
            )
            if section == boxes[number].last[0]:
                rows[number] = active.pop(number).measure()
    in_order = tuple(rows[number] for number in sorted(rows))
    return Measures(in_order, volume.shape, scale, include_cut, tuple(_notes(volume, scale, boxes)))


def _notes(volume: Volume, scale: Scale, boxes: "dict[int, Box]") -> Iterator[str]:
    """What a person should check."""
    if scale.length == "voxels":
        yield (
            f"{volume.name} states no voxel size, so lengths, areas and volumes are in voxels, as if voxels were "
            "cubes; give --voxel-size Z Y X for micrometres"
        )
    if not boxes:
        yield f"{volume.name} holds no mitochondria: all its voxels are 0"
    if len(boxes) == 1:
        yield (
            f"{volume.name} holds a single number; if it is a mask, number its mitochondria first: mitoda instances "
            f"{volume.name} -o labels.tif"
        )


@dataclass
class Box:
    """First and last section, row and column of a mitochondrion."""

    first: list[int]
    last: list[int]

    def grow(self, first: list[int], last: list[int]) -> None:
        """Make it hold another box."""
        self.first = [min(pair) for pair in zip(self.first, first, strict=True)]
        self.last = [max(pair) for pair in zip(self.last, last, strict=True)]


def find_boxes(volume: Volume) -> dict[int, Box]:
    """The bounding box of each instance."""
    boxes: dict[int, Box] = {}
    for section in range(volume.shape[0]):
        for number, (rows, columns) in _places(read_instances(volume, section)):
            first, last = [section, rows.start, columns.start], [section, rows.stop - 1, columns.stop - 1]
            boxes.setdefault(number, Box(first, last)).grow(first, last)
    return boxes


def _places(values: np.ndarray) -> list[tuple[int, Slices]]:
    """Numbers in a section and where they are."""
    numbers = np.unique(values[values > 0])
    dense = np.where(values > 0, np.searchsorted(numbers, values) + 1, 0)
    return list(zip(numbers.tolist(), ndimage.find_objects(dense), strict=True))


@dataclass
class _Outlines:
    """The sections of one mitochondrion so far."""

    number: int
    box: Box
    shape: tuple[int, int, int]
    """Of the stack."""
    scale: Scale
    pieces: list[tuple[int, Slices, np.ndarray]] = field(default_factory=list)
    """Section, place, and the packed mask there."""
    grey: list[float] = field(default_factory=list)
    """Sums of grey values by section."""
    outlines: list[tuple[float, float]] = field(default_factory=list)
    """Area and circularity by section; no circularity where the border cuts the outline."""

    @property
    def cut(self) -> list[tuple[bool, bool]]:
        """For each axis, whether the border of the stack cuts it at its first and last plane."""
        return [
            (first == 0, last == size - 1)
            for first, last, size in zip(self.box.first, self.box.last, self.shape, strict=True)
        ]

    @property
    def is_cut(self) -> bool:
        """Whether the border of the stack cuts it; sections do not cut a 2-D image."""
        return any(map(any, self.cut[self.shape[0] == 1 :]))

    def add(self, section: int, place: Slices, mask: np.ndarray, grey: np.ndarray | None) -> None:
        """Add a section; mask and grey values are those of the place."""
        self.pieces.append((section, place, np.packbits(mask)))
        if grey is not None:
            self.grey.append(float(grey[mask].sum(dtype=float)))
        if self.shape[0] > 1:
            spacing = self.scale.spacing[1:]
            cut = [
                (part.start == 0, part.stop == size) for part, size in zip(place, self.shape[1:], strict=True)
            ]
            area = np.count_nonzero(mask) * math.prod(spacing)
            outline = math.nan if any(map(any, cut)) else morphometry.perimeter(mask, spacing)
            self.outlines.append((area, morphometry.circularity(area, outline)))

    def measure(self) -> Row:
        """Its row in the table."""
        first, last = self.box.first, self.box.last
        mask = np.zeros([stop - start + 1 for start, stop in zip(first, last, strict=True)], bool)
        for section, (rows, columns), packed in self.pieces:
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            place = mask[section - first[0], rows.start - first[1] :, columns.start - first[2] :]
            place[: shape[0], : shape[1]] |= (
                np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)
            )
        flat = self.shape[0] == 1
        voxels = int(np.count_nonzero(mask))
        row: Row = {"label": self.number}
        centre = morphometry.centroid(mask) + first
        for axis in range(flat, 3):
            row[f"centroid_{'zyx'[axis]}_{self.scale.length}"] = (
                float(centre[axis]) * self.scale.spacing[axis]
            )
        for axis in range(flat, 3):
            name = ("section", "row", "column")[axis]
            row |= {f"first_{name}": first[axis], f"last_{name}": last[axis]}
        row |= self._flat_shape(mask[0], voxels) if flat else self._solid_shape(mask, voxels)
        if self.grey:
            row["mean_grey"] = math.fsum(self.grey) / voxels
        row["touches_border"] = self.is_cut
        return row

    def _solid_shape(self, mask: np.ndarray, voxels: int) -> Row:
        """Columns of a 3-D mask."""
        scale, spacing = self.scale, self.scale.spacing
        volume = voxels * math.prod(spacing)
        surface = morphometry.surface_area(mask, spacing, self.cut)
        lengths, direction = morphometry.principal_axes(mask, spacing)
        skeleton_length, branch_points = morphometry.skeleton(mask, spacing, scale.grid, self.cut)
        whole_surface = math.nan if self.is_cut else surface
        areas, circularities = zip(*self.outlines, strict=True)
        return {
            "voxels": voxels,
            f"volume_{scale.volume}": volume,
            f"surface_{scale.area}": surface,
            "sphericity": morphometry.sphericity(volume, whole_surface),
            f"equivalent_diameter_{scale.length}": morphometry.equivalent_diameter(volume),
            **{f"axis_{n}_length_{scale.length}": float(length) for n, length in enumerate(lengths, 1)},
            **{f"axis_1_{name}": float(part) for name, part in zip("zyx", direction, strict=True)},
            "elongation": morphometry.elongation(lengths),
            f"skeleton_length_{scale.length}": skeleton_length,
            "branch_points": branch_points,
            "complexity_index": morphometry.complexity_index(volume, whole_surface),
            f"section_area_{scale.area}": mean_of(areas),
            "section_circularity": mean_of([one for one in circularities if not math.isnan(one)]),
        }

    def _flat_shape(self, mask: np.ndarray, pixels: int) -> Row:
        """Columns of a 2-D mask."""
        scale, spacing = self.scale, self.scale.spacing[1:]
        area = pixels * math.prod(spacing)
        outline = morphometry.perimeter(mask, spacing, self.cut[1:])
        lengths, _ = morphometry.principal_axes(mask, spacing)
        return {
            "pixels": pixels,
            f"area_{scale.area}": area,
            f"perimeter_{scale.length}": outline,
            "circularity": morphometry.circularity(area, math.nan if self.is_cut else outline),
            f"equivalent_diameter_{scale.length}": morphometry.equivalent_diameter(area, dimensions=2),
            f"feret_diameter_{scale.length}": morphometry.feret_diameter(mask, spacing),
            **{f"axis_{n}_length_{scale.length}": float(length) for n, length in enumerate(lengths, 1)},
            "aspect_ratio": morphometry.elongation(lengths),
        }
