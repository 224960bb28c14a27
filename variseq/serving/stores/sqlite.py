"""Histories in one SQLite file in WAL mode, shared by all threads and processes of a machine."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from variseq.events.vocabulary import Id
from variseq.serving.stores.page_scrubbing import file_key, overwrite_unused
from variseq.serving.stores.protocol import (
    Appended,
    Event,
    Snapshot,
    StoreCounts,
    StoreUnavailable,
    check_id,
    integer_prefix_ranges,
    validate_events,
)
from variseq.serving.stores.sqlite_file import (
    TOUCH,
    SqliteOptions,
    begin_writing,
    connect,
    delete_user,
    insert_events,
    make_store_file,
    readable,
)

HISTORY = """
SELECT event_id, ?1, item_id, timestamp, behavior, value FROM events
WHERE user_number = (SELECT user_number FROM users WHERE user_id = ?1)
ORDER BY timestamp DESC, arrival DESC LIMIT ?2
"""
ALL_EVENTS = """
SELECT user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number)
ORDER BY events.user_number, timestamp, arrival
"""
KINDS = "SELECT DISTINCT typeof(user_id) FROM users", "SELECT DISTINCT typeof(item_id) FROM events"
# A successful write shows for so long that the store can be written.
CHECK_SECONDS = 1.0
NEVER = float("-inf")
MAX_GROUP = 64
MAX_GROUP_SECONDS = 0.005
Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
_Pending = tuple[Work[Any], "Future[Any]"]


class GroupCommit:
    """The only writer of a store in this process: work that waits at the same time shares one commit.

    It has no thread of its own. The first caller commits for all that have queued up, and while it waits for the disk
    the next group gathers. A caller that is alone commits at once, without a change of threads.
    """

    def __init__(self, path: Path, options: SqliteOptions) -> None:
        self.path = path
        self.options = options
        self._connection: sqlite3.Connection | None = None
        self._queue: deque[_Pending] = deque()
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, work: Work[Result]) -> Result:
        """Run the work in a transaction; returns its result after the commit.

        An exception of the work undoes this work alone. An error of the database undoes and fails the whole group.
        """
        done: Future[Result] = Future()
        self._queue.append((work, done))
        with self._lock:
            while not done.done():
                self._commit_group()
        return done.result()

    def exclusive(self, action: Work[Result]) -> Result:
        """Do something outside a transaction with a new connection, while this process writes nothing."""
        with self._lock:
            try:
                self._disconnect()
                return action(self._connected())
            except sqlite3.Error as error:
                self._disconnect()
                raise readable(error, self.path) from error

    def close(self) -> None:
        """Wait for the group that is being committed, and close the connection."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _commit_group(self) -> None:
        group: list[_Pending] = []
        try:
            connection = self._connected()
            begin_writing(connection, self.options.lock_seconds)
            deadline = time.monotonic() + MAX_GROUP_SECONDS
            outcomes = []
            while self._queue and len(group) < MAX_GROUP and (not group or time.monotonic() < deadline):
                group.append(self._queue.popleft())
                outcomes.append(_outcome(connection, *group[-1]))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            group.extend(self._queue.popleft() for _ in range(len(self._queue)))
            self._fail(group, error)
        except BaseException:
            # An interrupt of the caller that commits: the others may not wait for ever.
            self._fail(group, sqlite3.OperationalError("the commit was interrupted"))
            raise
        else:
            for settle in outcomes:
                settle()

    def _fail(self, group: list[_Pending], error: sqlite3.Error) -> None:
        self._disconnect()
        for _, done in group:
            done.set_exception(readable(error, self.path))

    def _connected(self) -> sqlite3.Connection:
        if self._is_closed:
            raise sqlite3.ProgrammingError("it has been closed")
        if self._connection is None:
            self._connection = connect(self.path, self.options, writes=True)
        return self._connection

    def _disconnect(self) -> None:
        # Closing rolls back; a new connection is free of whatever went wrong with this one.
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _outcome(connection: sqlite3.Connection, work: Work[Any], done: Future[Any]) -> Callable[[], None]:
    """Run the work; what tells its caller the result after the commit. Only an error of the database is raised."""
    connection.execute("SAVEPOINT work")
    try:
        settle = partial(done.set_result, work(connection))
    except sqlite3.Error:
        raise
    except Exception as error:
        connection.execute("ROLLBACK TO work")
        settle = partial(done.set_exception, error)
    connection.execute("RELEASE work")
    return settle


class SqliteStore:
    """A HistoryStore in the file `path`, which is made if it does not exist; see `SqliteOptions`.

    Without a path the file is a temporary one, which is deleted when the store is closed.
    Raises InputError for a file that is damaged or of something else, StoreUnavailable.

    >>> store = SqliteStore()
    >>> store.append([Event("e-2", 12, "boots", 2_000_000), Event("e-1", 12, "skis", 1_000_000)])
    Appended(accepted=2, duplicates=0, refused=0)
    >>> [event.item_id for event in store.history(12)]
    ['skis', 'boots']
    >>> store.close()
    """

    def __init__(self, path: Path | None = None, options: SqliteOptions | None = None) -> None:
        self._folder = None if path is not None else tempfile.TemporaryDirectory(prefix="variseq-store-")
        self.path = path or Path(self._folder.name if self._folder else "") / "events.db"
        self.options = options or SqliteOptions()
        make_store_file(self.path, self.options)
        self._file_key = file_key(self.path)
        self._commits = GroupCommit(self.path, self.options)
        self._local = threading.local()
        self._readers: dict[threading.Thread, sqlite3.Connection] = {}
        self._readers_lock = threading.Lock()
        self._is_closed = False
        self._last_write = NEVER

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; see `HistoryStore.append`."""
        valid = validate_events(events)
        limit = self.options.history_limit
        return self._write(lambda connection: insert_events(connection, valid, limit))

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events, oldest first."""
        check_id(user_id, "user_id")
        return [Event(*row) for row in reversed(self.read(HISTORY, (user_id, self.options.history_limit)))]

    def version(self, user_id: Id) -> int:
        """The order of arrival of the user's newest event; 0 for an unknown user."""
        check_id(user_id, "user_id")
        rows = self.read("SELECT version FROM users WHERE user_id = ?", (user_id,))
        return rows[0][0] if rows else 0

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        found: list[Id] = []
        for first, last in integer_prefix_ranges(prefix):
            statement = "SELECT user_id FROM users WHERE user_id BETWEEN ? AND ? ORDER BY user_id LIMIT ?"
            found += [user_id for (user_id,) in self.read(statement, (first, last, limit - len(found)))]
        statement = "SELECT user_id FROM users WHERE user_id >= ? ORDER BY user_id LIMIT ?"
        from_here = [user_id for (user_id,) in self.read(statement, (prefix, limit - len(found)))]
        # Text is ordered by its bytes, so that those with the prefix come first.
        return found + [user_id for user_id in from_here if str(user_id).startswith(prefix)]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user, then the bytes from the files; the number of events removed.

        Raises StoreUnavailable if the bytes cannot be overwritten now, e.g. since another process reads old pages.
        The user is removed all the same, and erasing again overwrites the bytes.
        """
        return self.erase_until(user_id, None)

    def erase_until(self, user_id: Id, until: int | None) -> int:
        """The same for an erasure of an earlier time `until` (UTC microseconds) in another store."""
        check_id(user_id, "user_id")
        num_events = self._write(lambda connection: delete_user(connection, user_id, until))
        self._overwrite_unused()
        return num_events

    def counts(self) -> StoreCounts:
        """The numbers of users, events and erasures; updated with every commit, so that reading them is cheap."""
        ((users, events, erased),) = self.read("SELECT num_users, num_events, num_erased FROM store", ())
        return StoreCounts(users, events, erased)

    def check(self) -> None:
        """Read, and write unless a write succeeded within the last second."""
        self.counts()
        if not self.path.exists() or file_key(self.path) != self._file_key:
            raise StoreUnavailable(f"The store {self.path} was moved or replaced. Start the server again.")
        if time.monotonic() - self._last_write > CHECK_SECONDS:
            # It needs the lock, and space on the disk.
            self._write(lambda connection: connection.execute(TOUCH))

    def close(self) -> None:
        """Close the file; what is being appended is finished first."""
        with self._readers_lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._commits.close()
        with self._readers_lock:
            for connection in self._readers.values():
                connection.close()
            self._readers.clear()
        if self._folder is not None:
            self._folder.cleanup()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """See `DurableStore.snapshot`."""
        try:
            with closing(connect(self.path, self.options, writes=False)) as connection:
                connection.execute("BEGIN")
                users, items = (
                    frozenset(int if kind == "integer" else str for (kind,) in connection.execute(one)) for one in KINDS
                )
                yield Snapshot(users, items, connection.execute(ALL_EVENTS))
        except sqlite3.Error as error:
            raise readable(error, self.path) from error

    def _overwrite_unused(self) -> None:
        """A part of the file at a time, so that appends go on in between."""
        page: int | None = 0
        while page is not None:
            try:
                page = self._commits.exclusive(
                    partial(overwrite_unused, path=self.path, lock_seconds=self.options.lock_seconds, first_page=page)
                )
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"The user was removed, but bytes of the events are still in the files: {error} "
                    "Then erase the user again, which overwrites them."
                ) from error

    def _write(self, work: Work[Result]) -> Result:
        try:
            result = self._commits.submit(work)
        except StoreUnavailable:
            # The next check has to write.
            self._last_write = NEVER
            raise
        self._last_write = time.monotonic()
        return result

    def read(self, statement: str, values: tuple[Id | bytes, ...]) -> list[tuple]:  # type: ignore[type-arg]
        """All rows of a query, by the connection of this thread. Raises StoreUnavailable."""
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._open_reader()
            # Always to the end: unread rows would hold an old state of the file.
            return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if self._is_closed:
                raise StoreUnavailable(f"The store {self.path} has been closed.") from error
            raise readable(error, self.path) from error

    def _open_reader(self) -> sqlite3.Connection:
        with self._readers_lock:
            if self._is_closed:
                raise StoreUnavailable(f"The store {self.path} has been closed.")
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            connection = connect(self.path, self.options, writes=False)
            self._local.connection = self._readers[threading.current_thread()] = connection
        return connection
