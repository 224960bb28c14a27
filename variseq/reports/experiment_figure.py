"""A picture of an experiment: the difference of each arm to the control over days, with its always-valid band."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from variseq.atomic import atomic_write
from variseq.events.report import DAY
from variseq.experiments.analysis import ArmComparison, ExperimentAnalysis
from variseq.reports.style import DOTS_PER_INCH, LIGHT, add_legend, name_axes, new_figure

PANEL_INCHES = 2.7
REACH = 6
"""The panel shows 0, the last difference and so many times the reach of its interval. The first ones are very wide."""


def write_experiment_figure(file: Path, found: ExperimentAnalysis) -> None:
    """Draw a panel for each arm that has a comparison.

    Args:
        file: A .png or .svg; it appears whole or not at all.
        found: What was found.
    """
    compared = [one for one in found.comparisons.values() if one is not None]
    figure, panels = new_figure(LIGHT, PANEL_INCHES * len(compared) + 0.5, (1,) * len(compared))
    begin = min(one.looks[0].time for one in compared)
    for axes, one in zip(panels, compared, strict=True):
        _draw(axes, one, found, begin)
    add_legend(panels[0], LIGHT, "outside")
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:], dpi=DOTS_PER_INCH)


def _draw(axes: Axes, one: ArmComparison, found: ExperimentAnalysis, begin: int) -> None:
    days = [(look.time - begin) / DAY for look in one.looks]
    low, high = zip(*(look.interval for look in one.looks), strict=True)
    fixed = [look.difference.fixed(found.alpha) for look in one.looks]
    color, marker = LIGHT.colors[0], "o" if len(days) < 3 else None
    axes.fill_between(days, low, high, color=color, alpha=0.2, linewidth=0, label="valid at any time")
    for bound, label in zip(zip(*fixed, strict=True), ("valid for one planned look", None), strict=True):
        axes.plot(days, bound, color=LIGHT.muted, linewidth=1.2, linestyle="--", label=label)
    values = [look.difference.value for look in one.looks]
    axes.plot(days, values, color=color, linewidth=2, marker=marker, label="difference")
    axes.axhline(0, color=LIGHT.ink, linewidth=1)
    reach = abs(values[-1]) + REACH * (high[-1] - low[-1]) / 2
    axes.set_ylim(max(min(0, *low), -reach), min(max(0, *high), reach))
    name_axes(axes, LIGHT, "days since the first interval", up=f"reward a user: {one.arm} minus the control")
