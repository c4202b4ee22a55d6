"""Figures: losses over steps, bars of one score per method, and histograms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mitoda.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#646464", "#000000")
"""Okabe and Ito's colours, which colour-blind people can tell apart (jfly.uni-koeln.de/color), and a grey."""
POINTS = 200
"""Most points of a curve; each is the mean of a group of steps."""


def curve_figure(records: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw losses over steps.

    A curve of many steps shows the means of at most `POINTS` groups, over a pale band from the smallest to the largest
    value of each group. The axis is logarithmic unless a value is 0 or less. Values that are not finite are left out.

    Parameters
    ----------
    records : sequence of mappings
        Each has "step"; its other entries are losses by name.
    """
    figure, axes = _figure(9.6, 4.8)
    smallest = math.inf
    for index, name in enumerate(dict.fromkeys(key for record in records for key in record if key != "step")):
        points = np.array([(record["step"], record[name]) for record in records if name in record], float)
        points = points[np.isfinite(points[:, 1])]
        if not len(points):
            continue
        smallest = min(smallest, points[:, 1].min())
        groups = np.array_split(points, min(POINTS, len(points)))
        x, mean = np.array([group.mean(axis=0) for group in groups]).T
        low, high = np.array([(group[:, 1].min(), group[:, 1].max()) for group in groups]).T
        colour, dashes = COLOURS[index % len(COLOURS)], ("-", "--", ":")[index // len(COLOURS) % 3]
        marker = "o" if len(points) == 1 else None
        label = f"{name.replace('_', ' ')}: last {points[-1, 1]:.3g}"
        axes.plot(x, mean, dashes, color=colour, marker=marker, label=label)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if smallest < math.inf:
        axes.set_yscale("log" if smallest > 0 else "linear")
        figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    else:
        axes.text(0.5, 0.5, "no losses in the log", transform=axes.transAxes, ha="center")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return figure


def histogram_figure(columns: Mapping[str, Sequence[float]]) -> "Figure":
    """Draw a histogram of each column, four in a row, with its median."""
    from matplotlib.figure import Figure

    if not columns:
        raise InputError("there are no columns to draw; expected one or more")
    across = min(len(columns), 4)
    down = math.ceil(len(columns) / across)
    figure = Figure(figsize=(2.9 * across, 2.5 * down), dpi=120, layout="constrained")
    for index, (name, values) in enumerate(columns.items()):
        axes = figure.add_subplot(down, across, index + 1)
        axes.set_title(name, fontsize="small", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small")
        if not len(values):
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
            continue
        axes.hist(values, bins=min(30, max(5, round(len(values) ** 0.5))), color=COLOURS[0])
        median = float(np.median(values))
        axes.axvline(median, color=COLOURS[1])
        axes.set_xlabel(f"median {median:.3g} of {len(values)}", fontsize="small")
    return figure


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Make a figure, sizes in inches. Without pyplot it belongs to no global state: threads may draw at once."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="#e1e1e1")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


@dataclass(frozen=True)
class Bar:
    """Scores of one method in per cent; None where there is none."""

    name: str
    value: float | None
    spread: float | None
    """Half the length of the error bar."""
    reference: float | None


def bar_figure(bars: Sequence[Bar], title: str) -> "Figure":
    """Draw a row per method from top to bottom: the measured value with its error bar, above the paper's."""
    if not bars:
        raise InputError("there are no bars to draw; expected one or more")
    figure, axes = _figure(8.0, 1.2 + 0.45 * len(bars))
    rows = np.arange(len(bars))
    for offset, label, colour, numbers in (
        (-0.2, "measured", COLOURS[0], [(bar.value, bar.spread) for bar in bars]),
        (0.2, "paper", COLOURS[4], [(bar.reference, None) for bar in bars]),
    ):
        lengths, errors = np.array([(value or 0.0, spread or 0.0) for value, spread in numbers]).T
        drawn = axes.barh(rows + offset, lengths, 0.38, color=colour, label=label, xerr=errors)
        texts = [
            "none" if value is None else f"{value:.1f}" + ("" if spread is None else f" ± {spread:.1f}")
            for value, spread in numbers
        ]
        axes.bar_label(drawn, texts, padding=4, fontsize="small")
    axes.set_yticks(rows, [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 112)  # room for the number beside a bar of 100
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    axes.set_title(title, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
