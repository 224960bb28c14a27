"""The shared store when Redis goes away, comes back empty or old, and when other replicas append and erase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving.stores.some_redis import RedisServer, needs_redis
from variseq.errors import InputError
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Appended, Event, EventConflict, HistoryStore, StoreUnavailable
from variseq.serving.stores.sqlite import SqliteStore

pytestmark = [pytest.mark.redis, needs_redis]
DAY = 24 * 3600 * 1_000_000


StartServer = Callable[..., RedisServer]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    servers = []

    def start(*options: str) -> RedisServer:
        servers.append(RedisServer(*options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def server(start_server: StartServer) -> RedisServer:
    return start_server()


class Replicas:
    """Stores of several replicas, each with a record of its own."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.opened: list[HistoryStore] = []

    def open(self, name: str) -> HistoryStore:
        store = open_store(self.server.address(self.folder / f"{name}.db", "durability=fast"))
        self.opened.append(store)
        return store

    def record(self, name: str) -> SqliteStore:
        store = SqliteStore(self.folder / f"{name}.db")
        self.opened.append(store)
        return store


@pytest.fixture
def replicas(server: RedisServer, tmp_path: Path) -> Iterator[Replicas]:
    replicas = Replicas(server, tmp_path)
    yield replicas
    for store in replicas.opened:
        store.close()


def event(number: int, user_id: str = "ann", timestamp: int | None = None) -> Event:
    return Event(f"e-{number}", user_id, number, number if timestamp is None else timestamp)


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except StoreUnavailable:
            pass
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def test_replicas_see_each_others_events_at_once(replicas: Replicas) -> None:
    first, second = replicas.open("a"), replicas.open("b")
    first.append([event(1)])
    version = second.version("ann")
    assert second.append([event(2), event(1)]) == Appended(1, 1, 0)
    assert first.history("ann") == second.history("ann") == [event(1), event(2)]
    assert first.version("ann") == second.version("ann") != version
    with pytest.raises(EventConflict):
        second.append([event(1, timestamp=9), event(3)])
    assert first.history("ann") == [event(1), event(2)]
    assert replicas.record("b").counts().events == 2, "nothing of the conflicting batch is in the record either"


def test_redis_that_is_gone_is_told_and_work_goes_on_when_it_is_back(replicas: Replicas, server: RedisServer) -> None:
    store = replicas.open("a")
    store.append([event(1)])
    server.kill()
    for call in (lambda: store.append([event(2)]), lambda: store.history("ann"), store.check, lambda: store.erase("x")):
        with pytest.raises(StoreUnavailable, match="Redis"):
            call()
    server.start()
    eventually(lambda: store.append([event(2)]).accepted == 1)
    assert store.history("ann") == [event(1), event(2)]


def test_empty_redis_gets_all_back_from_the_records(replicas: Replicas, server: RedisServer) -> None:
    first, second = replicas.open("a"), replicas.open("b")
    first.append([event(number, f"user-{number % 7}") for number in range(100)])
    second.append([event(200, "user-3"), event(201, "other")])
    versions = {user: first.version(user) for user in first.users("", 100)}
    first.erase("user-5")
    server.kill()
    server.start()
    eventually(lambda: len(second.history("user-3")) == 15 and len(first.history("other")) == 1)
    assert [found.item_id for found in first.history("user-3")] == [*range(3, 100, 7), 200]
    assert first.users("", 100) == ["other", *(f"user-{number}" for number in (0, 1, 2, 3, 4, 6))]
    assert all(first.version(user) != versions[user] for user in first.users("", 100)), "no version comes back"
    assert first.append([event(5, "user-5")]) == Appended(0, 0, 1), "the record knows who was erased"


def test_redis_that_is_emptied_while_it_runs_is_noticed(replicas: Replicas, server: RedisServer) -> None:
    store = replicas.open("a")
    store.append([event(1), event(2)])
    client = server.client()
    for _ in range(3):
        client.flushall()
        assert store.history("ann") == [event(1), event(2)]
        client.flushall()
        assert store.append([event(2)]) == Appended(0, 1, 0)
        client.flushall()
        assert store.version("ann") > 0
    client.close()


def test_trimmed_event_does_not_come_back_after_redis_was_emptied(replicas: Replicas, server: RedisServer) -> None:
    store = open_store(server.address(replicas.folder / "a.db", "durability=fast", "&history_limit=2"))
    replicas.opened.append(store)
    batch = [event(number, timestamp=5) for number in range(4)]
    store.append(batch)
    client = server.client()
    client.flushall()
    client.close()
    store.append(batch)
    assert store.history("ann") == batch[2:]


def test_redis_that_comes_back_without_its_last_second_is_noticed(replicas: Replicas, server: RedisServer) -> None:
    """It saves its data now and then; what came after the last time is lost when it is killed."""
    store = replicas.open("a")
    store.append([event(1)])
    client = server.client()
    client.save()
    client.close()
    store.append([event(2)])
    version = store.version("ann")
    server.kill()
    server.start()
    client = server.client()
    assert client.exists("variseq:h:s:ann"), "the test means nothing unless the older data came back"
    eventually(lambda: store.history("ann") == [event(1), event(2)])
    assert store.append([event(3)]) == Appended(1, 0, 0)
    assert store.version("ann") > version
    client.close()


def test_what_the_record_has_is_pushed_when_a_replica_is_opened(replicas: Replicas) -> None:
    record = replicas.record("a")
    record.append([event(number, timestamp=5) for number in range(1200)])
    store = replicas.open("a")
    assert store.history("ann") == record.history("ann")


def test_write_that_redis_missed_is_pushed_as_soon_as_it_is_back(replicas: Replicas, server: RedisServer) -> None:
    """Redis hangs after the record was written: the caller is told, and the event is there without being sent again."""
    store = replicas.open("a")
    store.append([event(1)])
    record = replicas.record("a")
    assert server.process is not None
    client = server.client()
    client.execute_command("CLIENT", "PAUSE", "1700", "WRITE")
    with pytest.raises(StoreUnavailable):
        store.append([event(2)])
    assert record.history("ann") == [event(1), event(2)], "the record came first"
    eventually(lambda: store.history("ann") == [event(1), event(2)])
    assert store.append([event(2)]) == Appended(0, 1, 0)
    client.close()


def test_erasure_reaches_the_records_of_other_replicas(replicas: Replicas, server: RedisServer) -> None:
    first, second = replicas.open("a"), replicas.open("b")
    first.append([event(1)])
    second.append([event(2)])
    assert first.erase("ann") == 2
    assert second.history("ann") == []
    assert second.append([event(2)]) == Appended(0, 0, 1)
    record = replicas.record("b")
    eventually(lambda: record.counts().events == 0)
    later = event(3, timestamp=time.time_ns() // 1000 + DAY)
    second.append([later])
    first.erase("bob")
    eventually(lambda: record.counts().erased == 2 or second.counts().erased == 1)
    time.sleep(1.1)
    assert record.history("ann") == [later], "an old erasure does not take new events"
    server.kill()
    server.start()
    eventually(lambda: first.history("ann") == [later])


def test_redis_that_missed_an_erasure_hears_of_it(replicas: Replicas, server: RedisServer) -> None:
    store = replicas.open("a")
    store.append([event(1), event(2, "bob")])
    client = server.client()
    client.save()
    client.close()
    assert store.erase("ann") == 1
    server.kill()
    server.start()
    eventually(lambda: store.history("ann") == [] and len(store.history("bob")) == 1)
    assert store.users("", 10) == ["bob"]
    assert store.append([event(1)]) == Appended(0, 0, 1)


def test_redis_that_throws_data_away_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with pytest.raises(InputError, match="noeviction"):
        open_store(server.address(tmp_path / "a.db", "durability=fast"))


def test_full_redis_is_unavailable(replicas: Replicas, server: RedisServer) -> None:
    store = replicas.open("a")
    store.append([event(1)])
    client = server.client()
    client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="is full"):
        store.append([event(2)])
    with pytest.raises(StoreUnavailable, match="is full"):
        store.check()
    assert store.history("ann") == [event(1)], "reading goes on"
    client.config_set("maxmemory", 0)
    eventually(lambda: store.append([event(2)]).duplicates == 1)
    assert store.history("ann") == [event(1), event(2)]
    client.close()


def test_redis_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        open_store(f"redis://user:hunter2@127.0.0.1:1/0?durable_log=sqlite:///{tmp_path}/a.db")
    assert "127.0.0.1:1" in str(raised.value)
    assert "hunter2" not in str(raised.value)
