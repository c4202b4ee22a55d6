"""Pictures: masks over sections, loss curves, bars of scores, and the HTML report of a run."""

from mitoda.plotting.curves import Bar, bar_figure, curve_figure, histogram_figure
from mitoda.plotting.html import write_report
from mitoda.plotting.overlays import (
    BOTH,
    FIRST_ONLY,
    PREDICTED,
    SECOND_ONLY,
    grid_figure,
    overlay,
    stretch,
    write_png,
)

__all__ = [
    "BOTH",
    "FIRST_ONLY",
    "PREDICTED",
    "SECOND_ONLY",
    "Bar",
    "bar_figure",
    "curve_figure",
    "grid_figure",
    "histogram_figure",
    "overlay",
    "stretch",
    "write_png",
    "write_report",
]
