"""Histories into the rectangle that an exported encoder reads: the latest events of each, from the left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.histories import Histories, gap_bucket


@dataclass(frozen=True, eq=False)
class Rectangle:
    """One row a history, one column a token; a start token stands before the first event of a history.

    Cells at or after a row's length hold zeros and are seen by nobody. The fields are those of `Batch`.
    """

    item: Int[np.ndarray, "history token"]
    behavior: Int[np.ndarray, "history token"]
    gap: Int[np.ndarray, "history token"]
    value: Float[np.ndarray, "history token"]
    has_value: Bool[np.ndarray, "history token"]
    length: Int[np.ndarray, " history"]


def rectangle(histories: Histories, max_seq_len: int, num_items: int) -> Rectangle:
    """At most `max_seq_len` tokens of each history; the start token, `num_items`, is one where there is room.

    >>> found = rectangle(Histories.of_items([[3, 1, 4], []]), 3, num_items=5)
    >>> found.item, found.length
    (array([[3, 1, 4],
           [5, 0, 0]]), array([3, 1]))
    """
    lengths = np.minimum(histories.lengths + 1, max_seq_len)
    widest = int(lengths.max(initial=1))
    # Token j of a row is event `source`; −1 events before the first is the start token.
    place = np.arange(widest)[None, :]
    source = histories.offsets[1:, None] - lengths[:, None] + place
    start = histories.offsets[:-1, None]
    is_token, is_start = place < lengths[:, None], source < start
    is_event = is_token & ~is_start
    last = max(histories.num_events - 1, 0)
    source = np.clip(source, 0, last)
    before = np.clip(np.maximum(source - 1, start), 0, last)
    if histories.num_events == 0:
        histories = Histories.of_items([[0]])
    gap_seconds = (histories.timestamp[source] - histories.timestamp[before]) / MICROSECONDS_PER_SECOND
    value = histories.value[source]
    has_value = is_event & np.isfinite(value)
    item = np.where(is_event, histories.item[source], np.where(is_token, num_items, 0))
    return Rectangle(
        item=item.astype(np.int64),
        behavior=np.where(is_event, histories.behavior[source], 0).astype(np.int64),
        gap=np.where(is_event, gap_bucket(gap_seconds), 0),
        value=np.where(has_value, value, 0.0).astype(np.float32),
        has_value=has_value,
        length=lengths.astype(np.int64),
    )
