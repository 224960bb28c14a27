"""Pieces of work of many threads into few commits: what waits together is committed together.

There is no thread of its own: the first caller commits for all that have queued up meanwhile, and while it waits for
the disk the next group gathers. A caller that is alone commits at once, without a change of threads.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from variseq.errors import VariseqError

Result = TypeVar("Result")

MAX_WORKS = 64
MAX_SECONDS = 0.005


@dataclass
class StoreState:
    """The one row of the table `store`: what a transaction reads at its begin and writes at its end."""

    secret: bytes
    last_arrival: int
    num_users: int
    num_events: int
    num_erased: int

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> StoreState:
        columns = "secret, last_arrival, num_users, num_events, num_erased"
        return cls(*connection.execute(f"SELECT {columns} FROM store").fetchone())

    def write(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE store SET last_arrival = ?, num_users = ?, num_events = ?, num_erased = ?",
            (self.last_arrival, self.num_users, self.num_events, self.num_erased),
        )


Work = Callable[[sqlite3.Connection, StoreState], Result]


class _Waiting(Generic[Result]):
    def __init__(self, work: Work[Result]) -> None:
        self.work = work
        self.is_done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class GroupCommit:
    """The only writer of a store in this process."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        begin: Callable[[sqlite3.Connection], None],
        explain: Callable[[sqlite3.Error], VariseqError],
    ) -> None:
        self._connect = connect
        self._begin = begin
        self._explain = explain
        self._connection: sqlite3.Connection | None = None
        self._queue: deque[_Waiting[object]] = deque()
        self._leading = threading.Lock()
        self._is_closed = False

    def submit(self, work: Work[Result]) -> Result:
        """Run the work in a transaction; returns its result after the commit.

        What the work raises undoes this work alone. An error of the database undoes the group, and all that waited
        are told: they have waited as long.
        """
        waiting = _Waiting(work)
        self._queue.append(waiting)  # type: ignore[arg-type]
        with self._leading:
            while not waiting.is_done:
                self._commit_group()
        if waiting.error is not None:
            raise waiting.error
        return waiting.result  # type: ignore[return-value]

    def alone(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something with a new connection, which has no page in its cache, while this store writes nothing."""
        with self._leading:
            try:
                self._let_go()
                return action(self._opened())
            except sqlite3.Error as error:
                self._let_go()
                raise self._explain(error) from error

    def close(self) -> None:
        """Waits for the group that is being committed."""
        with self._leading:
            self._is_closed = True
            self._let_go()

    def _commit_group(self) -> None:
        group: list[_Waiting[object]] = []
        try:
            connection = self._opened()
            self._begin(connection)
            state = StoreState.read(connection)
            deadline = time.monotonic() + MAX_SECONDS
            while self._queue and len(group) < MAX_WORKS and (not group or time.monotonic() < deadline):
                group.append(self._queue.popleft())
                state = _run(group[-1], connection, state)
            state.write(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._let_go()
            group.extend(self._queue.popleft() for _ in range(len(self._queue)))
            for waiting in group:
                waiting.error = self._explain(error)
        except BaseException:
            # An interrupt of the caller that leads: the others must not wait for ever.
            self._let_go()
            for waiting in group:
                waiting.error = self._explain(sqlite3.OperationalError("the commit was interrupted"))
                waiting.is_done = True
            raise
        for waiting in group:
            waiting.is_done = True

    def _opened(self) -> sqlite3.Connection:
        if self._is_closed:
            raise sqlite3.ProgrammingError("it has been closed")
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _let_go(self) -> None:
        # Closing rolls back; a new connection knows nothing of what went wrong with this one.
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _run(waiting: _Waiting[object], connection: sqlite3.Connection, state: StoreState) -> StoreState:
    """The state after the work; the one before it where the work was undone."""
    changed = replace(state)
    connection.execute("SAVEPOINT work")
    try:
        waiting.result = waiting.work(connection, changed)
    except sqlite3.Error:
        raise
    except Exception as error:
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        waiting.error = error
        return state
    connection.execute("RELEASE work")
    return changed
