"""The probability that the next visit holds an item, from the probability that an event of it has the item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from variseq.sequences.histories import Histories

NUM_KNOTS = 20
FEWEST_HITS = 50
"""A knot is the mean over as many items that were in a visit, or more."""
SMALLEST = 1e-37


@dataclass(frozen=True)
class VisitProbability:
    """P(item in the next visit) as a rising function of the expected count s · p, fitted on validation.

    p is the probability that one event of the visit has the item. s is the mean number of items of the visits so far,
    to which one visit of `mean_size` is added. Between knots log P is linear in log(s · p). Below the first P is
    proportional to s · p, as it is for rare items under any law; above the last it is constant.

    Args:
        log_count: log(s · p) of each knot, ascending.
        log_probability: log P there; never falls.
        mean_size: Mean number of items of a visit of the log.
    """

    log_count: tuple[float, ...] = (0.0,)
    log_probability: tuple[float, ...] = (0.0,)
    mean_size: float = 1.0

    @classmethod
    def fit(
        cls,
        p: Float[np.ndarray, "visit item"],
        is_in: Bool[np.ndarray, "visit item"],
        histories: Histories,
        mean_size: float,
    ) -> VisitProbability:
        """From p of every item for some visits, the items that were in them, and the histories before.

        Items are sorted by s · p and cut so that as many in each bin were in a visit; the share of these is P of the
        bin, at the mean of s · p. Where a share falls, that of the bin before is taken.
        """
        count = (p * np.exp(cls(mean_size=mean_size).log_sizes(histories))[:, None]).ravel()
        order = np.argsort(count, kind="stable")
        count, hits = count[order].astype(np.float64), np.cumsum(is_in.ravel()[order])
        num_bins = int(np.clip(hits[-1] // FEWEST_HITS, 1, NUM_KNOTS))
        ends = np.searchsorted(hits, np.arange(1, num_bins + 1) * hits[-1] / num_bins) + 1
        ends[-1] = len(count)
        starts = np.append(0, ends[:-1])
        hits, count = np.append(0, hits), np.append(0.0, np.cumsum(count))
        share = np.maximum.accumulate(np.maximum(hits[ends] - hits[starts], 0.5) / (ends - starts))
        log_count = np.log(np.maximum((count[ends] - count[starts]) / (ends - starts), SMALLEST))
        x, y = (tuple(round(float(one), 4) for one in column) for column in (log_count, np.log(share)))
        return cls(x, y, round(mean_size, 4))

    def probability(self, p: Float[np.ndarray, "history k"], histories: Histories) -> Float[np.ndarray, "history k"]:
        """The probability that the next visit of each history holds some items.

        >>> VisitProbability().probability(np.array([[0.5, 0.1]]), Histories.of_items([[3, 1]]))
        array([[0.5, 0.1]])
        """
        log_count = np.log(np.maximum(p, SMALLEST)) + self.log_sizes(histories)[:, None]
        below = np.minimum(log_count - self.log_count[0], 0.0)
        return np.exp(np.interp(log_count, self.log_count, self.log_probability) + below)

    def log_sizes(self, histories: Histories) -> Float[np.ndarray, " history"]:
        """log s of each history."""
        num_items = histories.distinct_in_visits().lengths
        return np.log((num_items + self.mean_size) / (histories.visits.lengths + 1))
