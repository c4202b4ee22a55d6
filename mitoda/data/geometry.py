"""The physical steps that two domains share: working pixel size, pair spacing, strides."""

import math
from dataclasses import dataclass

from mitoda.errors import InputError
from mitoda.volumes import VoxelSize

SAME_SIZE = 0.02
"""Pixel sizes that differ by less than this share are not resampled."""

THIN_NM = 20.0
"""Thickest sections that show where membranes run, and so where a prediction should end. In thicker ones oblique
membranes blur, and moving boundaries to the darkest place lowered F1 on every volume tried (vnc3 −0.02, cdeep3m −0.01
to −0.14; sections of 50 and 40 nm)."""

LARGEST_SCALE = 20.0
"""Pixel sizes that differ by a larger factor are refused as a wrong unit."""


@dataclass(frozen=True)
class Geometry:
    """Physical steps that source and target share. Lengths are nanometres."""

    pixel: tuple[float, float]
    """Working pixel size, along rows and columns."""
    spacing: float
    """Distance between the two sections of a pair."""

    def scale(self, voxel_size: VoxelSize) -> tuple[float, float]:
        """Return volume pixels per working pixel along rows and columns; exactly 1 if they are almost equal.

        Raises
        ------
        InputError
            If they differ by more than `LARGEST_SCALE`.
        """
        own = voxel_size[1:]
        ratio = (self.pixel[0] / own[0], self.pixel[1] / own[1])
        if not all(1 / LARGEST_SCALE <= r <= LARGEST_SCALE for r in ratio):
            raise InputError(
                f"pixels of {own[0]:g} × {own[1]:g} nm cannot be resampled to the working pixel size of "
                f"{self.pixel[0]:g} × {self.pixel[1]:g} nm, a factor above {LARGEST_SCALE:g}; give voxel "
                "sizes in nanometres, Z Y X"
            )
        return (1.0, 1.0) if all(abs(r - 1) < SAME_SIZE for r in ratio) else ratio

    def stride(self, voxel_size: VoxelSize, sections: int) -> int:
        """Return the pair spacing in sections of a volume, at least 1.

        A volume with fewer sections pairs its first with its last; a single section is paired with itself.
        """
        return min(max(1, round(self.spacing / voxel_size[0])), sections - 1)


def voxels_in(volume_nm3: float, voxel_size: VoxelSize) -> int:
    """Convert a volume in nm³ to a number of voxels.

    Examples
    --------
    >>> voxels_in(3e6, (5, 5, 5))
    24000
    """
    return round(volume_nm3 / math.prod(voxel_size))


def shared_geometry(
    source: VoxelSize, target: VoxelSize, pixel: float | None = None, spacing: float | None = None
) -> Geometry:
    """Choose the steps of a training: the target's pixel size, and the thicker of the two domains' sections.

    VNC III (50, 4.6, 4.6) with Lucchi (5, 5, 5) works at 5 nm pixels and pairs 50 nm apart: strides 1 and 10.
    `pixel` and `spacing`, in nanometres, replace the choice.
    """
    for given, option in ((pixel, "--pixel"), (spacing, "--spacing")):
        if given is not None and given <= 0:
            raise InputError(f"{option} must be a positive length in nanometres; got {given}")
    return Geometry(
        pixel=(pixel, pixel) if pixel is not None else (target[1], target[2]),
        spacing=spacing if spacing is not None else max(source[0], target[0]),
    )
