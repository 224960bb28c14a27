"""Exposures in memory: one row for each item of each list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.events.vocabulary import Id
from variseq.sequences.histories import ragged_index


@dataclass(frozen=True, eq=False)
class Exposures:
    """Lists that were given, in the order of their times, with what the logging policy and people did.

    The rows of list e are `offsets[e]:offsets[e + 1]`, from the first rank to the last one.

    Args:
        offsets: Where the rows of each list begin, and where the last one ends.
        exposure_id: Of each list.
        user: Of each list: a keyed hash, or the id of a shop's own table; None where it is not known.
        time: Of each list, in UTC microseconds; 0 where a table has no times.
        context: What the record of each list has besides: history (a `HistoryDigest`), model, policy, filters,
            log_p, and in an experiment experiment, arm and uncertainty. None for a shop's own table.
        item: Of each row, as an index of `item_ids`.
        item_ids: Ids of the items.
        rank: Of each row, from 1.
        propensity_at_rank: Probability that the logging policy put the item at its rank, given the items above it; NaN
            where it is not known.
        propensity_in_list: Probability that it put the item into the list at any rank; NaN where it is not known.
        is_pinned: Whether the item was put there by the request.
        reward: What people's actions on the row are worth.
        rewards_lists: Whether rewards are of whole lists. They are in the last row of each, and no item has earned
            them.
    """

    offsets: Int[np.ndarray, " exposure_plus_one"]
    exposure_id: list[str]
    user: list[str | None]
    time: Int[np.ndarray, " exposure"]
    context: list[dict[str, Any]] | None
    item: Int[np.ndarray, " row"]
    item_ids: list[Id]
    rank: Int[np.ndarray, " row"]
    propensity_at_rank: Float[np.ndarray, " row"]
    propensity_in_list: Float[np.ndarray, " row"]
    is_pinned: Bool[np.ndarray, " row"]
    reward: Float[np.ndarray, " row"]
    rewards_lists: bool = False

    def __len__(self) -> int:
        return len(self.item)

    @property
    def num_exposures(self) -> int:
        """The number of lists."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, " exposure"]:
        """The number of rows of each list."""
        return np.diff(self.offsets)

    @property
    def row_exposure(self) -> Int[np.ndarray, " row"]:
        """The list of each row."""
        return np.repeat(np.arange(self.num_exposures), self.lengths)

    def exposures(self, chosen: Int[np.ndarray, " chosen"]) -> Exposures:
        """Some of the lists, by their numbers."""
        lengths = self.lengths[chosen]
        rows = ragged_index(self.offsets[chosen], lengths)
        of_lists = chosen.tolist()
        return replace(
            self._rows(rows),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            exposure_id=[self.exposure_id[one] for one in of_lists],
            user=[self.user[one] for one in of_lists],
            time=self.time[chosen],
            context=None if self.context is None else [self.context[one] for one in of_lists],
        )

    def first_rows(self, lengths: Int[np.ndarray, " exposure"]) -> Exposures:
        """The same lists, each cut after so many rows."""
        rows = ragged_index(self.offsets[:-1], np.minimum(lengths, self.lengths))
        kept = np.minimum(lengths, self.lengths)
        return replace(self._rows(rows), offsets=np.concatenate([[0], np.cumsum(kept)]).astype(np.int64))

    def _rows(self, rows: Int[np.ndarray, " chosen"]) -> Exposures:
        """The columns of some rows; those of the lists are to be replaced by the caller."""
        names = ("item", "rank", "propensity_at_rank", "propensity_in_list", "is_pinned", "reward")
        changes: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, **changes)
