"""HTML pages that refer to no other file, so they can be mailed or opened on a file server.

Their markup, styles and scripts are in the folder `pages`. `write_report` writes the report of a training or of a
segmentation; `write_page` fills any of them.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mitoda.plotting.overlays import as_png
from mitoda.volumes.files import atomic_write, check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    path: Path,
    title: str,
    *,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    view: Mapping[str, object] | None = None,
    figures: Sequence[tuple[str, str]] = (),
    facts: Mapping[str, object] = MappingProxyType({}),
    losses: "Figure | None" = None,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
    tables: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> None:
    """Write a report: warnings, sections behind a slider beside figures and facts, then losses, pictures and tables.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    notes, warnings : sequence of str
    view : mapping, optional
        As `view_sections` returns it; without it there are no sections, figures and facts.
    figures : sequence of (value, meaning)
        Shown large.
    facts : mapping of name to value
    losses : Figure, optional
    pictures : sequence of (caption, overlay)
    tables : mapping
        Heading to a table of name and value. The entries of an inner mapping are shown as `outer: inner`.
    """
    more = ""
    if losses is not None:
        more += _card("Losses", _figure("", as_png(losses)))
    if pictures:
        shown = "".join(_figure(caption, as_png(picture)) for caption, picture in pictures)
        more += _card("Painted places", f'<div class="pictures">{shown}</div>')
    if tables:
        sections = "".join(
            f"<section><h2>{html.escape(heading)}</h2>{_table(rows)}</section>"
            for heading, rows in tables.items()
        )
        more += f'<div class="card more tables">{sections}</div>'
    head = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    if warnings:
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        head += f'<div class="card warnings"><h2>Check this first</h2><ul>{items}</ul></div>'
    data = None if view is None else {**view, "figures": figures}
    write_page(path, "report", title, data, notes=head, facts=_table(facts), more=more)


def _card(heading: str, content: str) -> str:
    return f'<div class="card more"><h2>{heading}</h2>{content}</div>'


def _table(rows: Mapping[str, object]) -> str:
    cells = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in _flatten(rows).items()
    )
    return f"<table>{''.join(cells)}</table>"


def check_page_path(path: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuse a page that cannot be written; see `check_output`.

    Raises
    ------
    InputError, FileError
        If its name does not end in .html, or as `check_output` raises it.
    """
    check_output(path, inputs, overwrite, suffix=".html")


def write_page(path: Path, name: str, title: str, data: object, **parts: str) -> None:
    """Write `pages/NAME.html` with its style, a title, data for its script, and parts in HTML by name.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    name, title : str
    data : object
        Anything that JSON can hold.
    """
    pages = Path(__file__).with_name("pages")
    values = {
        **parts,
        "base": (pages / "base.css").read_text(encoding="utf-8"),
        "title": html.escape(title),
        # no text in the data can close the script element
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        ),
    }
    page = (pages / f"{name}.html").read_text(encoding="utf-8")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], page)
    with atomic_write(path) as partial:
        partial.write_text(filled, encoding="utf-8", errors="backslashreplace")


def _figure(caption: str, png: bytes) -> str:
    """A PNG inside the page itself."""
    data, text = base64.b64encode(png).decode(), html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _flatten(rows: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Names and values as text, those of inner mappings as `outer: inner`.

    Examples
    --------
    >>> _flatten({"size": (5.0, 4.6), "adam": {"rate": 1e-4}, "weights": None, "more": ()})
    {'size': '5.0, 4.6', 'adam: rate': '0.0001', 'weights': '–', 'more': '–'}
    """
    flat: dict[str, str] = {}
    for name, value in rows.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}: ")
        elif isinstance(value, float):
            flat[f"{prefix}{name}"] = f"{value:.4g}"
        elif isinstance(value, tuple | list):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) or "–"
        else:
            flat[f"{prefix}{name}"] = "–" if value is None else str(value)
    return flat
