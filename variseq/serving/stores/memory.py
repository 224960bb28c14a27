"""Histories in the RAM of one process, for tests and trials; they are lost when it ends."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from variseq.events.vocabulary import Id
from variseq.serving.stores.protocol import (
    BEFORE_ALL_TIME,
    Appended,
    Event,
    EventConflict,
    StoreCounts,
    StoreUnavailable,
    check_user_id,
    erased_until,
    new_secret,
    user_hash,
    validate_events,
)

Entry = tuple[int, int, Event]  # (timestamp, order of arrival, event)


@dataclass
class _User:
    entries: list[Entry] = field(default_factory=list)
    trimmed_until: int = BEFORE_ALL_TIME
    erased_until: int = BEFORE_ALL_TIME
    version: int = 0


class MemoryStore:
    """A HistoryStore without a file.

    >>> store = MemoryStore(history_limit=2)
    >>> store.append([Event("e-1", "ann", 7, 1), Event("e-2", "ann", 8, 3), Event("e-3", "ann", 9, 2)])
    Appended(accepted=3, duplicates=0, refused=0)
    >>> [event.item_id for event in store.history("ann")]
    [9, 8]
    """

    def __init__(self, history_limit: int = 1000) -> None:
        self.history_limit = history_limit
        self._users: dict[Id, _User] = {}
        self._events: dict[str, Event] = {}
        self._erased: dict[bytes, int] = {}
        self._secret = new_secret()
        self._last_arrival = 0
        self._lock = threading.Lock()
        self._is_closed = False

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; see `HistoryStore.append`."""
        valid = validate_events(events)
        with self._lock:
            self._check_open()
            # Into copies, which replace the users when nothing was in conflict.
            users: dict[Id, _User] = {}
            fresh: dict[str, Event] = {}
            duplicates = refused = 0
            for event in valid:
                user = users.get(event.user_id) or self._copy_of(event.user_id)
                users[event.user_id] = user
                known = self._events.get(event.event_id) or fresh.get(event.event_id)
                if event.timestamp <= user.erased_until:
                    refused += 1
                elif known is not None:
                    if known != event:
                        raise EventConflict(event)
                    duplicates += 1
                elif event.timestamp > user.trimmed_until:
                    self._last_arrival += 1
                    user.version = self._last_arrival
                    insort(user.entries, (event.timestamp, self._last_arrival, event), key=itemgetter(0, 1))
                    fresh[event.event_id] = event
            self._events.update(fresh)
            for user_id, user in users.items():
                if user.entries:
                    self._users[user_id] = self._trimmed(user)
        return Appended(len(valid) - duplicates - refused, duplicates, refused)

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events, oldest first."""
        check_user_id(user_id)
        with self._lock:
            self._check_open()
            return [event for _, _, event in self._users.get(user_id, _User()).entries]

    def version(self, user_id: Id) -> int:
        """The order of arrival of the user's newest event; 0 for an unknown user."""
        check_user_id(user_id)
        with self._lock:
            self._check_open()
            return self._users.get(user_id, _User()).version

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        with self._lock:
            self._check_open()
            known = [user_id for user_id in self._users if str(user_id).startswith(prefix)]
        found: list[Id] = [*sorted(user_id for user_id in known if isinstance(user_id, int))]
        found += sorted(user_id for user_id in known if isinstance(user_id, str))
        return found[:limit]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user; the number of events that were removed."""
        check_user_id(user_id)
        with self._lock:
            self._check_open()
            entries = self._users.pop(user_id, _User()).entries
            for _, _, event in entries:
                del self._events[event.event_id]
            marker = user_hash(self._secret, user_id)
            until = erased_until(entries[-1][0] if entries else None)
            self._erased[marker] = max(until, self._erased.get(marker, BEFORE_ALL_TIME))
        return len(entries)

    def counts(self) -> StoreCounts:
        """The numbers of users, events and erasures."""
        with self._lock:
            self._check_open()
            return StoreCounts(len(self._users), len(self._events), len(self._erased))

    def check(self) -> None:
        """Raises StoreUnavailable once the store is closed."""
        with self._lock:
            self._check_open()

    def close(self) -> None:
        """Refuse every further call."""
        with self._lock:
            self._is_closed = True

    def _copy_of(self, user_id: Id) -> _User:
        user = self._users.get(user_id, _User())
        until = self._erased.get(user_hash(self._secret, user_id), BEFORE_ALL_TIME) if self._erased else BEFORE_ALL_TIME
        return replace(user, entries=user.entries.copy(), erased_until=until)

    def _trimmed(self, user: _User) -> _User:
        excess = user.entries[: -self.history_limit]
        for timestamp, _, event in excess:
            user.trimmed_until = timestamp
            del self._events[event.event_id]
        del user.entries[: len(excess)]
        return user

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailable("The store has been closed.")
