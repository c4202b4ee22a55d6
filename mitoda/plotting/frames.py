"""Pictures of sections inside a page: grey values as WebP, outlines as paths of SVG, both over the same nanometres."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np

from mitoda.plotting.overlays import stretch

QUALITY, BLUR = 45, 0.7
"""Of WebP, and pixels by which grey values are blurred before: noise goes, membranes stay, at 40 % of the size."""


class Window(NamedTuple):
    """A part of every section."""

    rows: slice
    columns: slice

    def size_nm(self, pixel_nm: tuple[float, float]) -> tuple[float, float]:
        """Height and width."""
        height, width = ((part.stop - part.start) * pixel for part, pixel in zip(self, pixel_nm, strict=True))
        return height, width


def window_around(
    start: tuple[int, int],
    stop: tuple[int, int],
    side_nm: float,
    pixel_nm: tuple[float, float],
    shape: tuple[int, int],
) -> Window:
    """The square of a side around the middle of a rectangle, moved into the section and cut where it is too large."""
    parts = []
    for first, end, pixel, size in zip(start, stop, pixel_nm, shape, strict=True):
        length = min(size, max(end - first, round(side_nm / pixel)))
        low = min(max(0, (first + end - length) // 2), size - length)
        parts.append(slice(low, low + length))
    return Window(*parts)


def embed_grey(grey: np.ndarray, largest: int) -> str:
    """Encode grey values (rows, columns) as the address of a picture with at most `largest` pixels a side."""
    from PIL import Image, ImageFilter

    picture = Image.fromarray(stretch(grey)).filter(ImageFilter.GaussianBlur(BLUR))
    scale = largest / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, "webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def outline_path(mask: np.ndarray, pixel_nm: tuple[float, float]) -> str:
    """Return the outlines of a mask (rows, columns) as a path of SVG, in nanometres from its corner.

    Where the mask reaches the border of the picture the outline is open: beyond it the mask goes on.

    Examples
    --------
    >>> outline_path(np.pad([[True]], 1), (10, 10))
    'M15 20L10 15L15 10L20 15Z'
    """
    from skimage import measure

    find_contours: Any = measure.find_contours  # not annotated
    approximate_polygon: Any = measure.approximate_polygon
    if min(mask.shape) < 2 or not mask.any():
        return ""
    parts = []
    for contour in find_contours(mask.astype(np.float32), 0.5):
        points = approximate_polygon(contour, 0.45)
        if len(points) < 2:
            continue
        closed = bool((contour[0] == contour[-1]).all())
        places = ((points[:-1] if closed else points) + 0.5) * pixel_nm
        parts.append("M" + "L".join(f"{x:.4g} {y:.4g}" for y, x in places) + ("Z" if closed else ""))
    return "".join(parts)
