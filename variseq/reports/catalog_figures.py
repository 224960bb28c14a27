"""Figures of the catalog: which items are recommended, how unequally, and which items are similar."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from variseq.evaluation.metrics import exposure
from variseq.evaluation.results import Results
from variseq.reports.style import (
    FONT_POINTS,
    LINES,
    ReportFigure,
    Style,
    add_legend,
    decimal,
    missing_figure,
    missing_note,
    name_axes,
    new_figure,
    percent,
    plain,
    style_index,
)

MAX_MAPPED_ITEMS = 2000
FEWEST_MAPPED_ITEMS = 8
NUM_COLORED = 10
OTHER, TRAINING = "other", "events in training"
MAX_SHARE_OF_ITEMS = 0.9
"""A category of more than this share of the items says nothing about any of them."""


def exposure_by_popularity(results: Results, train_count: Int[np.ndarray, " item"]) -> ReportFigure:
    """How often each item is recommended against how often it occurs in training."""
    model = results.evaluations[0]
    shown = exposure(model.top_item, len(train_count))
    row, popular, key = results.row(model.model), results.row("popular"), f"catalog_coverage@{model.k}"
    never = int((shown == 0).sum())
    how_to_read = (
        "Each dot is an item. Right: many training events. Up: many of the "
        f"{len(model.top_item):,} lists of {model.k} for the test queries (log scales; the lowest row is 0). A cloud "
        "that climbs steeply at the right means that everybody gets the popular items; a wide cloud, that rarer items "
        "are recommended, too."
    )
    finding = (
        f"{row[key]:.1%} of the catalog is in at least one list (popular: {popular[key]:.1%}). {never:,} items are "
        f"never shown. The most shown item is in {int(shown.max()):,} lists."
    )
    alt = f"Scatter of {len(shown):,} items: times recommended against training events; {never:,} are never shown."
    draw = partial(_draw_exposure, train_count, shown)
    return ReportFigure("exposure", "Which items are recommended", how_to_read, finding, alt, draw)


def _draw_exposure(count: Int[np.ndarray, " item"], shown: Int[np.ndarray, " item"], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 4.2)
    size = float(np.clip(6000 / len(count), 5, 28))
    # Many items share the same small counts: a little jitter, always the same, keeps them apart.
    jitter = np.random.default_rng(0).uniform(-0.12, 0.12, size=(2, len(count)))
    across, up = (np.maximum(values, 0.5) * 2**j for values, j in zip((count, shown), jitter, strict=True))
    axes.scatter(across, up, s=size, color=style.colors[0], alpha=0.55, lw=0)
    for axis, scale, limit, values in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim, count),
        (axes.yaxis, axes.set_yscale, axes.set_ylim, shown),
    ):
        scale("log")
        ends = 0.4 if values.min() == 0 else float(values.min()) / 1.5, max(2.0, float(values.max())) * 1.5
        ticks = [0.5, *(digit * 10.0**power for power in range(8) for digit in (1, 3))]
        shown_ticks = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
        axis.set_ticks(shown_ticks, labels=["0" if tick < 1 else decimal(tick) for tick in shown_ticks])
        axis.set_ticks([], minor=True)
        limit(*ends)
    name_axes(axes, style, "events in training", "lists with the item")
    return figure


def exposure_inequality(results: Results, train_count: Int[np.ndarray, " item"]) -> ReportFigure:
    """Lorenz curves of exposure: how unequally the items are recommended."""
    model = results.evaluations[0]
    compared = [model, results["popular"], results["item-knn"]]
    drawn = {one.model: exposure(one.top_item, len(train_count)) for one in compared}
    numbers = ", ".join(f"{name} {results.row(name)[f'gini@{model.k}']:.3f}" for name in drawn)
    shown = drawn[model.model]
    top_tenth = np.sort(shown)[::-1][: max(1, len(train_count) // 10)].sum() / max(1, shown.sum())
    how_to_read = (
        "The items are sorted from the least to the most recommended. The curve is the cumulative share of all list "
        "positions. On the diagonal every item has the same share; the further below, the fewer items have most of the "
        "positions. The Gini index measures this distance (0 equal, 1 one item has all)."
    )
    finding = (
        f"Gini index: {numbers}. The model's most recommended tenth of the items has {top_tenth:.0%} of positions."
    )
    alt = f"Lorenz curves of how often items are recommended; Gini index: {numbers}."
    draw = partial(_draw_lorenz, drawn | {TRAINING: train_count})
    return ReportFigure("inequality", "Inequality of exposure", how_to_read, finding, alt, draw)


def _draw_lorenz(counts: dict[str, Int[np.ndarray, " item"]], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 4.2)
    axes.plot([0, 1], [0, 1], color=style.muted, ls="--", lw=1, label="all equal")
    for name, count in counts.items():
        summed = np.concatenate([[0], np.cumsum(np.sort(count))]) / max(1, count.sum())
        index = style_index(name)
        color, line = (style.muted, ":") if name == TRAINING else (style.colors[index], LINES[index])
        axes.plot(np.linspace(0, 1, len(summed)), summed, color=color, ls=line, lw=2, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    name_axes(axes, style, "items, least recommended first", "share of the list positions")
    add_legend(axes, style, "upper left")
    return figure


FIGURES = (exposure_by_popularity, exposure_inequality)


def item_map(
    vectors: Float[np.ndarray, "item hidden"],
    train_count: Int[np.ndarray, " item"] | None,
    categories: list[tuple[str, ...]] | None,
) -> ReportFigure:
    """The vectors of the most popular items on a plane, colored by main category."""
    title = "A map of the items"
    chosen = np.arange(len(vectors)) if train_count is None else np.argsort(-train_count, kind="stable")
    chosen = np.sort(chosen[:MAX_MAPPED_ITEMS])
    if len(chosen) < FEWEST_MAPPED_ITEMS:
        reason = f"A map needs at least {FEWEST_MAPPED_ITEMS} items; there are {len(chosen)}."
        return missing_figure("item-map", title, reason)
    main = None if categories is None else main_categories([categories[item] for item in chosen])
    legend = [(name, count) for name, count in Counter(main or []).most_common() if name != OTHER][:NUM_COLORED]
    kept = {name for name, _ in legend}
    group = [name if name in kept else OTHER for name in main or [OTHER] * len(chosen)]
    point = on_a_plane(vectors[chosen])
    colors = (
        f"colored by their first category (the {len(legend)} most frequent, the rest grey)"
        if legend
        else "in one color, as the run has no categories"
    )
    which = "All" if len(chosen) == len(vectors) else "The most popular"
    how_to_read = (
        f"{which} {len(chosen):,} items, {colors}. Items with similar vectors (cosine) are neighbors on the map. The "
        f"axes and large distances have no meaning.{missing_note(kept)}"
    )
    finding = _neighbors(point, group) if legend else "Neighbors on the map are similar items for the model."
    alt = f"Map of {len(chosen):,} items. {finding}"
    draw = partial(_draw_map, point, np.array(group, dtype=object), legend)
    return ReportFigure("item-map", title, how_to_read, finding, alt, draw)


def main_categories(categories: list[tuple[str, ...]]) -> list[str]:
    """The first category of each item that is not on (nearly) all items; "other" where there is none.

    >>> main_categories([("shop", "toys"), ("shop", "books"), ("shop",)])
    ['toys', 'books', 'other']
    """
    having = Counter(name for names in categories for name in set(names))
    common = {name for name, count in having.items() if count > MAX_SHARE_OF_ITEMS * len(categories)}
    return [next((name for name in names if name not in common), OTHER) for names in categories]


def on_a_plane(vectors: Float[np.ndarray, "item hidden"]) -> Float[np.ndarray, "item 2"]:
    """Directions of vectors by PCA and t-SNE (van der Maaten and Hinton 2008); the same each time."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    num_components = min(30, *directions.shape)
    reduced = PCA(num_components, random_state=0).fit_transform(directions.astype(np.float64))
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, max_iter=500, random_state=0)
    point: Float[np.ndarray, "item 2"] = tsne.fit_transform(reduced)
    return point


def _neighbors(point: Float[np.ndarray, "item 2"], group: list[str]) -> str:
    """How often the nearest item on the map is of the same category, against chance."""
    from sklearn.neighbors import NearestNeighbors

    named = np.array([name != OTHER for name in group])
    code = np.unique(np.array(group, dtype=object)[named], return_inverse=True)[1]
    if len(code) < 2:
        return "Too few items have a category to compare neighbors."
    nearest = NearestNeighbors(n_neighbors=1).fit(point[named]).kneighbors(return_distance=False)[:, 0]
    share = np.bincount(code) / len(code)
    return (
        f"The nearest colored neighbor has the same color for {(code[nearest] == code).mean():.0%} of the "
        f"colored items; by chance it would be {(share**2).sum():.0%}."
    )


def _draw_map(
    point: Float[np.ndarray, "item 2"], group: np.ndarray, named: list[tuple[str, int]], style: Style
) -> Figure:
    figure, (axes,) = new_figure(style, 5.6 if named else 4.6)
    axes.set_axis_off()
    size = float(np.clip(12000 / len(point), 10, 40))
    rest = point[group == OTHER]
    color = style.muted if named else style.colors[0]
    axes.scatter(rest[:, 0], rest[:, 1], s=size * 0.7, lw=0, alpha=0.6, color=color)
    handles, labels = [], []
    for index, (name, count) in enumerate(named):
        # Five colors in two shapes: few people can distinguish ten hues.
        marker, color = "o^"[index // len(style.colors)], style.colors[index % len(style.colors)]
        inside = point[group == name]
        axes.scatter(inside[:, 0], inside[:, 1], s=size, marker=marker, color=color, alpha=0.85, lw=0)
        handles.append(axes.scatter([], [], s=40, marker=marker, color=color, lw=0))
        labels.append(f"{plain(name, 18)} ({count:,})")
    if handles:
        if len(rest):
            handles.append(axes.scatter([], [], s=30, color=style.muted))
            labels.append(f"{OTHER} ({len(rest):,})")
        # Numbers first and the names after: matplotlib gives a meaning to a label that begins with "_".
        legend = figure.legend(handles, list(map(str, range(len(handles)))), loc="outside lower center", ncols=3,
                               frameon=False, fontsize=FONT_POINTS - 2, labelcolor=style.ink,
                               handletextpad=0.1, columnspacing=0.8)  # fmt: skip
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)
    return figure
