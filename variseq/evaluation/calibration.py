"""Measures of probabilities: Brier score, calibration error, risk-coverage, answered share, intervals of shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.ranking.calibration import NORMAL_95

NUM_BINS = 15


def brier(
    target_probability: Float[np.ndarray, " query"], sum_of_squares: Float[np.ndarray, " query"]
) -> Float[np.ndarray, " query"]:
    """Multiclass Brier score sum_i (p_i - [i is the target])^2 = sum_i p_i^2 - 2 p_target + 1.

    Source: Brier, "Verification of forecasts expressed in terms of probability" (1950).

    Args:
        target_probability: Probability of each query's target.
        sum_of_squares: sum_i p_i^2 over the catalog.

    Returns:
        A value from 0 to 2 for each query; lower is better.

    >>> brier(np.array([1.0, 0.5]), np.array([1.0, 0.5]))
    array([0. , 0.5])
    """
    score: Float[np.ndarray, " query"] = sum_of_squares - 2 * target_probability + 1
    return score


@dataclass(frozen=True, eq=False)
class Reliability:
    """Forecasts in bins of (nearly) equal mass, ordered by probability; what a reliability diagram draws."""

    mean_probability: Float[np.ndarray, " bin"]
    frequency: Float[np.ndarray, " bin"]
    num_forecasts: Int[np.ndarray, " bin"]


def equal_mass_bins(
    probability: Float[np.ndarray, " forecast"], num_bins: int = NUM_BINS
) -> Int[np.ndarray, " forecast"]:
    """The bin of each forecast: cut at quantiles; equal probabilities are never parted, so there may be fewer bins.

    >>> equal_mass_bins(np.array([0.1, 0.4, 0.2, 0.3]), num_bins=2)
    array([0, 1, 0, 1])
    """
    edges = np.quantile(probability, np.arange(1, num_bins) / num_bins, method="lower") if len(probability) else []
    return np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)[1]


def reliability(
    probability: Float[np.ndarray, " forecast"], correct: Bool[np.ndarray, " forecast"], num_bins: int = NUM_BINS
) -> Reliability:
    """Mean probability and observed frequency in each bin."""
    index = equal_mass_bins(probability, num_bins)
    count = np.bincount(index)
    return Reliability(np.bincount(index, probability) / count, np.bincount(index, correct) / count, count)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean value of the answered share of the queries, when the least confident ones are left unanswered."""

    coverage: Float[np.ndarray, " query"]
    value: Float[np.ndarray, " query"]

    @property
    def area(self) -> float:
        """Area under the curve: the mean value over all coverages (higher is better for NDCG)."""
        return float(self.value.mean())


def risk_coverage(confidence: Float[np.ndarray, " query"], value: Float[np.ndarray, " query"]) -> RiskCoverage:
    """Value (for example NDCG) at each coverage, answering the most confident queries first.

    Equal confidences count as answered in random order (each takes the mean value of its ties), so the curve does
    not depend on the order of the queries.
    Source: El-Yaniv and Wiener, "On the foundations of noise-free selective classification" (2010).

    >>> risk_coverage(np.array([0.9, 0.1]), np.array([1.0, 0.0])).value
    array([1. , 0.5])
    """
    _, tie = np.unique(-confidence, return_inverse=True)
    order = np.argsort(tie, kind="stable")
    expected = (np.bincount(tie, value) / np.bincount(tie))[tie[order]]
    count = np.arange(1, len(value) + 1)
    return RiskCoverage(count / len(value), np.cumsum(expected) / count)


def answered(uncertainty: Float[np.ndarray, " query"], share: float = 0.5) -> Float[np.ndarray, " query"]:
    """1 for the queries that are answered when only the least uncertain `share` of them is, 0 for the others.

    Of queries that are equally uncertain each is answered in part, so that their order does not matter.

    >>> answered(np.array([2.0, 1.0, 3.0, 3.0])), answered(np.ones(2))
    (array([1., 1., 0., 0.]), array([0.5, 0.5]))
    """
    _, tie, count = np.unique(uncertainty, return_inverse=True, return_counts=True)
    before = np.cumsum(count) - count
    return np.clip((math.ceil(share * len(uncertainty)) - before) / count, 0, 1)[tie]


def wilson_interval(
    share: Float[np.ndarray, " group"], count: Int[np.ndarray, " group"]
) -> tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]:
    """The 95 % interval of observed shares of `count` cases: (low, high). It is not empty where the share is 0 or 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    >>> low, high = wilson_interval(np.array([1.0]), np.array([20]))
    >>> low.round(3), high
    (array([0.839]), array([1.]))
    """
    square = NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = NORMAL_95 * np.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return np.clip(middle - reach, 0, share), np.clip(middle + reach, share, 1)
