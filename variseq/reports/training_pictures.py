"""The records of the epochs into pictures of how the model learned and whether it uses its latent."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from variseq.reports.canvas import FONT_POINTS, Picture, Style, add_legend, decimal, name_axes, new_figure
from variseq.training.diagnosis import Epochs, chosen_epoch
from variseq.training.posterior_health import (
    ACTIVE_VARIANCE,
    MIN_ACTIVE_SHARE,
    MIN_SWAP_GAP_NATS,
    POSITION_EDGES,
    range_name,
)

EDGE_OF_ACTIVE_NATS = ACTIVE_VARIANCE / 2
"""½ Var(μ): what a dimension costs at least whose mean varies just enough to count as active."""


def training_curves(epochs: Epochs, kl_target: float | None) -> Picture:
    """Losses, validation, KL and β over the epochs."""
    chosen, first, last = chosen_epoch(epochs), epochs[0], epochs[-1]
    noisy = [record["epoch"] + 1 for record in epochs if record["noise"] > 0]
    noise = f"Noise on the posteriors was turned on in epoch {noisy[0]} (shaded)" if noisy else "There was never noise"
    aim = f"steered to {kl_target:g}" if kl_target else "not steered, as β was fixed"
    reading = (
        "Each panel shares the epochs below; the dashed line is the epoch that was kept, which "
        "is the one with the best validation NDCG@10 after the noise is fully on. A training loss that falls while "
        "validation gets worse is overfitting."
    )
    shows = (
        f"Validation NDCG@10 went from {first['validation_ndcg']:.4f} to {chosen['validation_ndcg']:.4f} in epoch "
        f"{chosen['epoch'] + 1}, and ended at {last['validation_ndcg']:.4f}; validation NLL was "
        f"{chosen['validation_nll']:.2f} nats in the kept epoch (before the temperature is fitted). {noise}. The KL "
        f"ended at {last['kl']:.1f} nats per position ({aim})."
    )
    alt = (
        f"Line charts over {len(epochs)} epochs: losses, validation NDCG@10, KL and beta; "
        f"epoch {chosen['epoch'] + 1} was kept with NDCG@10 {chosen['validation_ndcg']:.4f}."
    )
    return Picture("training", "How it learned", reading, shows, alt, partial(_draw_training, epochs, kl_target))


def _draw_training(epochs: Epochs, kl_target: float | None, style: Style) -> Figure:
    figure, (loss, ndcg, kl, beta) = new_figure(style, 8.2, (1.3, 1, 1, 1))
    blue, orange = style.colors[:2]
    loss.plot(*_series(epochs, "nll"), color=blue, marker=".", label="nll (training)")
    loss.plot(*_series(epochs, "validation_nll"), color=orange, marker=".", ls="--", label="NLL (validation)")
    ndcg.plot(*_series(epochs, "validation_ndcg"), color=orange, marker=".")
    kl.plot(*_series(epochs, "kl"), color=blue, marker=".", label="kl")
    if kl_target is not None:
        kl.axhline(kl_target, color=style.muted, ls=":", label=f"target {kl_target:g}")
        add_legend(kl, style)
    at, value = _series(epochs, "beta")
    beta.plot(at, np.where(value > 0, value, np.nan), color=blue, marker=".")
    if (value > 0).any():
        beta.set_yscale("log")
        beta.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        beta.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
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
    """The same epochs across, the shade of the noise, and the line of the epoch that was kept."""
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    noisy = [record["epoch"] + 1 for record in epochs if record["noise"] > 0]
    if noisy:
        axes.axvspan(noisy[0] - 0.5, len(epochs) + 0.5, color=style.muted, alpha=0.1, lw=0)
    axes.axvline(chosen_epoch(epochs)["epoch"] + 1, color=style.ink, ls="--", lw=1)


def _series(epochs: Epochs, name: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([record["epoch"] + 1 for record in epochs]), np.array([record[name] for record in epochs], float)


def kl_by_dimension(epochs: Epochs) -> Picture:
    """KL to the prior of each dimension in the kept epoch, largest first."""
    kl = np.sort(np.array(chosen_epoch(epochs)["health"]["kl_per_dimension"]))[::-1]
    idle = int((kl < EDGE_OF_ACTIVE_NATS).sum())
    reading = (
        "One bar for each latent dimension, largest first. Its height is how far the posterior is from "
        "the prior on average, that is, how much the dimension tells. Bars near zero are dimensions that the model "
        f"gave up; one whose mean varies just enough to count as active costs {EDGE_OF_ACTIVE_NATS:g} nats (dotted)."
    )
    shows = (
        f"{len(kl)} dimensions from {kl[-1]:.2f} to {kl[0]:.2f} nats, together {kl.sum():.1f}; "
        f"{idle} lie below the line."
    )
    alt = f"Bar chart of the KL of {len(kl)} latent dimensions, from {kl[0]:.2f} down to {kl[-1]:.2f} nats."
    return Picture(
        "kl-by-dimension", "What each latent dimension tells", reading, shows, alt, partial(_draw_dimensions, kl)
    )


def _draw_dimensions(kl: np.ndarray, style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 3.2)
    axes.bar(np.arange(1, len(kl) + 1), kl, width=0.8 if len(kl) <= 80 else 1.0, color=style.colors[0], lw=0)
    axes.axhline(EDGE_OF_ACTIVE_NATS, color=style.colors[1], ls=":", lw=1.8, label="edge of active")
    axes.grid(visible=False, axis="x")
    axes.set_xlim(0.3, len(kl) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    name_axes(axes, style, "dimension, largest first", "KL to the prior, nats")
    add_legend(axes, style, place="upper right")
    return figure


def kl_by_position(epochs: Epochs) -> Picture:
    """Rate of the posteriors by how many events they have seen."""
    values = chosen_epoch(epochs)["health"]["kl_per_position"]
    names = [range_name(index) for index in range(len(POSITION_EDGES))]
    shown = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    (first_name, first), (last_name, last) = shown[0], shown[-1]
    reading = (
        "The KL of a posterior (KL summed over dimensions) after so many events; 0 is the posterior "
        "before anything is known. It should rise at first, as events say more about a user, and then level off. "
        "Groups that the watched histories do not reach are left out."
    )
    shows = f"{first:.1f} nats at position {first_name}, {last:.1f} nats at {last_name}."
    alt = "Bar chart of the KL by position: " + ", ".join(f"{name}: {value:.1f}" for name, value in shown) + " nats."
    return Picture("kl-by-position", "Posteriors along a history", reading, shows, alt, partial(_draw_positions, shown))


def _draw_positions(shown: list[tuple[str, float]], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 3.2)
    bars = axes.bar([name for name, _ in shown], [value for _, value in shown], color=style.colors[0], width=0.7)
    axes.bar_label(bars, fmt="%.1f", color=style.ink, fontsize=FONT_POINTS - 2, padding=2)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.tick_params(axis="x", labelsize=FONT_POINTS - 3)
    name_axes(axes, style, "events seen before", "KL, nats per position")
    return figure


def latent_over_epochs(epochs: Epochs) -> Picture:
    """Active units, swap gap and prior gap over the epochs, with their alarm lines."""
    health = chosen_epoch(epochs)["health"]
    alarmed = [str(record["epoch"] + 1) for record in epochs if record["alarms"]]
    reading = (
        "Above, the share of dimensions whose mean differs between histories. Below, what the "
        "next-item loss rises by when the posteriors are those of another user (swap gap) or drawn from the prior ("
        "prior gap). Near zero, the decoder does not read the posteriors. Under a dotted line the alarm goes off."
    )
    shows = (
        f"In the kept epoch: {health['active_share']:.0%} active, swap gap {health['swap_gap']:.2f} nats, "
        f"prior gap {health['prior_gap']:.2f} nats. "
        + (f"Alarms in epochs {', '.join(alarmed)}." if alarmed else "No epoch raised an alarm.")
    )
    alt = (
        f"Line charts over {len(epochs)} epochs of active units, swap gap and prior gap; in the kept epoch "
        f"{health['active_share']:.0%}, {health['swap_gap']:.2f} and {health['prior_gap']:.2f} nats."
    )
    return Picture("latent-health", "Is the latent used?", reading, shows, alt, partial(_draw_health, epochs))


def _draw_health(epochs: Epochs, style: Style) -> Figure:
    figure, (active, gaps) = new_figure(style, 4.8, (1, 1.4))
    healths = [record["health"] | {"epoch": record["epoch"]} for record in epochs]
    blue, orange, alarm = style.colors[0], style.colors[2], style.colors[1]
    active.plot(*_series(healths, "active_share"), color=blue, marker=".")
    active.axhline(MIN_ACTIVE_SHARE, color=alarm, ls=":", lw=1.8, label=f"alarm below {MIN_ACTIVE_SHARE:.0%}")
    active.set_ylim(-0.03, 1.08)
    active.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
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
