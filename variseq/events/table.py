"""The event table: what a cleaned, encoded and ordered log looks like in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

MICROSECONDS_PER_SECOND = 1_000_000


class Columns:
    """The names of the columns, here and nowhere else."""

    USER = "user_id"
    ITEM = "item_id"
    TIME = "timestamp"
    EVENT = "event"
    VALUE = "value"
    VISIT = "visit"
    TITLE = "title"
    CATEGORY = "category"
    HIERARCHY = "hierarchy"
    LATITUDE = "latitude"
    LONGITUDE = "longitude"

    REQUIRED = (USER, ITEM, TIME)
    OPTIONAL = (EVENT, VALUE, VISIT)


@dataclass(frozen=True)
class EventTable:
    """Events as dense integers, ordered by (user, time, row of the input); one row an event.

    `user`, `item` and `behavior` are positions in the `Vocabulary`; `timestamp` is UTC microseconds;
    `value` is NaN where an event has none.
    """

    user: Int[np.ndarray, " event"]
    item: Int[np.ndarray, " event"]
    timestamp: Int[np.ndarray, " event"]
    behavior: Integer[np.ndarray, " event"]
    value: Float[np.ndarray, " event"]

    def __len__(self) -> int:
        return len(self.item)
