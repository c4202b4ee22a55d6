"""What a data set is: files with their hashes, and how splits lie in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mitoda.volumes import VoxelSize

HashStatus = Literal["verified", "quoted", "none known"]


@dataclass(frozen=True)
class DatasetFile:
    """One published file."""

    path: str
    """Path relative to a mirror or to a `--from` folder; also its name while it waits for conversion."""
    urls: tuple[str, ...]
    """Published addresses; the next is tried only where one says that the file is not there."""
    provenance: str
    """Where the hash comes from. Begins with "verified", "quoted by" or "none known"."""
    sha256: str | None = None
    git_blob: str | None = None
    """Git's name of the content: sha1 of `blob SIZE NUL content`."""
    size: int | None = None
    """Bytes of the file as published, exact."""
    about: int | None = None
    """Bytes, roughly, and a guess from the shape where nobody says: for the check of free space."""

    @property
    def status(self) -> HashStatus:
        """How far the hash can be trusted."""
        if self.sha256 is None and self.git_blob is None:
            return "none known"
        return "verified" if self.provenance.startswith("verified") else "quoted"


@dataclass(frozen=True)
class Sections:
    """Where the sections of a volume, or of its labels, lie among the files of a data set.

    One file is a multi-page TIFF, a NIfTI volume or a zip of single sections; several files are one section
    each.
    """

    files: tuple[str, ...]
    folder: str | None = None
    """In a zip: the folder that holds the sections, whatever lies above it; None takes any."""
    pattern: str = "*"
    """In a zip: what a section is called, as a shell pattern without folders."""
    numbers: range | None = None
    """In a zip: the section numbers wanted, each once; a number is the last run of digits in a name."""


@dataclass(frozen=True)
class LabelRule:
    """How published label values become a mask."""

    above: int = 0
    """Foreground is what exceeds this."""
    allowed: tuple[tuple[int, ...], ...] | None = None
    """Sets of values; one must hold every value found. None: anything (instance numbers, anti-aliasing)."""
    ignore: int | None = None
    """The value of voxels that nobody annotated."""


@dataclass(frozen=True)
class Split:
    """One volume of a data set, with labels or without."""

    shape: tuple[int, int, int]
    """(sections, rows, columns)."""
    images: Sections
    labels: Sections | None = None
    volume_sha256: str | None = None
    """sha256 of the decoded uint8 array in C order, where somebody has computed it."""
    mask_sha256: str | None = None
    """The same of the mask as 0 and 1."""

    @property
    def labelled(self) -> bool:
        """Whether the source publishes labels."""
        return self.labels is not None


@dataclass(frozen=True)
class Dataset:
    """One entry of the table."""

    name: str
    organism: str
    tissue: str
    device: str
    voxel_size: VoxelSize | None
    """Nanometres; None where the sources contradict each other, and then the person has to say it."""
    voxel_size_note: str
    """Where the voxel size comes from, and what is uncertain. Empty: undisputed."""
    splits: Mapping[str, Split]
    default_split: str
    files: tuple[DatasetFile, ...]
    label_rule: LabelRule
    licence: str
    citation: str
    landing_page: str
    note: str = ""
    """What else a person should know before using it."""

    def file(self, path: str) -> DatasetFile:
        """Return the file of that path; KeyError where there is none."""
        return {file.path: file for file in self.files}[path]

    @property
    def download_size(self) -> int | None:
        """Bytes to download, approximate, or None where a file's size is not known."""
        sizes = [file.size or file.about for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def size_on_disk(self) -> int:
        """Bytes after conversion, at most: compression makes it less."""
        return sum(math.prod(split.shape) for split in self.splits.values())

    @property
    def verification(self) -> str:
        """One line that says what is verified when this data set is fetched."""
        verified = sum(file.status == "verified" for file in self.files)
        quoted = sum(file.status == "quoted" for file in self.files)
        unknown = len(self.files) - verified - quoted
        parts = []
        if verified:
            parts.append(f"{_files(verified)} by a hash computed from the source")
        if quoted:
            parts.append(f"{_files(quoted)} by a hash that others quote")
        if unknown:
            parts.append(
                f"{_files(unknown)} without a published hash (size checked, hash recorded at first use)"
            )
        checks = "shape and type of every split"
        if self.label_rule.allowed is not None:
            checks = "shape, type and label values of every split"
        if any(split.volume_sha256 for split in self.splits.values()):
            checks = "hash of the decoded arrays"
        return "; ".join([*parts, checks])


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
