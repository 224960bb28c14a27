"""Figures of training and of the latent: loss curves, KL by dimension and position, health, attention weights."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from variseq.artifacts.checkpoint import Checkpoint
from variseq.evaluation.groups import length_names
from variseq.model.network import Network
from variseq.reports.style import (
    FONT_POINTS,
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
)
from variseq.sequences.batches import make_batch, query_windows
from variseq.sequences.histories import Histories
from variseq.training.diagnosis import Epochs, chosen_epoch
from variseq.training.posterior_health import (
    ACTIVE_VARIANCE,
    MIN_ACTIVE_SHARE,
    MIN_SWAP_GAP_NATS,
)

EDGE_OF_ACTIVE_NATS = ACTIVE_VARIANCE / 2
"""½ Var(μ): the least cost of a dimension whose mean varies just enough to count as active."""
NUM_SHOWN = 20
FEWEST_EVENTS, MOST_EVENTS = 15, 25


def training_curves(epochs: Epochs, kl_target: float | None) -> ReportFigure:
    """Losses, validation, KL and β over the epochs."""
    chosen, first, last = chosen_epoch(epochs), epochs[0], epochs[-1]
    noisy = [record["epoch"] + 1 for record in epochs if record["noise"] > 0]
    noise = f"Posterior noise starts in epoch {noisy[0]} (shaded)" if noisy else "No epoch has posterior noise"
    target = f"target {kl_target:g}" if kl_target else "no target, as β was fixed"
    how_to_read = (
        "The panels share the epochs. The dashed line is the chosen epoch: the best validation NDCG@10 after the noise "
        "is fully on. A training loss that falls while validation gets worse is overfitting."
    )
    finding = (
        f"Validation NDCG@10 is {first['validation_ndcg']:.4f} in the first epoch, {chosen['validation_ndcg']:.4f} in "
        f"the chosen epoch {chosen['epoch'] + 1} and {last['validation_ndcg']:.4f} in the last. Validation NLL is "
        f"{chosen['validation_nll']:.2f} nats in the chosen epoch (before calibration). {noise}. The last KL is "
        f"{last['kl']:.1f} nats per position ({target})."
    )
    alt = (
        f"Line charts over {len(epochs)} epochs: losses, validation NDCG@10, KL and beta; "
        f"epoch {chosen['epoch'] + 1} was chosen with NDCG@10 {chosen['validation_ndcg']:.4f}."
    )
    draw = partial(_draw_training, epochs, kl_target)
    return ReportFigure("training", "Training curves", how_to_read, finding, alt, draw)


def _draw_training(epochs: Epochs, kl_target: float | None, style: Style) -> Figure:
    figure, (loss, ndcg, kl, beta) = new_figure(style, 8.2, (1.3, 1, 1, 1))
    blue, orange = style.colors[:2]
    loss.plot(*_series(epochs, "nll"), color=blue, marker=".", label="NLL (training)")
    loss.plot(*_series(epochs, "validation_nll"), color=orange, marker=".", ls="--", label="NLL (validation)")
    ndcg.plot(*_series(epochs, "validation_ndcg"), color=orange, marker=".")
    kl.plot(*_series(epochs, "kl"), color=blue, marker=".", label="KL")
    if kl_target is not None:
        kl.axhline(kl_target, color=style.muted, ls=":", label=f"target {kl_target:g}")
        add_legend(kl, style)
    at, value = _series(epochs, "beta")
    beta.plot(at, np.where(value > 0, value, np.nan), color=blue, marker=".")
    if (value > 0).any():
        beta.set_yscale("log")
        beta.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        beta.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}")
        beta.yaxis.set_minor_locator(NullLocator())
    name_axes(loss, style, "", "loss, nats per position")
    name_axes(ndcg, style, "", "validation NDCG@10")
    name_axes(kl, style, "", "KL, nats per position")
    name_axes(beta, style, "epoch", "β, the weight of the KL (log scale; 0 is not drawn)")
    for axes in (loss, ndcg, kl, beta):
        _mark_epochs(axes, epochs, style)
    add_legend(loss, style)
    return figure


def _mark_epochs(axes: Axes, epochs: Epochs, style: Style) -> None:
    """The same epochs across, the shade of the noise, and the line of the chosen epoch."""
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    noisy = [record["epoch"] + 1 for record in epochs if record["noise"] > 0]
    if noisy:
        axes.axvspan(noisy[0] - 0.5, len(epochs) + 0.5, color=style.muted, alpha=0.1, lw=0)
    axes.axvline(chosen_epoch(epochs)["epoch"] + 1, color=style.ink, ls="--", lw=1)


def _series(epochs: Epochs, name: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([record["epoch"] + 1 for record in epochs]), np.array([record[name] for record in epochs], float)


def kl_by_dimension(epochs: Epochs) -> ReportFigure:
    """KL to the prior of each dimension in the chosen epoch, largest first."""
    kl = np.sort(np.array(chosen_epoch(epochs)["health"]["kl_per_dimension"]))[::-1]
    num_inactive = int((kl < EDGE_OF_ACTIVE_NATS).sum())
    how_to_read = (
        "One bar for each latent dimension, largest first: the mean KL divergence of the posterior from the prior. "
        f"Bars near zero carry no information. A barely active one costs {EDGE_OF_ACTIVE_NATS:g} nats (dotted line)."
    )
    finding = (
        f"{len(kl)} dimensions from {kl[-1]:.2f} to {kl[0]:.2f} nats, together {kl.sum():.1f}; "
        f"{num_inactive} lie below the line."
    )
    alt = f"Bar chart of the KL of {len(kl)} latent dimensions, from {kl[0]:.2f} down to {kl[-1]:.2f} nats."
    draw = partial(_draw_dimensions, kl)
    return ReportFigure("kl-by-dimension", "KL of each latent dimension", how_to_read, finding, alt, draw)


def _draw_dimensions(kl: np.ndarray, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 3.2)
    axes.bar(np.arange(1, len(kl) + 1), kl, width=0.8 if len(kl) <= 80 else 1.0, color=style.colors[0], lw=0)
    axes.axhline(EDGE_OF_ACTIVE_NATS, color=style.colors[1], ls=":", lw=1.8, label="edge of active")
    axes.grid(visible=False, axis="x")
    axes.set_xlim(0.3, len(kl) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    name_axes(axes, style, "dimension, largest first", "KL to the prior, nats")
    add_legend(axes, style, "upper right")
    return figure


def kl_by_position(epochs: Epochs) -> ReportFigure:
    """KL of the posteriors by the number of events before them."""
    values = chosen_epoch(epochs)["health"]["kl_per_position"]
    shown = [(name, value) for name, value in zip(length_names(), values, strict=True) if value is not None]
    (first_name, first), (last_name, last) = shown[0], shown[-1]
    how_to_read = (
        "The KL of a posterior (summed over dimensions) after so many events; at 0 nothing is known of the user. It "
        "should rise with the first events and then level off. Groups without a history are left out."
    )
    finding = f"{first:.1f} nats at position {first_name}, {last:.1f} nats at {last_name}."
    alt = "Bar chart of the KL by position: " + ", ".join(f"{name}: {value:.1f}" for name, value in shown) + " nats."
    draw = partial(_draw_positions, shown)
    return ReportFigure("kl-by-position", "KL along a history", how_to_read, finding, alt, draw)


def _draw_positions(shown: list[tuple[str, float]], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 3.2)
    bars = axes.bar([name for name, _ in shown], [value for _, value in shown], color=style.colors[0], width=0.7)
    axes.bar_label(bars, fmt="%.1f", color=style.ink, fontsize=FONT_POINTS - 2, padding=2)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.tick_params(axis="x", labelsize=FONT_POINTS - 3)
    name_axes(axes, style, "events seen before", "KL, nats per position")
    return figure


def latent_over_epochs(epochs: Epochs) -> ReportFigure:
    """Active units, swap gap and prior gap over the epochs, with their alarm lines."""
    health = chosen_epoch(epochs)["health"]
    alarmed = [str(record["epoch"] + 1) for record in epochs if record["alarms"]]
    how_to_read = (
        "Above: the share of dimensions whose mean differs between histories. Below: the rise of the next-item loss "
        "with the posteriors of another user (swap gap) or with samples of the prior (prior gap). Near zero the "
        "decoder ignores the posteriors. Values under a dotted line raise an alarm."
    )
    finding = (
        f"In the chosen epoch: {health['active_share']:.0%} active, swap gap {health['swap_gap']:.2f} nats, "
        f"prior gap {health['prior_gap']:.2f} nats. "
        + (f"Alarms in epochs {', '.join(alarmed)}." if alarmed else "No epoch raised an alarm.")
    )
    alt = (
        f"Line charts over {len(epochs)} epochs of active units, swap gap and prior gap; in the chosen epoch "
        f"{health['active_share']:.0%}, {health['swap_gap']:.2f} and {health['prior_gap']:.2f} nats."
    )
    draw = partial(_draw_health, epochs)
    return ReportFigure("latent-health", "Is the latent used?", how_to_read, finding, alt, draw)


def _draw_health(epochs: Epochs, style: Style) -> Figure:
    figure, (active, gaps) = new_figure(style, 4.8, (1, 1.4))
    healths = [record["health"] | {"epoch": record["epoch"]} for record in epochs]
    blue, orange, alarm = style.colors[0], style.colors[2], style.colors[1]
    active.plot(*_series(healths, "active_share"), color=blue, marker=".")
    active.axhline(MIN_ACTIVE_SHARE, color=alarm, ls=":", lw=1.8, label=f"alarm below {MIN_ACTIVE_SHARE:.0%}")
    active.set_ylim(-0.03, 1.08)
    active.yaxis.set_major_formatter(percent)
    gaps.plot(*_series(healths, "swap_gap"), color=blue, marker="o", ms=4, label="swap gap")
    gaps.plot(*_series(healths, "prior_gap"), color=orange, marker="^", ms=4, ls="--", label="prior gap")
    gaps.axhline(MIN_SWAP_GAP_NATS, color=alarm, ls=":", lw=1.8, label=f"alarm: swap gap below {MIN_SWAP_GAP_NATS}")
    gaps.yaxis.set_major_formatter(decimal)
    name_axes(active, style, "", "active dimensions")
    name_axes(gaps, style, "epoch", "rise of the loss, nats")
    for axes in (active, gaps):
        _mark_epochs(axes, epochs, style)
        add_legend(axes, style)
    return figure


LATENT_FIGURES = (latent_over_epochs, kl_by_dimension, kl_by_position)


def example_user(lengths: Int[np.ndarray, " user"]) -> int:
    """The first user with 15 to 25 events; if there is none, the first whose length is nearest to 20.

    >>> example_user(np.array([3, 40, 17, 20]))
    2
    """
    fitting = np.flatnonzero((lengths >= FEWEST_EVENTS) & (lengths <= MOST_EVENTS))
    return int(fitting[0]) if len(fitting) else int(np.argmin(np.abs(lengths - NUM_SHOWN)))


@torch.no_grad()
def attention_at_every_event(network: Network, history: Histories) -> Float[np.ndarray, "query key"]:
    """a_ti of one history for all of its tokens in the network's window; the last rows and columns are its events.

    Of an ensemble the mean of all members' weights.
    """
    network.eval()
    windows = query_windows(history, network.config.max_seq_len)
    batch = make_batch(history, windows, np.arange(1), network.config.num_items).to(network.item_bias.device)
    memory = batch.layout.unpack(network.encode(batch).mean)
    position = torch.arange(batch.layout.longest, device=memory.device).unsqueeze(0)
    members = network.members()
    parts = zip(members, memory.chunk(len(members), dim=2), strict=True)
    weights = [decoder.attention.weights(part, part, position)[0] for (_, _, decoder), part in parts]
    return torch.stack(weights).mean(dim=0).cpu().numpy()


def attention_heatmap(checkpoint: Checkpoint, names: list[str]) -> ReportFigure:
    """The attention weights along the history of one user; `names` has the title (or id) of every item."""
    title = "Attention along a history"
    if checkpoint.histories is None:
        return missing_figure("attention", title, "The run was saved without histories, so there is no user to show.")
    user = example_user(checkpoint.histories.visits.lengths)
    history = checkpoint.histories.history(user)
    # Without visits each event is one.
    visits, what = history.visits, "events" if history.visit_gap is None else "visits"
    num_shown = min(NUM_SHOWN, len(visits), checkpoint.network.config.max_seq_len)
    if num_shown < 2:
        return missing_figure("attention", title, f"No user has two {what}, so there are no weights to show.")
    weights = attention_at_every_event(checkpoint.network, history)[-num_shown:]
    seen = weights[:, -num_shown:]
    # The weight of the start token and of events before those shown is the first column, so that rows sum to 1.
    shown = np.concatenate([weights[:, :-num_shown].sum(axis=1, keepdims=True), seen], axis=1)
    first = np.arange(len(visits) - num_shown, len(visits))
    begins, others = visits.begin(first), visits.size(first) - 1
    events = [
        f"{names[item]} +{more}" if more else names[item]
        for item, more in zip(history.item[begins].tolist(), others.tolist(), strict=True)
    ]
    user_id = str(checkpoint.vocabulary.user_ids([user])[0])
    how_to_read = (
        f"The latest {num_shown} of {len(visits)} {what} of user {user_id}, oldest first. A row is the moment after "
        f"one of them. Its cells are the attention weights of the {what} up to there (rows sum to 1). The first column "
        f"is the weight of the start and of the {what} before those shown. Early rows share the weight among fewer "
        f"{what}.{'' if history.visit_gap is None else ' A visit is named by one item, with the number of the others.'}"
        f"{missing_note(events)}"
    )
    finding = _strongest(shown[-1], events, what)
    alt = f"Heatmap of attention weights over the latest {num_shown} {what} of user {user_id}."
    return ReportFigure("attention", title, how_to_read, finding, alt, partial(_draw_attention, shown, events, what))


def _strongest(last: Float[np.ndarray, " key"], events: list[str], what: str) -> str:
    """The strongest weight at the latest event or visit, and how widely the weight is spread."""
    strongest = int(last[1:].argmax())
    back = len(events) - 1 - strongest
    # Perplexity: how many columns would share the weight if it were spread equally over them.
    spread = float(np.exp(-(last[last > 0] * np.log(last[last > 0])).sum()))
    return (
        f"At the latest {what[:-1]}, “{events[strongest]}” has the largest weight ({last[1:][strongest]:.0%}); it is "
        f"{'that one itself' if back == 0 else f'{back} {what} back'}. The first column has {last[0]:.0%}. The "
        f"perplexity of the weights is {spread:.1f} of {len(last)} columns."
    )


def _draw_attention(shown: Float[np.ndarray, "query key"], events: list[str], what: str, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 6.6)
    num_shown = len(events)
    later = np.arange(num_shown + 1) > np.arange(1, num_shown + 1)[:, None]
    colors = LinearSegmentedColormap.from_list("weights", [style.grid, style.colors[0], style.ink])
    # The square root keeps weights distinct in the late rows, where many events share them.
    image = axes.imshow(
        np.ma.masked_where(later, shown), cmap=colors, norm=PowerNorm(0.5, 0, float(shown.max())), aspect="auto"
    )
    small = FONT_POINTS - 3
    labels = [plain(name, 20) for name in events]
    axes.set_yticks(np.arange(num_shown), labels=labels, fontsize=small, color=style.ink)
    across = ["start, earlier", *labels]
    axes.set_xticks(np.arange(num_shown + 1), labels=across, rotation=90, fontsize=small, color=style.ink)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", fraction=0.03, pad=0.02, aspect=40)
    bar.set_ticks([tick for tick in (0, 0.01, 0.05, 0.15, 0.3, 0.5, 0.75, 1) if tick <= float(shown.max())])
    bar.ax.tick_params(colors=style.muted, labelsize=small)
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_formatter(percent)
    bar.set_label("attention weight", color=style.ink, fontsize=FONT_POINTS - 1)
    name_axes(axes, style, f"weight of this {what[:-1]}", "")
    axes.set_ylabel(f"after this {what[:-1]}", color=style.ink, fontsize=FONT_POINTS)
    return figure
