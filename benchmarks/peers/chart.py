"""The learning curves of a data set into a chart: quality on validation data against CPU seconds of training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from records import Record
from systems import OURS, SYSTEMS

from variseq.atomic import atomic_write
from variseq.reports.canvas import (
    FONT_POINTS,
    LIGHT,
    LINES,
    MARKERS,
    Style,
    add_legend,
    decimal,
    name_axes,
    new_figure,
)

HEIGHT_INCHES = 4.4
TRAINED = tuple(entry.name for entry in SYSTEMS)
"""The place of a system among them decides its color and line, the same in every chart."""


def write_charts(data_sets: dict[str, dict[str, Record]], folder: Path) -> None:
    """One picture a data set, `<folder>/peers_<data>.svg`; the same records give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in data_sets.items():
        with atomic_write(folder / f"peers_{name}.svg") as unfinished:
            unfinished.write_bytes(svg(curves_chart(list(rows.values()), LIGHT)))


def curves_chart(records: Sequence[Record], style: Style) -> Figure:
    """A line for each system with epochs; the best of those that fit once is a level, as it costs next to nothing."""
    figure, (axes,) = new_figure(style, HEIGHT_INCHES)
    learned = [record for record in records if record["positions_per_second"] is not None]
    for record in learned:
        _draw_curve(axes, record, style)
    counted = [record for record in records if record["positions_per_second"] is None]
    if counted:
        best = max(counted, key=lambda record: record["best_validation_ndcg"])
        axes.axhline(best["best_validation_ndcg"], color=style.muted, ls=(0, (1, 2)), label=best["system"])
    if learned:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(decimal)
    name_axes(axes, style, "CPU seconds of training, one thread (log scale)", "validation NDCG@10, whole catalog")
    add_legend(axes, style, "outside")
    return figure


def _draw_curve(axes: Axes, record: Record, style: Style) -> None:
    place = TRAINED.index(record["system"]) % len(style.colors)
    seconds, _, ndcg = zip(*record["curve"], strict=True)
    is_ours = record["system"] == OURS
    label = record["system"] + (" (budget)" if record["stop_reason"] == "budget" else "")
    # The marker stands at the best epoch, so that a curve of one epoch is seen as well.
    best = max(range(len(ndcg)), key=ndcg.__getitem__)
    line = {"color": style.colors[place], "ls": LINES[place], "lw": 2.4 if is_ours else 1.4}
    marker = {"marker": MARKERS[place], "markevery": [best], "ms": FONT_POINTS / 1.6}
    axes.plot(seconds, ndcg, label=label, zorder=3 if is_ours else 2, **line, **marker)


def svg(figure: Figure) -> bytes:
    """A picture of lines and text that any browser draws; ids and dates do not change from run to run."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "variseq", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
