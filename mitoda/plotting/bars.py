"""Bars of one number per method, ours beside a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mitoda.errors import InputError
from mitoda.plotting.colours import FAINT, GRID, INK, LINES
from mitoda.plotting.curves import round_ticks
from mitoda.plotting.picture import font, write_picture

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDTH, ROW, TOP, LEFT, RIGHT = 960, 44, 64, 170, 880
"""Pixels: of the figure, of one method, above the first, and where the axis begins and ends."""
OURS, REFERENCE = LINES[0], LINES[4]


@dataclass(frozen=True)
class Bar:
    """One method's numbers, in the unit of the axis; NaN where one does not exist."""

    name: str
    value: float
    spread: float
    """Half the length of the whisker; NaN draws none."""
    reference: float


def bar_figure(
    bars: Sequence[Bar],
    title: str,
    legend: tuple[str, str] = ("mitoda", "paper"),
    limit: float = 100.0,
    path: Path | str | None = None,
) -> np.ndarray:
    """Draw horizontal bars: of each method our value, with a whisker, above the reference.

    Parameters
    ----------
    bars : sequence of Bar
        From top to bottom.
    title : str
    legend : (str, str)
        What the upper and the lower bar are.
    limit : float
        End of the axis, which begins at 0.
    path : path, optional
        Where to write the PNG.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    from PIL import Image, ImageDraw

    if not bars:
        raise InputError("a figure of no bars was asked for; expected one or more")
    scale = 2  # drawn at twice the size and reduced, so that edges are smooth
    height = TOP + ROW * len(bars) + 40
    image = Image.new("RGB", (WIDTH * scale, height * scale), "white")
    draw = ImageDraw.Draw(image)
    _draw_frame(draw, title, legend, limit, height - 40, scale)
    for index, bar in enumerate(bars):
        _draw_bar(draw, bar, TOP + ROW * index, limit, scale)
    picture = np.asarray(image.resize((WIDTH, height), Image.Resampling.LANCZOS))
    if path is not None:
        write_picture(picture, path)
    return picture


def _x(value: float, limit: float) -> float:
    return LEFT + min(max(value, 0.0), limit) / limit * (RIGHT - LEFT)


def _draw_frame(
    draw: "ImageDraw.ImageDraw", title: str, legend: tuple[str, str], limit: float, bottom: int, scale: int
) -> None:
    """Title, legend, grid and ticks."""
    draw.text((12 * scale, 16 * scale), title, fill=INK, font=font(16 * scale), anchor="lm")
    for place, (name, colour) in enumerate(zip(legend, (OURS, REFERENCE), strict=True)):
        left = LEFT + 130 * place
        draw.rectangle([left * scale, 38 * scale, (left + 14) * scale, 48 * scale], fill=colour)
        draw.text(((left + 20) * scale, 43 * scale), name, fill=INK, font=font(13 * scale), anchor="lm")
    for tick in round_ticks(0.0, limit):
        x = _x(tick, limit) * scale
        draw.line([(x, TOP * scale), (x, bottom * scale)], fill=GRID, width=scale)
        draw.text((x, (bottom + 8) * scale), f"{tick:g}", fill=INK, font=font(12 * scale), anchor="mt")


def _draw_bar(draw: "ImageDraw.ImageDraw", bar: Bar, top: int, limit: float, scale: int) -> None:
    """One method: its name, and two bars with their numbers."""
    short = bar.name if len(bar.name) <= 20 else f"{bar.name[:19]}…"
    draw.text(
        ((LEFT - 10) * scale, (top + ROW / 2) * scale), short, fill=INK, font=font(14 * scale), anchor="rm"
    )
    for offset, value, colour in ((5, bar.value, OURS), (22, bar.reference, REFERENCE)):
        middle = (top + offset + 8) * scale
        if math.isnan(value):
            draw.text(((LEFT + 6) * scale, middle), "none", fill=FAINT, font=font(12 * scale), anchor="lm")
            continue
        right = _x(value, limit) * scale
        draw.rectangle(
            [LEFT * scale, (top + offset) * scale, right, (top + offset + 15) * scale], fill=colour
        )
        text, end = f"{value:.1f}", right
        if colour == OURS and not math.isnan(bar.spread):
            low, end = (_x(value + sign * bar.spread, limit) * scale for sign in (-1, 1))
            draw.line([(low, middle), (end, middle)], fill=INK, width=2 * scale)
            text += f" ± {bar.spread:.1f}"
        draw.text((end + 6 * scale, middle), text, fill=INK, font=font(12 * scale), anchor="lm")
