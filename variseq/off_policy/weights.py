"""Importance weights of logged lists, and whether a mean under them can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import TargetProbabilities

Kind = Literal["item", "cascade", "whole list"]
LEAST_EFFECTIVE_SAMPLE = 100
LARGEST_SHARE = 0.1
MOST_STANDARD_ERRORS = 3.0
SAME_WEIGHT = 1e-3
"""A mean weight so near to 1 is no reason to refuse: an export of a run has scores that differ by rounding."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The target's probability over the propensity. Pinned rows are in both lists: they have weight 1, or no effect.

    Args:
        kind: "item": of an item to be in the list. "cascade": of the list down to its rank. "whole list": of all of it.
        row: The weight of each row.
    """

    kind: Kind
    row: Float[np.ndarray, " row"]


def importance_weights(lists: LoggedLists, target: TargetProbabilities) -> list[Weights]:
    """The weights of each kind, as far as propensities and probabilities of the target are known for them.

    For lists of one item all kinds are the same, so there is the first one only.
    """
    log = lists.exposures
    in_list = np.where(log.is_pinned, 1.0, target.in_list / log.propensity_in_list)
    at_rank = np.where(log.is_pinned, 1.0, target.at_rank / log.propensity_at_rank)
    found = [Weights("item", in_list)]
    if lists.lengths.max(initial=0) > 1 and not np.isnan(at_rank).any():
        cascade = at_rank.copy()
        for index in range(1, int(lists.lengths.max(initial=0))):
            row = log.offsets[:-1][lists.lengths > index] + index
            cascade[row] *= cascade[row - 1]
        last = np.concatenate([cascade, [1.0]])[log.offsets[1:] - 1]
        found += [Weights("cascade", cascade), Weights("whole list", last[log.row_exposure])]
    return found


@dataclass(frozen=True)
class WeightDiagnostics:
    """What tells whether a mean under weights can be trusted. Pinned rows are left out.

    Args:
        kind: Of the weights.
        mean: The mean weight of an exposure. It is 1 if propensities are right and the target's lists have support.
        standard_error: Of the mean, over people.
        num_exposures: How many exposures there are.
        effective_sample: How many exposures of equal weights are as good as these (Kish, 1965). Rows are counted, for a
            reward has the weight of its row; the number is over the mean number of rows.
        effective_rewards: The same of rows with a reward, by weight times reward.
        largest_share: Share of the largest weight in the sum of all.
        smallest_propensity: The smallest probability that the logging policy gave to anything logged.
        without_overlap: Share of exposures in which the target puts nothing that was shown.
    """

    kind: Kind
    mean: float
    standard_error: float
    num_exposures: int
    effective_sample: float
    effective_rewards: float
    largest_share: float
    smallest_propensity: float
    without_overlap: float

    @property
    def refusal(self) -> str | None:
        """Why nothing can be concluded with these weights; None: something can."""
        reach = MOST_STANDARD_ERRORS * self.standard_error
        if abs(self.mean - 1) > reach + SAME_WEIGHT:
            return (
                f"The mean weight is {self.mean:.3g} ± {reach:.2g}, and it should be 1. The propensities are wrong, or "
                "the target policy shows what the logging policy never did."
            )
        if self.largest_share > LARGEST_SHARE:
            return (
                f"One weight is {self.largest_share:.0%} of the sum of all, and at most {LARGEST_SHARE:.0%} are "
                "allowed. The estimate would rest on one row."
            )
        if self.effective_sample < LEAST_EFFECTIVE_SAMPLE:
            return (
                f"The effective sample is {self.effective_sample:.0f} of {self.num_exposures:,} lists, and at "
                f"least {LEAST_EFFECTIVE_SAMPLE} are needed. The policies differ too much for this log."
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """All numbers, and the refusal."""
        return {name: value for name, value in vars(self).items() if name != "kind"} | {"refusal": self.refusal}


def diagnose(lists: LoggedLists, weights: Weights) -> WeightDiagnostics:
    """Diagnostics of one kind of weights."""
    log, is_free = lists.exposures, ~lists.exposures.is_pinned
    num_free = lists.per_exposure(is_free.astype(float))
    of_list = lists.per_exposure(np.where(is_free, weights.row, 0.0))
    # Of an exposure without a drawn item the weight is 1: both policies agree.
    of_exposure = np.divide(of_list, num_free, out=np.ones_like(of_list), where=num_free > 0)
    counted = _counted(lists, weights.kind, is_free)
    single = weights.row[counted]
    of_user = np.bincount(lists.user, weights=of_exposure - of_exposure.mean(), minlength=lists.num_users)
    num_users = lists.num_users
    spread = math.sqrt(float((of_user**2).sum()) * num_users / max(num_users - 1, 1))
    reward = log.reward if weights.kind != "whole list" else lists.per_exposure(log.reward)[log.row_exposure]
    return WeightDiagnostics(
        kind=weights.kind,
        mean=float(of_exposure.mean()),
        standard_error=spread / len(of_exposure),
        num_exposures=len(of_exposure),
        effective_sample=effective_sample(single) * len(of_exposure) / max(len(single), 1),
        effective_rewards=effective_sample(single * reward[counted]),
        largest_share=float(single.max(initial=0.0) / max(single.sum(), 1e-300)),
        smallest_propensity=_smallest_propensity(lists, weights.kind),
        without_overlap=float((of_exposure == 0).mean()),
    )


def effective_sample(weight: Float[np.ndarray, " row"]) -> float:
    """Kish's effective sample size, (Σw)² / Σw²; 0 where all weights are 0.

    >>> effective_sample(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    largest = np.abs(weight).max(initial=0.0)
    if largest == 0:
        return 0.0
    scaled = weight / largest
    return float(np.abs(scaled).sum() ** 2 / (scaled**2).sum())


def _counted(lists: LoggedLists, kind: Kind, is_free: Bool[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """The rows that have a weight of their own: those that were drawn, of a whole list the last one."""
    if kind != "whole list":
        return is_free
    last = np.zeros_like(is_free)
    last[lists.exposures.offsets[1:][lists.lengths > 0] - 1] = True
    return last


def _smallest_propensity(lists: LoggedLists, kind: Kind) -> float:
    log = lists.exposures
    if kind == "item":
        return float(log.propensity_in_list[~log.is_pinned].min(initial=1.0))
    at_rank = np.where(log.is_pinned, 1.0, log.propensity_at_rank)
    if kind == "cascade":
        return float(at_rank.min(initial=1.0))
    return float(np.exp(lists.per_exposure(np.log(at_rank)).min(initial=0.0)))
