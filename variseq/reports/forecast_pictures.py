"""An evaluation with its baselines into pictures of accuracy and of how far the probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from variseq.evaluation.calibration import NUM_BINS, Reliability, reliability, risk_coverage
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.results import Results
from variseq.reports.canvas import (
    FONT_POINTS,
    LINES,
    MARKERS,
    Picture,
    Style,
    add_legend,
    decimal,
    name_axes,
    new_figure,
    place_of,
)

HITS_PER_BIN = 5
FEWEST_BINS = 3
"""A bin shows nothing unless a few of its forecasts came true."""
FEWEST_ANSWERED = 10
NORMAL_95 = 1.96


@dataclass(frozen=True, eq=False)
class Bins:
    """The reliability of a model's forecasts, and their means before binning."""

    model: str
    bins: Reliability
    said: float
    happened: float


def reliability_diagram(results: Results, depth: int) -> Picture:
    """How often the items of the top `depth` came next against what was said, for the model and for popularity."""
    drawn = [_bins(results.evaluations[0], depth), _bins(results["popular"], depth)]
    model = drawn[0]
    row = results.row(model.model)
    low, high = row[f"ece_top{depth}_interval"]
    which = "the first recommendation of every test query" if depth == 1 else f"each of the {depth} recommended items"
    reading = (
        f"Forecasts for {which} are sorted by probability and put into bins of equal size; a "
        "point shows what was said and how often it came true, with a 95 % interval. On the diagonal the "
        "probabilities can be taken at their word; below it, the model promises too much. Both axes are "
        "stretched near zero."
    )
    shows = (
        f"It said {model.said:.2%} on average and {model.happened:.2%} came true, {_verdict(model)}; "
        f"the calibration error (over {NUM_BINS} bins) is {row[f'ece_top{depth}']:.4f} "
        f"[{low:.4f}, {high:.4f}] (popular: {results.row('popular')[f'ece_top{depth}']:.4f})."
    )
    alt = f"Reliability diagram: {model.said:.2%} said, {model.happened:.2%} came true, over {_counts(model.bins)}."
    title = f"Can the probabilities be trusted? Top {depth}"
    return Picture(f"reliability-top-{depth}", title, reading, shows, alt, partial(_draw_reliability, drawn))


def _verdict(model: Bins) -> str:
    """What the mean forecast and the mean outcome say, unless chance alone parts them as far."""
    num_forecasts = int(model.bins.num_forecasts.sum())
    by_chance = NORMAL_95 * (model.said * (1 - model.said) / num_forecasts) ** 0.5
    if abs(model.said - model.happened) <= by_chance:
        return f"which is as near as {num_forecasts:,} forecasts can tell"
    return f"so on the whole it promises too {'much' if model.said > model.happened else 'little'}"


def _bins(evaluation: Evaluation, depth: int) -> Bins:
    assert evaluation.forecasts is not None
    filled = evaluation.top_item[:, :depth] >= 0
    probability = evaluation.forecasts.top_probability[:, :depth][filled]
    correct = evaluation.forecasts.top_is_target[:, :depth][filled]
    num_bins = int(np.clip(correct.sum() // HITS_PER_BIN, FEWEST_BINS, NUM_BINS))
    binned = reliability(probability, correct, num_bins)
    return Bins(evaluation.model, binned, float(probability.mean()), float(correct.mean()))


def _counts(bins: Reliability) -> str:
    low, high = int(bins.num_forecasts.min()), int(bins.num_forecasts.max())
    size = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return f"{len(bins.num_forecasts)} bin{'s' * (len(bins.num_forecasts) > 1)} of {size} forecasts"


def _wilson(bins: Reliability) -> Float[np.ndarray, "side bin"]:
    """How far the 95 % interval of each frequency reaches down and up (Wilson 1927)."""
    count, share, square = bins.num_forecasts, bins.frequency, NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = NORMAL_95 * np.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return np.maximum(0.0, np.stack([share - (middle - reach), middle + reach - share]))


def _draw_reliability(drawn: list[Bins], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 5.2)
    largest = 0.0
    for index, one in enumerate(drawn):
        reach = _wilson(one.bins)
        largest = max(largest, float((one.bins.frequency + reach[1]).max()), float(one.bins.mean_probability.max()))
        axes.errorbar(one.bins.mean_probability, one.bins.frequency, yerr=reach, fmt=MARKERS[index], ms=6,
                      color=style.colours[index], elinewidth=1.2, capsize=2, clip_on=False,
                      label=f"{one.model}: {_counts(one.bins)}")  # fmt: skip
    top = min(1.0, largest * 1.05)
    axes.plot([0, top], [0, top], color=style.muted, ls="--", lw=1, label="said = came true")
    ticks = _root_ticks(top)
    for axis, scale, limit in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        # A square root spreads the small probabilities of a large catalogue, and still has a place for zero.
        scale("function", functions=(_root, np.square))
        limit(0, top)
        axis.set_ticks(ticks, labels=[f"{100 * tick:g}%" for tick in ticks])
    name_axes(axes, style, "probability that was said", "share that came true")
    add_legend(axes, style, place="outside")
    return figure


def _root_ticks(top: float) -> list[float]:
    """Round probabilities up to `top` that lie far enough apart on a square-root axis, largest first."""
    ticks: list[float] = []
    for tick in (1, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001):
        gap = (ticks[-1] if ticks else 4.0) ** 0.5 - tick**0.5
        if tick <= top and min(gap, tick**0.5) >= 0.11 * top**0.5:
            ticks.append(tick)
    return [*ticks, 0.0]


def _root(value: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(value, 0.0))


def risk_coverage_curve(results: Results) -> Picture:
    """NDCG of the most confident share of the queries."""
    with_forecasts = [one for one in results.evaluations if one.forecasts is not None]
    model, k = results.evaluations[0], results.evaluations[0].k
    curve = _confident_means(model)
    half, every = float(np.interp(0.5, curve[0], curve[1])), float(curve[1][-1])
    area = results.row(model.model)["risk_coverage_area"]
    reading = (
        "From left to right ever less certain queries are answered too; the height is the mean "
        f"NDCG@{k} of those answered (with a 95 % band for the model). A curve that falls to the right means that "
        "the model knows when it knows: one could show recommendations to the sure part only. "
        f"Fewer than {FEWEST_ANSWERED} answered queries are not drawn."
    )
    shows = (
        f"NDCG@{k} is {half:.4f} on the surest half and {every:.4f} on all {len(model.rank):,} queries; the "
        f"area under the curve is {area:.4f}."
    )
    alt = f"Curve of NDCG@{k} against the share of queries answered: {half:.4f} at half, {every:.4f} at all."
    draw = partial(_draw_risk_coverage, with_forecasts)
    return Picture("risk-coverage", "Does it know when it knows?", reading, shows, alt, draw)


def _confident_means(evaluation: Evaluation) -> Float[np.ndarray, "3 query"]:
    """Coverage, mean NDCG of the covered queries, and the half-width of its 95 % interval."""
    assert evaluation.forecasts is not None
    confidence, value = evaluation.forecasts.top_probability[:, 0], evaluation.metric("ndcg")
    mean = risk_coverage(confidence, value)
    square = risk_coverage(confidence, value**2)
    deviation = np.sqrt(np.maximum(square.value - mean.value**2, 0.0))
    reach = NORMAL_95 * deviation / np.sqrt(np.arange(1, len(value) + 1))
    return np.stack([mean.coverage, mean.value, reach])


def _draw_risk_coverage(evaluations: list[Evaluation], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 3.9)
    for evaluation in evaluations:
        index = place_of(evaluation.model)
        first = min(FEWEST_ANSWERED, len(evaluation.rank)) - 1
        coverage, mean, reach = _confident_means(evaluation)[:, first:]
        colour, line = style.colours[index], LINES[index]
        axes.plot(coverage, mean, color=colour, ls=line, lw=2.2 if index == 0 else 1.4, label=evaluation.model)
        if index == 0:
            axes.fill_between(coverage, np.maximum(mean - reach, 0), mean + reach, color=colour, alpha=0.15, lw=0)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    name_axes(axes, style, "queries answered, surest first", f"mean NDCG@{evaluations[0].k} of the answered")
    add_legend(axes, style)
    return figure


def accuracy_by_group(results: Results) -> Picture:
    """NDCG by length of the history and by popularity of the item that came next."""
    key = f"ndcg@{results.evaluations[0].k}"
    rows = [
        row for row in results.table["rows"] if row["model"] in (results.evaluations[0].model, "popular", "item-knn")
    ]
    told = []
    for kind, name in (("history_length", "history length"), ("item_popularity", "item popularity")):
        groups = rows[0][f"by_{kind}"]
        told.append(f"by {name}, " + ", ".join(f"{g['group']}: {g[key]:.4f} ({g['num_queries']:,})" for g in groups))
    reading = (
        "The test queries in groups of about equal size, above by how many events the user had "
        "(empty: none yet), below by how often the item that came next occurs in training (unseen: never, which "
        "counts as a miss). Bars are 95 % intervals over users; models whose intervals overlap widely cannot be told "
        "apart in that group."
    )
    shows = f"{key.upper()} of the model (and number of queries) {'; '.join(told)}."
    alt = "Points with intervals: " + "; ".join(told) + "."
    return Picture("groups", "For whom does it work?", reading, shows, alt, partial(_draw_groups, rows, key))


def _draw_groups(rows: list[dict[str, Any]], key: str, style: Style) -> Figure:
    counts = [len(rows[0][f"by_{kind}"]) for kind in ("history_length", "item_popularity")]
    figure, (length, popularity) = new_figure(style, 2.3 + 0.62 * sum(counts), counts)
    _draw_kind(length, rows, "by_history_length", key, style)
    _draw_kind(popularity, rows, "by_item_popularity", key, style)
    right = max(length.get_xlim()[1], popularity.get_xlim()[1])
    for axes in (length, popularity):
        axes.set_xlim(0, right)
        axes.xaxis.set_major_formatter(decimal)
    name_axes(length, style, "", "events in the history")
    name_axes(popularity, style, key.upper(), "training events of the item that came next")
    add_legend(length, style, place="outside")
    return figure


def _draw_kind(axes: Axes, rows: list[dict[str, Any]], kind: str, key: str, style: Style) -> None:
    for row in rows:
        groups, index = row[kind], place_of(row["model"])
        value = np.array([group[key] for group in groups])
        interval = np.array([group[f"{key}_interval"] or [group[key]] * 2 for group in groups])
        reach = np.maximum(0.0, np.stack([value - interval[:, 0], interval[:, 1] - value]))
        place = np.arange(len(groups)) + (index - (len(rows) - 1) / 2) * 0.22
        axes.errorbar(value, place, xerr=reach, fmt=MARKERS[index], ms=6, color=style.colours[index],
                      elinewidth=1.4, clip_on=False, label=row["model"])  # fmt: skip
    names = [f"{group['group']}\n({group['num_queries']:,})" for group in rows[0][kind]]
    axes.set_yticks(np.arange(len(names)), labels=names, fontsize=FONT_POINTS - 1.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
