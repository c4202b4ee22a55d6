"""Pictures of a run: overlays of masks on sections, loss curves, and one HTML page that holds them all.

Everything is drawn with numpy, scikit-image and Pillow (which imageio and scikit-image bring), and the page
needs nothing from the network, so it can be mailed or opened on a cluster's file server.
"""

from mitoda.report.bars import Bar, bar_figure
from mitoda.report.colours import FALSE_ALARM, FOUND, LINES, MISSED, PREDICTED
from mitoda.report.curves import curve_figure, round_ticks
from mitoda.report.overlays import contact_sheet, overlay, stretch
from mitoda.report.page import write_report
from mitoda.report.picture import write_picture

__all__ = [
    "FALSE_ALARM",
    "FOUND",
    "LINES",
    "MISSED",
    "PREDICTED",
    "Bar",
    "bar_figure",
    "contact_sheet",
    "curve_figure",
    "overlay",
    "round_ticks",
    "stretch",
    "write_picture",
    "write_report",
]
