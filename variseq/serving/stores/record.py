"""A durable store into what a shared store beside it has to know of it: all events, users and erasures, in parts."""

from __future__ import annotations

from collections.abc import Iterator

from variseq.events.vocabulary import Id
from variseq.serving.stores.placing import BEFORE_ALL_TIME
from variseq.serving.stores.protocol import Event
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.tombstone import user_hash

USERS_AT_ONCE = 200
EVENTS_OF_USERS = """
SELECT event_id, user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number)
WHERE events.user_number BETWEEN ? AND ? ORDER BY events.user_number, timestamp, arrival
"""


class Record:
    """The durable record of one replica."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        ((self._secret,),) = store.read("SELECT secret FROM store", ())
        # Tells this record from those of other replicas, and nothing else.
        self.identity = user_hash(self._secret, "record").hex()

    def erased_until(self, user_id: Id) -> int:
        """Up to which time events of the user are refused; before all time for a user who was never erased."""
        rows = self.store.read("SELECT erased_until FROM erased WHERE user_hash = ?", (self.mark(user_id),))
        return rows[0][0] if rows else BEFORE_ALL_TIME

    def mark(self, user_id: Id) -> bytes:
        """The keyed hash by which this record knows an erased user."""
        return user_hash(self._secret, user_id)

    def erasures(self) -> dict[bytes, int]:
        """All tombstones: the keyed hash of the user, and up to which time events are refused."""
        return dict(self.store.read("SELECT user_hash, erased_until FROM erased", ()))

    def users(self) -> Iterator[Id]:
        """All users, in parts."""
        for first, last in self._parts():
            rows = self.store.read("SELECT user_id FROM users WHERE user_number BETWEEN ? AND ?", (first, last))
            yield from (user_id for (user_id,) in rows)

    def trimmed(self) -> Iterator[list[tuple[Id, int]]]:
        """Users whose oldest events were not kept, and up to which time that is, in parts."""
        statement = (
            "SELECT user_id, trimmed_until FROM users WHERE trimmed_until IS NOT NULL AND user_number BETWEEN ? AND ?"
        )
        yield from (self.store.read(statement, part) for part in self._parts())

    def batches(self, events_at_once: int) -> Iterator[list[Event]]:
        """All events, each user's in their order."""
        for first, last in self._parts():
            rows = self.store.read(EVENTS_OF_USERS, (first, last))
            for place in range(0, len(rows), events_at_once):
                yield [Event(*row) for row in rows[place : place + events_at_once]]

    def _parts(self) -> Iterator[tuple[int, int]]:
        ((last,),) = self.store.read("SELECT max(user_number) FROM users", ())
        for first in range(0, (last or 0) + 1, USERS_AT_ONCE):
            yield first, first + USERS_AT_ONCE - 1
