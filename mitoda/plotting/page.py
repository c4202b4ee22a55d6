"""One HTML page of a run, without any reference to other files."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mitoda.plotting.colours import FALSE_ALARM, FOUND, MISSED, PREDICTED
from mitoda.plotting.curves import curve_figure
from mitoda.plotting.picture import as_png

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
    compared: tuple[str, str, str] | None = None,
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
    compared : (str, str, str), optional
        What in the pictures is in both masks, in the first only and in the second only; None where each has one mask.
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
        parts.append(f'<h2>Pictures</h2>{colour_key(compared)}<div class="pictures">{shown}</div>')
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
    >>> flatten({"size": (5.0, 4.6), "adam": {"rate": 1e-4}, "weights": None, "more": ()})
    {'size': '5.0, 4.6', 'adam.rate': '0.0001', 'weights': '–', 'more': '–'}
    """
    flat: dict[str, str] = {}
    for name, value in rows.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            flat[f"{prefix}{name}"] = f"{value:.4g}"
        elif isinstance(value, tuple | list):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) or "–"
        else:
            flat[f"{prefix}{name}"] = "–" if value is None else str(value)
    return flat


def figure(caption: str, picture: np.ndarray, description: str) -> str:
    """A picture inside the page itself."""
    data = base64.b64encode(as_png(picture)).decode()
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(description)}" src="data:image/png;base64,{data}">{text}</figure>'


def colour_key(compared: tuple[str, str, str] | None) -> str:
    """What the colours of overlays mean; see `write_report`."""
    meanings = (
        [(PREDICTED, "predicted")]
        if compared is None
        else zip((FOUND, FALSE_ALARM, MISSED), compared, strict=True)
    )
    spans = (f'<span><b style="color:rgb{colour}">■</b> {meaning}</span>' for colour, meaning in meanings)
    return f'<p class="key">{"".join(spans)}</p>'
