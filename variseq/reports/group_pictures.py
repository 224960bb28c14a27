"""An evaluation by groups of queries into pictures: for whom it is accurate, how uncertain, and what its sets hold."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from variseq.evaluation.evaluation import CONFORMAL_LEVEL
from variseq.evaluation.results import Results
from variseq.evaluation.summary import CONFORMAL, MIN_USERS
from variseq.reports.canvas import (
    FONT_POINTS,
    MARKERS,
    Absent,
    Picture,
    Style,
    add_legend,
    decimal,
    name_axes,
    new_figure,
    place_of,
)

Rows = list[dict[str, Any]]
KINDS = {"history_length": "history length", "item_popularity": "item popularity"}


def accuracy_by_group(results: Results) -> Picture:
    """NDCG by length of the history and by popularity of the item that came next."""
    key = f"ndcg@{results.evaluations[0].k}"
    models = (results.evaluations[0].model, "popular", "item-knn")
    rows = [row for row in results.table["rows"] if row["model"] in models]
    told = []
    for kind, name in KINDS.items():
        groups = rows[0][f"by_{kind}"]
        told.append(f"by {name}, " + ", ".join(f"{g['group']}: {g[key]:.4f} ({g['num_queries']:,})" for g in groups))
    reading = (
        "The test queries in groups, above by how many events the user had (0: none yet), below, in thirds, by how "
        "often the item that came next occurs in training (unseen: never, which counts as a miss). Bars are 95 % "
        "intervals over users; models whose intervals overlap widely cannot be told apart in that group. A group of "
        f"fewer than {MIN_USERS} users is drawn hollow, and not held against the others."
    )
    gaps = " ".join(_gap_sentence(rows[0], kind, key) for kind in KINDS)
    shows = f"{key.upper()} of the model (and number of queries) {'; '.join(told)}. {gaps}".strip()
    alt = "Points with intervals: " + "; ".join(told) + "."
    return Picture("groups", "For whom does it work?", reading, shows, alt, partial(_draw_groups, rows, key))


def _gap_sentence(row: dict[str, Any], kind: str, key: str) -> str:
    found = row["group_gaps"][kind][key]
    if found is None:
        return f"By {KINDS[kind]} there are no two groups large enough to compare."
    low, high = found["gap_interval"]
    return (
        f"By {KINDS[kind]} the worst group is {found['worst_group']}, {found['gap']:.4f} [{low:.4f}, {high:.4f}] below "
        f"the best, {found['best_group']}."
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
    add_legend(length, style, place="outside")
    return figure


def _draw_kind(axes: Axes, rows: Rows, kind: str, key: str, style: Style) -> None:
    for row in rows:
        groups, index = row[kind], place_of(row["model"])
        value, reach = _values(groups, key)
        place = np.arange(len(groups)) + (index - (len(rows) - 1) / 2) * 0.22
        color, marker = style.colors[index], MARKERS[index]
        axes.errorbar(value, place, xerr=reach, fmt="none", color=color, elinewidth=1.4)
        _mark(axes, value, place, groups, (marker, color, style.paper))
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
            continue  # Nothing drawn without clipping has no place, which the layout would make room for.
        axes.plot(across[chosen], up[chosen], ls="none", marker=marker, ms=6, mec=color, mfc=inner, clip_on=False,
                  zorder=3)  # fmt: skip


def _is_large(groups: Rows) -> Bool[np.ndarray, " group"]:
    """Whether each group has users enough to say something."""
    return np.array([group["num_users"] >= MIN_USERS for group in groups])


def _values(groups: Rows, key: str) -> tuple[Float[np.ndarray, " group"], Float[np.ndarray, "side group"]]:
    """The values of groups, and how far their intervals reach down and up."""
    value = np.array([group[key] for group in groups])
    interval = np.array([group[f"{key}_interval"] or [group[key]] * 2 for group in groups])
    return value, np.maximum(0.0, np.stack([value - interval[:, 0], interval[:, 1] - value]))


def uncertainty_by_history(results: Results) -> Picture:
    """Entropy of the forecasts and NLL of what came, by the length of the history."""
    model = results.evaluations[0]
    groups = results.row(model.model)["by_history_length"]
    num_items = int(model.protocol["num_items"])
    told = ", ".join(f"{g['group']}: {g['entropy']:.2f} and {g['nll']:.2f} ({g['num_users']:,} users)" for g in groups)
    reading = (
        "By how many events the user had, above the entropy of the forecast: how uncertain the model says it is about "
        "the next item. It should fall from left to right, as events tell what a user likes; with no event the "
        "forecast is that for a stranger. Below, the NLL: how surprised it was by what came. Where it is as uncertain "
        "as it says, both are at the same height; NLL above entropy means that it was too sure. The dotted line, "
        f"{np.log(num_items):.2f} nats, is a guess among all {num_items:,} items. Bars are 95 % intervals over users, "
        f"the numbers at the points say how many users; hollow points have fewer than {MIN_USERS}."
    )
    change = _change(groups)
    title = "Uncertainty falls as history grows" if change < 0 else "Uncertainty as history grows"
    shows = f"Entropy and NLL in nats by history length: {told}." + (
        "" if np.isnan(change) else f" From the shortest to the longest histories of at least {MIN_USERS} users the "
        f"entropy {'falls' if change < 0 else 'rises'} by {abs(change):.2f} nats."
    )  # fmt: skip
    alt = f"Points with intervals of entropy and NLL in nats by history length: {told}."
    draw = partial(_draw_uncertainty, groups, float(np.log(num_items)))
    return Picture("uncertainty", title, reading, shows, alt, draw)


def _change(groups: Rows) -> float:
    """By how much the entropy changes from the first to the last large group; NaN with fewer than two of these."""
    entropies = [group["entropy"] for group in groups if group["num_users"] >= MIN_USERS]
    return float(entropies[-1] - entropies[0]) if len(entropies) > 1 else float("nan")


def _draw_uncertainty(groups: Rows, of_a_guess: float, style: Style) -> Figure:
    figure, panels = new_figure(style, 5.4, (1, 1))
    place = np.arange(len(groups), dtype=np.float64)
    named = zip(panels, ("entropy", "nll"), ("entropy of the forecast, nats", "NLL of what came, nats"), strict=True)
    for axes, key, name in named:
        value, reach = _values(groups, key)
        axes.axhline(of_a_guess, color=style.muted, ls=":", lw=1.4)
        large = _is_large(groups)
        axes.plot(place[large], value[large], color=style.colors[0], lw=1, alpha=0.5)
        axes.errorbar(place, value, yerr=reach, fmt="none", color=style.colors[0], elinewidth=1.4, capsize=2)
        _mark(axes, place, value, groups, ("o", style.colors[0], style.paper))
        for x, group, top in zip(place, groups, value + reach[1], strict=True):
            axes.annotate(_short(group["num_users"]), (x, top), xytext=(0, 4), textcoords="offset points",
                          ha="center", color=style.muted, fontsize=FONT_POINTS - 2.5)  # fmt: skip
        axes.set_xticks(place, labels=[group["group"] for group in groups], fontsize=FONT_POINTS - 2)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.06, y=0.14)
        name_axes(axes, style, "", name)
    # One scale for both, so that what is said and what came can be compared.
    limits = [bound for axes in panels for bound in axes.get_ylim()]
    for axes in panels:
        axes.set_ylim(min(limits), max(limits))
    name_axes(panels[1], style, "events in the history", "NLL of what came, nats")
    return figure


def _short(count: int) -> str:
    """A number of users in few characters.

    >>> _short(950), _short(12_345), _short(250_000)
    ('950', '12k', '250k')
    """
    return str(count) if count < 1000 else f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def coverage_by_history(results: Results) -> Picture | Absent:
    """How often the conformal sets held the item that came next, over all and by the length of the history."""
    title = "Do the sets hold what they promise?"
    row = results.table["rows"][0]
    if row[CONFORMAL] is None:
        return Absent("conformal-coverage", title, "The evaluation was made without the thresholds of the sets.")
    groups = [row | {"group": "all"}, *row["by_history_length"]]
    low, high = row[f"{CONFORMAL}_interval"]
    told = ", ".join(f"{g['group']}: {g[CONFORMAL]:.1%} ({g['num_users']:,} users)" for g in groups[1:])
    outside = [
        f"{group['group']} ({group[CONFORMAL]:.1%})"
        for group in groups[1:]
        if group["num_users"] >= MIN_USERS
        and not group[f"{CONFORMAL}_interval"][0] <= CONFORMAL_LEVEL <= group[f"{CONFORMAL}_interval"][1]
    ]
    reading = (
        f"For each query a set of items was made that should hold the next one with {CONFORMAL_LEVEL:.0%} probability, "
        "as learned on the validation part. A point is the share of test queries whose set held it, with a 95 % "
        "interval. It should lie near the dashed line, for all and for each length of history; as the validation part "
        f"is finite too, a point or two beside it is to be expected. Hollow points have fewer than "
        f"{MIN_USERS} users."
    )
    shows = (
        f"The sets held {row[CONFORMAL]:.1%} [{low:.1%}, {high:.1%}]. "
        + (f"The interval leaves {CONFORMAL_LEVEL:.0%} out in {', '.join(outside)}. " if outside else
           f"No group of at least {MIN_USERS} users has an interval that leaves {CONFORMAL_LEVEL:.0%} out. ")
        + (f"{row['repeat_targets'] / row['num_queries']:.1%} of the items that came were in the history and are not "
           "ranked, so no set could hold them. " if row["repeat_targets"] else "")
        + f"By history length, {told}."
    )  # fmt: skip
    alt = f"Points with intervals of the share of sets that held the next item: {told}; wanted {CONFORMAL_LEVEL:.0%}."
    return Picture("conformal-coverage", title, reading, shows, alt, partial(_draw_coverage, groups))


def _draw_coverage(groups: Rows, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 1.5 + 0.36 * len(groups))
    value, reach = _values(groups, CONFORMAL)
    place = np.arange(len(groups), dtype=np.float64)
    axes.axvline(CONFORMAL_LEVEL, color=style.colors[1], ls="--", lw=1.6, label=f"wanted: {CONFORMAL_LEVEL:.0%}")
    axes.errorbar(value, place, xerr=reach, fmt="none", color=style.colors[0], elinewidth=1.4, capsize=2)
    _mark(axes, value, place, groups, ("o", style.colors[0], style.paper))
    axes.plot([], [], ls="none", marker="o", ms=6, color=style.colors[0], label="held the next item")
    names = [f"{group['group']} ({_short(group['num_users'])})" for group in groups]
    axes.set_yticks(place, labels=names, fontsize=FONT_POINTS - 1.5)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    # The wide intervals of small groups leave the picture, so that the others can be read.
    lowest = np.concatenate([[0.75], value - 0.03, (value - reach[0])[_is_large(groups)] - 0.02]).min()
    axes.set_xlim(max(0.0, float(lowest)), 1.0)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(visible=False, axis="y")
    name_axes(axes, style, "share of the sets", "events in the history (users)")
    add_legend(axes, style, place="outside")
    return figure
