"""A folder of sections, one file each: PNG, JPEG or TIFF."""

import re
from pathlib import Path

import numpy as np

from mitoda.errors import FileError, InputError
from mitoda.volumes.images import ImageVolume
from mitoda.volumes.signatures import SUFFIXES
from mitoda.volumes.tiff import TiffVolume
from mitoda.volumes.volume import EVERYTHING, VoxelSize


class FolderVolume:
    """The sections of a folder in natural order (2.png before 10.png), read one file at a time.

    Hidden files, Thumbs.db and whatever has no image extension are ignored, and so are folders within. The
    files are opened at once to compare shapes and types, and anew at each read. Nothing there tells the
    distance of sections, so the voxel size is None.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        If there are no sections, or one is damaged.
    InputError
        If kinds, shapes or types differ, a section is in colour, or a file holds several sections.
    """

    letters = "ZYX"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.files = section_files(path)
        self.voxel_size: VoxelSize | None = None
        first = open_section(self.files[0])
        self.shape = (len(self.files), first.shape[1], first.shape[2])
        self.dtype = first.dtype
        self.white_is_zero = first.white_is_zero
        self.lossy = first.lossy
        for file in self.files[1:]:
            self._compare(first, open_section(file))

    def _compare(self, first: TiffVolume | ImageVolume, other: TiffVolume | ImageVolume) -> None:
        for what, one, two in (
            ("shape", first.shape[1:], other.shape[1:]),
            ("type", first.dtype, other.dtype),
            ("meaning of 0", *("white" if image.white_is_zero else "black" for image in (first, other))),
        ):
            if one != two:
                raise InputError(
                    f"the sections of {self.name} differ in {what}: {first.path.name} has {one}, "
                    f"{other.path.name} has {two}; "
                    "make them alike, or move what does not belong out of the folder"
                )

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`."""
        if not 0 <= section < self.shape[0]:
            raise IndexError(
                f"{self.name} has sections 0 to {self.shape[0] - 1}; section {section} was asked for"
            )
        image = open_section(self.files[section])
        if image.shape[1:] != self.shape[1:] or image.dtype != self.dtype:
            raise FileError(
                f"{image.name} has changed since the folder was opened; leave it alone while it is read"
            )
        return image.read(0, rows, columns)


def section_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order.

    Raises
    ------
    FileError
        If there are none.
    InputError
        If there are several kinds.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FileError(f"{folder} cannot be read: {error.strerror or error}") from error
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if not files:
        found = ", ".join(sorted(entry.name for entry in entries)[:3]) if entries else "it is empty"
        raise FileError(
            f"{folder} holds no PNG, JPEG or TIFF sections ({found}); give the folder that holds them"
        )
    kinds = sorted({SUFFIXES[file.suffix.lower()] for file in files})
    if len(kinds) > 1:
        raise InputError(
            f"{folder} holds sections of several kinds ({' and '.join(kinds)}); keep one kind there"
        )
    return sorted(files, key=lambda file: (natural_key(file.name), file.name))


def open_section(path: Path) -> TiffVolume | ImageVolume:
    """Open one file of a folder as a volume of a single section.

    Raises
    ------
    InputError
        If it holds several sections.
    """
    if SUFFIXES[path.suffix.lower()] != "TIFF":
        return ImageVolume(path)
    image = TiffVolume(path)
    if image.shape[0] != 1:
        raise InputError(
            f"{path} holds {image.shape[0]} sections, but in a folder each file is one section; "
            "give the file itself, or move it out of the folder"
        )
    return image


def natural_key(name: str) -> list[str | int]:
    """Return a sort key that compares runs of digits as numbers.

    Examples
    --------
    >>> sorted(["s10.png", "s2.png", "s0.png"], key=natural_key)
    ['s0.png', 's2.png', 's10.png']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
