"""What a segmentation yields while it runs."""

from dataclasses import dataclass
from pathlib import Path

from mitoda.inference.settings import Resolved
from mitoda.inference.voxel_size import VoxelSizeFound


@dataclass(frozen=True)
class SectionDone:
    """One more section is segmented."""

    section: int
    sections: int
    foreground: float
    """Share of its pixels that is mitochondrion, before small components are removed."""
    resumed: bool
    """It is taken from an interrupted run."""


@dataclass(frozen=True)
class BlockDone:
    """One more block is done; in any order."""

    step: str
    """"predict" or "finish"."""
    done: int
    """Blocks done so far in this step, those of an interrupted run included."""
    blocks: int
    resumed: int
    """Blocks taken from an interrupted run."""


@dataclass(frozen=True)
class PartDone:
    """This share of the blocks is done; the last call, without a part, finishes."""

    part: int
    parts: int
    missing: int
    """Blocks that other parts still have to do."""


@dataclass(frozen=True)
class Notice:
    """A warning: something had to be changed during the run."""

    text: str


@dataclass(frozen=True)
class AlreadyComplete:
    """The run to resume is complete; nothing was computed."""

    output: Path


@dataclass(frozen=True)
class Numbered:
    """The mitochondria of the mask are numbered, and the labels written."""

    output: Path
    count: int
    components: int
    """Connected components of the mask, before touching mitochondria were split."""


@dataclass(frozen=True)
class Segmented:
    """The whole volume is segmented and written."""

    sections: int
    foreground: float
    """Share of all voxels."""
    seconds: float
    stride: int
    """Sections between the two of a pair."""
    warnings: tuple[str, ...]


Event = (
    VoxelSizeFound
    | Resolved
    | SectionDone
    | BlockDone
    | PartDone
    | Notice
    | AlreadyComplete
    | Numbered
    | Segmented
)
