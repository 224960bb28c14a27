"""What was measured of posteriors into a picture a data set: reliability, selective answers, history length, sets.

    python benchmarks/posteriors_chart.py [--results benchmarks/results/posteriors.jsonl] [--out docs/pictures]

Of each data set the latest record counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from exploration_chart import write_svg
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from posteriors_runs import POPULAR, TWIN, UNCALIBRATED, VARIATIONAL
from posteriors_targets import IN_GROUPS
from provenance import ROOT

from variseq.reports.canvas import FONT_POINTS, LIGHT, LINES, MARKERS, Style, add_legend, name_axes, new_figure
from variseq.reports.forecast_pictures import _root, _root_ticks

HEIGHT_INCHES = 15.5
FEWEST_QUERIES = 50
"""Groups with fewer show nothing but chance, and are in the record only."""
Record = dict[str, Any]


def write_charts(records: list[Record], folder: Path) -> list[Path]:
    """One picture for each data set, `<folder>/posteriors_<data>.svg`; the same records give the same bytes."""
    latest = {record["data"]: record for record in records if "curves" in record}
    paths = []
    for data, record in latest.items():
        paths.append(folder / f"posteriors_{data}.svg")
        write_svg(posteriors_chart(record, LIGHT), paths[-1])
    return paths


def posteriors_chart(record: Record, style: Style) -> Figure:
    """Four panels, from top to bottom."""
    figure, (first, second, third, fourth) = new_figure(style, HEIGHT_INCHES, [1.3, 1, 1, 1])
    _draw_reliability(first, record, style)
    _draw_selective(second, record, style)
    _draw_lengths(third, record, style)
    _draw_sets(fourth, record, style)
    _settle(figure)
    return figure


def _settle(figure: Figure) -> None:
    """Put the panels where the layout puts them, to so many digits: its last ones are not the same every time."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(edge, 4) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def _draw_reliability(axes: Axes, record: Record, style: Style) -> None:
    top = 0.0
    for place, name in enumerate((VARIATIONAL, UNCALIBRATED)):
        for row, (depth, curves) in enumerate(record["curves"]["reliability"].items()):
            said, happened = curves[name]["said"], curves[name]["happened"]
            top = max(top, *said, *happened)
            line = {"color": style.colors[place], "ls": LINES[row], "marker": MARKERS[row], "ms": FONT_POINTS / 2.2}
            axes.plot(said, happened, label=f"{name}, top {depth.removeprefix('top')}", clip_on=False, **line)
    top = min(1.0, top * 1.05)
    axes.plot([0, top], [0, top], color=style.muted, lw=1, label="said = came true")
    for axis, scale, limit in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        # Stretched near zero, as in the report.
        scale("function", functions=(_root, np.square))
        limit(0, top)
        ticks = _root_ticks(top)
        axis.set_ticks(ticks, labels=[f"{100 * tick:g}%" for tick in ticks])
    name_axes(axes, style, "probability that was said", "share that came true")
    add_legend(axes, style)


def _draw_selective(axes: Axes, record: Record, style: Style) -> None:
    for place, name in enumerate((VARIATIONAL, TWIN)):
        curve = record["curves"]["risk_coverage"][name]
        axes.plot(curve["share"], curve["ndcg"], color=style.colors[place], ls=LINES[place], label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    name_axes(axes, style, "users answered, least entropy first", f"mean NDCG@{record['k']} of the answered")
    add_legend(axes, style)


def _draw_lengths(axes: Axes, record: Record, style: Style) -> None:
    groups = record["groups"]["history_length"]
    rows, popular = ([row for row in groups[name] if _is_drawn(row)] for name in (VARIATIONAL, POPULAR))
    for place, metric in enumerate(("nll", "entropy")):
        label = f"{metric.upper() if metric == 'nll' else metric} of: {VARIATIONAL}"
        _draw_with_reach(axes, [(row[metric], row[f"{metric}_interval"]) for row in rows], label, (place, style))
    line = {"color": style.muted, "ls": LINES[3]}
    axes.plot(range(len(popular)), [row["nll"] for row in popular], label=f"NLL of: {POPULAR}", **line)
    _name_groups(axes, rows, style, "nats")
    add_legend(axes, style)


def _draw_sets(axes: Axes, record: Record, style: Style) -> None:
    rows = [row for row in record["conformal"]["by_history_length"] if _is_drawn(row)]
    wanted = record["conformal"]["wanted"]
    axes.axhspan(*IN_GROUPS, color=style.grid, alpha=0.5, lw=0)
    axes.axhline(wanted, color=style.muted, ls="--", lw=1, label=f"{wanted:.0%} wanted")
    _draw_with_reach(axes, [(row["coverage"], row["interval"]) for row in rows], "sets of 90 % hold", (0, style))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(min(0.8, axes.get_ylim()[0]), 1.0)
    _name_groups(axes, rows, style, "share of users whose next item is in the set")
    add_legend(axes, style)


def _draw_with_reach(
    axes: Axes, points: list[tuple[float, tuple[float, float]]], label: str, look: tuple[int, Style]
) -> None:
    """Points with their 95 % intervals, one a group."""
    place, style = look
    value = np.array([point for point, _ in points])
    ends = np.array([interval for _, interval in points]).reshape(-1, 2)
    reach = np.maximum(0, np.stack([value - ends[:, 0], ends[:, 1] - value]))
    line = {"color": style.colors[place], "ls": LINES[place], "marker": MARKERS[place], "ms": FONT_POINTS / 2.2}
    axes.errorbar(np.arange(len(value)), value, yerr=reach, capsize=2, elinewidth=1.2, label=label, **line)


def _is_drawn(row: Record) -> bool:
    return bool(row["num_queries"] >= FEWEST_QUERIES)


def _name_groups(axes: Axes, rows: list[Record], style: Style, title: str) -> None:
    names = [f"{row['group']}\n({row['num_queries']:,})" for row in rows]
    axes.set_xticks(range(len(rows)), labels=names, fontsize=FONT_POINTS - 2.5)
    name_axes(axes, style, "events in the history (users)", title)


def main() -> None:
    """Draw the latest record of each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "posteriors.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    chosen = parser.parse_args()
    lines = chosen.results.read_text(encoding="utf-8").splitlines()
    for path in write_charts([json.loads(line) for line in lines], chosen.out):
        print(path)


if __name__ == "__main__":
    main()
