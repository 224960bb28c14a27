"""The interface of every history store, and what all stores share: event validation, erasure markers, id prefixes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from variseq.errors import InputError, VariseqError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, check_text

SMALLEST_ID, LARGEST_ID = -(2**63), 2**63 - 1
MAX_DIGITS = 19
# Up to here every whole number is exact as a 64-bit float too, which is what Redis sorts by: the year 2255.
LARGEST_TIMESTAMP = 2**53
# (user_id, item_id, timestamp in UTC microseconds, behavior, value)
Row = tuple[Id, Id, int, str | None, float | None]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a user, with the ids of the data. `timestamp` is UTC microseconds; `behavior` None is the usual one.

    >>> Event("e-1", user_id=12, item_id="boots", timestamp=1_700_000_000_000_000).behavior is None
    True
    """

    event_id: str
    user_id: Id
    item_id: Id
    timestamp: int
    behavior: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Appended:
    """The outcome of a batch: each event is one of the three.

    `duplicates` were known with the same content; `refused` are of a user who was erased, from before the erasure.
    `accepted_ids` are the event ids of those that are accepted.
    """

    accepted: int
    duplicates: int
    refused: int
    accepted_ids: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


@dataclass(frozen=True)
class StoreCounts:
    """Users and events that are held now, and users that were erased so far."""

    users: int
    events: int
    erased: int


@dataclass(frozen=True)
class Snapshot:
    """All events of one moment: rows of (user_id, item_id, timestamp, behavior, value), oldest first in each user.

    `user_kinds` and `item_kinds` are the types of the ids: int, str or both.
    """

    user_kinds: frozenset[type]
    item_kinds: frozenset[type]
    rows: Iterator[Row]


class EventConflict(InputError):
    """An event id that is known with other content; nothing of the batch was stored."""

    def __init__(self, event: Event) -> None:
        # Without the content that is known, which may be another user's.
        super().__init__(
            f"The event id {event.event_id!r} is known with other content. Send a new event under a new id, and a "
            "repeated one unchanged. Nothing of this batch was stored."
        )


class StoreUnavailable(VariseqError):
    """The store cannot answer now: disk full, locked for too long, Redis gone. The message says what to do.

    Nothing of the call was acknowledged. It may be repeated as it is: event ids make that safe.
    """


@runtime_checkable
class HistoryStore(Protocol):
    """Ordered histories of users; every method may be called from any thread."""

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; returns when they are durable and every later read sees them.

        Raises EventConflict, InputError for an event that cannot be stored, StoreUnavailable.
        """
        ...

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events up to the store's limit, oldest first by (timestamp, order of arrival)."""
        ...

    def version(self, user_id: Id) -> int:
        """A number that never comes back once the user's history has changed, in any process; 0: unknown user."""
        ...

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id, written as text, begins with `prefix`: whole numbers in order, then text."""
        ...

    def erase(self, user_id: Id) -> int:
        """Remove all of a user; the number of events removed.

        A keyed hash of the id stays, so that events from before the erasure are refused when they come again.
        """
        ...

    def counts(self) -> StoreCounts:
        """The numbers of users, events and erasures."""
        ...

    def check(self) -> None:
        """Raises StoreUnavailable when the store cannot be read and written now."""
        ...

    def close(self) -> None:
        """Close files and connections; a closed store raises StoreUnavailable."""
        ...


@runtime_checkable
class DurableStore(HistoryStore, Protocol):
    """A store that has all events itself, from which a model is fitted again."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """All events of one moment, read in parts while others write. Raises StoreUnavailable."""
        ...


def validate_events(events: Sequence[Event]) -> list[Event]:
    """The same events with `value` as a float; raises InputError for the first that no store can keep."""
    return [_validated(event) for event in events]


def _validated(event: Event) -> Event:
    if type(event.event_id) is not str:
        raise InputError(f"event_id is text, e.g. 'e-1'; got {event.event_id!r}.")
    check_id(event.event_id, "event_id")
    check_id(event.user_id, "user_id")
    check_id(event.item_id, "item_id")
    if type(event.timestamp) is not int or abs(event.timestamp) > LARGEST_TIMESTAMP:
        raise InputError(
            f"timestamp is whole microseconds since 1970 in UTC, up to the year 2255; got {event.timestamp!r} "
            f"in event {event.event_id!r}."
        )
    if event.behavior is not None:
        check_text(event.behavior, "behavior")
    value = event.value
    if value is None or (type(value) is float and math.isfinite(value)):
        return event
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return replace(event, value=float(value))
    raise InputError(f"value is a finite number or nothing; got {value!r} in event {event.event_id!r}.")


def check_id(value: object, name: str) -> None:
    """Raises InputError for an id that is neither a 64-bit whole number nor text."""
    if type(value) is str:
        check_text(value, name, MAX_ID_BYTES)
    elif type(value) is not int or not SMALLEST_ID <= value <= LARGEST_ID:
        # True would come back as 1, and a larger number not at all.
        raise InputError(
            f"{name} is text or a whole number from {SMALLEST_ID} to {LARGEST_ID}; "
            f"got {value!r} ({type(value).__name__})."
        )


def erased_until(latest_timestamp: int | None) -> int:
    """Up to which time (UTC microseconds) events of a user who is erased now are refused.

    That is now, or the latest event of the user: an event dated into the future may not come back either.
    """
    now = time.time_ns() // 1000
    return now if latest_timestamp is None else max(now, latest_timestamp)


def without_password(address: str) -> str:
    """The address of a store, to be shown.

    >>> without_password("postgresql://ann:secret@localhost/events"), without_password("redis://:a/b@c@localhost/0")
    ('postgresql://ann@localhost/events', 'redis://@localhost/0')
    """
    return re.sub(r"(//[^:/@?]*):.*@", r"\1@", address)


def integer_prefix_ranges(prefix: str) -> Iterator[tuple[int, int]]:
    """Ranges (first, last) of the whole numbers whose text begins with `prefix`, ascending; a sorted index finds each.

    >>> list(integer_prefix_ranges("12"))[:3]
    [(12, 12), (120, 129), (1200, 1299)]
    >>> list(integer_prefix_ranges("-7"))[-2:]
    [(-79, -70), (-7, -7)]
    >>> list(integer_prefix_ranges("007")), list(integer_prefix_ranges("boots"))
    ([], [])
    """
    if not re.fullmatch("-?([1-9][0-9]{0,18})?|0", prefix):
        return
    if prefix in ("", "-", "0"):
        yield {"": (SMALLEST_ID, LARGEST_ID), "-": (SMALLEST_ID, -1), "0": (0, 0)}[prefix]
        return
    number, found = abs(int(prefix)), []
    for width in (10**count for count in range(MAX_DIGITS)):
        first, last = number * width, number * width + width - 1
        if prefix[0] == "-":
            first, last = -last, -first
        if first <= LARGEST_ID and last >= SMALLEST_ID:
            found.append((max(first, SMALLEST_ID), min(last, LARGEST_ID)))
    yield from sorted(found)
