"""What is counted in the log, without torch: what followed the last item of a history, and the trend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.artifacts.bundle import Tables
from variseq.sequences.histories import Histories

PRIOR_EVENTS = 100.0
"""As in `LastItemTransitions`, whose counts these are."""


@dataclass(frozen=True, eq=False)
class Followers:
    """What followed the last item of each history: cells (row, item) with a count, and the total of each row."""

    total: Float[np.ndarray, " history"]
    row: Int[np.ndarray, " cell"]
    item: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]

    def share(
        self, item: Int[np.ndarray, "history k"], prior: Float[np.ndarray, "history k"]
    ) -> Float[np.ndarray, "history k"]:
        """The smoothed share of some items among what followed; `prior` is what popularity counts for each."""
        counted = np.zeros(item.shape)
        if len(self.item):
            num_items = max(int(self.item.max()), int(item.max())) + 1
            pair = self.row * num_items + self.item
            order = np.argsort(pair, kind="stable")
            wanted = np.arange(len(item))[:, None] * num_items + item
            found = order[np.searchsorted(pair, wanted, sorter=order).clip(max=len(pair) - 1)]
            counted = np.where(pair[found] == wanted, self.count[found], 0.0)
        shares: Float[np.ndarray, "history k"] = (counted + prior) / (self.total + PRIOR_EVENTS)[:, None]
        return shares


class Memory:
    """Counted transitions, smoothed by the popularity of the items, and what was popular of late."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.prior = (PRIOR_EVENTS * np.exp(tables.log_share.astype(np.float64))).astype(np.float32)
        self.trend = np.exp(tables.log_trend)
        """p of every item."""
        self.by_trend = np.argsort(-self.trend, kind="stable")

    def followers(self, histories: Histories) -> Followers:
        """Those of the last item of each history."""
        tables, known = self.tables, np.flatnonzero(histories.lengths)
        last_item = histories.item[histories.offsets[known + 1] - 1]
        start, lengths = tables.offsets[last_item], tables.offsets[last_item + 1] - tables.offsets[last_item]
        row = np.repeat(known, lengths)
        index = np.arange(len(row)) + np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
        count = tables.count[index]
        # Without any cell numpy counts in integers.
        total = np.bincount(row, weights=count, minlength=len(histories)).astype(np.float64)
        return Followers(total, row, tables.follower[index].astype(np.int64), count)
