"""Events with times into the same events, those of one user and one time in random order: files know more than clocks.

Where times are days, the order of a user's events within a day is that of the file. Whatever made that order (an
export sorted by item, a page that was read from top to bottom) then tells of what comes next, and nobody will know it
when a recommendation is wanted. Here it is forgotten, before anything is split or counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from data_files import lines_of

from variseq.errors import InputError

SEED = 0
"""Of the order; the same for all seeds of a recipe, which share one split."""


def ties_shuffled(events: pa.Table) -> tuple[pa.Table, str]:
    """The rows by user and timestamp, equal ones in an order drawn with `SEED`; and a note that says so.

    >>> table, note = ties_shuffled(pa.table({"user_id": [1, 1, 1], "item_id": [7, 8, 9], "timestamp": [5, 3, 3]}))
    >>> sorted(table["item_id"].to_pylist()[:2]), table["item_id"].to_pylist()[2]
    ([8, 9], 7)
    """
    user, time = events["user_id"].to_numpy(), events["timestamp"].to_numpy()
    order = np.lexsort((np.random.default_rng(SEED).random(len(user)), time, user))
    tied = np.flatnonzero((np.diff(user[order]) == 0) & (np.diff(time[order]) == 0))
    num_tied = len(np.union1d(tied, tied + 1))
    note = (
        f"{num_tied:,} of {len(user):,} events share their time with another of the same user: their order, which only "
        f"the file knows, was drawn at random (seed {SEED}) before the split."
    )
    return events.take(order), note


def as_order(events: pa.Table) -> pa.Table:
    """Rows by user into rows whose timestamp is their position in the user's history, from 1 (seconds)."""
    user = events["user_id"].to_numpy()
    begins = np.concatenate([[True], np.diff(user) != 0])[: len(user)]
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    position = np.arange(len(user)) - first + 1
    return events.set_column(events.column_names.index("timestamp"), "timestamp", pa.array(position))


def events_with_gaps(path: Path) -> pa.Table:
    """Lines "user item item ...<tab>gap gap ..." into user_id, item_id, timestamp: seconds from the first event.

    A gap is that to the event before, in seconds. Raises InputError for a line that is not of this form, and for a user
    with two lines.
    """
    users: dict[int, tuple[list[int], list[int]]] = {}
    for number, line in lines_of(path):
        try:
            left, right = line.split("\t")
            user, *items = (int(field) for field in left.split())
            gaps = [int(field) for field in right.split()]
        except ValueError:
            items, gaps = [], [-1]
        if len(items) != len(gaps) or min(gaps, default=0) < 0:
            raise InputError(
                f"{path}, line {number}: {line[:60]!r} is not of the form 'user item item ...<tab>gap gap ...' with as "
                "many gaps, in whole seconds, as items."
            )
        if user in users:
            raise InputError(f"{path}, line {number}: user {user} has a line already. One line a user is needed.")
        users[user] = items, gaps
    lengths = [len(items) for items, _ in users.values()]
    return pa.table(
        {
            "user_id": np.repeat(np.array(list(users), dtype=np.int64), lengths),
            "item_id": np.array([item for items, _ in users.values() for item in items], dtype=np.int64),
            "timestamp": np.concatenate([np.cumsum(gaps) for _, gaps in users.values()] or [np.arange(0)]),
        }
    )
