"""A path into connections to the database of a store, which is made if it is not there; its errors into ours."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from variseq.errors import InputError, VariseqError
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.stores.tombstone import new_secret

Durability = Literal["durable", "fast"]

APPLICATION_ID = 0x56715374  # "VqSt": tells a store from any other database.
FORMAT_VERSION = 1
# Columns of ids have no type: 12 and "12" stay what they are, and are different users.
SCHEMA = (
    "CREATE TABLE users (user_number INTEGER PRIMARY KEY, user_id NOT NULL UNIQUE, version INTEGER NOT NULL, "
    "num_events INTEGER NOT NULL, trimmed_until INTEGER)",
    # Clustered by its key: the last events of a user lie side by side.
    "CREATE TABLE events (user_number INTEGER NOT NULL, timestamp INTEGER NOT NULL, arrival INTEGER NOT NULL, "
    "event_id TEXT NOT NULL UNIQUE, item_id NOT NULL, behavior TEXT, value REAL, "
    "PRIMARY KEY (user_number, timestamp, arrival)) WITHOUT ROWID",
    "CREATE TABLE erased (user_hash BLOB PRIMARY KEY, erased_until INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE store (only INTEGER PRIMARY KEY CHECK (only = 1), secret BLOB NOT NULL, "
    "last_arrival INTEGER NOT NULL, num_users INTEGER NOT NULL, num_events INTEGER NOT NULL, "
    "num_erased INTEGER NOT NULL)",
)
LONGEST_IDLE_LOG_BYTES = 64 << 20
SECONDS_BETWEEN_LOOKS = 0.001
READ_CACHE_KIB, WRITE_CACHE_KIB = 512, 4096  # Each connection has its own; the system caches the file for all.


@dataclass(frozen=True)
class SqliteOptions:
    """How a store is kept.

    - `durability`: "durable" waits for the disk at every commit: an acknowledged event survives the death of the
      process and a loss of power. "fast" does not wait: it survives the death of the process; a loss of power may
      take the last commits, never the file.
    - `history_limit`: the latest so many events of a user are kept.
    - `lock_seconds`: how long to wait for another process that holds the file.
    """

    durability: Durability = "durable"
    history_limit: int = 1000
    lock_seconds: float = 5.0


def make_store_file(path: Path, options: SqliteOptions) -> None:
    """Make the database unless it is there. Raises InputError for a damaged or foreign file, StoreUnavailable."""
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} for the store {path.name}. Make it, or name another.")
    if path.is_dir():
        raise InputError(f"The store {path} is a folder; name a file.")
    try:
        if not path.exists():
            # Histories are personal data: the file is for its owner alone, and its log gets the same rights. A file
            # that is there is never opened here: closing it would release the locks that SQLite has on it.
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
    """A connection that any thread may use, one at a time; each statement is its own transaction unless told."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        address, timeout=options.lock_seconds, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{WRITE_CACHE_KIB if writes else READ_CACHE_KIB}")
        if not writes:
            connection.execute("PRAGMA query_only = 1")
            return connection
        _set_write_ahead(connection, options.lock_seconds)
        connection.execute(f"PRAGMA synchronous = {'FULL' if options.durability == 'durable' else 'NORMAL'}")
        # Apple's disks only write through when asked in their own way; elsewhere this does nothing.
        connection.execute(f"PRAGMA fullfsync = {int(options.durability == 'durable')}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_IDLE_LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def begin_writing(connection: sqlite3.Connection, lock_seconds: float) -> None:
    """Take the lock of the file, or raise what the database raises when it is held for too long.

    SQLite itself looks only every tenth of a second after a while. Beside another process that writes without a
    pause, which lets go of the lock for a moment only, that may be never.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    deadline = time.monotonic() + lock_seconds
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(SECONDS_BETWEEN_LOOKS)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether another process has the lock; the lowest byte of a code is its kind."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def readable(error: sqlite3.Error, path: Path) -> VariseqError:
    """What the database says, as a message that tells what to do."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreUnavailable(
            f"The store {path} is damaged ({error}). Stop the server and put a backup in its place; keep the damaged "
            "file: `sqlite3 FILE .recover` reads what can be read."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreUnavailable(f"The store {path} is locked by another process. Try again, or end what holds it.")
    if name.startswith("SQLITE_FULL"):
        return StoreUnavailable(f"There is no room left for the store {path}. Make room on its disk; then try again.")
    if name.startswith("SQLITE_IOERR"):
        return StoreUnavailable(f"The disk of the store {path} fails or is full ({error}). See to it; then try again.")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreUnavailable(f"The store {path} cannot be written ({error}). Check its rights and its folder.")
    return StoreUnavailable(f"The store {path} cannot answer ({error}). Try again.")


def _set_write_ahead(connection: sqlite3.Connection, lock_seconds: float) -> None:
    # The database does not wait for others when it changes its mode, which happens once in the life of a file.
    deadline = time.monotonic() + lock_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    if _is_store(connection, path):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have made them since.
    if not _is_store(connection, path):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO store VALUES (1, ?, 0, 0, 0, 0)", (new_secret(),))
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
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
