"""Masks drawn over sections, and pictures side by side."""

from collections.abc import Sequence

import numpy as np

from mitoda.errors import InputError
from mitoda.plotting.colours import FALSE_ALARM, FOUND, INK, MISSED, PREDICTED
from mitoda.plotting.picture import font


def overlay(
    section: np.ndarray, mask: np.ndarray, label: np.ndarray | None = None, width: int = 1, tint: float = 0.25
) -> np.ndarray:
    """Draw a mask over a section.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
        Any real type; stretched from its 1st to its 99th percentile. A constant section becomes mid-grey.
    mask : ndarray, shape (rows, columns)
        Anything but 0 is foreground.
    label : ndarray, optional, shape (rows, columns)
        With it, contours and tints tell what was found, `FALSE_ALARM` and `MISSED` apart.
    width : int
        Of contours, in pixels, drawn inside the object.
    tint : float
        Share of the colour inside objects, from 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    for other, noun in ((mask, "mask"), (label, "label")):
        if other is not None and other.shape != section.shape:
            raise InputError(
                f"the {noun} has shape {other.shape}, the section {section.shape}; expected equal shapes"
            )
    predicted = mask != 0
    if label is None:
        groups = [(predicted, PREDICTED)]
    else:
        truth = label != 0
        groups = [
            (predicted & truth, FOUND),
            (predicted & ~truth, FALSE_ALARM),
            (~predicted & truth, MISSED),
        ]
    picture = np.repeat(stretch(section)[..., None], 3, axis=2).astype(np.float32)
    for part, colour in groups:
        picture[part] += tint * (np.array(colour, np.float32) - picture[part])
    for part, colour in groups:
        picture[contour(part, width)] = colour
    return np.round(picture).astype(np.uint8)


def contour(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """Foreground pixels within `width` pixels of the background; beyond the picture is no background."""
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)


def stretch(section: np.ndarray) -> np.ndarray:
    """Grey values from the 1st to the 99th percentile as uint8 from 0 to 255; mid-grey if they are equal."""
    low, high = np.percentile(section, (1, 99))
    if not high > low:
        return np.full(section.shape, 128, np.uint8)
    return np.round(255 * np.clip((section - low) / (high - low), 0, 1)).astype(np.uint8)


def contact_sheet(
    panels: Sequence[tuple[str, np.ndarray]], columns: int = 3, panel_width: int = 400
) -> np.ndarray:
    """Arrange pictures with captions in rows.

    Parameters
    ----------
    panels : sequence of (caption, picture)
        A picture is uint8, shape (rows, columns) or (rows, columns, 3). All are scaled to one width.
    columns : int
        Pictures in a row.
    panel_width : int
        Width of each, in pixels of the sheet.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    from PIL import Image, ImageDraw

    if not panels:
        raise InputError("a contact sheet of no panels was asked for; expected one or more")
    columns, gap, caption_height = min(columns, len(panels)), 10, 24
    pictures = []
    for _, array in panels:
        picture = Image.fromarray(array).convert("RGB")
        height = max(1, round(picture.height * panel_width / picture.width))
        pictures.append(picture.resize((panel_width, height), Image.Resampling.LANCZOS))
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    heights = [max(pictures[index].height for index in row) + caption_height + gap for row in rows]
    sheet = Image.new("RGB", (columns * (panel_width + gap) + gap, sum(heights) + gap), "white")
    draw, top = ImageDraw.Draw(sheet), gap
    for row, height in zip(rows, heights, strict=True):
        for place, index in enumerate(row):
            left = gap + place * (panel_width + gap)
            draw.text((left, top), panels[index][0], fill=INK, font=font(15))
            sheet.paste(pictures[index], (left, top + caption_height))
        top += height
    return np.asarray(sheet)
