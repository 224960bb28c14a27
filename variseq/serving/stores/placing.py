"""A batch of events into rows of the database, each user's in the order of time; and a user out of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from variseq.events.vocabulary import Id
from variseq.serving.stores.group_commit import StoreState
from variseq.serving.stores.protocol import Appended, Event, EventConflict
from variseq.serving.stores.tombstone import erased_until, user_hash

BEFORE_ALL_TIME = -(2**63)


@dataclass
class _User:
    """A user during one batch; `number` None until the first event is stored."""

    number: int | None
    num_events: int
    trimmed_until: int
    erased_until: int
    last_arrival: int = 0


def place(connection: sqlite3.Connection, state: StoreState, events: Sequence[Event], history_limit: int) -> Appended:
    """Store the batch within the open transaction. Raises EventConflict, and the caller then rolls back."""
    users: dict[Id, _User] = {}
    duplicates = refused = 0
    for event in events:
        user = users.get(event.user_id)
        if user is None:
            user = users[event.user_id] = _load(connection, state, event.user_id)
        if event.timestamp <= user.erased_until:
            refused += 1
        elif event.timestamp <= user.trimmed_until:
            # Older than all that is kept. A time that is shared by trimmed and kept events must not let a trimmed
            # one come back, so the ids that are still known decide, and nothing is stored.
            duplicates += _is_known(connection, event)
        elif _insert(connection, state, user, event):
            user.last_arrival = state.last_arrival
        else:
            duplicates += _is_known(connection, event)
    for user in users.values():
        if user.last_arrival:
            _finish(connection, state, user, history_limit)
    return Appended(len(events) - duplicates - refused, duplicates, refused)


def remove(connection: sqlite3.Connection, state: StoreState, user_id: Id, until: int | None = None) -> int:
    """Remove a user within the open transaction and leave the tombstone; the number of events that were removed.

    With `until`, an erasure of then that becomes known now: what the user did since stays.
    """
    row = connection.execute("SELECT user_number, num_events FROM users WHERE user_id = ?", (user_id,)).fetchone()
    number, num_events = row or (None, 0)
    if until is None:
        latest = connection.execute("SELECT max(timestamp) FROM events WHERE user_number = ?", (number,)).fetchone()[0]
        until = erased_until(latest)
    cursor = connection.execute("DELETE FROM events WHERE user_number = ? AND timestamp <= ?", (number, until))
    num_removed = cursor.rowcount
    state.num_events -= num_removed
    if number is not None and num_removed == num_events:
        connection.execute("DELETE FROM users WHERE user_number = ?", (number,))
        state.num_users -= 1
    elif num_removed:
        state.last_arrival += 1
        changes = (state.last_arrival, num_events - num_removed, number)
        connection.execute("UPDATE users SET version = ?, num_events = ? WHERE user_number = ?", changes)
    mark = user_hash(state.secret, user_id)
    state.num_erased += connection.execute("SELECT 1 FROM erased WHERE user_hash = ?", (mark,)).fetchone() is None
    connection.execute(
        "INSERT INTO erased VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET erased_until = max(erased_until, excluded.erased_until)",
        (mark, until),
    )
    return num_removed


def _load(connection: sqlite3.Connection, state: StoreState, user_id: Id) -> _User:
    refused_until = BEFORE_ALL_TIME
    if state.num_erased:
        mark = user_hash(state.secret, user_id)
        row = connection.execute("SELECT erased_until FROM erased WHERE user_hash = ?", (mark,)).fetchone()
        refused_until = BEFORE_ALL_TIME if row is None else row[0]
    row = connection.execute(
        "SELECT user_number, num_events, trimmed_until FROM users WHERE user_id = ?", (user_id,)
    ).fetchone()
    number, num_events, trimmed_until = (None, 0, None) if row is None else row
    return _User(number, num_events, BEFORE_ALL_TIME if trimmed_until is None else trimmed_until, refused_until)


def _insert(connection: sqlite3.Connection, state: StoreState, user: _User, event: Event) -> bool:
    """Whether the event is new."""
    if user.number is None:
        cursor = connection.execute(
            "INSERT INTO users (user_id, version, num_events) VALUES (?, 0, 0)", (event.user_id,)
        )
        user.number = cursor.lastrowid
        state.num_users += 1
    arrival = state.last_arrival + 1
    values = (user.number, event.timestamp, arrival, event.event_id, event.item_id, event.behavior, event.value)
    cursor = connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING", values
    )
    if cursor.rowcount == 0:
        return False
    state.last_arrival = arrival
    state.num_events += 1
    user.num_events += 1
    return True


def _is_known(connection: sqlite3.Connection, event: Event) -> bool:
    """Whether just this event is there. Raises EventConflict if its id is there with other content."""
    row = connection.execute(
        "SELECT user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number) "
        "WHERE event_id = ?",
        (event.event_id,),
    ).fetchone()
    if row is None:
        return False
    if row != (event.user_id, event.item_id, event.timestamp, event.behavior, event.value):
        raise EventConflict(conflict_message(event))
    return True


def conflict_message(event: Event) -> str:
    """The same words in every store; without the content that is known, which may be another user's."""
    return (
        f"The event id {event.event_id!r} is known with other content. Send a new event under a new id, and a repeated "
        "one unchanged. Nothing of this batch was stored."
    )


def _finish(connection: sqlite3.Connection, state: StoreState, user: _User, history_limit: int) -> None:
    """Trim the user to the limit and give them a new version: arrivals only grow, so no version ever comes back."""
    excess = user.num_events - history_limit
    if excess > 0:
        timestamp, arrival = connection.execute(
            "SELECT timestamp, arrival FROM events WHERE user_number = ? ORDER BY timestamp, arrival LIMIT 1 OFFSET ?",
            (user.number, excess - 1),
        ).fetchone()
        connection.execute(
            "DELETE FROM events WHERE user_number = ? AND (timestamp, arrival) <= (?, ?)",
            (user.number, timestamp, arrival),
        )
        user.num_events -= excess
        user.trimmed_until = timestamp
        state.num_events -= excess
    connection.execute(
        "UPDATE users SET version = ?, num_events = ?, trimmed_until = ? WHERE user_number = ?",
        (
            user.last_arrival,
            user.num_events,
            None if user.trimmed_until == BEFORE_ALL_TIME else user.trimmed_until,
            user.number,
        ),
    )
