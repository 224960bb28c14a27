"""Histories in one SQLite file in WAL mode: the embedded store, shared by all threads and processes of a machine."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from variseq.events.vocabulary import Id
from variseq.serving.stores.admission import admit, check_user_id
from variseq.serving.stores.group_commit import GroupCommit, StoreState, Work
from variseq.serving.stores.placing import place, remove
from variseq.serving.stores.prefix import whole_number_ranges
from variseq.serving.stores.protocol import Appended, Event, StoreCounts, StoreUnavailable
from variseq.serving.stores.slack import SlackFile
from variseq.serving.stores.sqlite_file import SqliteOptions, begin_writing, connect, make_store_file, readable

HISTORY = """
SELECT event_id, item_id, timestamp, behavior, value FROM events
WHERE user_number = (SELECT user_number FROM users WHERE user_id = ?)
ORDER BY timestamp DESC, arrival DESC LIMIT ?
"""
# A write that ended well so recently has shown that the store can be written.
SECONDS_BETWEEN_TRIAL_WRITES = 1.0
NEVER = float("-inf")
Result = TypeVar("Result")


class SqliteStore:
    """A HistoryStore in the file `path`, which is made if it is not there; see `SqliteOptions`.

    Raises InputError for a file that is damaged or of something else, StoreUnavailable.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = SqliteStore(Path(folder.name) / "events.db")
    >>> store.append([Event("e-2", 12, "boots", 2_000_000), Event("e-1", 12, "skis", 1_000_000)])
    Appended(accepted=2, duplicates=0, refused=0)
    >>> [event.item_id for event in store.history(12)]
    ['skis', 'boots']
    >>> store.close(); folder.cleanup()
    """

    def __init__(self, path: Path, options: SqliteOptions | None = None) -> None:
        self.path = path
        self.options = options or SqliteOptions()
        make_store_file(path, self.options)
        self._slack = SlackFile(path, self.options.lock_seconds)
        self._commits = GroupCommit(
            lambda: connect(path, self.options, writes=True),
            lambda connection: begin_writing(connection, self.options.lock_seconds),
            lambda error: readable(error, path),
        )
        self._mine = threading.local()
        self._readers: dict[threading.Thread, sqlite3.Connection] = {}
        self._opening = threading.Lock()
        self._is_closed = False
        self._last_write = NEVER

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; see `HistoryStore.append`."""
        admitted = admit(events)
        limit = self.options.history_limit
        return self._write(lambda connection, state: place(connection, state, admitted, limit))

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events, oldest first."""
        check_user_id(user_id)
        rows = self.read(HISTORY, (user_id, self.options.history_limit))
        rows.reverse()
        return [
            Event(event_id, user_id, item_id, timestamp, behavior, value)
            for event_id, item_id, timestamp, behavior, value in rows
        ]

    def version(self, user_id: Id) -> int:
        """The order of arrival of the user's newest event; 0 for an unknown user."""
        check_user_id(user_id)
        rows = self.read("SELECT version FROM users WHERE user_id = ?", (user_id,))
        return rows[0][0] if rows else 0

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        found: list[Id] = []
        for first, last in whole_number_ranges(prefix):
            statement = "SELECT user_id FROM users WHERE user_id BETWEEN ? AND ? ORDER BY user_id LIMIT ?"
            found += [user_id for (user_id,) in self.read(statement, (first, last, limit - len(found)))]
        statement = "SELECT user_id FROM users WHERE user_id >= ? ORDER BY user_id LIMIT ?"
        from_here = [user_id for (user_id,) in self.read(statement, (prefix, limit - len(found)))]
        # Text is ordered by its bytes, so that those with the prefix come first.
        return found + [user_id for user_id in from_here if str(user_id).startswith(prefix)]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user from the answers, then from the bytes of the files; the number of events removed.

        Raises StoreUnavailable if another process reads old pages for too long, so that the bytes could not go yet;
        the user is gone from all answers then, and erasing again takes the bytes too.
        """
        return self.erase_until(user_id, None)

    def erase_until(self, user_id: Id, until: int | None) -> int:
        """The same for an erasure of an earlier time `until` (UTC microseconds), which another store tells of."""
        check_user_id(user_id)
        num_events = self._write(lambda connection, state: remove(connection, state, user_id, until))
        self._overwrite_slack()
        return num_events

    def counts(self) -> StoreCounts:
        """How much is held; kept up with every commit, so that asking is cheap."""
        ((users, events, erased),) = self.read("SELECT num_users, num_events, num_erased FROM store", ())
        return StoreCounts(users, events, erased)

    def check(self) -> None:
        """Read, and write unless a write ended well within the last second."""
        self.counts()
        try:
            found = os.stat(self.path)
            is_same = (found.st_dev, found.st_ino) == self._slack.key
        except OSError:
            is_same = False
        if not is_same:
            raise StoreUnavailable(f"The store {self.path} was moved or replaced. Start the server again.")
        if time.monotonic() - self._last_write > SECONDS_BETWEEN_TRIAL_WRITES:
            self._write(_write_nothing)

    def close(self) -> None:
        """Let go of the file; what is being appended is finished first."""
        with self._opening:
            if self._is_closed:
                return
            self._is_closed = True
        self._commits.close()
        with self._opening:
            for connection in self._readers.values():
                connection.close()
            self._readers.clear()
        self._slack.close()

    def _write(self, work: Work[Result]) -> Result:
        try:
            result = self._commits.submit(work)
        except StoreUnavailable:
            # The next check has to try for itself.
            self._last_write = NEVER
            raise
        self._last_write = time.monotonic()
        return result

    def read(self, statement: str, values: tuple[Id | bytes, ...]) -> list[tuple]:  # type: ignore[type-arg]
        """All rows of a query, by the connection of this thread. Raises StoreUnavailable."""
        try:
            connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
            if connection is None:
                connection = self._open_reader()
            # Always to the end: rows that were left would hold an old state of the file.
            return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if self._is_closed:
                raise StoreUnavailable(f"The store {self.path} has been closed.") from error
            raise readable(error, self.path) from error

    def _open_reader(self) -> sqlite3.Connection:
        with self._opening:
            if self._is_closed:
                raise StoreUnavailable(f"The store {self.path} has been closed.")
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            connection = connect(self.path, self.options, writes=False)
            self._mine.connection = self._readers[threading.current_thread()] = connection
        return connection

    def _overwrite_slack(self) -> None:
        """A part at a time, so that appends go on between."""
        page: int | None = 0
        while page is not None:
            try:
                page = self._commits.alone(partial(self._slack.overwrite, first_page=page))
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"The user is gone from all answers, but bytes of the events are still in the files: {error} "
                    "Then erase the user again, which overwrites them."
                ) from error


def _write_nothing(connection: sqlite3.Connection, state: StoreState) -> None:
    """A transaction that writes the row of counts again: it needs the lock, and room on the disk."""
