"""Membership inference: how well scores tell the people that a model was fitted on from others like them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.sequences.histories import Histories

CONFIDENCE = 0.95
FALSE_POSITIVE_RATES = (0.01, 0.05)
Interval = tuple[float, float, float]
"""A value, and the lower and upper end of its 95 % interval."""


@dataclass(frozen=True, eq=False)
class Attack:
    """The scores that an attack gave to canaries, who were put into the log or left out by coin flips.

    Args:
        name: What the attack looks at.
        score: One for each canary; higher means rather in the log.
        included: Who was in the log.

    Raises:
        InputError: When all canaries are in the log, or none.
    """

    name: str
    score: Float[np.ndarray, " canary"]
    included: Bool[np.ndarray, " canary"]

    def __post_init__(self) -> None:
        if self.included.all() or not self.included.any():
            raise InputError(
                f"All of the {len(self.included)} canaries are on one side of the coin flips, so there is nothing "
                "to compare. Take more canaries, or another seed."
            )

    def auc(self) -> Interval:
        """The probability that somebody in the log has a higher score than somebody who is not.

        Ties count half. The interval is that of DeLong et al. 1988; it has no width where the two do not overlap.
        """
        inside, outside = np.sort(self.score[self.included]), np.sort(self.score[~self.included])
        above, below = _share_below(outside, inside), _share_below(inside, outside)
        variance = sum(one.var(ddof=1) / len(one) for one in (above, below) if len(one) > 1)
        value, half = float(above.mean()), NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(np.sqrt(variance))
        return value, max(0.0, value - half), min(1.0, value + half)

    def true_positive_rate(self, false_positive_rate: float) -> Interval:
        """The share of those in the log who are found when at most this share of the others is accused.

        The interval is exact for the threshold that was used (Clopper and Pearson 1934).
        """
        outside = np.sort(self.score[~self.included])[::-1]
        threshold = outside[min(int(false_positive_rate * len(outside)), len(outside) - 1)]
        inside = self.score[self.included]
        return _with_interval(int((inside > threshold).sum()), len(inside))

    def curve(self) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
        """The receiver operating characteristic: false positive rates, ascending, and the true positive rates."""
        order = np.argsort(-self.score, kind="stable")
        included = self.included[order]
        ends = np.append(np.flatnonzero(np.diff(self.score[order])), len(order) - 1)
        of_others, of_included = (np.append(0, np.cumsum(kind)[ends]) / kind.sum() for kind in (~included, included))
        return of_others, of_included

    def to_json(self) -> dict[str, Any]:
        """AUC and true positive rates, with their intervals."""
        found = {"auc": self.auc()} | {f"tpr@{rate:g}": self.true_positive_rate(rate) for rate in FALSE_POSITIVE_RATES}
        numbers = {"num_in": int(self.included.sum()), "num_out": int((~self.included).sum())}
        metrics: dict[str, Any] = {"attack": self.name} | numbers
        for name, (value, low, high) in found.items():
            metrics |= {name: value, f"{name}_interval": [low, high]}
        return metrics


def likelihood_ratio_scores(
    loss: Float[np.ndarray, " canary"],
    shadow_loss: Float[np.ndarray, "shadow canary"],
    shadow_included: Bool[np.ndarray, "shadow canary"],
) -> Float[np.ndarray, " canary"]:
    """The likelihood ratio attack (LiRA) in its online form, with one variance for all canaries.

    The losses of a canary under fits with it and without it are taken as two normal distributions. The score is the
    logarithm of the ratio of their densities at the loss under the attacked model.
    Source: Carlini et al. 2022, "Membership inference attacks from first principles", algorithm 1.

    Args:
        loss: Of each canary under the attacked model.
        shadow_loss: The same under shadow fits; each canary is in at least two of them, and not in at least two.
        shadow_included: Which canaries each shadow fit was given.
    """
    log_density = []
    for kind in (shadow_included, ~shadow_included):
        number = kind.sum(axis=0)
        mean = np.where(kind, shadow_loss, 0).sum(axis=0) / number
        deviation = np.where(kind, shadow_loss - mean, 0)
        variance = (deviation**2).sum() / (number - 1).sum()
        log_density.append(-0.5 * (loss - mean) ** 2 / variance - 0.5 * np.log(variance))
    return log_density[0] - log_density[1]


def found_transitions(
    histories: Histories, offsets: Int[np.ndarray, " item_plus_one"], follower: Int[np.ndarray, " cell"]
) -> Float[np.ndarray, " history"]:
    """The look-up attack: which share of a person's transitions, from an item to the next, a table of counts has.

    Args:
        histories: With at least two events each.
        offsets: Where the followers of each item begin in the table.
        follower: Items that followed an item at least once.
    """
    num_items = len(offsets) - 1
    known = np.repeat(np.arange(num_items), np.diff(offsets)) * num_items + follower
    history = np.repeat(np.arange(len(histories)), histories.lengths)
    is_pair = history[:-1] == history[1:]
    pair = histories.item[:-1].astype(np.int64) * num_items + histories.item[1:]
    found = np.isin(pair[is_pair], known)
    return np.bincount(history[1:][is_pair], weights=found, minlength=len(histories)) / (histories.lengths - 1)


def _share_below(
    reference: Float[np.ndarray, " sorted"], score: Float[np.ndarray, " canary"]
) -> Float[np.ndarray, " canary"]:
    """The share of the sorted numbers that each score is above; equal ones count half."""
    counts = np.searchsorted(reference, score, "left") + np.searchsorted(reference, score, "right")
    return counts / (2 * len(reference))


def _with_interval(found: int, number: int) -> Interval:
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, found, number - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, number - found)) if found < number else 1.0
    return found / number, low, high
