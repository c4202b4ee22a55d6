"""The report of a run: one HTML page that refers to no other file, so it can be mailed or opened on a file server."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mitoda.plotting.curves import curve_figure
from mitoda.plotting.overlays import BOTH, FIRST_ONLY, PREDICTED, SECOND_ONLY, as_png, write_png
from mitoda.volumes.files import atomic_write

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th, figcaption { color: #555; }
img { max-width: 100%; height: auto; }
figure { margin: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
.key span { margin-right: 1.2rem; }
"""


def write_report(
    folder: Path,
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
    records: Sequence[Mapping[str, float]] = (),
    pictures: Sequence[tuple[str, np.ndarray]] = (),
    compared: tuple[str, str, str] | None = None,
) -> Path:
    """Write `report.html` into an existing folder, and `curves.png` beside it; return the path of the page.

    Parameters
    ----------
    notes : sequence of str
        Paragraphs under the title.
    tables : mapping
        Heading to a table of name and value. The entries of an inner mapping are shown as `outer.inner`.
    records : sequence of mappings
        For `curve_figure`; without any there are no curves.
    pictures : sequence of (caption, overlay)
    compared : (str, str, str), optional
        What the colours for both masks, the first only and the second only mean; None where each picture has one mask.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    if records:
        curves = curve_figure(records)
        write_png(curves, folder / "curves.png")
        parts.append(f"<h2>Losses</h2>{_figure('', as_png(curves))}")
    if pictures:
        key = [(PREDICTED, "predicted")]
        if compared is not None:
            key = list(zip((BOTH, FIRST_ONLY, SECOND_ONLY), compared, strict=True))
        spans = (f'<span><b style="color:rgb{colour}">■</b> {meaning}</span>' for colour, meaning in key)
        shown = "".join(_figure(caption, as_png(picture)) for caption, picture in pictures)
        parts.append(
            f'<h2>Pictures</h2><p class="key">{"".join(spans)}</p><div class="pictures">{shown}</div>'
        )
    for heading, rows in tables.items():
        cells = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in _flatten(rows).items()
        )
        parts.append(f"<h2>{html.escape(heading)}</h2><table>{''.join(cells)}</table>")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>{chr(10).join(parts)}</body></html>\n"
    )
    path = folder / "report.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _figure(caption: str, png: bytes) -> str:
    """A PNG inside the page itself."""
    data, text = base64.b64encode(png).decode(), html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _flatten(rows: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Names and values as text, those of inner mappings as `outer.inner`.

    Examples
    --------
    >>> _flatten({"size": (5.0, 4.6), "adam": {"rate": 1e-4}, "weights": None, "more": ()})
    {'size': '5.0, 4.6', 'adam.rate': '0.0001', 'weights': '–', 'more': '–'}
    """
    flat: dict[str, str] = {}
    for name, value in rows.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            flat[f"{prefix}{name}"] = f"{value:.4g}"
        elif isinstance(value, tuple | list):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) or "–"
        else:
            flat[f"{prefix}{name}"] = "–" if value is None else str(value)
    return flat
