"""A store in a real PostgreSQL: several servers on it, a crash of the database, and addresses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.serving.stores.some_postgresql import PostgresqlServer, needs_postgresql
from variseq.errors import InputError, MissingDependencyError
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Appended, Event, EventConflict, HistoryStore, StoreCounts, StoreUnavailable
from variseq.serving.stores.transfer import export_events
from variseq.terminal.read_options import events_source

pytestmark = [pytest.mark.redis, needs_postgresql]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def pair(server: PostgresqlServer) -> Iterator[tuple[HistoryStore, HistoryStore]]:
    """Two servers on one database."""
    address = server.address()
    with ThreadPoolExecutor(2) as pool:
        # At the same time, so that both find no tables.
        stores = tuple(pool.map(open_store, [address, address]))
    yield stores
    for one in stores:
        one.close()


def test_each_server_sees_at_once_what_the_other_has_stored(pair: tuple[HistoryStore, HistoryStore]) -> None:
    one, other = pair
    event = Event("e-1", "ann", "boots", 1)
    assert one.append([event]) == Appended(1, 0, 0)
    assert other.history("ann") == [event]
    assert other.append([event]) == Appended(0, 1, 0)
    with pytest.raises(EventConflict):
        other.append([Event("e-1", "bob", "boots", 1)])
    assert other.erase("ann") == 1
    assert one.append([event]) == Appended(0, 0, 1)
    assert one.counts() == StoreCounts(0, 0, 1)


def test_batches_that_share_users_and_ids_in_another_order_do_not_lock_up(
    pair: tuple[HistoryStore, HistoryStore],
) -> None:
    events = [Event(f"e-{number}", number % 7, number, number) for number in range(60)]
    start = threading.Barrier(6)

    def write(writer: int) -> Appended:
        start.wait()
        batch = events if writer % 2 else events[::-1]
        return pair[writer % 2].append(batch)

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(write, range(6)))
    assert sorted(one.accepted for one in outcomes) == [0, 0, 0, 0, 0, 60]
    assert pair[0].counts() == StoreCounts(7, 60, 0)


def test_one_of_two_batches_with_the_same_id_for_two_users_is_refused(pair: tuple[HistoryStore, HistoryStore]) -> None:
    for number in range(10):
        start = threading.Barrier(2)

        def write(writer: int, number: int = number, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                pair[writer].append([Event(f"same-{number}", f"user-{writer}", 1, number)])
            except EventConflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(write, range(2))) == [False, True]


def test_no_event_of_before_comes_back_while_a_user_is_erased(pair: tuple[HistoryStore, HistoryStore]) -> None:
    start = threading.Barrier(2)

    def write() -> None:
        start.wait()
        for number in range(40):
            pair[0].append([Event(f"e-{number}", "ann", number, number)])

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        start.wait()
        removed = sum(pair[1].erase("ann") for _ in range(10))
        done.result()
    assert 0 <= removed <= 40
    assert pair[0].erase("ann") == 0, "events of before the erasure were stored after it"
    assert pair[0].counts() == StoreCounts(0, 0, 1)


def test_acknowledged_events_survive_a_crash_of_the_database(server: PostgresqlServer) -> None:
    store = open_store(server.address())
    try:
        for number in range(20):
            assert store.append([Event(f"e-{number}", "ann", number, number)]).accepted == 1
        server.kill()
        with pytest.raises(StoreUnavailable, match="PostgreSQL"):
            store.append([Event("e-20", "ann", 20, 20)])
        with pytest.raises(StoreUnavailable):
            store.check()
    finally:
        server.start()
    try:
        assert [one.item_id for one in store.history("ann")] == list(range(20))
        assert store.append([Event("e-20", "ann", 20, 20)]) == Appended(1, 0, 0)
        store.check()
    finally:
        store.close()


def test_all_events_are_exported_for_the_next_fit(server: PostgresqlServer, tmp_path: Path) -> None:
    address = server.address()
    store = open_store(address)
    try:
        store.append([Event("e-1", 2, "b", 5, "view", 1.5), Event("e-2", 1, "a", 6), Event("e-3", 2, "a", 4)])
        assert export_events(store, tmp_path / "events.parquet") == 3
        table = pq.read_table(tmp_path / "events.parquet")
        rows = zip(*(table.column(name).to_pylist() for name in ("user_id", "item_id", "event", "value")), strict=True)
        assert sorted(rows, key=str) == [(1, "a", "event", None), (2, "a", "event", None), (2, "b", "view", 1.5)]
        with events_source(address) as source:
            assert pq.read_metadata(str(source)).num_rows == 3
        store.append([Event("e-4", "text", "a", 4)])
        with pytest.raises(InputError, match="some are text"):
            export_events(store, tmp_path / "mixed.parquet")
        assert export_events(store, tmp_path / "text.parquet", ids_as_text=True) == 4
    finally:
        store.close()


def test_store_of_a_newer_format_is_refused(server: PostgresqlServer) -> None:
    address = server.address()
    open_store(address).close()
    schema = address.split("%3D")[1].split("&")[0]
    with server.connect() as connection:
        connection.execute(f"UPDATE {schema}.variseq_store SET format = 99".encode())
    with pytest.raises(InputError, match="format 99"):
        open_store(address)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("postgresql://ann:hush@localhost", "names no database"),
        ("postgresql://ann:hush@localhost/events?history_limit=0", "1 to 1,000,000"),
        ("postgresql://ann:hush@localhost/events?durability=high", "durable or fast"),
        ("postgresql://ann:hush@localhost/events?lock_seconds=5", "lock_seconds"),
        ("postgresql://ann:hush@127.0.0.1:9/events", "cannot answer"),
    ],
)
def test_wrong_address_is_one_message_without_the_password(address: str, named: str) -> None:
    with pytest.raises((InputError, StoreUnavailable)) as raised:
        open_store(address)
    assert named in str(raised.value)
    assert "hush" not in str(raised.value)


def test_without_the_client_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "variseq.serving.stores.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match=r"variseq\[postgresql\]"):
        open_store("postgresql://ann@localhost/events")
