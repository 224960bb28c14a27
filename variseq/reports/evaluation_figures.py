"""Figures of an evaluation: reliability, risk and coverage, groups, uncertainty and conformal sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from variseq.evaluation.calibration import (
    NUM_BINS,
    Reliability,
    reliability,
    risk_coverage,
    wilson_interval,
)
from variseq.evaluation.evaluation import CONFORMAL_LEVEL, Evaluation
from variseq.evaluation.results import Results
from variseq.evaluation.summary import CONFORMAL, MIN_USERS, SELECTIVE_GAIN
from variseq.ranking.calibration import NORMAL_95
from variseq.reports.style import (
    FONT_POINTS,
    LINES,
    MARKERS,
    ReportFigure,
    Style,
    add_legend,
    decimal,
    missing_figure,
    name_axes,
    new_figure,
    percent,
    style_index,
)

HITS_PER_BIN = 5
FEWEST_BINS = 3
"""A bin shows nothing unless a few of its forecasts came true."""
FEWEST_ANSWERED = 10
OF_VISITS = ("variseq", "popular", "last-item-transitions", "own-frequency")
KINDS = {"history_length": "history length", "item_popularity": "item popularity"}

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Bins:
    """The reliability of a model's forecasts, and their means before binning."""

    model: str
    bins: Reliability
    mean_probability: float
    frequency: float

    @classmethod
    def of(cls, evaluation: Evaluation, depth: int) -> Bins:
        assert evaluation.forecasts is not None
        filled = evaluation.top_item[:, :depth] >= 0
        probability = evaluation.forecasts.top_probability[:, :depth][filled]
        correct = evaluation.forecasts.top_is_target[:, :depth][filled]
        num_bins = int(np.clip(correct.sum() // HITS_PER_BIN, FEWEST_BINS, NUM_BINS))
        binned = reliability(probability, correct, num_bins)
        return cls(evaluation.model, binned, float(probability.mean()), float(correct.mean()))

    def counts(self) -> str:
        low, high = int(self.bins.num_forecasts.min()), int(self.bins.num_forecasts.max())
        size = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        return f"{len(self.bins.num_forecasts)} bin{'s' * (len(self.bins.num_forecasts) > 1)} of {size} forecasts"

    def verdict(self) -> str:
        """The sign of the mean error, unless chance alone explains its size."""
        num_forecasts = int(self.bins.num_forecasts.sum())
        noise = NORMAL_95 * (self.mean_probability * (1 - self.mean_probability) / num_forecasts) ** 0.5
        if abs(self.mean_probability - self.frequency) <= noise:
            return f"a difference that chance explains for {num_forecasts:,} forecasts"
        return f"so on average they are too {'high' if self.mean_probability > self.frequency else 'low'}"


def reliability_diagram(results: Results, depth: int) -> ReportFigure:
    """Observed frequency against probability of the items of the top `depth`, for the model and for popularity."""
    drawn = [Bins.of(results.evaluations[0], depth), Bins.of(results["popular"], depth)]
    model, row, key = drawn[0], results.row(drawn[0].model), f"ece_top{depth}"
    low, high = row[f"{key}_interval"]
    which = "the first recommendation of every test query" if depth == 1 else f"each of the {depth} recommended items"
    how_to_read = (
        f"The forecasts for {which} are sorted by probability and put into bins of equal size. A point shows the mean "
        "probability and the observed frequency of a bin, with a 95 % interval. On the diagonal the forecasts are "
        "calibrated; below it they are overconfident. Both axes are stretched near zero."
    )
    finding = (
        f"The mean probability is {model.mean_probability:.2%} and {model.frequency:.2%} came true, {model.verdict()}. "
        f"The calibration error (over {NUM_BINS} bins) is {row[key]:.4f} [{low:.4f}, {high:.4f}] "
        f"(popular: {results.row('popular')[key]:.4f})."
    )
    alt = (
        f"Reliability diagram: mean probability {model.mean_probability:.2%}, {model.frequency:.2%} came true, over "
        f"{model.counts()}."
    )
    draw = partial(_draw_reliability, drawn)
    title = f"Are the probabilities calibrated? Top {depth}"
    return ReportFigure(f"reliability-top-{depth}", title, how_to_read, finding, alt, draw)


def _draw_reliability(drawn: list[Bins], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 5.2)
    largest = 0.0
    for index, one in enumerate(drawn):
        low, high = wilson_interval(one.bins.frequency, one.bins.num_forecasts)
        reach = np.stack([one.bins.frequency - low, high - one.bins.frequency])
        largest = max(largest, float(high.max()), float(one.bins.mean_probability.max()))
        axes.errorbar(one.bins.mean_probability, one.bins.frequency, yerr=reach, fmt=MARKERS[index], ms=6,
                      color=style.colors[index], elinewidth=1.2, capsize=2, clip_on=False,
                      label=f"{one.model}: {one.counts()}")  # fmt: skip
    top = min(1.0, largest * 1.05)
    axes.plot([0, top], [0, top], color=style.muted, ls="--", lw=1, label="calibrated")
    ticks = root_ticks(top)
    for axis, scale, limit in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        # A square root spreads the small probabilities of a large catalog, and can still show zero.
        scale("function", functions=(root, np.square))
        limit(0, top)
        axis.set_ticks(ticks, labels=[f"{100 * tick:g}%" for tick in ticks])
    name_axes(axes, style, "mean probability", "observed frequency")
    add_legend(axes, style, "outside")
    return figure


def root_ticks(top: float) -> list[float]:
    """Round probabilities up to `top` that lie far enough apart on a square-root axis, largest first."""
    ticks: list[float] = []
    for tick in (1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001):
        gap = (ticks[-1] if ticks else 4.0) ** 0.5 - tick**0.5
        if tick <= top and min(gap, tick**0.5) >= 0.11 * top**0.5:
            ticks.append(tick)
    return [*ticks, 0.0]


def root(value: np.ndarray) -> np.ndarray:
    """The scale of a square-root axis."""
    return np.sqrt(np.maximum(value, 0.0))


@dataclass(frozen=True, eq=False)
class Curve:
    """NDCG of the answered queries against their share, most confident first; `reach` is half a 95 % interval."""

    name: str
    model: str
    coverage: Float[np.ndarray, " query"]
    value: Float[np.ndarray, " query"]
    reach: Float[np.ndarray, " query"]

    @classmethod
    def of(cls, evaluation: Evaluation, confidence: Float[np.ndarray, " query"], name: str) -> Curve:
        value = evaluation.metric("ndcg")
        mean = risk_coverage(confidence, value)
        square = risk_coverage(confidence, value**2)
        deviation = np.sqrt(np.maximum(square.value - mean.value**2, 0.0))
        reach = NORMAL_95 * deviation / np.sqrt(np.arange(1, len(value) + 1))
        return cls(name, evaluation.model, mean.coverage, mean.value, reach)


def risk_coverage_curve(results: Results) -> ReportFigure:
    """NDCG of the least uncertain share of the queries, by entropy and by the probability of the first item."""
    model, k, row = results.evaluations[0], results.evaluations[0].k, results.table["rows"][0]
    assert model.forecasts is not None
    by_entropy = Curve.of(model, -model.forecasts.entropy, f"{model.model}, by entropy")
    by_first_item = Curve.of(model, model.forecasts.top_probability[:, 0], f"{model.model}, by its first item")
    others = [
        Curve.of(one, -one.forecasts.entropy, one.model) for one in results.baselines if one.forecasts is not None
    ]
    how_to_read = (
        "From left to right, less and less certain queries are answered, too. The height is the mean "
        f"NDCG@{k} of the answered queries (with a 95 % band for the model). The queries are sorted by the entropy of "
        "the whole forecast, for the dotted line by the probability of the first item. A curve that falls to the right "
        "is useful: one could show recommendations for the certain queries only. "
        f"Fewer than {FEWEST_ANSWERED} answered queries are not drawn."
    )
    half, every, gain = row[f"selective_ndcg@{k}"], by_entropy.value[-1], row[SELECTIVE_GAIN]
    low, high = row[f"{SELECTIVE_GAIN}_interval"] or (np.nan, np.nan)
    at_half = float(np.interp(0.5, by_first_item.coverage, by_first_item.value))
    finding = (
        f"NDCG@{k} is {half:.4f} on the half with least entropy and {every:.4f} on all {len(model.rank):,} queries"
        + ("" if gain is None else f", {gain:+.1%} [{low:+.1%}, {high:+.1%}]")
        + f". By the probability of the first item it is {at_half:.4f} on the more certain half."
    )
    alt = f"Curves of NDCG@{k} against the share of queries answered: {half:.4f} at half, {every:.4f} at all."
    draw = partial(_draw_risk_coverage, [by_entropy, by_first_item, *others], k)
    return ReportFigure("risk-coverage", "Selective prediction: risk and coverage", how_to_read, finding, alt, draw)


def _draw_risk_coverage(curves: list[Curve], k: int, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 4.3)
    for position, curve in enumerate(curves):
        index, is_main = style_index(curve.model), position == 0
        first = min(FEWEST_ANSWERED, len(curve.value)) - 1
        coverage, mean, reach = curve.coverage[first:], curve.value[first:], curve.reach[first:]
        color, line = style.colors[index], ":" if position == 1 else LINES[index]
        axes.plot(coverage, mean, color=color, ls=line, lw=2.2 if is_main else 1.4, label=curve.name)
        if is_main:
            axes.fill_between(coverage, np.maximum(mean - reach, 0), mean + reach, color=color, alpha=0.15, lw=0)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(percent)
    name_axes(axes, style, "queries answered, least uncertain first", f"mean NDCG@{k} of the answered")
    add_legend(axes, style, "outside")
    return figure


def accuracy_by_group(results: Results) -> ReportFigure:
    """NDCG by length of the history and by popularity of the item that came next."""
    key = f"ndcg@{results.evaluations[0].k}"
    models = (results.evaluations[0].model, "popular", "item-knn")
    rows = [row for row in results.table["rows"] if row["model"] in models]
    texts = []
    for kind, name in KINDS.items():
        groups = rows[0][f"by_{kind}"]
        texts.append(f"by {name}, " + ", ".join(f"{g['group']}: {g[key]:.4f} ({g['num_queries']:,})" for g in groups))
    how_to_read = (
        "The test queries in groups. Above: by the number of events of the user (0: none). Below, in thirds: by the "
        "training events of the item that came next (unseen: none). Bars are 95 % intervals over "
        f"users. Groups of fewer than {MIN_USERS} users are hollow and not compared."
    )
    gaps = " ".join(_gap_sentence(rows[0], kind, key) for kind in KINDS)
    finding = f"{key.upper()} of the model (and number of queries) {'; '.join(texts)}. {gaps}".strip()
    alt = "Points with intervals: " + "; ".join(texts) + "."
    return ReportFigure("groups", "Accuracy by group", how_to_read, finding, alt, partial(_draw_groups, rows, key))


def _gap_sentence(row: dict[str, Any], kind: str, key: str) -> str:
    gap = row["group_gaps"][kind][key]
    if gap is None:
        return f"By {KINDS[kind]} no two groups are large enough to compare."
    low, high = gap["gap_interval"]
    return (
        f"By {KINDS[kind]} the worst group is {gap['worst_group']}, {gap['gap']:.4f} [{low:.4f}, {high:.4f}] below "
        f"the best, {gap['best_group']}."
    )


def _draw_groups(rows: Rows, key: str, style: Style) -> Figure:
    counts = [len(rows[0][f"by_{kind}"]) for kind in KINDS]
    figure, (length, popularity) = new_figure(style, 2.3 + 0.62 * sum(counts), counts)
    _draw_kind(length, rows, "by_history_length", key, style)
    _draw_kind(popularity, rows, "by_item_popularity", key, style)
    right = max(length.get_xlim()[1], popularity.get_xlim()[1])
    for axes in (length, popularity):
        axes.set_xlim(0, right)
        axes.xaxis.set_major_formatter(decimal)
    name_axes(length, style, "", "events in the history")
    name_axes(popularity, style, key.upper(), "training events of the item that came next")
    add_legend(length, style, "outside")
    return figure


def _draw_kind(axes: Axes, rows: Rows, kind: str, key: str, style: Style) -> None:
    for row in rows:
        groups, index = row[kind], style_index(row["model"])
        value, reach = _values(groups, key)
        height = np.arange(len(groups)) + (index - (len(rows) - 1) / 2) * 0.22
        color, marker = style.colors[index], MARKERS[index]
        axes.errorbar(value, height, xerr=reach, fmt="none", color=color, elinewidth=1.4)
        _mark(axes, value, height, groups, (marker, color, style.paper))
        axes.plot([], [], ls="none", marker=marker, ms=6, color=color, label=row["model"])
    names = [f"{group['group']}\n({group['num_queries']:,})" for group in rows[0][kind]]
    axes.set_yticks(np.arange(len(names)), labels=names, fontsize=FONT_POINTS - 1.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _mark(
    axes: Axes,
    across: Float[np.ndarray, " group"],
    up: Float[np.ndarray, " group"],
    groups: Rows,
    look: tuple[str, str, str],
) -> None:
    """Points of groups in a marker, its color and that of the paper; groups too small to be compared are hollow."""
    marker, color, paper = look
    large = _is_large(groups)
    for chosen, inner in ((large, color), (~large, paper)):
        if not chosen.any():
            continue  # The layout would make room for points that are not there, as they are not clipped.
        axes.plot(across[chosen], up[chosen], ls="none", marker=marker, ms=6, mec=color, mfc=inner, clip_on=False,
                  zorder=3)  # fmt: skip


def _is_large(groups: Rows) -> Bool[np.ndarray, " group"]:
    return np.array([group["num_users"] >= MIN_USERS for group in groups])


def _values(groups: Rows, key: str) -> tuple[Float[np.ndarray, " group"], Float[np.ndarray, "side group"]]:
    """The values of groups, and how far their intervals reach down and up."""
    value = np.array([group[key] for group in groups])
    interval = np.array([group[f"{key}_interval"] or [group[key]] * 2 for group in groups])
    return value, np.maximum(0.0, np.stack([value - interval[:, 0], interval[:, 1] - value]))


def uncertainty_by_history(results: Results) -> ReportFigure:
    """Entropy of the forecasts and NLL of what came, by the length of the history."""
    model = results.evaluations[0]
    groups = results.row(model.model)["by_history_length"]
    num_items = int(model.protocol["num_items"])
    text = ", ".join(f"{g['group']}: {g['entropy']:.2f} and {g['nll']:.2f} ({g['num_users']:,} users)" for g in groups)
    how_to_read = (
        "By the number of events of the user. Above: the entropy of the forecast, the uncertainty about the next item. "
        "It should fall from left to right, as events describe a user. Below: the NLL of what came. They "
        "are equal when the forecast is calibrated; an NLL above the entropy means overconfidence. The dotted line, "
        f"{np.log(num_items):.2f} nats, is a guess among all {num_items:,} items. Bars are 95 % intervals over users, "
        f"numbers at the points count users. Hollow points have fewer than {MIN_USERS} users."
    )
    entropies = [group["entropy"] for group in groups if group["num_users"] >= MIN_USERS]
    change = float(entropies[-1] - entropies[0]) if len(entropies) > 1 else float("nan")
    title = "Uncertainty falls as history grows" if change < 0 else "Uncertainty as history grows"
    finding = f"Entropy and NLL in nats by history length: {text}." + (
        "" if np.isnan(change) else f" From the shortest to the longest histories of at least {MIN_USERS} users the "
        f"entropy {'falls' if change < 0 else 'rises'} by {abs(change):.2f} nats."
    )  # fmt: skip
    alt = f"Points with intervals of entropy and NLL in nats by history length: {text}."
    draw = partial(_draw_uncertainty, groups, float(np.log(num_items)))
    return ReportFigure("uncertainty", title, how_to_read, finding, alt, draw)


def _draw_uncertainty(groups: Rows, of_a_guess: float, style: Style) -> Figure:
    figure, panels = new_figure(style, 5.4, (1, 1))
    across, large = np.arange(len(groups), dtype=np.float64), _is_large(groups)
    named = zip(panels, ("entropy", "nll"), ("entropy of the forecast, nats", "NLL of what came, nats"), strict=True)
    for axes, key, name in named:
        value, reach = _values(groups, key)
        axes.axhline(of_a_guess, color=style.muted, ls=":", lw=1.4)
        axes.plot(across[large], value[large], color=style.colors[0], lw=1, alpha=0.5)
        axes.errorbar(across, value, yerr=reach, fmt="none", color=style.colors[0], elinewidth=1.4, capsize=2)
        _mark(axes, across, value, groups, ("o", style.colors[0], style.paper))
        for x, group, top in zip(across, groups, value + reach[1], strict=True):
            axes.annotate(_short(group["num_users"]), (x, top), xytext=(0, 4), textcoords="offset points",
                          ha="center", color=style.muted, fontsize=FONT_POINTS - 2.5)  # fmt: skip
        axes.set_xticks(across, labels=[group["group"] for group in groups], fontsize=FONT_POINTS - 2)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.06, y=0.14)
        name_axes(axes, style, "events in the history" if axes is panels[-1] else "", name)
    # One scale for both, so that they can be compared.
    limits = [bound for axes in panels for bound in axes.get_ylim()]
    for axes in panels:
        axes.set_ylim(min(limits), max(limits))
    return figure


def _short(count: int) -> str:
    """A number of users in few characters.

    >>> _short(950), _short(12_345), _short(250_000)
    ('950', '12k', '250k')
    """
    return str(count) if count < 1000 else f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def coverage_by_history(results: Results) -> ReportFigure:
    """How often the conformal sets contain the item that came next, over all and by the length of the history."""
    title = "Coverage of the conformal sets"
    row = results.table["rows"][0]
    if row[CONFORMAL] is None:
        return missing_figure("conformal-coverage", title, "The evaluation has no thresholds for conformal sets.")
    groups = [row | {"group": "all"}, *row["by_history_length"]]
    low, high = row[f"{CONFORMAL}_interval"]
    text = ", ".join(f"{g['group']}: {g[CONFORMAL]:.1%} ({g['num_users']:,} users)" for g in groups[1:])
    outside = [
        f"{group['group']} ({group[CONFORMAL]:.1%})"
        for group in groups[1:]
        if group["num_users"] >= MIN_USERS
        and not group[f"{CONFORMAL}_interval"][0] <= CONFORMAL_LEVEL <= group[f"{CONFORMAL}_interval"][1]
    ]
    how_to_read = (
        f"Each query has a set of items that should contain the next one with {CONFORMAL_LEVEL:.0%} probability; the "
        "thresholds are fitted on the validation part. A point is the share of test queries whose set contains it, "
        "with a 95 % interval. It should lie near the dashed line. As the validation part is finite, too, a few points "
        f"may miss the line. Hollow points have fewer than {MIN_USERS} users."
    )
    finding = (
        f"The sets contain {row[CONFORMAL]:.1%} [{low:.1%}, {high:.1%}] of the targets. "
        + (f"The interval does not contain {CONFORMAL_LEVEL:.0%} for {', '.join(outside)}. " if outside else
           f"Every group of at least {MIN_USERS} users has an interval that contains {CONFORMAL_LEVEL:.0%}. ")
        + (f"{row['repeat_targets'] / row['num_queries']:.1%} of the targets are in the history and not ranked, so no "
           "set contains them. " if row["repeat_targets"] else "")
        + f"By history length, {text}."
    )  # fmt: skip
    alt = f"Points with intervals of the share of sets that contain the next item: {text}; level {CONFORMAL_LEVEL:.0%}."
    draw = partial(_draw_coverage, groups)
    return ReportFigure("conformal-coverage", title, how_to_read, finding, alt, draw)


def _draw_coverage(groups: Rows, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 1.5 + 0.36 * len(groups))
    value, reach = _values(groups, CONFORMAL)
    height = np.arange(len(groups), dtype=np.float64)
    axes.axvline(CONFORMAL_LEVEL, color=style.colors[1], ls="--", lw=1.6, label=f"level: {CONFORMAL_LEVEL:.0%}")
    axes.errorbar(value, height, xerr=reach, fmt="none", color=style.colors[0], elinewidth=1.4, capsize=2)
    _mark(axes, value, height, groups, ("o", style.colors[0], style.paper))
    axes.plot([], [], ls="none", marker="o", ms=6, color=style.colors[0], label="contains the next item")
    names = [f"{group['group']} ({_short(group['num_users'])})" for group in groups]
    axes.set_yticks(height, labels=names, fontsize=FONT_POINTS - 1.5)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    # The wide intervals of small groups leave the figure, so that the others can be read.
    lowest = np.concatenate([[0.75], value - 0.03, (value - reach[0])[_is_large(groups)] - 0.02]).min()
    axes.set_xlim(max(0.0, float(lowest)), 1.0)
    axes.xaxis.set_major_formatter(percent)
    axes.grid(visible=False, axis="y")
    name_axes(axes, style, "share of the sets", "events in the history (users)")
    add_legend(axes, style, "outside")
    return figure


def recall_of_visits(results: Results) -> ReportFigure:
    """Recall of the next visit by length of the history, of items that the person had before and of new ones."""
    k = results.evaluations[0].k
    parts = {f"visit_recall_repeats@{k}": "had before", f"visit_recall_new@{k}": "new to the person"}
    rows = [row for row in results.table["rows"] if row["model"] in OF_VISITS]
    groups = [group for group in rows[0]["by_history_length"] if any(group[key] is not None for key in parts)]
    how_to_read = (
        f"One list of {k} items is made for the next visit, and the share of the visit's items in it is its recall. "
        "Above: the items that the person had before. Below: the other items, in a list of items that are new to the "
        "person. Visits are in groups by the number of events before them. Bars are 95 % intervals of the model over "
        f"people. Hollow points have fewer than {MIN_USERS} of them."
    )
    texts = [
        f"{name}: " + ", ".join(f"{g['group']} events {g[key]:.3f}" for g in groups if g[key] is not None)
        for key, name in parts.items()
    ]
    best = {key: max(results.table["rows"][1:], key=lambda row: row[key] or 0.0) for key in parts}
    finding = f"Recall@{k} of the model by history length, {'; '.join(texts)}. Over all visits: " + "; ".join(
        f"{name}, {rows[0][key]:.3f} (best baseline: {best[key]['model']} {best[key][key]:.3f})"
        for key, name in parts.items()
        if rows[0][key] is not None
    )
    alt = f"Points with intervals of recall@{k} by history length; {'; '.join(texts)}."
    draw = partial(_draw_visits, rows, {f"recall@{k}, {name}": key for key, name in parts.items()})
    return ReportFigure("visits", "Recall of the next visit", how_to_read, f"{finding}.", alt, draw)


def _draw_visits(rows: Rows, parts: dict[str, str], style: Style) -> Figure:
    figure, panels = new_figure(style, 6.2, (1, 1))
    people = {g["group"]: g["num_users"] for g in rows[0]["by_history_length"] if g["group"] != "0"}
    names = list(people)
    for axes, (title, key) in zip(panels, parts.items(), strict=True):
        for row in rows:
            groups = [group for group in row["by_history_length"] if group["group"] in names and group[key] is not None]
            value, reach = _values(groups, key)
            index = style_index(row["model"])
            across = np.array([names.index(group["group"]) for group in groups], dtype=np.float64)
            color, is_main = style.colors[index], row is rows[0]
            axes.plot(across, value, color=color, ls=LINES[index], lw=1.8 if is_main else 1.1, label=row["model"])
            _mark(axes, across, value, groups, (MARKERS[index], color, style.paper))
            if is_main:
                axes.errorbar(across, value, yerr=reach, fmt="none", color=color, elinewidth=1.4, capsize=2)
        labels = [f"{name}\n({_short(count)})" for name, count in people.items()]
        axes.set_xticks(np.arange(len(names)), labels=labels, fontsize=FONT_POINTS - 2)
        axes.set_ylim(0, 1)
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="x")
        name_axes(axes, style, "events in the history (people)" if axes is panels[-1] else "", title)
    add_legend(panels[0], style, "outside")
    return figure


FIGURES = (risk_coverage_curve, uncertainty_by_history, coverage_by_history, accuracy_by_group)
