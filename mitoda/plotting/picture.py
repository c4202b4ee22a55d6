"""Pictures as files, and the letters on them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageFont


def font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    """Pillow's own font, so that pictures look the same everywhere."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def write_picture(picture: "np.ndarray | Image.Image", path: Path | str) -> None:
    """Write a PNG, under its name only when complete."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(as_png(picture))
    partial.replace(path)


def as_png(picture: "np.ndarray | Image.Image") -> bytes:
    """A picture as the bytes of a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
