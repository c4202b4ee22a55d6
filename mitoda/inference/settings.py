"""How a volume is predicted, which voxels become mitochondria, and which files are written."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mitoda.data.geometry import voxels_in
from mitoda.errors import InputError, check_numbers
from mitoda.volumes import VoxelSize
from mitoda.volumes.files import check_output, output_kind
from mitoda.volumes.zarr_pages import checked_version

if TYPE_CHECKING:  # this module is imported for its defaults, without torch
    from mitoda.models.weights import WeightsInfo

LONGEST_NAME = 200
"""Bytes of an output's name; the files of an interrupted run have longer ones."""
SUGGESTED_SIDE_NM = 2000.0
"""Side of a rectangle that `suggest` proposes: a few mitochondria, two or three minutes of painting."""


@dataclass(frozen=True)
class PredictionSettings:
    """How a volume is predicted. Where the default is None, `resolve` or the predictor chooses."""

    tile: tuple[int, int] | None = None
    """Rows and columns in working pixels; None predicts whole sections where they fit the backbone's limit."""
    overlap: int = 128
    """Working pixels that neighbouring tiles share."""
    flips: bool = False
    """Average four mirrored views (test-time augmentation)."""
    smoothing: float | None = None
    """Standard deviation of a Gaussian along the sections, in nanometres; None takes the weights' value."""
    batch_size: int | None = None
    """Pairs (tiles, views) computed together; None takes what fits the memory of a GPU, and 1 on a CPU."""
    compiled: bool = False
    """Compile the network with `torch.compile`: faster after about a minute."""

    def __post_init__(self) -> None:
        if self.tile is not None and not all(1 <= side <= 10**6 for side in self.tile):
            raise InputError(f"tile is rows and columns in pixels, each from 1 to 1,000,000; got {self.tile}")
        check_numbers(self, overlap=(0, 10**6), smoothing=(0, 10**6), batch_size=(1, 4096))


@dataclass(frozen=True)
class MaskSettings(PredictionSettings):
    """Which voxels become mitochondria. None takes the weights' value."""

    threshold: float | None = None
    """Probability from which a voxel is mitochondrion."""
    min_size: int | None = None
    """Voxels; smaller components, joined through sections, are removed."""
    snap: bool | None = None
    """Move each mitochondrion's boundary to its membrane; see `postprocessing.membrane_snapping`."""
    boundary: float = 0.0
    """Nanometres by which boundaries are moved outward in each section, inward where negative."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"threshold must lie between 0 and 1; got {self.threshold}")
        check_numbers(self, min_size=(0, 10**15), boundary=(-(10**6), 10**6))


@dataclass(frozen=True, kw_only=True)
class SegmentSettings(MaskSettings):
    """Which files are written."""

    output: Path | str
    """Mask; the ending says the format: .tif, .zarr (OME-Zarr), .h5 or .mrc."""
    probability: Path | str | None = None
    """Probability map, uint8, × 255; None writes none."""
    instances: Path | str | None = None
    """Labels, one number for each mitochondrion; None writes none."""
    split: bool = True
    """Split touching mitochondria in the labels; False numbers connected components."""
    mask_value: int = 255
    """Value of foreground in the mask."""
    ome_zarr: str = "0.5"
    """Version of OME-Zarr for names that end in .zarr: 0.5, or 0.4 for programs that do not read Zarr 3."""
    overwrite: bool = False
    """Replace existing files."""
    resume: bool = False
    """Continue an interrupted run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, mask_value=(1, 255))
        checked_version(self.ome_zarr)
        named = [os.path.realpath(path) for path in (*self.paths, self.instances) if path is not None]
        if len(set(named)) < len(named):
            raise InputError(f"mask, probability map and labels cannot both be written to {named[-1]}")

    @property
    def written(self) -> list[Path]:
        """All files that are written."""
        return [*self.paths, *([Path(self.instances)] if self.instances is not None else [])]

    @property
    def paths(self) -> list[Path]:
        """The mask and, where wanted, the probability map."""
        return [Path(path) for path in (self.output, self.probability) if path is not None]

    def check_paths(self, inputs: Iterable[Path] = ()) -> None:
        """Refuse files that could not be written at the end, or that would replace an input.

        Raises
        ------
        InputError, FileError
            If the ending of a name is unknown, or as `check_output` raises it.
        """
        inputs = list(inputs)
        for path in self.written:
            output_kind(path)
            if len(os.fsencode(path.name)) > LONGEST_NAME:
                raise InputError(
                    f"the name {path.name[:20]}… is too long; give one of at most {LONGEST_NAME} bytes"
                )
            check_output(path, inputs, self.overwrite or self.resume)


@dataclass(frozen=True)
class BlockSettings:
    """Where the blocks of a large volume are computed. By default one after another in this process."""

    block: tuple[int, int, int] | None = None
    """Sections, rows and columns, multiples of the output's shards; None chooses them."""
    workers: int | None = None
    """Processes of this machine."""
    scheduler: str | None = None
    """Address of the scheduler of a Dask cluster."""
    part: tuple[int, int] | None = None
    """Which share of the blocks, from 1, and of how many; the last call, without it, joins and finishes."""

    def __post_init__(self) -> None:
        check_numbers(self, workers=(1, 10**4))
        if sum(one is not None for one in (self.workers, self.scheduler, self.part)) > 1:
            raise InputError("give one of workers, scheduler and part")
        if self.block is not None and min(self.block) < 1:
            raise InputError(f"block is sections, rows and columns, each at least 1; got {self.block}")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise InputError(f"part is a number from 1 to the number of parts, as 3/64; got {self.part}")


@dataclass(frozen=True)
class Resolved:
    """The values in use: those of the settings and, where they are None, those of the weights."""

    threshold: float
    min_size: int
    snap: bool
    smoothing: float

    @property
    def two_passes(self) -> bool:
        """Whether the mask of a section depends on the whole stack."""
        return self.min_size > 0 or self.snap


def resolve(settings: MaskSettings, info: "WeightsInfo", voxel_size: VoxelSize) -> Resolved:
    """Take from the weights what the settings leave open."""
    info = info.for_sections(voxel_size[0])
    return Resolved(
        threshold=info.threshold if settings.threshold is None else settings.threshold,
        min_size=voxels_in(info.smallest, voxel_size) if settings.min_size is None else settings.min_size,
        snap=info.snap if settings.snap is None else settings.snap,
        smoothing=info.smoothing if settings.smoothing is None else settings.smoothing,
    )
