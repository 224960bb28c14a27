"""What waits together is committed together, and nobody pays for the mistake of another."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from variseq.serving.stores import sqlite
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.stores.sqlite import MAX_GROUP, GroupCommit
from variseq.serving.stores.sqlite_file import SqliteOptions, connect, make_store_file

OPTIONS = SqliteOptions("fast", lock_seconds=20.0)


class Traced:
    """A writer, and every statement that it ran."""

    def __init__(self, path: Path, options: SqliteOptions, monkeypatch: pytest.MonkeyPatch) -> None:
        make_store_file(path, options)
        self.path, self.options = path, options
        self.statements: list[str] = []
        monkeypatch.setattr(sqlite, "connect", self.connect)
        self.commits = GroupCommit(path, options)

    def connect(self, path: Path, options: SqliteOptions, writes: bool) -> sqlite3.Connection:
        connection = connect(path, options, writes)
        connection.set_trace_callback(self.statements.append)
        return connection

    def num_commits(self) -> int:
        return self.statements.count("COMMIT")


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    traced = Traced(tmp_path / "events.db", OPTIONS, monkeypatch)
    yield traced
    traced.commits.close()


@pytest.fixture
def blocker(traced: Traced) -> Iterator[sqlite3.Connection]:
    """Another process, as it were, that holds the lock."""
    connection = sqlite3.connect(traced.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def count_user(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE store SET num_users = num_users + 1")
    (num_users,) = connection.execute("SELECT num_users FROM store").fetchone()
    return int(num_users)


def mistaken(connection: sqlite3.Connection) -> int:
    count_user(connection)
    connection.execute("INSERT INTO erased VALUES (x'00', 1)")
    raise ValueError("a mistake of this caller")


def test_lone_work_is_committed_at_once(traced: Traced) -> None:
    traced.commits.submit(count_user)
    for _ in range(50):
        traced.commits.submit(count_user)
    assert traced.num_commits() == 51


def test_works_that_wait_together_are_committed_together(traced: Traced, blocker: sqlite3.Connection) -> None:
    num_works = 3 * MAX_GROUP
    with ThreadPoolExecutor(num_works) as pool:
        works = [pool.submit(traced.commits.submit, count_user) for _ in range(num_works)]
        while len(traced.commits._queue) < num_works:
            time.sleep(0.001)
        blocker.execute("ROLLBACK")
        results = [work.result() for work in works]
    assert sorted(results) == list(range(1, num_works + 1))
    assert 3 <= traced.num_commits() < num_works / 4


def test_mistake_of_one_is_undone_alone(traced: Traced, blocker: sqlite3.Connection) -> None:
    with ThreadPoolExecutor(30) as pool:
        works = [pool.submit(traced.commits.submit, mistaken if number % 3 else count_user) for number in range(30)]
        while len(traced.commits._queue) < 30:
            time.sleep(0.001)
        blocker.execute("ROLLBACK")
        errors = [work.exception() for work in works]
    assert [error is not None for error in errors] == [number % 3 > 0 for number in range(30)]
    assert {str(error) for error in errors if error} == {"a mistake of this caller"}
    assert blocker.execute("SELECT num_users FROM store").fetchone() == (10,)
    assert blocker.execute("SELECT count(*) FROM erased").fetchone() == (0,)


def test_all_that_waited_fail_when_the_store_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced(tmp_path / "events.db", SqliteOptions("fast", lock_seconds=0.3), monkeypatch)
    blocker = sqlite3.connect(traced.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(20) as pool:
        errors = [work.exception() for work in [pool.submit(traced.commits.submit, count_user) for _ in range(20)]]
    assert all(isinstance(error, StoreUnavailable) for error in errors)
    blocker.execute("ROLLBACK")
    assert traced.commits.submit(count_user) == 1
    blocker.close()
    traced.commits.close()


def test_interrupt_of_the_leader_frees_the_others(traced: Traced, blocker: sqlite3.Connection) -> None:
    def interrupted(connection: sqlite3.Connection) -> int:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(5) as pool:
        works = [pool.submit(traced.commits.submit, interrupted if not number else count_user) for number in range(5)]
        while len(traced.commits._queue) < 5:
            time.sleep(0.001)
        blocker.execute("ROLLBACK")
        ends = [work.exception() for work in works]
    kinds = {type(end) for end in ends}
    assert kinds <= {KeyboardInterrupt, StoreUnavailable, type(None)}
    assert sum(isinstance(end, KeyboardInterrupt) for end in ends) == 1
    assert traced.commits.submit(count_user) == 1 + sum(end is None for end in ends)
