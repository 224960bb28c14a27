"""Histories in the memory of this process: for tests and for trying out; nothing survives it."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from variseq.events.vocabulary import Id
from variseq.serving.stores.admission import admit, check_user_id
from variseq.serving.stores.placing import BEFORE_ALL_TIME, conflict_message
from variseq.serving.stores.protocol import Appended, Event, EventConflict, StoreCounts, StoreUnavailable
from variseq.serving.stores.tombstone import erased_until, new_secret, user_hash

Placed = tuple[int, int, Event]  # (timestamp, order of arrival, event)


@dataclass
class _User:
    placed: list[Placed] = field(default_factory=list)
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
        self._event_of: dict[str, Event] = {}
        self._erased: dict[bytes, int] = {}
        self._secret = new_secret()
        self._num_arrived = 0
        self._lock = threading.Lock()
        self._is_closed = False

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; see `HistoryStore.append`."""
        admitted = admit(events)
        with self._lock:
            self._refuse_if_closed()
            # Into copies, which take the place of the users when nothing was in conflict.
            users: dict[Id, _User] = {}
            fresh: dict[str, Event] = {}
            duplicates = refused = 0
            for event in admitted:
                user = users.get(event.user_id) or self._copy_of(event.user_id)
                users[event.user_id] = user
                known = self._event_of.get(event.event_id) or fresh.get(event.event_id)
                if event.timestamp <= user.erased_until:
                    refused += 1
                elif known is not None:
                    if known != event:
                        raise EventConflict(conflict_message(event))
                    duplicates += 1
                elif event.timestamp > user.trimmed_until:
                    self._num_arrived += 1
                    user.version = self._num_arrived
                    insort(user.placed, (event.timestamp, self._num_arrived, event), key=itemgetter(0, 1))
                    fresh[event.event_id] = event
            self._event_of.update(fresh)
            for user_id, user in users.items():
                if user.placed:
                    self._users[user_id] = self._trimmed(user)
        return Appended(len(admitted) - duplicates - refused, duplicates, refused)

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events, oldest first."""
        check_user_id(user_id)
        with self._lock:
            self._refuse_if_closed()
            return [event for _, _, event in self._users.get(user_id, _User()).placed]

    def version(self, user_id: Id) -> int:
        """The order of arrival of the user's newest event; 0 for an unknown user."""
        check_user_id(user_id)
        with self._lock:
            self._refuse_if_closed()
            return self._users.get(user_id, _User()).version

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        with self._lock:
            self._refuse_if_closed()
            known = [user_id for user_id in self._users if str(user_id).startswith(prefix)]
        found: list[Id] = [*sorted(user_id for user_id in known if isinstance(user_id, int))]
        found += sorted(user_id for user_id in known if isinstance(user_id, str))
        return found[:limit]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user; the number of events that were removed."""
        check_user_id(user_id)
        with self._lock:
            self._refuse_if_closed()
            placed = self._users.pop(user_id, _User()).placed
            for _, _, event in placed:
                del self._event_of[event.event_id]
            mark = user_hash(self._secret, user_id)
            until = erased_until(placed[-1][0] if placed else None)
            self._erased[mark] = max(until, self._erased.get(mark, BEFORE_ALL_TIME))
        return len(placed)

    def counts(self) -> StoreCounts:
        """How much is held."""
        with self._lock:
            self._refuse_if_closed()
            return StoreCounts(len(self._users), len(self._event_of), len(self._erased))

    def check(self) -> None:
        """Raises StoreUnavailable once the store is closed."""
        with self._lock:
            self._refuse_if_closed()

    def close(self) -> None:
        """Refuse every further call."""
        with self._lock:
            self._is_closed = True

    def _copy_of(self, user_id: Id) -> _User:
        user = self._users.get(user_id, _User())
        until = self._erased.get(user_hash(self._secret, user_id), BEFORE_ALL_TIME) if self._erased else BEFORE_ALL_TIME
        return replace(user, placed=user.placed.copy(), erased_until=until)

    def _trimmed(self, user: _User) -> _User:
        excess = user.placed[: -self.history_limit]
        for timestamp, _, event in excess:
            user.trimmed_until = timestamp
            del self._event_of[event.event_id]
        del user.placed[: len(excess)]
        return user

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise StoreUnavailable("The store has been closed.")
