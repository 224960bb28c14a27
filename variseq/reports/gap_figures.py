"""Figures of the time to the next event: whether its forecasts are calibrated, and how long gaps are."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from variseq.evaluation.next_time import DAY, HOUR, MINUTE, GapForecasts
from variseq.reports.style import (
    FONT_POINTS,
    LINES,
    MARKERS,
    ReportFigure,
    Style,
    add_legend,
    name_axes,
    new_figure,
    percent,
)

LEVELS = np.linspace(0.0, 1.0, 101)
NUM_BINS = 10
MOST_RANGES = 14
LEAST_SHARE = 0.01
"""Ranges at both ends with less than this share of the gaps are joined with their neighbors."""
UNITS = ((365 * DAY, "y"), (DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s"))


def gap_calibration(gaps: GapForecasts) -> ReportFigure:
    """Share of the gaps that ended before each predicted quantile, and the histogram of the probability transform."""
    reached = {
        name: np.array([scores.reached(level).mean() for level in LEVELS.tolist()])
        for name, scores in gaps.scores.items()
    }
    summary, named = gaps.summary(), ", ".join(list(reached)[1:])
    model = next(iter(reached.values()))
    furthest = int(np.abs(model - LEVELS).argmax())
    how_to_read = (
        "Each forecast gives a time before which the next event comes with 10 %, 20 %, … probability. Above: the share "
        "of gaps that ended by then. On the diagonal the forecasts are calibrated; above it events come sooner than "
        "forecast. Below: the share of gaps between neighboring quantiles, which should be 10 % everywhere. High ends "
        "mean forecasts that are too narrow, a high middle too wide ones. A gap that is still open counts with what is "
        "known of it."
    )
    finding = (
        f"Over {summary['num_gaps']:,} gaps ({summary['num_open_gaps']:,} still open) the largest distance from the "
        f"diagonal is {abs(model[furthest] - LEVELS[furthest]):.1%}, at {LEVELS[furthest]:.0%}. "
        f"{_shares(gaps)} The NLL is {summary['gap_nll']:.3f} nats ("
        + ", ".join(f"{name} {one['gap_nll']:.3f}" for name, one in summary["gap_baselines"].items())
        + ")."
    )
    alt = f"Observed share against predicted level, for variseq, {named}: {_shares(gaps)}"
    draw = partial(_draw_calibration, reached)
    return ReportFigure("gap-calibration", "Time to the next event: calibration", how_to_read, finding, alt, draw)


def _shares(gaps: GapForecasts) -> str:
    found = [
        f"{name} {scores.reached(0.5).mean():.1%} and {scores.covered.mean():.1%}"
        for name, scores in gaps.scores.items()
    ]
    return f"Below the median and inside the 90 % interval: {', '.join(found)}."


def _draw_calibration(reached: dict[str, Float[np.ndarray, " level"]], style: Style) -> Figure:
    figure, (curve, histogram) = new_figure(style, 6.4, (2.2, 1))
    curve.plot([0, 1], [0, 1], color=style.muted, ls="--", lw=1, label="calibrated")
    histogram.axhline(1 / NUM_BINS, color=style.muted, ls="--", lw=1)
    middle = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    for index, (name, observed) in enumerate(reached.items()):
        color, width = style.colors[index], 1.4 if index else 2.2
        share = np.diff(observed[:: (len(LEVELS) - 1) // NUM_BINS])
        curve.plot(LEVELS, observed, color=color, ls=LINES[index], lw=width, label=name)
        if not index:
            histogram.bar(middle, share, 0.9 / NUM_BINS, color=color, alpha=0.35, lw=0)
        histogram.plot(middle, share, ls="none", marker=MARKERS[index], ms=5, color=color, clip_on=False, zorder=3)
    for axes in (curve, histogram):
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_formatter(percent)
    curve.set_ylim(0, 1)
    name_axes(curve, style, "", "share of gaps that ended by then")
    name_axes(histogram, style, "predicted probability of an event by then", "share of gaps in each tenth")
    add_legend(curve, style, "outside")
    return figure


def gap_lengths(gaps: GapForecasts) -> ReportFigure:
    """The share of gaps in ranges of time, as they were and as they were forecast."""
    starts = _starts(gaps.ended)
    names = [*_range_names(gaps.edges[starts[1:]]), "still open"]
    every = {"observed": gaps.ended, **gaps.expected}
    kept = {name: np.append(np.add.reduceat(share, starts), 1 - share.sum()) for name, share in every.items()}
    if not gaps.is_open.any():
        names, kept = names[:-1], {name: share[:-1] for name, share in kept.items()}
    most = int(kept["observed"].argmax())
    how_to_read = (
        "Bars: the share of gaps that ended within a range of time. Points: the share that the forecasts of the same "
        "gaps add up to. A point beyond its bar means that such gaps are forecast too often."
    )
    worst = int(np.abs(kept["variseq"] - kept["observed"]).argmax())
    finding = (
        f"Most gaps, {kept['observed'][most]:.1%}, are in the range {names[most]} (forecast: "
        f"{kept['variseq'][most]:.1%}). Forecast and observation differ most in the range {names[worst]}: "
        f"{kept['variseq'][worst]:.1%} were forecast and {kept['observed'][worst]:.1%} came."
    )
    pairs = zip(names, kept["observed"], kept["variseq"], strict=True)
    alt = "Observed and forecast share of gaps: " + ", ".join(f"{name} {a:.1%} and {b:.1%}" for name, a, b in pairs)
    draw = partial(_draw_lengths, names, kept)
    return ReportFigure("gap-lengths", "Time to the next event: how long gaps are", how_to_read, finding, alt, draw)


def _starts(share: Float[np.ndarray, " bin"]) -> list[int]:
    """The first bin of each range that is drawn: neighbors with the fewest gaps are joined.

    >>> _starts(np.array([0.001, 0.4, 0.5, 0.099, 0.0]))
    [0, 2, 3]
    """
    starts = list(range(len(share)))
    while len(starts) > 1:
        of_ranges = np.add.reduceat(share, starts)
        pairs = of_ranges[1:] + of_ranges[:-1]
        if of_ranges[0] < LEAST_SHARE:
            del starts[1]
        elif of_ranges[-1] < LEAST_SHARE:
            del starts[-1]
        elif len(starts) > MOST_RANGES:
            del starts[int(pairs.argmin()) + 1]
        else:
            break
    return starts


def _range_names(edges: Float[np.ndarray, " edge"]) -> list[str]:
    """Names of the ranges between times in seconds, the first from 0 on and the last without an end.

    >>> _range_names(np.array([60.0, 3600.0, 43200.0]))
    ['below 1 min', '1 min to 1 h', '1 to 12 h', '12 h and more']
    """
    if not len(edges):
        return ["any time"]
    parts = [next((edge / size, unit) for size, unit in UNITS if edge >= size or size == 1) for edge in edges.tolist()]
    texts = [f"{number:.3g} {unit}" for number, unit in parts]
    inside = [
        f"{number:.3g} to {later}" if unit == later_unit else f"{number:.3g} {unit} to {later}"
        for (number, unit), (_, later_unit), later in zip(parts, parts[1:], texts[1:], strict=False)
    ]
    return [f"below {texts[0]}", *inside, f"{texts[-1]} and more"]


def _draw_lengths(names: list[str], kept: dict[str, Float[np.ndarray, " range"]], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 1.5 + 0.34 * len(names))
    height = np.arange(len(names), dtype=np.float64)
    (_, observed), *forecasts = kept.items()
    axes.barh(height, observed, 0.72, color=style.grid)
    axes.plot([], [], color=style.grid, lw=8, label="observed")
    for index, (name, share) in enumerate(forecasts):
        axes.plot(share, height, ls="none", marker=MARKERS[index], ms=6, color=style.colors[index], label=name,
                  clip_on=False, zorder=3)  # fmt: skip
    axes.set_yticks(height, labels=names, fontsize=FONT_POINTS - 1.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.03 * max(float(share.max()) for share in kept.values()))
    axes.xaxis.set_major_formatter(percent)
    axes.grid(visible=False, axis="y")
    name_axes(axes, style, "share of the gaps", "time to the next event")
    add_legend(axes, style, "outside")
    return figure


FIGURES = (gap_calibration, gap_lengths)
