"""What every history store must hold, besides being as plain lists are (`test_properties.py`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.stores.some_postgresql import PostgresqlServer, needs_postgresql
from tests.serving.stores.some_redis import RedisServer, needs_redis
from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import (
    Appended,
    Event,
    EventConflict,
    HistoryStore,
    StoreCounts,
    StoreUnavailable,
)

TOMORROW = time.time_ns() // 1000 + 24 * 3600 * 1_000_000


class Stores:
    """Opens empty stores of one kind, which keep the latest so many events of a user, and closes them all."""

    def __init__(self, folder: Path, server: RedisServer | PostgresqlServer | None) -> None:
        self.folder = folder
        self.server = server
        self.opened: list[HistoryStore] = []

    def __call__(self, history_limit: int) -> HistoryStore:
        file, limit = self.folder / f"{len(self.opened)}.db", f"history_limit={history_limit}"
        if self.server is None:
            store = open_store(f"sqlite:///{file}?{limit}&durability=fast")
        elif isinstance(self.server, RedisServer):
            store = open_store(self.server.address(file, "durability=fast", f"&{limit}"))
        else:
            store = open_store(self.server.address(f"&{limit}&durability=fast"))
        self.opened.append(store)
        return store


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("server", marks=[pytest.mark.redis, needs_redis], id="redis"),
        pytest.param("database", marks=[pytest.mark.redis, needs_postgresql], id="postgresql"),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    server = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    if isinstance(server, RedisServer):
        with server.client() as client:
            client.flushall()
    stores = Stores(tmp_path, server)
    yield stores
    for store in stores.opened:
        store.close()


def some_event(number: int, user_id: Id = "ann", timestamp: int | None = None, item_id: Id | None = None) -> Event:
    return Event(
        f"e-{number}", user_id, number if item_id is None else item_id, number if timestamp is None else timestamp
    )


def ids(events: Iterable[Event]) -> list[str]:
    return [event.event_id for event in events]


def test_events_come_back_as_they_went_in(make: Stores) -> None:
    store = make(100)
    events = [
        Event("e-1", 12, "boots", 1_000_000, "view", 2.5),
        Event("e-2", 12, 7, 1_000_001),
        Event("é\u2028'\"\x00;--", -(2**63), "日本 'x'\n\x00y", 2**53, "käufe", -0.5),
        Event("e-4", 12, 2**63 - 1, -5, None, 0.1 + 0.2),
    ]
    assert store.append(events) == Appended(4, 0, 0)
    assert store.history(12) == [events[3], events[0], events[1]]
    assert store.history(-(2**63)) == [events[2]]
    assert [type(event.item_id) for event in store.history(12)] == [int, str, int]


def test_number_and_text_are_different_users(make: Stores) -> None:
    store = make(100)
    store.append([Event("e-1", 12, 1, 1), Event("e-2", "12", 1, 2)])
    assert ids(store.history(12)) == ["e-1"]
    assert ids(store.history("12")) == ["e-2"]
    assert store.erase("12") == 1
    assert ids(store.history(12)) == ["e-1"]
    appended = store.append([Event("e-3", 12, 1, 3), Event("e-4", "12", 1, 3)])
    assert (appended, appended.accepted_ids) == (Appended(1, 0, 1), {"e-3"})


def test_unknown_user_has_no_history_and_version_zero(make: Stores) -> None:
    store = make(100)
    assert store.history("nobody") == []
    assert store.version("nobody") == 0
    assert store.counts() == StoreCounts(0, 0, 0)
    assert store.append([]) == Appended(0, 0, 0)


def test_repeated_events_are_counted_and_not_stored_again(make: Stores) -> None:
    store = make(100)
    batch = [some_event(1), some_event(2), some_event(1)]
    appended = store.append(batch)
    assert (appended, appended.accepted_ids) == (Appended(2, 1, 0), {"e-1", "e-2"})
    version = store.version("ann")
    assert store.append(batch) == Appended(0, 3, 0)
    assert store.version("ann") == version, "nothing changed"
    assert ids(store.history("ann")) == ["e-1", "e-2"]
    assert store.counts() == StoreCounts(1, 2, 0)


def test_conflict_leaves_nothing(make: Stores) -> None:
    store = make(100)
    store.append([some_event(1)])
    version = store.version("ann")
    other = {
        "item": Event("e-1", "ann", 99, 1),
        "kind of item": Event("e-1", "ann", "1", 1),
        "time": Event("e-1", "ann", 1, 99),
        "user": Event("e-1", "bob", 1, 1),
        "behavior": Event("e-1", "ann", 1, 1, "view"),
        "value": Event("e-1", "ann", 1, 1, None, 1.0),
    }
    for changed, event in other.items():
        with pytest.raises(EventConflict, match="e-1"):
            store.append([some_event(2), some_event(3, "carl"), event, some_event(4)])
        assert store.history("ann") == [some_event(1)], changed
    assert (store.version("ann"), store.version("bob"), store.version("carl")) == (version, 0, 0)
    with pytest.raises(EventConflict, match="e-5"):
        store.append([some_event(5), some_event(5, timestamp=6)])
    assert store.counts() == StoreCounts(1, 1, 0)
    assert store.append([some_event(2), some_event(5)]) == Appended(2, 0, 0)


def test_event_that_cannot_be_kept_is_refused_with_its_batch(make: Stores) -> None:
    store = make(100)
    bad: list[tuple[str, Event]] = [
        ("user_id", Event("e-2", 2**63, 1, 1)),
        ("user_id", Event("e-2", "", 1, 1)),
        ("user_id", Event("e-2", True, 1, 1)),
        ("item_id", Event("e-2", "ann", "\ud800", 1)),
        ("event_id", Event("", "ann", 1, 1)),
        ("timestamp", Event("e-2", "ann", 1, 2**53 + 1)),
        ("value", Event("e-2", "ann", 1, 1, None, float("nan"))),
        ("behavior", Event("e-2", "ann", 1, 1, "")),
    ]
    for named, event in bad:
        with pytest.raises(InputError, match=named):
            store.append([some_event(1), event])
    with pytest.raises(InputError, match="user_id"):
        store.history(2**64)
    assert store.counts() == StoreCounts(0, 0, 0)


def test_ids_up_to_the_limit_are_kept_and_longer_ones_refused(make: Stores) -> None:
    store = make(100)
    longest, longer = "ü" * (MAX_ID_BYTES // 2), "ü" * (MAX_ID_BYTES // 2) + "x"
    event = Event(longest, longest, longest, 1)
    assert store.append([event]) == Appended(1, 0, 0)
    assert store.history(longest) == [event]
    assert store.users(longest, 10) == [longest]
    for one in (Event(longer, "ann", 1, 1), Event("e-1", longer, 1, 1), Event("e-1", "ann", longer, 1)):
        with pytest.raises(InputError, match="longer than 1,024 bytes"):
            store.append([one])
    with pytest.raises(InputError, match="longer than 1,024 bytes"):
        store.history(longer)
    assert store.counts() == StoreCounts(1, 1, 0)
    assert store.erase(longest) == 1


def test_version_changes_with_every_change_and_never_comes_back(make: Stores) -> None:
    store = make(2)
    seen = {0}
    for number in range(5):
        store.append([some_event(number, timestamp=TOMORROW + number)])
        assert store.version("ann") not in seen
        seen.add(store.version("ann"))
        assert store.version("ann") == store.version("ann")
    store.append([some_event(100, "bob")])
    assert store.version("ann") in seen, "what another user does changes nothing"
    store.erase("ann")
    assert store.version("ann") == 0
    store.append([some_event(200, timestamp=TOMORROW + 200)])
    assert store.version("ann") not in seen, "a history that was kept by its version must not return"


def test_users_are_found_by_the_beginning_of_their_id(make: Stores) -> None:
    store = make(100)
    users: list[Id] = [120, 12, 1, -12, 0, 2, 1_200_000, "12", "1a", "anna", "ann", "änn", "%", "an_", -(2**63)]
    store.append([some_event(number, user_id) for number, user_id in enumerate(users)])
    numbers, texts = [-(2**63), -12, 0, 1, 2, 12, 120, 1_200_000], ["%", "12", "1a", "an_", "ann", "anna", "änn"]
    assert store.users("", 100) == [*numbers, *texts]
    assert store.users("12", 100) == [12, 120, 1_200_000, "12"]
    assert store.users("12", 3) == [12, 120, 1_200_000]
    assert store.users("-", 100) == [-(2**63), -12]
    assert store.users("-9", 100) == [-(2**63)]
    assert store.users("0", 100) == [0]
    assert store.users("ann", 100) == ["ann", "anna"]
    assert store.users("%", 100) == ["%"]
    assert store.users("zzz", 100) == []
    store.erase("ann")
    assert store.users("ann", 100) == ["anna"]


def test_erased_user_is_gone_and_old_events_do_not_come_back(make: Stores) -> None:
    store = make(100)
    old = [some_event(1), some_event(2), some_event(3, timestamp=TOMORROW)]
    store.append([*old, some_event(9, "bob")])
    assert store.erase("ann") == 3
    assert store.history("ann") == []
    assert store.users("ann", 10) == []
    assert store.counts() == StoreCounts(1, 1, 1)
    assert store.append([*old, some_event(10, "bob")]) == Appended(1, 0, 3)
    assert store.history("ann") == []
    new = some_event(4, timestamp=TOMORROW + 1)
    assert store.append([new]) == Appended(1, 0, 0)
    assert store.history("ann") == [new]
    assert ids(store.history("bob")) == ["e-9", "e-10"]
    assert store.erase("ann") == 1
    assert store.counts() == StoreCounts(1, 2, 1), "one user was erased, twice"


def test_acknowledged_event_is_seen_by_every_later_read(make: Stores) -> None:
    """Each writer reads its own user after each append, while others write theirs and one that all share."""
    store = make(1000)

    def write(writer: int) -> None:
        for number in range(20):
            mine = Event(f"{writer}-{number}", writer, number, number)
            shared = Event(f"shared-{writer}-{number}", "all", writer, number)
            before = store.version(writer)
            assert store.append([mine, shared]) == Appended(2, 0, 0)
            assert store.version(writer) != before
            assert store.history(writer)[-1] == mine
            assert shared in store.history("all")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write, writer) for writer in range(8)]:
            done.result()
    assert len(store.history("all")) == 160
    assert store.counts() == StoreCounts(9, 320, 0)


def test_conflict_of_one_caller_does_not_fail_the_others(make: Stores) -> None:
    store = make(1000)
    store.append([some_event(0)])
    start = threading.Barrier(12)

    def write(writer: int) -> bool:
        start.wait()
        try:
            store.append([Event(f"{writer}", "bob", writer, writer), some_event(0, timestamp=writer % 3)])
        except EventConflict:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        stored = list(pool.map(write, range(12)))
    assert stored == [writer % 3 == 0 for writer in range(12)]
    assert ids(store.history("bob")) == ["0", "3", "6", "9"]


def test_same_event_of_many_callers_is_stored_once(make: Stores) -> None:
    store = make(1000)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: store.append([some_event(1)]), range(8)))
    assert sum(outcome.accepted for outcome in outcomes) == 1
    assert sum(outcome.duplicates for outcome in outcomes) == 7
    assert store.history("ann") == [some_event(1)]


def test_closed_store_says_so(make: Stores) -> None:
    store = make(100)
    store.append([some_event(1)])
    store.history("ann")
    store.check()
    store.close()
    for call in (lambda: store.append([some_event(2)]), lambda: store.history("ann"), store.check, store.counts):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()
