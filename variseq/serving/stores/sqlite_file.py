"""The database file of a SQLite store: schema, connections, error messages, and the statements that change it."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from variseq.errors import InputError, VariseqError
from variseq.events.vocabulary import Id
from variseq.privacy.erased_users import BEFORE_ALL_TIME, SECRET_BYTES, user_hash
from variseq.serving.stores.protocol import (
    Appended,
    Event,
    EventConflict,
    StoreUnavailable,
    erased_until,
)

Durability = Literal["durable", "fast"]

APPLICATION_ID = 0x56715374  # "VqSt": distinguishes a store from any other database.
FORMAT_VERSION = 1
# Columns of ids have no type: 12 and "12" stay what they are, and are different users.
SCHEMA = (
    "CREATE TABLE users (user_number INTEGER PRIMARY KEY, user_id NOT NULL UNIQUE, version INTEGER NOT NULL, "
    "num_events INTEGER NOT NULL, trimmed_until INTEGER)",
    # Clustered by its key: the last events of a user are next to each other.
    "CREATE TABLE events (user_number INTEGER NOT NULL, timestamp INTEGER NOT NULL, arrival INTEGER NOT NULL, "
    "event_id TEXT NOT NULL UNIQUE, item_id NOT NULL, behavior TEXT, value REAL, "
    "PRIMARY KEY (user_number, timestamp, arrival)) WITHOUT ROWID",
    "CREATE TABLE erased (user_hash BLOB PRIMARY KEY, erased_until INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE store (only INTEGER PRIMARY KEY CHECK (only = 1), secret BLOB NOT NULL, "
    "last_arrival INTEGER NOT NULL, num_users INTEGER NOT NULL, num_events INTEGER NOT NULL, "
    "num_erased INTEGER NOT NULL)",
)
# Writes the first page, whatever it held; an UPDATE to the same values writes nothing.
TOUCH = f"PRAGMA user_version = {FORMAT_VERSION}"
LONGEST_IDLE_LOG_BYTES = 64 << 20
RETRY_SECONDS = 0.001
READ_CACHE_KIB, WRITE_CACHE_KIB = 512, 4096  # Each connection has its own; the system caches the file for all.


@dataclass(frozen=True)
class SqliteOptions:
    """How a store is kept.

    - `durability`: "durable" waits for the disk at every commit: an acknowledged event survives the end of the
      process and a loss of power. "fast" does not wait: it survives the end of the process; a loss of power may
      take the last commits, never the file.
    - `history_limit`: the latest so many events of a user are kept.
    - `lock_seconds`: how long to wait for another process that holds the file.
    """

    durability: Durability = "durable"
    history_limit: int = 1000
    lock_seconds: float = 5.0


def make_store_file(path: Path, options: SqliteOptions) -> None:
    """Make the database unless it exists. Raises InputError for a damaged or foreign file, StoreUnavailable."""
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} for the store {path.name}. Make it, or name another.")
    if path.is_dir():
        raise InputError(f"The store {path} is a folder; name a file.")
    try:
        if not path.exists():
            # Histories are personal data: the file is for its owner alone, and its log gets the same rights. An
            # existing file is never opened here: closing it would release the locks that SQLite has on it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = connect(path, options, writes=True)
        try:
            _make_tables(connection, path)
        finally:
            connection.close()
    except OSError as error:
        raise InputError(f"The store {path} cannot be opened: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        if str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise InputError(
                f"{path} is not a store: it is damaged, or another kind of file ({error}). Name another file, or put "
                "a backup in its place."
            ) from error
        raise readable(error, path) from error


def connect(path: Path, options: SqliteOptions, writes: bool) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time; without BEGIN each statement is its own transaction."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        address, timeout=options.lock_seconds, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{WRITE_CACHE_KIB if writes else READ_CACHE_KIB}")
        if not writes:
            connection.execute("PRAGMA query_only = 1")
            return connection
        # The database does not wait for others when it changes its mode, which happens once in the life of a file.
        _retry_while_busy(connection, "PRAGMA journal_mode = WAL", options.lock_seconds)
        connection.execute(f"PRAGMA synchronous = {'FULL' if options.durability == 'durable' else 'NORMAL'}")
        # Apple's disks need their own call to write through; elsewhere this does nothing.
        connection.execute(f"PRAGMA fullfsync = {int(options.durability == 'durable')}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_IDLE_LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def begin_writing(connection: sqlite3.Connection, lock_seconds: float) -> None:
    """Take the lock of the file, or raise what the database raises when it is held for too long."""
    connection.execute("PRAGMA busy_timeout = 0")
    _retry_while_busy(connection, "BEGIN IMMEDIATE", lock_seconds)


def _retry_while_busy(connection: sqlite3.Connection, statement: str, lock_seconds: float) -> None:
    """SQLite itself tries every tenth of a second, which may never meet the pauses of a process that writes a lot."""
    deadline = time.monotonic() + lock_seconds
    while True:
        try:
            connection.execute(statement).fetchone()
            return
        except sqlite3.OperationalError as error:
            # The lowest byte of a code is its kind.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


PROBLEMS = (
    (
        ("SQLITE_NOTADB", "SQLITE_CORRUPT"),
        "is damaged ({error}). Stop the server and put a backup in its place; keep the damaged file: "
        "`sqlite3 FILE .recover` reads what can be read.",
    ),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), "is locked by another process. Try again, or end what holds it."),
    (("SQLITE_FULL",), "has no room: its disk is full. Free some space; then try again."),
    (("SQLITE_IOERR",), "cannot be read or written: its disk fails or is full ({error}). Check it; then try again."),
    (
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"),
        "cannot be written ({error}). Check its rights and its folder.",
    ),
    (("",), "cannot answer ({error}). Try again."),
)


def readable(error: sqlite3.Error, path: Path) -> VariseqError:
    """A database error as a message that says what to do."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    text = next(text for prefixes, text in PROBLEMS if name.startswith(prefixes))
    return StoreUnavailable(f"The store {path} {text.format(error=error)}")


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    if _is_store(connection, path):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have made them since.
    if not _is_store(connection, path):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO store VALUES (1, ?, 0, 0, 0, 0)", (secrets.token_bytes(SECRET_BYTES),))
        connection.execute(TOUCH)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _is_store(connection: sqlite3.Connection, path: Path) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version > FORMAT_VERSION:
            raise InputError(
                f"The store {path} has format {version}; this release reads up to {FORMAT_VERSION}. Update variseq."
            )
        return True
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if num_tables:
        raise InputError(f"{path} is the database of something else, not a store. Name another file.")
    return False


@dataclass
class _User:
    """A user during one batch; `number` None until the first event is stored."""

    number: int | None
    num_events: int
    trimmed_until: int
    erased_until: int
    last_arrival: int = 0


class _Batch:
    """What one batch changes within the open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.secret, self.last_arrival, self.num_erased = self.row("SELECT secret, last_arrival, num_erased FROM store")
        self.num_users = self.num_events = 0  # More than before.
        self.users: dict[Id, _User] = {}

    def row(self, statement: str, *values: object) -> Any:
        return self.connection.execute(statement, values).fetchone()

    def user(self, user_id: Id) -> _User:
        if user_id not in self.users:
            statement = "SELECT user_number, num_events, trimmed_until FROM users WHERE user_id = ?"
            number, num_events, trimmed = self.row(statement, user_id) or (None, 0, None)
            erased = None
            if self.num_erased:
                marker = user_hash(self.secret, user_id)
                erased = self.row("SELECT erased_until FROM erased WHERE user_hash = ?", marker)
            trimmed_until = BEFORE_ALL_TIME if trimmed is None else trimmed
            self.users[user_id] = _User(number, num_events, trimmed_until, erased[0] if erased else BEFORE_ALL_TIME)
        return self.users[user_id]

    def insert(self, user: _User, event: Event) -> bool:
        """Whether the event is new."""
        if user.number is None:
            statement = "INSERT INTO users (user_id, version, num_events) VALUES (?, 0, 0)"
            user.number = self.connection.execute(statement, (event.user_id,)).lastrowid
            self.num_users += 1
        arrival = self.last_arrival + 1
        values = (user.number, event.timestamp, arrival, event.event_id, event.item_id, event.behavior, event.value)
        statement = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"
        if self.connection.execute(statement, values).rowcount == 0:
            return False
        self.last_arrival = user.last_arrival = arrival
        self.num_events += 1
        user.num_events += 1
        return True

    def is_known(self, event: Event) -> bool:
        """Whether exactly this event is stored. Raises EventConflict if its id is stored with other content."""
        row = self.row(
            "SELECT user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number) "
            "WHERE event_id = ?",
            event.event_id,
        )
        if row is not None and row != (event.user_id, event.item_id, event.timestamp, event.behavior, event.value):
            raise EventConflict(event)
        return row is not None

    def trim(self, user: _User, history_limit: int) -> None:
        """Trim the user to the limit and assign a new version: arrivals only grow, so no version ever comes back."""
        excess = user.num_events - history_limit
        if excess > 0:
            statement = (
                "SELECT timestamp, arrival FROM events WHERE user_number = ? ORDER BY timestamp, arrival "
                "LIMIT 1 OFFSET ?"
            )
            last = self.row(statement, user.number, excess - 1)
            statement = "DELETE FROM events WHERE user_number = ? AND (timestamp, arrival) <= (?, ?)"
            self.connection.execute(statement, (user.number, *last))
            user.num_events -= excess
            user.trimmed_until = last[0]
            self.num_events -= excess
        trimmed_until = None if user.trimmed_until == BEFORE_ALL_TIME else user.trimmed_until
        self.connection.execute(
            "UPDATE users SET version = ?, num_events = ?, trimmed_until = ? WHERE user_number = ?",
            (user.last_arrival, user.num_events, trimmed_until, user.number),
        )

    def end(self, num_erased: int = 0) -> None:
        self.connection.execute(
            "UPDATE store SET last_arrival = ?, num_users = num_users + ?, num_events = num_events + ?, "
            "num_erased = num_erased + ?",
            (self.last_arrival, self.num_users, self.num_events, num_erased),
        )


def insert_events(connection: sqlite3.Connection, events: Sequence[Event], history_limit: int) -> Appended:
    """Store the batch within the open transaction. Raises EventConflict, and the caller then rolls back."""
    batch = _Batch(connection)
    duplicates = refused = 0
    accepted_ids = set()
    for event in events:
        user = batch.user(event.user_id)
        if event.timestamp <= user.erased_until:
            refused += 1
            continue
        # Trimmed and kept events may share a time, and a trimmed one may not come back: of events that are older than
        # all that is kept, the ids that are still known decide, and nothing is stored.
        is_new = event.timestamp > user.trimmed_until and batch.insert(user, event)
        if not is_new and batch.is_known(event):
            duplicates += 1
        else:
            accepted_ids.add(event.event_id)
    for user in batch.users.values():
        if user.last_arrival:
            batch.trim(user, history_limit)
    batch.end()
    return Appended(len(events) - duplicates - refused, duplicates, refused, frozenset(accepted_ids))


def delete_user(connection: sqlite3.Connection, user_id: Id, until: int | None = None) -> int:
    """Remove a user within the open transaction and leave the erasure marker; the number of events removed.

    With `until`, an erasure of that time that becomes known now: later events of the user stay.
    """
    batch = _Batch(connection)
    user = batch.user(user_id)
    if until is None:
        (latest,) = batch.row("SELECT max(timestamp) FROM events WHERE user_number = ?", user.number)
        until = erased_until(latest)
    statement = "DELETE FROM events WHERE user_number = ? AND timestamp <= ?"
    num_removed = connection.execute(statement, (user.number, until)).rowcount
    batch.num_events -= num_removed
    if user.number is not None and num_removed == user.num_events:
        connection.execute("DELETE FROM users WHERE user_number = ?", (user.number,))
        batch.num_users -= 1
    elif num_removed:
        batch.last_arrival += 1
        changes = (batch.last_arrival, user.num_events - num_removed, user.number)
        connection.execute("UPDATE users SET version = ?, num_events = ? WHERE user_number = ?", changes)
    marker = user_hash(batch.secret, user_id)
    batch.end(num_erased=user.erased_until == BEFORE_ALL_TIME)
    connection.execute(
        "INSERT INTO erased VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET erased_until = max(erased_until, excluded.erased_until)",
        (marker, until),
    )
    return num_removed
