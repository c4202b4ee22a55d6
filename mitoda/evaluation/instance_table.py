"""The table of a stack's mitochondria, one row each, and its summary."""

import csv
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from mitoda.evaluation.scoring import none_if_nan
from mitoda.volumes.files import atomic_write

SKELETON_GRID = 0.02
"""Micrometres between the points that a skeleton is made of, in labels of finer voxels."""

Value = int | float | bool
Row = dict[str, Value]
"""A mitochondrion: its values by the name of the column, which ends in the unit."""


@dataclass(frozen=True)
class Scale:
    """Lengths of a voxel, and the names of the units in columns."""

    spacing: tuple[float, float, float]
    grid: float
    """Distance of the points of skeletons."""
    length: str
    area: str
    volume: str

    @classmethod
    def of(cls, voxel_size: tuple[float, float, float] | None) -> "Scale":
        """Micrometres, or voxels where the voxel size in nanometres is unknown."""
        if voxel_size is None:
            return cls((1.0, 1.0, 1.0), 1.0, "voxels", "voxels2", "voxels3")
        section, row, column = (length / 1000 for length in voxel_size)
        return cls((section, row, column), max(SKELETON_GRID, min(section, row, column)), "um", "um2", "um3")


@dataclass(frozen=True)
class Measures:
    """All mitochondria of a stack or an image."""

    rows: tuple[Row, ...]
    """In the order of their numbers."""
    shape: tuple[int, int, int]
    scale: Scale
    include_cut: bool
    """Whether mitochondria that the border cuts count in means."""

    notes: tuple[str, ...] = ()
    """What a person should check."""

    @property
    def is_2d(self) -> bool:
        """Whether the labels are a single section."""
        return self.shape[0] == 1

    @property
    def whole(self) -> list[Row]:
        """Mitochondria that the border of the stack does not cut."""
        return [row for row in self.rows if not row["touches_border"]]

    @property
    def averaged(self) -> list[Row]:
        """Mitochondria that count in means."""
        return list(self.rows) if self.include_cut else self.whole

    @property
    def fraction(self) -> float:
        """Share of all voxels that belongs to mitochondria."""
        name = "pixels" if self.is_2d else "voxels"
        return sum(row[name] for row in self.rows) / math.prod(self.shape)

    @property
    def density(self) -> float:
        """Mitochondria in a unit of volume, or of area in a 2-D image.

        Those that touch the first section, row or column are left out, and those that touch the last are counted: of
        many neighbouring stacks, each mitochondrion is counted in one (Gundersen 1986,
        doi:10.1111/j.1365-2818.1986.tb02764.x).
        """
        axes = range(self.is_2d, 3)
        firsts = [("first_section", "first_row", "first_column")[axis] for axis in axes]
        counted = sum(all(row[name] > 0 for name in firsts) for row in self.rows)
        return counted / math.prod(self.shape[axis] * self.scale.spacing[axis] for axis in axes)

    def column(self, name: str) -> list[float]:
        """The values of `averaged` mitochondria in a column, without NaN."""
        values = (float(row[name]) for row in self.averaged)
        return [value for value in values if not math.isnan(value)]

    def statistics(self) -> dict[str, dict[str, float | None]]:
        """Mean, standard deviation and median of the columns that describe a mitochondrion; None of too few."""
        found: dict[str, dict[str, float | None]] = {}
        for name in self.described:
            values = self.column(name)
            found[name] = {
                "mean": statistics.fmean(values) if values else None,
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "median": statistics.median(values) if values else None,
            }
        return found

    @property
    def described(self) -> list[str]:
        """Names of the columns that have a mean."""
        places = ("label", "centroid", "first_", "last_", "touches_border")
        directions = ("axis_1_z", "axis_1_y", "axis_1_x")
        names = self.rows[0] if self.rows else ()
        return [name for name in names if not name.startswith(places) and name not in directions]

    @property
    def pictured(self) -> list[str]:
        """Names of the columns that a picture of histograms shows: size, length, and shape."""
        shown = (
            "volume",
            "surface",
            "area",
            "perimeter",
            "sphericity",
            "circularity",
            "elongation",
            "aspect",
            "skeleton",
        )
        return [name for name in self.described if name.startswith((*shown, "complexity", "feret"))]

    def to_dict(self) -> dict[str, object]:
        """All numbers for JSON; None if one does not exist."""
        return {
            "notes": list(self.notes),
            "unit": self.scale.length,
            "count": len(self.rows),
            "cut_by_border": len(self.rows) - len(self.whole),
            "averaged": len(self.averaged),
            "area_fraction" if self.is_2d else "volume_fraction": self.fraction,
            f"count_per_{self.scale.area if self.is_2d else self.scale.volume}": self.density,
            "statistics": self.statistics(),
            "mitochondria": [
                {
                    name: none_if_nan(value) if isinstance(value, float) else value
                    for name, value in row.items()
                }
                for row in self.rows
            ],
        }

    def write_csv(self, path: Path | str) -> None:
        """Write one line for each mitochondrion; what does not exist is empty."""
        with atomic_write(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.rows[0] if self.rows else ["label"])
            writer.writerows([_text(value) for value in row.values()] for row in self.rows)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"
