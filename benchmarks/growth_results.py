"""What follows from the cells of `benchmarks.growth`: exponents of growth, and the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from measurement.records import ROOT, Record
from variseq.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = ROOT / "docs" / "pictures" / "growth.svg"
LEAST_SECONDS = 2.0
"""Shorter stages consist of imports, which do not grow."""
STAGES = {
    "read": "read, split, settings",
    "fit": "fit, the whole command",
    "fit_epoch": "training, an epoch",
    "fit_validation": "validation, an epoch",
    "fit_refit": "refits",
    "fit_calibration": "calibration, saving",
    "fit_evaluation": "evaluation in fit",
    "export": "export",
    "serve_start": "start of the server",
    "evaluate": "evaluate",
    "recommend": "all users, exact",
    "recommend_index": "all users, index",
}
"""Stages and parts of stages by their names in the records."""
DRAWN = (
    *("read", "fit", "fit_epoch", "fit_validation", "fit_calibration", "fit_evaluation"),
    *("export", "serve_start", "recommend_index", "recommend"),
)
AXES = {"events": "items", "items": "events"}
"""What grows, and what is fixed meanwhile."""
Points = dict[int, list[tuple[int, float]]]


def latest_cells(records: Iterable[Record]) -> list[Record]:
    """The latest record of each cell that was measured as a fit is by default, at size tiny."""
    found: dict[tuple[int, int], Record] = {}
    for record in records:
        if record["benchmark"] == "growth" and is_shown(record):
            case = record["case"]["events"], record["case"]["items"]
            if str(found.get(case, record)["date"]) <= str(record["date"]):
                found[case] = record
    return [found[case] for case in sorted(found)]


def is_shown(record: Record) -> bool:
    """Whether the record is of size tiny, and its number of epochs was not set by hand."""
    return record["case"]["size"] == "tiny" and record["settings"]["max_epochs"] is None


def points_of(cells: Sequence[Record], stage: str, axis: str, measure: str = "seconds", least: float = 0.0) -> Points:
    """What a stage took by what grows, a list for each number of what is fixed; from `least` seconds on."""
    found: Points = {}
    for record in cells:
        metrics, case = record["metrics"], record["case"]
        value = metrics.get(f"{stage}_{measure}")
        if value is not None and metrics[f"{stage}_seconds"] >= least:
            found.setdefault(case[AXES[axis]], []).append((case[axis], value))
    return {fixed: sorted(points) for fixed, points in sorted(found.items()) if len(points) >= 2}


def exponent(points: Points) -> float | None:
    """The slope of log value by log size: one slope for all, with a level for each number of what is fixed.

    >>> exponent({10: [(1, 2.0), (10, 200.0)], 20: [(1, 5.0), (10, 500.0)]})
    2.0
    """
    if not points:
        return None
    logs = [np.log(np.array(one)) for one in points.values()]
    size, value = np.concatenate([one - one.mean(axis=0) for one in logs]).T
    return round(float(size @ value / (size @ size)), 6)


def steepest(points: Points) -> float | None:
    """The largest slope between neighbors. A constant cost hides growth in the small cells, but not between large ones.

    >>> steepest({10: [(1, 2.0), (10, 2.0), (100, 200.0)]})
    2.0
    """
    steps = [exponent({0: list(pair)}) for one in points.values() for pair in pairwise(one)]
    return max((step for step in steps if step is not None), default=None)


def exponent_records(records: Iterable[Record]) -> Iterator[Record]:
    """A record of exponents for each stage that takes at least `LEAST_SECONDS` in two comparable cells."""
    cells = latest_cells(records)
    for stage, name in STAGES.items():
        metrics: dict[str, Any] = {}
        for axis in AXES:
            of_clock = points_of(cells, stage, axis, least=LEAST_SECONDS)
            of_cpu = points_of(cells, stage, axis, "cpu_seconds", LEAST_SECONDS)
            found = {"exponent": exponent(of_clock), "cpu_exponent": exponent(of_cpu), "steepest": steepest(of_cpu)}
            found["points"] = sum(len(one) for one in of_clock.values()) or None
            metrics |= {f"{axis}_{key}": value for key, value in found.items() if value is not None}
        if metrics:
            newest = max(cells, key=lambda cell: str(cell["date"]))
            yield newest | {"benchmark": "growth_exponents", "case": {"stage": name}, "metrics": metrics}


def draw(records: Iterable[Record], path: Path) -> None:
    """Draw seconds by events and by items, a line for each stage, where the most cells are comparable.

    Raises InputError without two such cells.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from variseq.reports.style import FONT_POINTS, LIGHT

    cells = latest_cells(records)
    fixed = {axis: max(found, key=lambda one: len(found[one])) for axis in AXES
             if (found := points_of(cells, "fit_epoch", axis))}  # fmt: skip
    if not fixed:
        raise InputError("Growth needs at least two cells with as many items, or as many events. Measure another cell.")
    figure = Figure(figsize=(5.2 * len(fixed), 5.0), facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(fixed), squeeze=False)[0]
    for axes, (axis, number) in zip(panels, fixed.items(), strict=True):
        _draw_panel(axes, cells, axis, number)
    panels[0].set_ylabel("seconds", color=LIGHT.ink, fontsize=FONT_POINTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "growth"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, cells: Sequence[Record], axis: str, fixed: int) -> None:
    from variseq.reports.style import FONT_POINTS, LIGHT, MARKERS

    axes.set(xscale="log", yscale="log", facecolor=LIGHT.paper)
    axes.grid(color=LIGHT.grid, linewidth=0.7)
    axes.tick_params(which="both", colors=LIGHT.muted, labelsize=FONT_POINTS - 1)
    axes.spines[["top", "right"]].set_visible(False)
    ends: list[tuple[float, int, str, str]] = []
    for number, stage in enumerate(DRAWN):
        if points := points_of(cells, stage, axis).get(fixed):
            color = LIGHT.colors[number % len(LIGHT.colors)]
            line = "-" if number < len(LIGHT.colors) else "--"
            size, seconds = zip(*points, strict=True)
            axes.plot(size, seconds, color=color, linestyle=line, marker=MARKERS[number % len(MARKERS)], markersize=4)
            ends.append((seconds[-1], size[-1], STAGES[stage], color))
    low, high = axes.get_xlim()
    heights = np.array(axes.get_ylim())
    # A line of slope one, to compare with.
    axes.plot([low, high], heights[0] * 1.5 * np.array([1, high / low]), color=LIGHT.muted, linewidth=1, linestyle=":")
    axes.set(xlim=(low, high), ylim=heights)
    _label(axes, ends)
    axes.set_xlabel(f"{axis} (log scale; dotted: in proportion)", color=LIGHT.ink, fontsize=FONT_POINTS)
    axes.set_title(f"by {axis}, {fixed:,} {AXES[axis]}", loc="left", color=LIGHT.ink, fontsize=FONT_POINTS)


def _label(axes: Axes, ends: Sequence[tuple[float, int, str, str]]) -> None:
    """The names of the lines at their right ends, apart from each other."""
    from variseq.reports.style import FONT_POINTS

    bottom, top = axes.get_ylim()
    apart, height = 0.045, -1.0
    for seconds, size, name, color in sorted(ends):
        at = np.log(seconds / bottom) / np.log(top / bottom)
        height = max(at, height + apart)
        axes.annotate(
            name, (size, seconds), (1.02, height), textcoords="axes fraction", color=color, va="center",
            fontsize=FONT_POINTS - 1.5, arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5},
        )  # fmt: skip
