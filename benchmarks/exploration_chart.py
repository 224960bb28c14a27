"""The summary of the closed loops into a chart: cumulative reward by round, a panel for each start, with bands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from variseq.atomic import atomic_write
from variseq.reports.canvas import LIGHT, LINES, Style, add_legend, name_axes, new_figure

HEIGHT_INCHES = 6.6
SHOWN = ("Thompson, σ × 1", "greedy", "ε-greedy 0.01", "softmax sampling 0.3", "random")
"""Named, and not the best of each kind: that would be the luckiest."""
Row = dict[str, Any]


def write_chart(summary: dict[str, list[Row]], path: Path) -> None:
    """The picture at `path`; the same summary gives the same bytes."""
    write_svg(exploration_chart(summary, LIGHT), path)


def exploration_chart(summary: dict[str, list[Row]], style: Style) -> Figure:
    """One line for each policy of `SHOWN`; the rest is in the table."""
    figure, panels = new_figure(style, HEIGHT_INCHES, [1] * len(summary))
    for axes, (start, rows) in zip(panels, summary.items(), strict=True):
        by_policy = {row["policy"]: row for row in rows}
        for place, policy in enumerate(SHOWN):
            if policy in by_policy:
                _draw_curve(axes, by_policy[policy], place, style)
        oracle = next(row for row in rows if row["policy"] == "oracle")
        title = f"{start} start: items taken per shopper (oracle: {oracle['reward']:.1f})"
        name_axes(axes, style, "rounds played", title)
        add_legend(axes, style, "upper left")
    return figure


def _draw_curve(axes: Axes, row: Row, place: int, style: Style) -> None:
    rounds = range(1, len(row["curve"]) + 1)
    color = style.colors[place]
    axes.fill_between(rounds, row["curve_low"], row["curve_high"], color=color, alpha=0.15, linewidth=0)
    axes.plot(rounds, row["curve"], color=color, ls=LINES[place], lw=2.0 if place < 2 else 1.4, label=row["policy"])


def write_svg(figure: Figure, path: Path) -> None:
    """A picture of lines and text that any browser draws; ids and dates do not change from run to run."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "variseq", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(stream.getvalue())
