"""Lists that were shown and from which events were taken: for each event the items beside it that were not taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from variseq.sequences.histories import Histories, ragged_index


@dataclass(frozen=True, eq=False)
class ShownLists:
    """The list of each event of some histories, and the items of each list that were not taken.

    Args:
        of_event: The list that an event was taken from; −1 for none.
        offsets: Where the items of each list begin, and where those of the last one end.
        item: The items that were shown and not taken.
    """

    of_event: Int[np.ndarray, " event"]
    offsets: Int[np.ndarray, " list_plus_one"]
    item: Int[np.ndarray, " shown"]

    def within(self, histories: Histories, ends: Int[np.ndarray, " history"]) -> ShownLists:
        """Those of the events of each history before `ends`, in the order of `Histories.select`.

        A list of which another event was taken later is left out, as what was taken is not known before that. So are
        items without an event before `ends`: they have no vector of their own, and their forecast is that of content.
        """
        starts = histories.offsets[:-1]
        index = ragged_index(starts, ends - starts)
        of_event, num_lists = self.of_event[index], len(self.offsets) - 1
        num_taken, num_within = (np.bincount(one[one >= 0], minlength=num_lists) for one in (self.of_event, of_event))
        of_event = np.where((of_event >= 0) & (num_taken == num_within)[of_event], of_event, -1)
        num_items = int(max(histories.item.max(initial=0), self.item.max(initial=0))) + 1
        has_events = np.bincount(histories.item[index], minlength=num_items) > 0
        kept = np.concatenate([[0], np.cumsum(has_events[self.item])])
        return ShownLists(of_event, kept[self.offsets], self.item[has_events[self.item]])

    def beside(self, event: Int[np.ndarray, " chosen"]) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
        """Pairs of the number of an event among the chosen ones and an item that was shown beside it.

        >>> lists = ShownLists(np.array([-1, 0, 1]), np.array([0, 2, 3]), np.array([7, 8, 9]))
        >>> lists.beside(np.array([2, 0, 1]))
        (array([0, 2, 2]), array([9, 7, 8]))
        """
        chosen = np.flatnonzero(self.of_event[event] >= 0)
        found = self.of_event[event[chosen]]
        number = np.diff(self.offsets)[found]
        return np.repeat(chosen, number), self.item[ragged_index(self.offsets[found], number)]

    @property
    def num_lists(self) -> int:
        """How many lists an event was taken from."""
        return len(np.unique(self.of_event[self.of_event >= 0]))
