"""The histories that a model was fitted on into a store, so that known users are known when serving begins."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from variseq.events.vocabulary import Id
from variseq.serving.stores.protocol import Appended, Event, HistoryStore

EVENTS_AT_ONCE = 5000
# (user_id, item_id, timestamp in UTC microseconds, behavior, value)
Row = tuple[Id, Id, int, str | None, float | None]


def import_histories(store: HistoryStore, rows: Iterable[Row]) -> Appended:
    """Append the rows, all of a user together and the oldest first; what was imported before counts as duplicates.

    Users who were erased do not come back: their events from before that are refused. Memory does not grow with the
    number of rows. May be broken off and started again.

    >>> from variseq.serving.stores.memory import MemoryStore
    >>> store, rows = MemoryStore(), [("ann", 7, 1_000_000, None, None), ("ann", 7, 1_000_000, None, None)]
    >>> import_histories(store, rows), import_histories(store, rows)
    (Appended(accepted=2, duplicates=0, refused=0), Appended(accepted=0, duplicates=2, refused=0))
    """
    total = Appended(0, 0, 0)
    events = as_events(rows)
    while batch := list(islice(events, EVENTS_AT_ONCE)):
        done = store.append(batch)
        total = Appended(
            total.accepted + done.accepted, total.duplicates + done.duplicates, total.refused + done.refused
        )
    return total


def as_events(rows: Iterable[Row]) -> Iterator[Event]:
    """Give each row an event id that follows from its content; equal rows of a user are numbered."""
    user_id: Id | None = None
    beginning = ""
    seen: Counter[bytes] = Counter()
    for row in rows:
        if row[0] != user_id or not beginning:
            user_id, seen = row[0], Counter()
            # Ids that begin alike lie side by side in the store: a user's events touch few pages.
            beginning = f"imported-{_digest(user_id, 8).hex()}"
        content = _digest(row[1:], 12)
        seen[content] += 1
        yield Event(f"{beginning}-{content.hex()}-{seen[content]}", *row)


def _digest(content: object, num_bytes: int) -> bytes:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=num_bytes).digest()
