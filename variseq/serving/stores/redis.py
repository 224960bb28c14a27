"""Histories in a Redis or Valkey that replicas share, beside a durable record that each replica keeps for itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from redis import Redis

from variseq.events.vocabulary import Id
from variseq.serving.stores.admission import admit, check_user_id
from variseq.serving.stores.placing import conflict_message
from variseq.serving.stores.prefix import whole_number_ranges
from variseq.serving.stores.protocol import Appended, Event, EventConflict, StoreCounts, StoreUnavailable
from variseq.serving.stores.record import Record
from variseq.serving.stores.redis_link import NotFilled, RedisLink
from variseq.serving.stores.redis_scripts import (
    APPEND,
    BEGIN_FILLING,
    END_FILLING,
    ERASE,
    TRIMMED,
    read_member,
    user_key,
    written,
)
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.tombstone import SECRET_BYTES, user_hash

EVENTS_AT_ONCE = 500
NOT_YET = object()


def open_redis_store(url: str, record: SqliteStore, history_limit: int) -> RedisStore:
    """Connect to the Redis at `url` and push to it what it lacks of the record. Raises StoreUnavailable."""
    store = RedisStore(url, Record(record), history_limit)
    try:
        store.link.start()
    except BaseException:
        store.link.close()
        raise
    return store


class RedisStore:
    """A HistoryStore of several replicas: an acknowledged event is in this replica's record and in Redis.

    Reads come from Redis, which has the events of all replicas. What Redis has lost is pushed to it again from the
    record as soon as it is back; until then every call raises StoreUnavailable.
    """

    def __init__(self, url: str, record: Record, history_limit: int) -> None:
        self.record = record
        self.history_limit = history_limit
        self.link = RedisLink(url, record.identity, self._fill, self._take_over_erasures)
        self._append, self._erase_script = self.link.script(APPEND), self.link.script(ERASE)
        self._begin_filling, self._end_filling = self.link.script(BEGIN_FILLING), self.link.script(END_FILLING)
        self._trimmed = self.link.script(TRIMMED)
        self._secret = b""
        # How many erasures all replicas have made, when this one last took them over.
        self._erasures_seen: object = NOT_YET

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none, in the record and in Redis; see `HistoryStore.append`."""
        admitted = admit(events)
        num_fillings = self.link.num_fillings
        self._refuse_conflicts(admitted)
        recorded = self.record.store.append(admitted)
        taken = admitted if not recorded.refused else [event for event in admitted if not self._is_refused(event)]
        pushed = self.link.call_or_owe(partial(self._push, events=taken))
        if self.link.num_fillings != num_fillings:
            # The events may have come to Redis with the rest of the record: the record knows which were new.
            return recorded
        return Appended(pushed.accepted, pushed.duplicates, pushed.refused + len(admitted) - len(taken))

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events of all replicas, oldest first."""
        check_user_id(user_id)
        key = f"variseq:h:{user_key(user_id)}"
        members = self.link.read(lambda pipeline: pipeline.zrange(key, -self.history_limit, -1))
        return [read_member(user_id, member) for member in members]

    def version(self, user_id: Id) -> int:
        """A number that changes with the user's history; 0 for an unknown user."""
        check_user_id(user_id)
        return int(self.link.read(lambda pipeline: pipeline.hget("variseq:versions", user_key(user_id))) or 0)

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        found: list[Id] = []
        for first, last in whole_number_ranges(prefix):
            if len(found) < limit:
                found += self._numbers_between(first, last, limit - len(found))
        begin = b"[" + prefix.encode()
        texts = self.link.read(
            lambda pipeline: pipeline.zrangebylex("variseq:users:s", begin, "+", 0, limit - len(found))
        )
        return found + [text.decode() for text in texts if text.startswith(prefix.encode())]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user from Redis and the record; other replicas' records follow within seconds."""
        check_user_id(user_id)
        self.link.refuse_if_away()
        trouble = None
        try:
            num_recorded = self.record.store.erase(user_id)
        except StoreUnavailable as error:
            num_recorded, trouble = 0, error
        now = time.time_ns() // 1000
        num_removed = self.link.call_or_owe(partial(self._erase, user_id=user_id, until=now, extent="all"))
        if trouble is not None:
            raise trouble
        return max(num_recorded, num_removed)

    def counts(self) -> StoreCounts:
        """Users and events of all replicas; erasures as this replica's record knows them."""
        users = self.link.read(lambda pipeline: pipeline.hlen("variseq:versions"))
        events = self.link.read(lambda pipeline: pipeline.hlen("variseq:ids"))
        return StoreCounts(users, events, self.record.store.counts().erased)

    def check(self) -> None:
        """Both must be readable and writable."""
        self.record.store.check()
        self.link.read(lambda pipeline: pipeline.set("variseq:written", time.time_ns()))

    def close(self) -> None:
        """Let go of Redis and of the record."""
        self.link.close()
        self.record.store.close()

    def _refuse_conflicts(self, events: Sequence[Event]) -> None:
        """Before the record is written: another replica may know an id with other content; and is Redis there?"""
        if not events:
            self.link.refuse_if_away()
            return
        asked = [written(event, self._mark(event.user_id)) for event in events]
        known = self.link.read(lambda pipeline: pipeline.hmget("variseq:ids", [words[3] for words in asked]))
        for event, words, digest in zip(events, asked, known, strict=True):
            if digest is not None and digest.decode() != words[4] and not self._is_refused(event):
                raise EventConflict(conflict_message(event))

    def _is_refused(self, event: Event) -> bool:
        return event.timestamp <= self.record.erased_until(event.user_id)

    def _push(self, client: Redis, run: str, events: Sequence[Event]) -> Appended:
        words = [word for event in events for word in written(event, self._mark(event.user_id))]
        reply = self._append(args=[self.record.identity, run, self.history_limit, *words])
        if reply[0] == b"not filled":
            raise NotFilled
        if reply[0] == b"conflict":
            # Two replicas took the same id with different content in the same moment; the other one was first.
            raise EventConflict(conflict_message(next(e for e in events if e.event_id.encode() == reply[1])))
        return Appended(*(int(count) for count in reply[1:]))

    def _erase(self, client: Redis, run: str, user_id: Id, until: int, extent: str) -> int:
        identity = self.record.identity
        reply = self._erase_script(args=[identity, run, user_key(user_id), self._mark(user_id), until, extent])
        if reply[0] == b"not filled":
            raise NotFilled
        return int(reply[1])

    def _numbers_between(self, first: int, last: int, limit: int) -> list[Id]:
        # Redis sorts by floats, which are not exact for numbers this large; the ends are looked at again here.
        texts = self.link.read(
            lambda pipeline: pipeline.zrangebyscore("variseq:users:i", float(first), float(last), 0, limit)
        )
        return [*sorted(number for number in map(int, texts) if first <= number <= last)]

    def _mark(self, user_id: Id) -> bytes:
        return user_hash(self._secret, user_id)

    def _fill(self, client: Redis, run: str) -> bool:
        """Push all of the record, and erase what it knows as erased; whether Redis kept its data meanwhile."""
        token = secrets.token_hex(16)
        now = time.time_ns() // 1000
        new_secret = secrets.token_bytes(SECRET_BYTES)
        self._secret = self._begin_filling(args=[self.record.identity, token, new_secret, now])
        erasures = self.record.erasures()
        if erasures:
            for user_id in _users_in(client):
                until = erasures.get(self.record.mark(user_id))
                if until is not None:
                    self._erase(client, "", user_id, until, "until")
        self._erasures_seen = NOT_YET
        self._take_over_erasures(client)
        for events in self.record.batches(EVENTS_AT_ONCE):
            self._push(client, "", events)
        # After the events: those that are kept may have the very time of one that was not.
        for users in self.record.trimmed():
            self._trimmed(args=[word for user_id, until in users for word in (user_key(user_id), until)])
        return bool(self._end_filling(args=[self.record.identity, token, run]))

    def _take_over_erasures(self, client: Redis) -> None:
        """Erase from the record whom other replicas have erased."""
        count: object = client.get("variseq:erasures")
        if not self._secret:
            secret: Any = client.get("variseq:secret")
            self._secret = secret or b""
        if count == self._erasures_seen:
            return
        erased = client.hgetall("variseq:erased")
        for user_id in self.record.users() if erased else ():
            until = erased.get(self._mark(user_id))
            if until is not None and self.record.erased_until(user_id) < int(until):
                self.record.store.erase_until(user_id, int(until))
        self._erasures_seen = count


def _users_in(client: Redis) -> list[Id]:
    numbers: list[Id] = [int(text) for text, _ in client.zscan_iter("variseq:users:i")]
    return numbers + [text.decode() for text, _ in client.zscan_iter("variseq:users:s")]
