"""What a data set is: published files with their hashes, and the volumes in them. And what a fetch reports."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mitoda.volumes import VoxelSize

HashStatus = Literal["verified", "quoted", "none known"]
EventKind = Literal["checking", "file", "progress", "verified", "converting", "converted", "warning", "done"]


@dataclass(frozen=True)
class DatasetFile:
    """One published file."""

    path: str
    """Path relative to a mirror or to a local folder."""
    urls: tuple[str, ...]
    """Published addresses; the next one is tried only where a server answers that it has no such file."""
    provenance: str
    """Where the hash comes from. Begins with "verified", "quoted by" or "none known"."""
    size: int
    """Bytes of the published file."""
    is_size_exact: bool = False
    """Otherwise the size is approximate; a larger body is refused only far above it."""
    known_hash: str | None = None
    """`sha256:HASH`, or `git_blob:HASH`: git's name of the content, the sha1 of `blob SIZE NUL content`."""

    @property
    def status(self) -> HashStatus:
        """How far the hash can be trusted."""
        if self.known_hash is None:
            return "none known"
        return "verified" if self.provenance.startswith("verified") else "quoted"


@dataclass(frozen=True)
class Sections:
    """Where the sections of a volume, or of its labels, are.

    One file is a multi-page TIFF, a NIfTI volume, or a zip of images or of NIfTI volumes; several files are one section
    each.
    """

    files: tuple[str, ...]
    pattern: str = "*"
    """In a zip: shell pattern that the end of a path matches: of each section, or of one NIfTI volume."""
    numbers: range | None = None
    """In a zip: the numbers of the sections to take; the last digits of a name are its number."""
    transposed: bool = False
    """Of a NIfTI volume: the axes are stored in the order (section, row, column), not in NIfTI's (x, y, z)."""


@dataclass(frozen=True)
class LabelRule:
    """How published label values become a mask."""

    above: int = 0
    """Larger values are foreground."""
    allowed: Sequence[Sequence[int]] | None = None
    """Sets of values, one of which must contain all values found. None: any value is allowed."""
    ignore: int | None = None
    """The value of voxels that nobody annotated."""


@dataclass(frozen=True)
class Split:
    """One volume of a data set, with or without labels."""

    shape: tuple[int, int, int] | None
    """(sections, rows, columns). None where no source states it: the header of the NIfTI images decides."""
    voxel_size: VoxelSize | None
    """Nanometres; None where the sources contradict each other."""
    images: Sections
    labels: Sections | None = None
    volume_sha256: str | None = None
    """sha256 of the uint8 array in C order, where known."""
    mask_sha256: str | None = None
    """sha256 of the mask as 0 and 1 in C order, where known."""


@dataclass(frozen=True)
class Dataset:
    """One entry of the catalogue."""

    name: str
    organism: str
    tissue: str
    device: str
    splits: Mapping[str, Split]
    """The first one is the default."""
    files: tuple[DatasetFile, ...]
    label_rule: LabelRule
    licence: str
    citation: str
    landing_page: str
    voxel_size_note: str = ""
    """Where the voxel size comes from and how certain it is. Empty: undisputed."""
    note: str = ""
    """What else a person should know before using it."""

    def file(self, path: str) -> DatasetFile:
        """Return the file of that path; KeyError where there is none."""
        return {file.path: file for file in self.files}[path]

    @property
    def size_on_disk(self) -> int | None:
        """Bytes after conversion, before compression; None where a shape is unknown."""
        shapes = [split.shape for split in self.splits.values()]
        return sum(math.prod(shape) for shape in shapes if shape) if all(shapes) else None

    @property
    def verification(self) -> str:
        """One line that says what is verified when this data set is fetched."""
        how = {
            "verified": "by a hash computed from the source",
            "quoted": "by a hash that others quote",
            "none known": "without a known hash (recorded on first use)",
        }
        counts = Counter(str(file.status) for file in self.files)
        parts = [f"{count} file{'' if count == 1 else 's'} {how[status]}" for status, count in counts.items()]
        has_array_hash = any(split.volume_sha256 for split in self.splits.values())
        checked = "shape, type and label values" if self.label_rule.allowed else "shape and type"
        return "; ".join([*parts, "array hashes" if has_array_hash else f"{checked} of every split"])


@dataclass(frozen=True)
class FetchEvent:
    """What a fetch is doing; the command line draws it.

    - `checking`: a split converted earlier is compared with its record.
    - `file`: `file` is being looked for; `done` of `total` files are finished.
    - `progress`: `done` of `total` bytes of `file` have arrived; `total` is None if the server does not say.
    - `verified`: `file` is here; `message` says what was checked.
    - `converting`: `done` of `total` sections of `file` (for example `training/volume.tif`) are written.
    - `converted`: `file` is complete.
    - `warning`: `message` is something a person should know.
    - `done`: the data set is ready.
    """

    kind: EventKind
    dataset: str
    message: str = ""
    file: str = ""
    done: int = 0
    total: int | None = None
