"""Losses over steps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mitoda.plotting.colours import FAINT, GRID, INK, LINES, Colour
from mitoda.plotting.picture import font, write_picture

if TYPE_CHECKING:
    from PIL import ImageDraw


def curve_figure(
    records: Sequence[Mapping[str, object]],
    path: Path | str | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw losses over steps.

    Each curve is the mean of at most 200 groups of steps, with a pale band from the least to the greatest
    value. The axis is logarithmic unless a value is 0 or less. Values that are not finite are left out, and
    counted in the legend.

    Parameters
    ----------
    records : sequence of mappings
        Each has "step"; of its other entries those that are numbers are drawn.
    path : path, optional
        Where to write the PNG.
    names : sequence of str, optional
        Which entries to draw; by default all numbers.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    from PIL import Image, ImageDraw

    curves = collect_curves(records, names)
    scale = 2  # drawn at twice the size and reduced, so that lines are smooth
    image = Image.new("RGB", (960 * scale, 480 * scale), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    axes = Axes(curves, left=80 * scale, top=24 * scale, right=740 * scale, bottom=424 * scale, scale=scale)
    axes.draw_frame(draw)
    for index, (name, (steps, values, dropped)) in enumerate(curves.items()):
        colour, top = LINES[index % len(LINES)], (36 + 40 * index) * scale
        axes.draw_curve(draw, steps, values, colour)
        draw.line([(760 * scale, top), (784 * scale, top)], fill=colour, width=3 * scale)
        short = name if len(name) <= 22 else f"{name[:21]}…"
        draw.text((792 * scale, top), short, fill=INK, font=font(13 * scale), anchor="lm")
        note = f"last {values[-1]:.3g}" if len(values) else "no finite value"
        note += f", {dropped} not finite" if dropped and len(values) else ""
        draw.text((792 * scale, top + 16 * scale), note, fill=FAINT, font=font(12 * scale), anchor="lm")
    picture = np.asarray(image.resize((960, 480), Image.Resampling.LANCZOS))
    if path is not None:
        write_picture(picture, path)
    return picture


def collect_curves(
    records: Sequence[Mapping[str, object]], names: Sequence[str] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Steps and finite values of each entry, and how many values were not finite."""
    if names is None:
        numbers = (key for record in records for key, value in record.items() if is_number(value))
        names = [name for name in dict.fromkeys(numbers) if name != "step"]
    curves = {}
    for name in names:
        points = np.array(
            [
                (record["step"], record[name])
                for record in records
                if is_number(record.get(name)) and "step" in record
            ],
            dtype=np.float64,
        ).reshape(-1, 2)
        finite = np.isfinite(points[:, 1])
        curves[name] = (points[finite, 0], points[finite, 1], int((~finite).sum()))
    return curves


def is_number(value: object) -> bool:
    """Whether an entry of a log record is a number, and not a claim."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Axes:
    """The frame of a figure, from steps and values to pixels."""

    def __init__(
        self, curves: Mapping[str, tuple[np.ndarray, np.ndarray, int]],
        left: int, top: int, right: int, bottom: int, scale: int,
    ) -> None:  # fmt: skip
        self.left, self.top, self.right, self.bottom, self.scale = left, top, right, bottom, scale
        steps = np.concatenate([curve[0] for curve in curves.values()] or [np.zeros(0)])
        values = np.concatenate([curve[1] for curve in curves.values()] or [np.zeros(0)])
        self.is_empty = len(values) == 0
        self.is_logarithmic = not self.is_empty and bool(values.min() > 0)
        self.first, self.last = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 1.0)
        self.last = max(self.last, self.first + 1)
        heights = self.height(values) if len(values) else np.array([0.0, 1.0])
        margin = max(0.05 * float(np.ptp(heights)), 0.05)
        self.low, self.high = float(heights.min()) - margin, float(heights.max()) + margin

    def height(self, values: np.ndarray) -> np.ndarray:
        """Values as they are spaced along the axis."""
        return np.log10(values) if self.is_logarithmic else values

    def x(self, steps: np.ndarray) -> np.ndarray:
        """Steps to pixels."""
        return self.left + (steps - self.first) / (self.last - self.first) * (self.right - self.left)

    def y(self, values: np.ndarray) -> np.ndarray:
        """Values to pixels."""
        return self.bottom - (self.height(values) - self.low) / (self.high - self.low) * (
            self.bottom - self.top
        )

    def value_ticks(self) -> list[float]:
        """Values to mark: 1, 2 and 5 times powers of ten on a logarithmic axis, as many as have room."""
        if not self.is_logarithmic:
            return round_ticks(self.low, self.high)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        if self.high - self.low < 1:
            return [tick for tick in round_ticks(10**self.low, 10**self.high) if tick > 0]
        factors = (1, 2, 5) if self.high - self.low < 3 else (1,)
        every = max(1, round((self.high - self.low) / 8))
        ticks = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
        return [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]

    def draw_frame(self, draw: "ImageDraw.ImageDraw") -> None:
        """Grid, ticks and names of the axes."""
        size = self.scale
        for tick in round_ticks(self.first, self.last):
            x = float(self.x(np.array(tick)))
            draw.line([(x, self.top), (x, self.bottom)], fill=GRID, width=size)
            draw.text(
                (x, self.bottom + 8 * size), f"{tick:,.10g}", fill=INK, font=font(12 * size), anchor="mt"
            )
        for tick in self.value_ticks():
            y = float(self.y(np.array(tick)))
            draw.line([(self.left, y), (self.right, y)], fill=GRID, width=size)
            draw.text((self.left - 8 * size, y), f"{tick:.4g}", fill=INK, font=font(12 * size), anchor="rm")
        draw.rectangle([self.left, self.top, self.right, self.bottom], outline=INK, width=size)
        middle = (self.left + self.right) / 2
        draw.text((middle, self.bottom + 30 * size), "step", fill=INK, font=font(13 * size), anchor="mt")
        name = "loss, logarithmic" if self.is_logarithmic else "loss"
        draw.text((self.left, self.top - 6 * size), name, fill=INK, font=font(13 * size), anchor="lb")
        if self.is_empty:
            place = (middle, (self.top + self.bottom) / 2)
            draw.text(place, "nothing was logged", fill=INK, font=font(16 * size), anchor="mm")

    def draw_curve(
        self, draw: "ImageDraw.ImageDraw", steps: np.ndarray, values: np.ndarray, colour: Colour
    ) -> None:
        """The mean of groups of steps as a line, over a band from their least to their greatest value."""
        groups = [group for group in np.array_split(np.argsort(steps, kind="stable"), 200) if len(group)]
        if not groups:
            return
        x = self.x(np.array([steps[group].mean() for group in groups]))
        low, middle, high = (
            self.y(np.array([reduce(values[group]) for group in groups]))
            for reduce in (np.min, np.mean, np.max)
        )
        if len(groups) == 1:
            radius = 3 * self.scale
            draw.ellipse([x[0] - radius, middle[0] - radius, x[0] + radius, middle[0] + radius], fill=colour)
            return
        if len(groups) < len(steps):
            band = [*zip(x, low, strict=True), *zip(x[::-1], high[::-1], strict=True)]
            draw.polygon([(float(a), float(b)) for a, b in band], fill=(*colour, 40))
        line = [(float(a), float(b)) for a, b in zip(x, middle, strict=True)]
        draw.line(line, fill=colour, width=2 * self.scale, joint="curve")


def round_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside a range, about as many as wanted.

    Examples
    --------
    >>> round_ticks(0, 1000)
    [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
