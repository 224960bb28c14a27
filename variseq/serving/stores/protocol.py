"""What every store of histories takes, gives and promises; the promises are tested in tests/contracts/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from variseq.errors import InputError, VariseqError
from variseq.events.vocabulary import Id


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did, in outside ids; `timestamp` is UTC microseconds, `behavior` None the usual one.

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
    """What became of a batch: each event is one of the three.

    `duplicates` were known with the same content; `refused` are of a user who has been erased, from before that.
    """

    accepted: int
    duplicates: int
    refused: int


@dataclass(frozen=True)
class StoreCounts:
    """Users and events that are held now, and users that were erased so far."""

    users: int
    events: int
    erased: int


class EventConflict(InputError):
    """An event id that is known with other content; nothing of the batch was stored."""


class StoreUnavailable(VariseqError):
    """The store cannot answer now: disk full, locked for too long, Redis gone. The message says what to do.

    Nothing of the call was acknowledged, and it may be made again as it is: event ids make that safe.
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
        """Remove all of a user, and return how many events that were.

        A keyed hash of the id stays, so that events from before the erasure are refused when they come again.
        """
        ...

    def counts(self) -> StoreCounts:
        """How much is held."""
        ...

    def check(self) -> None:
        """Raises StoreUnavailable when the store cannot be read and written now."""
        ...

    def close(self) -> None:
        """Let go of files and connections; a closed store raises StoreUnavailable."""
        ...
