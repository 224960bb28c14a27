"""A picture of attacks: who is found at which rate of false accusations, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter

from variseq.atomic import atomic_write
from variseq.privacy.attacks import Attack
from variseq.privacy.best_attack import BestAttack
from variseq.reports.style import DOTS_PER_INCH, LIGHT, LINES, add_legend, decimal, name_axes, new_figure

LEAST_RATE = 1e-3
RATES = np.geomspace(LEAST_RATE, 1, 400)


def write_attack_figure(
    file: Path, attacks: Sequence[Attack], guarantee: tuple[float, BestAttack] | None = None
) -> None:
    """Draw the receiver operating characteristic of each attack, and what a guarantee allows.

    Args:
        file: A .png or .svg; it appears whole or not at all.
        attacks: One line each.
        guarantee: ε of a private release, and the best attack that it allows, above whose curve no attack can be.
    """
    figure, (axes,) = new_figure(LIGHT, 4.4)
    for attack, color, line in zip(attacks, LIGHT.colors, LINES, strict=False):
        false_positives, true_positives = attack.curve()
        reached = true_positives[np.searchsorted(false_positives, RATES, side="right") - 1]
        axes.plot(RATES, reached, color=color, linestyle=line, linewidth=2, label=attack.name)
    if guarantee is not None:
        epsilon, best = guarantee
        most = best.true_positive_rate(RATES)
        axes.plot(RATES, most, color=LIGHT.ink, linewidth=1.4, label=f"the most that ε = {epsilon:.3g} allows")
    axes.plot(RATES, RATES, color=LIGHT.muted, linewidth=1, linestyle=":", label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(LEAST_RATE, 1), ylim=(LEAST_RATE, 1.15))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(decimal))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    name_axes(axes, LIGHT, "share of others who are accused wrongly", "share of people in the log who are found")
    add_legend(axes, LIGHT, "outside")
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:], dpi=DOTS_PER_INCH)
