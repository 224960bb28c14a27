"""Lines "user item item ..." with the oldest item first into an Arrow table of events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from data_files import lines_of

from variseq.errors import InputError

ORDER_ONLY = (
    "The file has an order and no times: each event's time is its position in seconds. The split and the model go by "
    "the order alone; recent-popular is popular."
)


def events_in_order(path: Path) -> pa.Table:
    """One row an event: user_id and item_id as integers, timestamp = position in the user's line from 1 (seconds).

    Raises InputError for a line that is not of this form, and for a user with two lines, whose order is not known.
    """
    users: dict[int, list[int]] = {}
    for number, line in lines_of(path):
        try:
            user, *items = (int(field) for field in line.split())
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: {line[:60]!r} is not of the form 'user item item ...' with integer ids."
            ) from error
        if user in users:
            raise InputError(f"{path}, line {number}: user {user} has a line already. One line a user is needed.")
        users[user] = items
    lengths = [len(items) for items in users.values()]
    return pa.table(
        {
            "user_id": np.repeat(np.array(list(users), dtype=np.int64), lengths),
            "item_id": np.array([item for items in users.values() for item in items], dtype=np.int64),
            "timestamp": np.concatenate([np.arange(1, length + 1) for length in lengths] or [np.arange(0)]),
        }
    )
