"""Pictures of a run: overlays of masks on sections, loss curves, and one HTML page that holds them all.

Everything is drawn with numpy, scikit-image and Pillow (which imageio and scikit-image bring), and the page
needs nothing from the network, so it can be mailed or opened on a cluster's file server.
"""

from mitoda.plotting.bars import Bar, bar_figure
from mitoda.plotting.colours import FALSE_ALARM, FOUND, LINES, MISSED, PREDICTED
from mitoda.plotting.curves import curve_figure, round_ticks
from mitoda.plotting.overlays import contact_sheet, overlay, stretch
from mitoda.plotting.page import write_report
from mitoda.plotting.picture import write_picture

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
