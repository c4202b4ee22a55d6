"""Sections as files: one PNG or JPEG, and a folder of PNG, JPEG or TIFF files."""

import re
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes.files import DAMAGE, SUFFIXES, check_claim, check_signature
from mitoda.volumes.tiff import TiffVolume
from mitoda.volumes.volume import EVERYTHING, VoxelSize, check_section

READERS = {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile}
"""`Image.open` would warn of sections above 90 megapixels and refuse those above 179."""

DAMAGED_IMAGE = (OSError, SyntaxError, zlib.error, *DAMAGE)
"""What Pillow raises on broken files."""

GREY_MODES = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.uint16}
"""Pillow's modes of grey images. Older Pillow calls a 16-bit PNG "I"."""


class ImageVolume:
    """A volume of one section in a PNG or JPEG file, decoded at each read.

    1-bit images are read as 0 and 255, and those of 2 and 4 bits are stretched to 0 … 255. Colours are accepted if all
    of them are grey.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        If the file is missing, damaged, or of another format than its name says.
    InputError
        If it has colours or an alpha channel.
    """

    white_is_zero = False
    letters = "ZYX"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.kind = SUFFIXES[path.suffix.lower()]
        self.lossy = self.kind == "JPEG"
        self.voxel_size: VoxelSize | None = None
        check_signature(path, self.kind)
        self.file_size = path.stat().st_size
        try:
            with READERS[self.kind](path) as image:
                self.shape: tuple[int, int, int] = (1, image.height, image.width)
                if image.mode not in GREY_MODES:  # decoded here, to compare the channels
                    decoded = image.height * image.width * len(image.getbands())
                    check_claim(self.name, decoded, decoded, self.file_size)
                grey = image.mode if image.mode in GREY_MODES else _as_grey(image, self.name).mode
                self.dtype: np.dtype = np.dtype(GREY_MODES[grey])
        except DAMAGED_IMAGE as error:
            raise self._damage(error) from error

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of the section; see `Volume.read`."""
        check_section(self, section)
        try:
            with READERS[self.kind](self.path) as image:
                array = np.array(_as_grey(image, self.name))
        except DAMAGED_IMAGE as error:
            raise self._damage(error) from error
        if array.shape != self.shape[1:]:
            raise FileError(
                f"{self.name} has changed since it was opened: its shape was {self.shape[1:]} and is {array.shape}"
            )
        return array[rows, columns].astype(self.dtype, copy=False)

    def _damage(self, error: Exception) -> Exception:
        if isinstance(error, MitodaError):
            return error
        return FileError(f"{self.name} is damaged: {error}; copy or export it again")


def _as_grey(image: Image.Image, name: str) -> Image.Image:
    if image.mode in GREY_MODES:
        return image.convert("L") if image.mode == "1" else image
    if image.mode == "RGB" or (image.mode == "P" and "transparency" not in image.info):
        red, green, blue = image.convert("RGB").split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    raise InputError(
        f"{name} is {'grey with an alpha channel' if image.mode == 'LA' else f'in colour ({image.mode})'}; "
        "mitoda reads grey values, so convert it first "
        "(in Fiji: Image > Type > 8-bit, or: magick in.png -alpha off -colorspace Gray out.png)"
    )


class FolderVolume:
    """The sections of a folder in natural order (2.png before 10.png), read one file at a time.

    Hidden files, folders, and files without the extension of an image are ignored. The voxel size is unknown.

    Parameters
    ----------
    path : Path
    gaps : bool
        Accept missing numbers: the folder holds only some sections of a stack.

    Raises
    ------
    FileError
        If there are no sections, or one is damaged or a broken link.
    InputError
        If formats, shapes or types differ, a section is in colour, a file holds several sections, a name does not
        match the others, or a number is missing.
    """

    letters = "ZYX"

    def __init__(self, path: Path, *, gaps: bool = False) -> None:
        self.path = path
        self.name = str(path)
        self.files = section_files(path, gaps=gaps)
        self.voxel_size: VoxelSize | None = None
        first = open_section(self.files[0])
        self.shape = (len(self.files), first.shape[1], first.shape[2])
        self.dtype = first.dtype
        self.white_is_zero = first.white_is_zero
        self.lossy = first.lossy
        self.file_size = first.file_size * len(self.files)
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
                    f"the sections of {self.name} differ in {what}: {first.path.name} has {one}, {other.path.name} has "
                    f"{two}; make them alike, or move other files out of the folder"
                )

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`."""
        check_section(self, section)
        image = open_section(self.files[section])
        if image.shape[1:] != self.shape[1:] or image.dtype != self.dtype:
            raise FileError(
                f"{image.name} has changed since the folder was opened; do not change it meanwhile"
            )
        return image.read(0, rows, columns)


def section_files(folder: Path, *, gaps: bool = False) -> list[Path]:
    """Return the image files of a folder in natural order, or raise the errors of `FolderVolume`."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FileError(f"{folder} cannot be read: {error.strerror or error}") from error
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.is_dir()]
    if not files:
        found = ", ".join(sorted(entry.name for entry in entries)[:3]) if entries else "it is empty"
        raise FileError(
            f"{folder} holds no PNG, JPEG or TIFF sections ({found}); give the folder that holds them"
        )
    kinds = sorted({SUFFIXES[file.suffix.lower()] for file in files})
    if len(kinds) > 1:
        raise InputError(
            f"{folder} holds sections of several formats ({' and '.join(kinds)}); keep one format there"
        )
    files.sort(key=lambda file: (natural_key(file.stem), file.name))
    _check_names(folder, files, gaps)
    return files


def _check_names(folder: Path, files: list[Path], gaps: bool) -> None:
    """Refuse names that differ in more than numbers, and missing numbers.

    Nothing is refused where all names differ in words (a.png, b.png), or in several numbers.
    """
    patterns: dict[str, list[Path]] = {}
    for file in files:
        patterns.setdefault(re.sub("[0-9]+", "#", file.stem.casefold()), []).append(file)
    largest = max(patterns.values(), key=len)
    if len(patterns) > 1 and len(largest) > 1:
        other = next(file for file in files if file not in largest)
        raise InputError(
            f"{folder} holds files of different names, such as {largest[0].name} and {other.name}; keep one kind "
            "there, whose names differ only in the number of the section"
        )
    numbers = np.array([[int(number) for number in re.findall("[0-9]+", file.stem)] for file in largest])
    varying = [column for column in numbers.T if len(set(column)) > 1] if len(largest) > 1 else []
    if gaps or len(varying) != 1:
        return
    steps = np.diff(varying[0])
    if (steps != steps.min()).any():
        before = int(np.argmax(steps != steps.min()))
        raise InputError(
            f"{folder}: sections are missing between {largest[before].name} and {largest[before + 1].name}; add them "
            "(for a lost section a copy of its neighbour), or number the files without a gap"
        )


def open_section(path: Path) -> TiffVolume | ImageVolume:
    """Open one file of a folder as a volume of a single section."""
    if SUFFIXES[path.suffix.lower()] != "TIFF":
        return ImageVolume(path)
    image = TiffVolume(path, alone=True)
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
