"""Masks drawn over sections, pixel for pixel, and pictures as PNG files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]
PREDICTED: Colour = (255, 176, 0)
"""A mask that is compared with nothing."""
BOTH: Colour = (60, 200, 90)
FIRST_ONLY: Colour = (255, 60, 60)
SECOND_ONLY: Colour = (60, 150, 255)
TINT = 0.25
"""Share of the colour inside a mask; cristae stay visible through it."""


def overlay(section: np.ndarray, mask: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Draw a mask over a section: its contour in full colour, its inside tinted.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
        Any real type; see `stretch`.
    mask : ndarray, shape (rows, columns)
        Anything but 0 is foreground.
    other : ndarray, optional, shape (rows, columns)
        A second mask, such as the labels. With it, pixels in both masks, in `mask` only and in `other` only have
        the colours `BOTH`, `FIRST_ONLY` and `SECOND_ONLY`.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)

    Raises
    ------
    InputError
        If the shapes differ.
    """
    from scipy import ndimage

    for one, noun in ((mask, "mask"), (other, "other mask")):
        if one is not None and one.shape != section.shape:
            raise InputError(
                f"the {noun} has shape {one.shape}, the section {section.shape}; expected equal shapes"
            )
    first = mask != 0
    groups = [(first, PREDICTED)]
    if other is not None:
        second = other != 0
        groups = [
            (first & second, BOTH),
            (first & ~second, FIRST_ONLY),
            (~first & second, SECOND_ONLY),
        ]
    picture = np.repeat(stretch(section)[..., None], 3, axis=2).astype(np.float32)
    for part, colour in groups:
        picture[part] += TINT * (np.array(colour, np.float32) - picture[part])
    for part, colour in groups:
        picture[part & ~ndimage.binary_erosion(part, border_value=1)] = colour
    return np.round(picture).astype(np.uint8)


def stretch(section: np.ndarray) -> np.ndarray:
    """Map grey values from the 1st to the 99th percentile to 0 … 255, uint8; a constant section becomes mid-grey."""
    low, high = np.percentile(section, (1, 99))
    if not high > low:
        return np.full(section.shape, 128, np.uint8)
    scaled: np.ndarray = np.round(255 * np.clip((section - low) / (high - low), 0, 1))
    return scaled.astype(np.uint8)


def grid_figure(pictures: "list[tuple[str, np.ndarray]]", columns: int = 2) -> "Figure":
    """Draw pictures (rows, columns, 3) with their captions in a grid."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(5 * columns, 5.4 * rows), dpi=100, layout="constrained")
    for number, (caption, picture) in enumerate(pictures, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(picture)
        axes.set_title(caption, fontsize="medium")
        axes.set_axis_off()
    return figure


def as_png(picture: "np.ndarray | Figure") -> bytes:
    """Encode a picture (uint8) or a figure as PNG."""
    if isinstance(picture, np.ndarray):
        import imageio.v3 as imageio

        return bytes(imageio.imwrite("<bytes>", picture, extension=".png", optimize=True))
    stream = io.BytesIO()
    picture.savefig(stream, format="png")
    return stream.getvalue()


def write_png(picture: "np.ndarray | Figure", path: Path | str) -> None:
    """Write a picture (uint8) or a figure as a PNG file."""
    with atomic_write(Path(path)) as partial:
        partial.write_bytes(as_png(picture))
