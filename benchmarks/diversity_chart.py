"""What spread and exploration cost into a chart: NDCG@10 that is left, against the spread and the coverage gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exploration_chart import write_svg
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from variseq.reports.canvas import FONT_POINTS, LIGHT, LINES, MARKERS, Style, add_legend, name_axes, new_figure

HEIGHT_INCHES = 6.6
Record = dict[str, Any]


def write_chart(records: dict[str, Record], path: Path) -> None:
    """The picture at `path`; the same records give the same bytes."""
    write_svg(trade_off_chart(records, LIGHT), path)


def trade_off_chart(records: dict[str, Record], style: Style) -> Figure:
    """One line a run in each of two panels; the number at a point is the dial that gave it."""
    figure, (above, below) = new_figure(style, HEIGHT_INCHES, [1, 1])
    for place, (name, record) in enumerate(records.items()):
        _draw(above, record["diversity"], ("diversity", "cosine_distance"), (name, place), style)
        _draw(below, record["exploration"], ("scale", "joint_coverage"), (name, place), style)
    name_axes(above, style, "mean cosine distance inside a list", "diversity: share of NDCG@10 left")
    name_axes(below, style, "share of the catalog shown in three requests", "exploring: share of NDCG@10 left")
    add_legend(above, style, "best")
    return figure


def _draw(axes: Axes, rows: list[Record], fields: tuple[str, str], run: tuple[str, int], style: Style) -> None:
    (dial, across), (name, place) = fields, run
    place %= len(style.colors)
    left = [row["ndcg"] / rows[0]["ndcg"] for row in rows]
    gained = [row[across] for row in rows]
    line = {"color": style.colors[place], "ls": LINES[place], "marker": MARKERS[place], "ms": FONT_POINTS / 2.2}
    axes.plot(gained, left, label=name, **line)
    for row, x, y in zip(rows, gained, left, strict=True):
        offset = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": FONT_POINTS - 2.5}
        axes.annotate(f"{row[dial]:g}", (x, y), color=style.muted, **offset)
