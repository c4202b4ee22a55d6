"""One section in a PNG or JPEG file."""

from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from mitoda.errors import FileError, InputError
from mitoda.volumes.signatures import SUFFIXES, check_signature
from mitoda.volumes.volume import EVERYTHING, VoxelSize

READERS = {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile}
"""Pillow's classes themselves: `Image.open` would warn of sections above 90 and refuse those above 179
megapixels."""

GREY_MODES = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.uint16}
"""Pillow's name of a grey image, and our type. Older Pillow calls a 16-bit PNG "I"."""


class ImageVolume:
    """A volume of one section: a PNG or JPEG file, decoded at each read.

    1-bit images read as 0 and 255, and those of 2 and 4 bits are spread over 0 to 255. A colour table is
    followed if all its entries are grey.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileError
        If the file is missing, damaged, or not of the kind its name says.
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
        try:
            with READERS[self.kind](path) as image:
                self.shape: tuple[int, int, int] = (1, image.height, image.width)
                self.dtype: np.dtype = np.dtype(GREY_MODES[_grey_mode(image, self.name)])
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise FileError(f"{path} is damaged: {error}; copy or export it again") from error

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of the section; see `Volume.read`."""
        if section != 0:
            raise IndexError(f"{self.name} has section 0 only; section {section} was asked for")
        try:
            with READERS[self.kind](self.path) as image:
                grey = image if image.mode in GREY_MODES and image.mode != "1" else image.convert("L")
                array = np.array(grey)
        except (OSError, SyntaxError, ValueError) as error:
            raise FileError(f"{self.name} is damaged: {error}; copy or export it again") from error
        if array.shape != self.shape[1:]:
            raise FileError(
                f"{self.name} has changed since it was opened: it was {self.shape[1:]}, now {array.shape}"
            )
        return array[rows, columns].astype(self.dtype, copy=False)


def _grey_mode(image: Image.Image, name: str) -> str:
    if image.mode == "P" and "transparency" not in image.info:
        colours = np.array(image.getpalette("RGB")).reshape(-1, 3)
        if (colours == colours[:, :1]).all():
            return "L"
    if image.mode in GREY_MODES:
        return image.mode
    what = {"LA": "grey with an alpha channel", "P": "coloured by a table"}.get(
        image.mode, f"in colour ({image.mode})"
    )
    raise InputError(
        f"{name} is {what}; mitoda reads grey values, so convert it first "
        "(in Fiji: Image > Type > 8-bit, or: magick in.png -alpha off -colorspace Gray out.png)"
    )
