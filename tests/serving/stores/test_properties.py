"""Whatever is appended and erased in whatever order, stores answer as a few plain lists do."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.serving.stores.some_postgresql import PostgresqlServer, needs_postgresql
from tests.serving.stores.some_redis import RedisServer, needs_redis
from variseq.events.vocabulary import Id
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Appended, Event, EventConflict, HistoryStore, StoreCounts

USERS: list[Id] = [1, "1", "ann"]
NOW = time.time_ns() // 1000
# Few of each, so that repeats, conflicts, equal times and events from before an erasure are common.
EVENTS = st.builds(
    Event,
    event_id=st.integers(0, 25).map(str),
    user_id=st.sampled_from(USERS),
    item_id=st.sampled_from([7, "7"]),
    timestamp=st.sampled_from([NOW - 3, NOW - 2, NOW - 1, NOW + 10**12, NOW + 10**12 + 1]),
    value=st.sampled_from([None, 1.0]),
)


class PlainLists:
    """What a store should do, in the plainest way: everything is a list that is searched from end to end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: list[Event] = []
        self.trimmed_until: dict[Id, int] = {}
        self.erased_until: dict[Id, int] = {}

    def append(self, events: list[Event]) -> Appended | None:
        """None where the batch has a conflict."""
        kept = list(self.kept)
        duplicates = refused = 0
        for event in events:
            same_id = [other for other in kept if other.event_id == event.event_id]
            if event.timestamp <= self.erased_until.get(event.user_id, -1):
                refused += 1
            elif same_id and same_id != [event]:
                return None
            elif same_id:
                duplicates += 1
            elif event.timestamp > self.trimmed_until.get(event.user_id, -1):
                kept.append(event)
        self.kept = kept
        for user_id in USERS:
            for event in self.of(user_id)[: -self.limit]:
                self.kept.remove(event)
                self.trimmed_until[user_id] = event.timestamp
        return Appended(len(events) - duplicates - refused, duplicates, refused)

    def of(self, user_id: Id) -> list[Event]:
        # Sorting keeps the order of arrival among equal times.
        return sorted((event for event in self.kept if event.user_id == user_id), key=lambda event: event.timestamp)

    def erase(self, user_id: Id) -> int:
        removed = self.of(user_id)
        self.kept = [event for event in self.kept if event.user_id != user_id]
        self.trimmed_until.pop(user_id, None)
        latest = max((event.timestamp for event in removed), default=NOW)
        # A little later than now, as the store's clock is; no event is dated in between.
        self.erased_until[user_id] = max(NOW + 10**9, latest, self.erased_until.get(user_id, -1))
        return len(removed)


class StoreBesideLists(RuleBasedStateMachine):
    """Steps on a store and on lists; they must agree after each."""

    @initialize(limit=st.integers(1, 5))
    def open(self, limit: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="variseq-store-"))
        self.limit = limit
        self.store = self.opened()
        self.lists = PlainLists(limit)
        self.versions: dict[Id, set[int]] = {user_id: set() for user_id in USERS}
        self.before: dict[Id, tuple[int, list[Event]]] = {user_id: (0, []) for user_id in USERS}

    def opened(self) -> HistoryStore:
        return open_store(self.address(self.folder / "events.db", f"history_limit={self.limit}"))

    def address(self, path: Path, limit: str) -> str:
        return f"sqlite:///{path}?{limit}&durability=fast"

    @rule(events=st.lists(EVENTS, max_size=8))
    def append(self, events: list[Event]) -> None:
        expected = self.lists.append(events)
        if expected is None:
            with pytest.raises(EventConflict):
                self.store.append(events)
        else:
            assert self.store.append(events) == expected

    @rule(user_id=st.sampled_from(USERS))
    def erase(self, user_id: Id) -> None:
        assert self.store.erase(user_id) == self.lists.erase(user_id)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = self.opened()

    @invariant()
    def histories_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        known = [user_id for user_id in USERS if self.lists.of(user_id)]
        for user_id in USERS:
            assert self.store.history(user_id) == self.lists.of(user_id)
        assert self.store.users("", 10) == known
        assert self.store.counts() == StoreCounts(len(known), len(self.lists.kept), len(self.lists.erased_until))

    @invariant()
    def version_tells_every_change(self) -> None:
        for user_id in USERS if hasattr(self, "store") else []:
            version, history = self.store.version(user_id), self.store.history(user_id)
            version_before, history_before = self.before[user_id]
            assert (version == 0) == (history == [])
            if version == version_before:
                assert history == history_before
            elif version:
                assert version not in self.versions[user_id], "a version came back"
            self.versions[user_id].add(version)
            self.before[user_id] = (version, history)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


@pytest.mark.slow
@pytest.mark.redis
@needs_redis
def test_redis_store_is_as_plain_lists() -> None:
    server = RedisServer()
    server.start()

    class RedisBesideLists(StoreBesideLists):
        """Redis is emptied now and then; the record knows all."""

        def address(self, path: Path, limit: str) -> str:
            if not path.exists():
                self.empty()
            return server.address(path, "durability=fast", f"&{limit}")

        @rule()
        def empty(self) -> None:
            with server.client() as client:
                client.flushall()

    try:
        run_state_machine_as_test(RedisBesideLists, settings=settings(max_examples=8, stateful_step_count=15))
    finally:
        server.remove()


@pytest.mark.slow
@pytest.mark.redis
@needs_postgresql
def test_postgresql_store_is_as_plain_lists() -> None:
    server = PostgresqlServer()
    server.start()

    class PostgresqlBesideLists(StoreBesideLists):
        """A schema for each example, which is there again when the store is opened again."""

        addresses: dict[Path, str]

        def address(self, path: Path, limit: str) -> str:
            if not hasattr(self, "addresses"):
                self.addresses = {}
            if path not in self.addresses:
                self.addresses[path] = server.address(f"&{limit}&durability=fast")
            return self.addresses[path]

    try:
        run_state_machine_as_test(PostgresqlBesideLists, settings=settings(max_examples=8, stateful_step_count=15))
    finally:
        server.remove()


TestSqliteStoreIsAsPlainLists = StoreBesideLists.TestCase
TestSqliteStoreIsAsPlainLists.settings = settings(max_examples=25, stateful_step_count=20)
