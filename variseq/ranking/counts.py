"""Items that are counted for histories: what followed the last item, and what the person did before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.sequences.histories import Histories

PRIOR_EVENTS = 100.0
"""How many events the popularity counts for among what followed an item."""
OWN_PRIOR_EVENTS = 1.0
"""How many events the popularity counts for among what somebody did before."""


@dataclass(frozen=True, eq=False)
class CountedItems:
    """Items counted for each history: cells (row, item) with a count, each item once a row, and the total of each row.

    As a probability: (count + m · popularity) / (total + m) with m = `prior_events`.
    """

    total: Float[np.ndarray, " history"]
    row: Int[np.ndarray, " cell"]
    item: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]
    prior_events: float = PRIOR_EVENTS

    @property
    def events(self) -> Float[np.ndarray, " history"]:
        """The total of each row with what the popularity counts for."""
        return self.total + self.prior_events

    def share(
        self, item: Int[np.ndarray, "history k"], prior: Float[np.ndarray, "history k"]
    ) -> Float[np.ndarray, "history k"]:
        """The smoothed share of some items; `prior` is `PRIOR_EVENTS` times the popularity of each."""
        counted = np.zeros(item.shape)
        if len(self.item):
            num_items = max(int(self.item.max()), int(item.max())) + 1
            pair = self.row * num_items + self.item
            order = np.argsort(pair, kind="stable")
            wanted = np.arange(len(item))[:, None] * num_items + item
            found = order[np.searchsorted(pair, wanted, sorter=order).clip(max=len(pair) - 1)]
            counted = np.where(pair[found] == wanted, self.count[found], 0.0)
        shares: Float[np.ndarray, "history k"] = (counted + self.prior_events / PRIOR_EVENTS * prior) / self.events[
            :, None
        ]
        return shares

    def dense(self, prior: Float[np.ndarray, " item"]) -> Float[np.ndarray, "history item"]:
        """The smoothed share of all items; `prior` is `PRIOR_EVENTS` times the popularity of each."""
        shares = np.repeat(self.prior_events / PRIOR_EVENTS * prior[None], len(self.total), axis=0)
        shares[self.row, self.item] += self.count
        shares /= self.events[:, None]
        return shares


@dataclass(frozen=True)
class OwnHistory:
    """How events of a person are counted.

    Args:
        decay: An event counts `decay` times as much for each later event of the person.
        transitions: How many events one transition counts for.
    """

    decay: float = 0.95
    transitions: float = 3.0


def own_history(histories: Histories, options: OwnHistory) -> CountedItems:
    """What somebody did before: each item of the history, and what followed earlier events of its last item.

    count(i) = Σ decay^age over events of i + transitions · Σ decay^age over events of i right after the last item. The
    age is the number of later events of the person.

    >>> counted = own_history(Histories.of_items([[4, 7, 4]]), OwnHistory(decay=0.5, transitions=2.0))
    >>> dict(zip(counted.item.tolist(), counted.count.tolist()))
    {4: 1.25, 7: 1.5}
    """
    num_events, num_histories = histories.num_events, len(histories)
    row = np.repeat(np.arange(num_histories), histories.lengths)
    age = histories.offsets[1:][row] - 1 - np.arange(num_events)
    weight = options.decay ** age.astype(np.float64)
    item = histories.item.astype(np.int64)
    if options.transitions:
        last = item[histories.offsets[1:][row] - 1]
        follows_last = np.zeros(num_events, dtype=bool)
        follows_last[1:] = (row[1:] == row[:-1]) & (item[:-1] == last[1:])
        weight = weight + options.transitions * weight * follows_last
    width = int(item.max(initial=0)) + 1
    pair, cell = np.unique(row * width + item, return_inverse=True)
    count = np.bincount(cell, weights=weight, minlength=len(pair)).astype(np.float64)
    of_row = pair // width
    total = np.bincount(of_row, weights=count, minlength=num_histories).astype(np.float64)
    return CountedItems(total, of_row, pair % width, count, OWN_PRIOR_EVENTS)
