"""An evaluation with its baselines into pictures of accuracy and of how far the probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from variseq.evaluation.calibration import (
    NORMAL_95,
    NUM_BINS,
    Reliability,
    reliability,
    risk_coverage,
    wilson_interval,
)
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.results import Results
from variseq.reports.canvas import (
    LINES,
    MARKERS,
    Picture,
    Style,
    add_legend,
    name_axes,
    new_figure,
    place_of,
)

HITS_PER_BIN = 5
FEWEST_BINS = 3
"""A bin shows nothing unless a few of its forecasts came true."""
FEWEST_ANSWERED = 10


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


def _draw_reliability(drawn: list[Bins], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 5.2)
    largest = 0.0
    for index, one in enumerate(drawn):
        low, high = wilson_interval(one.bins.frequency, one.bins.num_forecasts)
        reach = np.stack([one.bins.frequency - low, high - one.bins.frequency])
        largest = max(largest, float(high.max()), float(one.bins.mean_probability.max()))
        axes.errorbar(one.bins.mean_probability, one.bins.frequency, yerr=reach, fmt=MARKERS[index], ms=6,
                      color=style.colors[index], elinewidth=1.2, capsize=2, clip_on=False,
                      label=f"{one.model}: {_counts(one.bins)}")  # fmt: skip
    top = min(1.0, largest * 1.05)
    axes.plot([0, top], [0, top], color=style.muted, ls="--", lw=1, label="said = came true")
    ticks = _root_ticks(top)
    for axis, scale, limit in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        # A square root spreads the small probabilities of a large catalog, and still has a place for zero.
        scale("function", functions=(_root, np.square))
        limit(0, top)
        axis.set_ticks(ticks, labels=[f"{100 * tick:g}%" for tick in ticks])
    name_axes(axes, style, "probability that was said", "share that came true")
    add_legend(axes, style, place="outside")
    return figure


def _root_ticks(top: float) -> list[float]:
    """Round probabilities up to `top` that lie far enough apart on a square-root axis, largest first."""
    ticks: list[float] = []
    for tick in (1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001):
        gap = (ticks[-1] if ticks else 4.0) ** 0.5 - tick**0.5
        if tick <= top and min(gap, tick**0.5) >= 0.11 * top**0.5:
            ticks.append(tick)
    return [*ticks, 0.0]


def _root(value: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(value, 0.0))


@dataclass(frozen=True, eq=False)
class Curve:
    """NDCG of the answered queries against their share, surest first; `reach` is half a 95 % interval."""

    name: str
    model: str
    is_main: bool
    coverage: Float[np.ndarray, " query"]
    value: Float[np.ndarray, " query"]
    reach: Float[np.ndarray, " query"]


def risk_coverage_curve(results: Results) -> Picture:
    """NDCG of the least uncertain share of the queries, by entropy and by the probability of the first item."""
    model, k = results.evaluations[0], results.evaluations[0].k
    curves = [_curve(one, one is model) for one in results.evaluations if one.forecasts is not None]
    curves.insert(1, _curve_by_first_item(model))
    row, every, (low, high) = results.row(model.model), curves[0].value[-1], _gain_interval(results)
    reading = (
        "From left to right ever less certain queries are answered too; the height is the mean "
        f"NDCG@{k} of those answered (with a 95 % band for the model). Uncertainty is the entropy of the whole "
        "forecast, and for the thin line of the model how improbable its first item is. A curve that falls to the "
        "right means that the model knows when it knows: one could show recommendations to the sure part only. "
        f"Fewer than {FEWEST_ANSWERED} answered queries are not drawn."
    )
    half = row[f"selective_ndcg@{k}"]
    gain = (
        "" if row["selective_ndcg_gain"] is None else f", {row['selective_ndcg_gain']:+.1%} [{low:+.1%}, {high:+.1%}]"
    )
    shows = (
        f"NDCG@{k} is {half:.4f} on the half with least entropy and {every:.4f} on all {len(model.rank):,} queries"
        f"{gain}; by the probability of the first item it is {_at_half(curves[1]):.4f} on the surer half."
    )
    alt = f"Curves of NDCG@{k} against the share of queries answered: {half:.4f} at half, {every:.4f} at all."
    return Picture(
        "risk-coverage", "Does it know when it knows?", reading, shows, alt, partial(_draw_risk_coverage, curves, k)
    )


def _gain_interval(results: Results) -> tuple[float, float]:
    low, high = results.table["rows"][0]["selective_ndcg_gain_interval"] or (np.nan, np.nan)
    return low, high


def _at_half(curve: Curve) -> float:
    return float(np.interp(0.5, curve.coverage, curve.value))


def _curve(evaluation: Evaluation, is_main: bool) -> Curve:
    assert evaluation.forecasts is not None
    name = f"{evaluation.model}, by entropy" if is_main else evaluation.model
    return _confident_means(evaluation, -evaluation.forecasts.entropy, name, is_main)


def _curve_by_first_item(evaluation: Evaluation) -> Curve:
    assert evaluation.forecasts is not None
    name = f"{evaluation.model}, by its first item"
    return _confident_means(evaluation, evaluation.forecasts.top_probability[:, 0], name, False)


def _confident_means(
    evaluation: Evaluation, confidence: Float[np.ndarray, " query"], name: str, is_main: bool
) -> Curve:
    value = evaluation.metric("ndcg")
    mean = risk_coverage(confidence, value)
    square = risk_coverage(confidence, value**2)
    deviation = np.sqrt(np.maximum(square.value - mean.value**2, 0.0))
    reach = NORMAL_95 * deviation / np.sqrt(np.arange(1, len(value) + 1))
    return Curve(name, evaluation.model, is_main, mean.coverage, mean.value, reach)


def _draw_risk_coverage(curves: list[Curve], k: int, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 4.3)
    for place, curve in enumerate(curves):
        index = place_of(curve.model)
        first = min(FEWEST_ANSWERED, len(curve.value)) - 1
        coverage, mean, reach = curve.coverage[first:], curve.value[first:], curve.reach[first:]
        color, line = style.colors[index], ":" if place == 1 else LINES[index]
        axes.plot(coverage, mean, color=color, ls=line, lw=2.2 if curve.is_main else 1.4, label=curve.name)
        if curve.is_main:
            axes.fill_between(coverage, np.maximum(mean - reach, 0), mean + reach, color=color, alpha=0.15, lw=0)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    name_axes(axes, style, "queries answered, least uncertain first", f"mean NDCG@{k} of the answered")
    add_legend(axes, style, place="outside")
    return figure
