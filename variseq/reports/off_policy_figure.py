"""A picture of an off-policy evaluation: estimates with their intervals, and the weights that they rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from variseq.atomic import atomic_write
from variseq.off_policy.evaluation import OffPolicyEvaluation
from variseq.reports.style import DOTS_PER_INCH, FONT_POINTS, LIGHT, MARKERS, add_legend, decimal, name_axes, new_figure

ROW_INCHES = 0.24
LEAST_WEIGHT = 1e-3
NUM_BINS = 40


def write_off_policy_figure(file: Path, found: OffPolicyEvaluation) -> None:
    """Draw intervals of all estimators that are not refused, the logging policy as a line, and the weights of items.

    Args:
        file: A .png or .svg; it appears whole or not at all.
        found: What was found.
    """
    names = [one.estimator for one in found.policies[0].estimates]
    names += [name for policy in found.policies[1:] for one in policy.estimates if (name := one.estimator) not in names]
    height = ROW_INCHES * len(names) * (0.7 + 0.5 * len(found.policies))
    figure, (estimates, weights) = new_figure(LIGHT, height + 4.4, (height + 0.8, 1.9))
    _draw_estimates(estimates, found, names)
    _draw_weights(weights, found)
    add_legend(estimates, LIGHT, "outside")
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:], dpi=DOTS_PER_INCH)


def _draw_estimates(axes: Axes, found: OffPolicyEvaluation, names: list[str]) -> None:
    logging = found.on_policy
    assert logging.value is not None
    if logging.interval is not None:
        axes.axvspan(*logging.interval, color=LIGHT.grid, linewidth=0)
    axes.axvline(logging.value, color=LIGHT.muted, linewidth=1.4, linestyle="--", label="logging policy, its own mean")
    step = 0.7 / len(found.policies)
    for number, policy in enumerate(found.policies):
        color = LIGHT.colors[number % len(LIGHT.colors)]
        label: str | None = policy.policy
        for one in policy.estimates:
            height = names.index(one.estimator) + (number - (len(found.policies) - 1) / 2) * step
            if one.value is None:
                size, across = FONT_POINTS - 2, axes.get_yaxis_transform()
                axes.text(0.02, height, "refused", color=color, fontsize=size, va="center", transform=across)
                continue
            low, high = one.interval or (one.value, one.value)
            axes.plot([low, high], [height, height], color=color, linewidth=2)
            marker = MARKERS[number % len(MARKERS)]
            fill = LIGHT.paper if one.refusal or one.interval is None else color
            axes.plot(one.value, height, marker, color=color, markerfacecolor=fill, markersize=6, label=label)
            label = None
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    name_axes(axes, LIGHT, "reward a list; hollow: no interval, or refused")


def _draw_weights(axes: Axes, found: OffPolicyEvaluation) -> None:
    """Shares of items by their weights on a logarithmic axis; weights of 0 stand at its left end."""
    highest = max([10.0, *(float(policy.weights.max(initial=0.0)) for policy in found.policies)])
    edges = np.geomspace(LEAST_WEIGHT, 1.5 * highest, NUM_BINS)
    for number, policy in enumerate(found.policies):
        shown = np.maximum(policy.weights, LEAST_WEIGHT)
        share = np.histogram(shown, edges)[0] / max(len(shown), 1)
        axes.stairs(100 * share, edges, color=LIGHT.colors[number % len(LIGHT.colors)], linewidth=2)
    axes.axvline(1.0, color=LIGHT.muted, linewidth=1.4, linestyle="--")
    axes.set(xscale="log", xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(decimal))
    name_axes(axes, LIGHT, "weight of an item: target over logging policy", "% of listed items")
