"""Histories into the same histories without some of their items: the ground of reasons."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from variseq.sequences.histories import Histories


def latest_items(histories: Histories, num_latest: int) -> Int[np.ndarray, "history latest"]:
    """The different items of each history that occurred last, the latest first; −1 where there are fewer.

    >>> latest_items(Histories.of_items([[4, 7, 4], [], [1, 2, 3]]), 2)
    array([[ 4,  7],
           [-1, -1],
           [ 3,  2]])
    """
    item, num_events = histories.item.astype(np.int64), histories.num_events
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    pair = row * (item.max(initial=0) + 1) + item
    _, from_the_end = np.unique(pair[::-1], return_index=True)
    latest = np.sort(num_events - 1 - from_the_end)
    row = row[latest]
    place = np.cumsum(np.bincount(row, minlength=len(histories)))[row] - 1 - np.arange(len(row))
    wanted = place < num_latest
    found = np.full((len(histories), num_latest), -1, dtype=np.int64)
    found[row[wanted], place[wanted]] = item[latest[wanted]]
    return found


def without_items(
    histories: Histories, source: Int[np.ndarray, " copy"], dropped: Int[np.ndarray, "copy drop"]
) -> Histories:
    """Copies of histories: copy j is history `source[j]` without any event of the items `dropped[j]`; −1 is no item.

    >>> fewer = without_items(Histories.of_items([[4, 7], [7, 1, 7]]), np.array([1, 0]), np.array([[7, -1], [1, 4]]))
    >>> fewer.item.tolist(), fewer.lengths.tolist()
    ([1, 7], [1, 1])
    """
    copies = histories.select(histories.offsets[source], histories.offsets[source + 1])
    kept = np.ones(copies.num_events, dtype=bool)
    for column in dropped.T:
        kept &= copies.item != np.repeat(column, copies.lengths)
    offsets = np.concatenate([[0], np.cumsum(kept)])[copies.offsets].astype(np.int64)
    return Histories(offsets, copies.item[kept], copies.behavior[kept], copies.timestamp[kept], copies.value[kept])
