"""The keyed hash of a history, which proves that a history built again from the store is the one that was read."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from variseq.events.vocabulary import typed
from variseq.sequences.given_history import HistoryRow

HASH_BYTES = 8


@dataclass(frozen=True, slots=True)
class HistoryDigest:
    """What a record has of a history.

    Args:
        hash: See `history_hash`.
        num_events: How many events it has, also of items that the model does not know.
        latest_event: The time of the latest one in UTC microseconds; None without events or without times.
    """

    hash: str
    num_events: int
    latest_event: int | None


def history_hash(events: Sequence[HistoryRow], key: bytes) -> str:
    """BLAKE2b-64 of all events in their order, with the key of the folder, as hexadecimal digits.

    Args:
        events: Item id, UTC microseconds, behavior and value of each, oldest first, as the store gave them.
        key: The key of the folder of exposures.

    >>> events = [("i9", 1_000_000, "view", None), ("i3", 2_000_000, None, 4.0)]
    >>> len(history_hash(events, b"key")), history_hash(events, b"key") == history_hash(events[1:], b"key")
    (16, False)
    """
    plain = [
        (typed(item), time, behavior, None if value is None else float(value)) for item, time, behavior, value in events
    ]
    text = json.dumps(plain, separators=(",", ":")).encode("ascii")
    return hashlib.blake2b(text, digest_size=HASH_BYTES, key=key).hexdigest()


def history_before(events: Sequence[HistoryRow], time: int) -> list[HistoryRow]:
    """The events before a time in UTC microseconds. One of that time may be the answer to a list, so it is left out.

    >>> history_before([("i9", 1_000_000, None, None), ("i3", 2_000_000, None, None)], 2_000_000)
    [('i9', 1000000, None, None)]
    """
    return list(events[: bisect_left(events, time, key=lambda event: event[1])])


def rebuild_history(events: Sequence[HistoryRow], digest: HistoryDigest, key: bytes) -> list[HistoryRow] | None:
    """The events that a list was made from, out of all that the store has of the user now.

    Events that came later are left out. Of events with the time of the latest one, each number is tried.

    Args:
        events: Of the user, oldest first.
        digest: What the record has of the history.
        key: The key of the folder of exposures.

    Returns:
        The events; None where no part of `events` has this hash, for instance since an event was added late.

    >>> events = [("i9", 1_000_000, None, None), ("i3", 2_000_000, None, None)]
    >>> before = HistoryDigest(history_hash(events[:1], b"key"), 1, 1_000_000)
    >>> rebuild_history(events, before, b"key")
    [('i9', 1000000, None, None)]
    """
    latest = digest.latest_event
    if latest is None:
        return [] if history_hash([], key) == digest.hash else None
    end = sum(event[1] <= latest for event in events)
    while end >= digest.num_events and events[end - 1][1] == latest:
        found = list(events[end - digest.num_events : end])
        if history_hash(found, key) == digest.hash:
            return found
        end -= 1
    return None
