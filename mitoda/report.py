"""Pictures of a run: overlays of masks on sections, loss curves, and one HTML page that holds them all.

Everything is drawn with numpy, scikit-image and Pillow (which imageio and scikit-image bring), and the page
needs nothing from the network, so it can be mailed or opened on a cluster's file server.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mitoda.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PREDICTED: Colour = (255, 176, 0)
"""Contours of a prediction without a label."""
FOUND: Colour = (60, 200, 90)
"""Predicted and labelled."""
FALSE_ALARM: Colour = (255, 60, 60)
"""Predicted, not labelled."""
MISSED: Colour = (60, 150, 255)
"""Labelled, not predicted."""
LINES: tuple[Colour, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (100, 100,
    100),
)  # fmt: skip
"""Colours of curves: Okabe and Ito's, which the colour-blind tell apart (jfly.uni-koeln.de/color)."""
INK: Colour = (40, 40, 40)
FAINT: Colour = (110, 110, 110)
GRID: Colour = (225, 225, 225)


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


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0
1rem; } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align:
top; } th { font-weight: 600; color: #555; } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
} img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption { color: #555; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
.pictures figure { margin: 0; } .key span { margin-right: 1.2rem; } .key b { font-size: 1.2em; }
"""


def write_report(
    run_folder: Path | str,
    title: str,
    *,
    settings: Mapping[str, object],
    records: Sequence[Mapping[str, object]] = (),
    names: Sequence[str] | None = None,
    tables: Mapping[str, Mapping[str, object]] | None = None,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html`, one page without any reference to other files, and `curves.png` beside it.

    Parameters
    ----------
    run_folder : path
        An existing folder.
    title : str
    settings : mapping
        Name to value, as a table. A mapping as a value becomes indented names, `optimiser.rate`.
    records : sequence of mappings, optional
        Log records for `curve_figure`; without any there are no curves.
    names : sequence of str, optional
        Which entries of the records are losses; by default all numbers.
    tables : mapping, optional
        Heading to a table of name to value: scores, data, device.
    pictures : sequence of (caption, picture), optional
        Overlays, uint8.
    notes : sequence of str, optional
        Paragraphs under the title, such as warnings.

    Returns
    -------
    Path
        Of the page.
    """
    folder = Path(run_folder)
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    for heading, rows in (tables or {}).items():
        parts.append(f"<h2>{html.escape(heading)}</h2>{table(rows)}")
    if records:
        curves = curve_figure(records, folder / "curves.png", names)
        parts.append(f"<h2>Losses</h2>{figure('', curves, 'loss curves')}")
    if pictures:
        shown = "".join(figure(caption, picture, caption) for caption, picture in pictures)
        parts.append(f'<h2>Pictures</h2>{colour_key()}<div class="pictures">{shown}</div>')
    parts.append(f"<h2>Settings</h2>{table(settings)}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>{chr(10).join(parts)}</body></html>\n"
    )
    path = folder / "report.html"
    partial = folder / "report.html.partial"
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def table(rows: Mapping[str, object]) -> str:
    """A table of two columns; mappings are flattened."""
    lines = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in flatten(rows).items()
    ]
    return f"<table>{''.join(lines)}</table>"


def flatten(rows: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Names and values as text, those of inner mappings as `outer.inner`.

    Examples
    --------
    >>> flatten({"seed": 1, "adam": {"rate": 1e-4}, "weights": None})
    {'seed': '1', 'adam.rate': '0.0001', 'weights': '–'}
    """
    flat: dict[str, str] = {}
    for name, value in rows.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            flat[f"{prefix}{name}"] = f"{value:.4g}"
        else:
            flat[f"{prefix}{name}"] = "–" if value is None else str(value)
    return flat


def figure(caption: str, picture: np.ndarray, description: str) -> str:
    """A picture inside the page itself."""
    data = base64.b64encode(as_png(picture)).decode()
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(description)}" src="data:image/png;base64,{data}">{text}</figure>'


def colour_key() -> str:
    """What the colours of overlays mean."""
    meanings = (
        (PREDICTED, "predicted"),
        (FOUND, "predicted and labelled"),
        (FALSE_ALARM, "predicted only"),
        (MISSED, "labelled only"),
    )
    spans = (f'<span><b style="color:rgb{colour}">■</b> {meaning}</span>' for colour, meaning in meanings)
    return f'<p class="key">{"".join(spans)}</p>'
