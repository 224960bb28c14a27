"""Histories in a Redis or Valkey that replicas share; each replica also keeps a durable log in SQLite.

Redis may go away, come back empty, or come back without its last second. Every connection asks at its begin in which
run of Redis it is, and every read and change asks whether the durable log was pushed in this run. One thread maintains
this: it pushes the log again when needed, and then the changes that could not be made while Redis was away.

Keys; USER is the id with its type, i:12 or s:12:
- `variseq:h:USER` sorted set of a user's events: by time, then by order of arrival, with which each begins
- `variseq:ids` hash: event id to digest of its content
- `variseq:versions`, `variseq:trimmed` hashes by user; `variseq:users:i`, `variseq:users:s` sorted sets of users
- `variseq:clock` counts arrivals and versions; `variseq:erased` hash of erasure markers, `variseq:erasures` their count
- `variseq:filled` hash: durable log of a replica to the run of Redis in which it was pushed completely
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from redis import BlockingConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry

from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.privacy.erased_users import BEFORE_ALL_TIME, SECRET_BYTES, user_hash
from variseq.serving.stores.protocol import (
    Appended,
    Event,
    EventConflict,
    StoreCounts,
    StoreUnavailable,
    check_id,
    integer_prefix_ranges,
    validate_events,
    without_password,
)
from variseq.serving.stores.sqlite import SqliteStore

Result = TypeVar("Result")
ARRIVAL_DIGITS, LENGTH_DIGITS = 16, 8
USERS_AT_ONCE, EVENTS_AT_ONCE = 200, 500
CONNECT_SECONDS, ANSWER_SECONDS = 0.5, 1.0
MAX_CONNECTIONS = 32
POLL_SECONDS, POLL_SECONDS_WHEN_AWAY = 1.0, 0.1
# How long a call waits while the log is being pushed; a larger log takes longer, and calls are refused.
MAX_FILLING_SECONDS = 2.0
MAX_PENDING = 10_000
LUA = files("variseq.serving.stores").joinpath("redis.lua").read_text(encoding="utf-8")
# The name and the text of each script.
SCRIPTS = dict(re.findall(r"^-- script (\w+)\n(.*?)(?=^-- script |\Z)", LUA, re.DOTALL | re.MULTILINE))

EVENTS_OF_USERS = """
SELECT event_id, user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number)
WHERE events.user_number BETWEEN ? AND ? ORDER BY events.user_number, timestamp, arrival
"""
USERS = "SELECT user_id FROM users WHERE user_number BETWEEN ? AND ?"
TRIMMED_USERS = """
SELECT user_id, trimmed_until FROM users WHERE trimmed_until IS NOT NULL AND user_number BETWEEN ? AND ?
"""


def user_key(user_id: Id) -> str:
    """The id with its type."""
    return f"{'i' if isinstance(user_id, int) else 's'}:{user_id}"


def append_arguments(event: Event, marker: bytes) -> list[str | bytes]:
    """What APPEND takes for one event."""
    user = user_key(event.user_id)
    content = json.dumps([event.item_id, event.timestamp, event.behavior, event.value], separators=(",", ":"))
    digest = hashlib.blake2b(f"{user}\0{content}".encode(), digest_size=16).hexdigest()
    number = str(event.user_id) if isinstance(event.user_id, int) else ""
    return [user, number, marker, event.event_id, digest, str(event.timestamp), content]


def read_member(user_id: Id, member: bytes) -> Event:
    """An event from a member of the sorted set of its user."""
    begin = ARRIVAL_DIGITS + LENGTH_DIGITS
    end = begin + int(member[ARRIVAL_DIGITS:begin])
    return Event(member[begin:end].decode(), user_id, *json.loads(member[end:]))


class NotSynchronized(Exception):
    """Redis does not have all of the log: it was emptied, or it is another run of it."""


class _Restarted(RedisConnectionError):
    """A connection has come to another run of Redis than the log was pushed to."""


# A change of Redis in the run that is expected ("" while the log is being pushed); it raises NotSynchronized.
Change = Callable[[str], Result]


class RedisStore:
    """A HistoryStore of several replicas: an acknowledged event is in this replica's durable log and in Redis.

    Reads come from Redis, which has the events of all replicas. What Redis has lost is pushed to it again from the
    log as soon as it is back; until then every call raises StoreUnavailable. Raises StoreUnavailable where Redis does
    not answer, and InputError for one that evicts histories; the log is closed then.
    """

    def __init__(self, url: str, log: SqliteStore, history_limit: int) -> None:
        self.log = log
        self.history_limit = history_limit
        ((self._log_secret,),) = log.read("SELECT secret FROM store", ())
        # Distinguishes this log from those of other replicas.
        self._identity = user_hash(self._log_secret, "record").hex()
        self._safe_url = without_password(url)
        limits: dict[str, Any] = {
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        checked = {
            "max_connections": MAX_CONNECTIONS,
            "timeout": ANSWER_SECONDS,
            "redis_connect_func": self._on_connect,
        }
        try:
            self._unchecked = Redis.from_url(url, **limits)
            self._pool = BlockingConnectionPool.from_url(url, **checked, **limits)
        except ValueError as error:
            raise InputError(f"The address of Redis {self._safe_url!r} cannot be read ({error}).") from error
        self._client = Redis(connection_pool=self._pool)
        self._scripts = {name: self._client.register_script(text) for name, text in SCRIPTS.items()}
        self._secret = b""
        self._run = ""
        self._num_fillings = 0
        # The number of erasures of all replicas when this one last imported them; None before the first time.
        self._num_erasures: object = object()
        self._pending: deque[Change[Any]] = deque()
        self._is_ready, self._wake = threading.Event(), threading.Event()
        self._problem: str | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._maintain, name="variseq-redis", daemon=True)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none, in the log and in Redis; see `HistoryStore.append`."""
        valid = validate_events(events)
        num_fillings = self._num_fillings
        self._check_conflicts(valid)
        logged = self.log.append(valid)
        taken = valid if not logged.refused else [event for event in valid if not self._is_refused(event)]
        pushed = self._call_or_queue(partial(self._push, taken))
        if self._num_fillings != num_fillings:
            # The events may have come to Redis with the rest of the log: the log knows which were new.
            return logged
        return replace(pushed, refused=pushed.refused + len(valid) - len(taken))

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events of all replicas, oldest first."""
        check_id(user_id, "user_id")
        members = self._read("ZRANGE", f"variseq:h:{user_key(user_id)}", -self.history_limit, -1)
        return [read_member(user_id, member) for member in members]

    def version(self, user_id: Id) -> int:
        """A number that changes with the user's history; 0 for an unknown user."""
        check_id(user_id, "user_id")
        return int(self._read("HGET", "variseq:versions", user_key(user_id)) or 0)

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        found: list[Id] = []
        for first, last in integer_prefix_ranges(prefix):
            ends = ("LIMIT", 0, limit - len(found))
            texts = self._read("ZRANGEBYSCORE", "variseq:users:i", float(first), float(last), *ends)
            # Redis sorts by floats, which are not exact for numbers this large; the ends are checked again here.
            found += sorted(number for number in map(int, texts) if first <= number <= last)
        begin = prefix.encode()
        texts = self._read("ZRANGEBYLEX", "variseq:users:s", b"[" + begin, "+", "LIMIT", 0, limit - len(found))
        return found + [text.decode() for text in texts if text.startswith(begin)]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user from Redis and the log; other replicas' logs follow within seconds."""
        check_id(user_id, "user_id")
        self._require()
        problem = None
        try:
            num_logged = self.log.erase(user_id)
        except StoreUnavailable as error:
            num_logged, problem = 0, error
        num_removed = self._call_or_queue(partial(self._erase, user_id, time.time_ns() // 1000, "all"))
        if problem is not None:
            raise problem
        return max(num_logged, num_removed)

    def counts(self) -> StoreCounts:
        """Users and events of all replicas; erasures of this replica's log."""
        users, events = (self._read("HLEN", f"variseq:{name}") for name in ("versions", "ids"))
        return StoreCounts(users, events, self.log.counts().erased)

    def check(self) -> None:
        """Both must be readable and writable."""
        self.log.check()
        self._read("SET", "variseq:written", time.time_ns())

    def close(self) -> None:
        """End the thread, and close Redis and the log."""
        self._is_closed = True
        self._is_ready.clear()
        self._problem = "it has been closed"
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._client.close()
        self._pool.disconnect()
        self._unchecked.close()
        self.log.close()

    def _check_conflicts(self, events: Sequence[Event]) -> None:
        """Before the log is written: another replica may know an id with other content."""
        if not events:
            self._require()
            return
        sent = [append_arguments(event, self._marker(event.user_id)) for event in events]
        known = self._read("HMGET", "variseq:ids", *(words[3] for words in sent))
        for event, words, digest in zip(events, sent, known, strict=True):
            if digest is not None and digest.decode() != words[4] and not self._is_refused(event):
                raise EventConflict(event)

    def _is_refused(self, event: Event) -> bool:
        return event.timestamp <= self._erased_until(event.user_id)

    def _erased_until(self, user_id: Id) -> int:
        """Up to which time the log refuses events of a user; before all time for one who was never erased."""
        marker = user_hash(self._log_secret, user_id)
        rows = self.log.read("SELECT erased_until FROM erased WHERE user_hash = ?", (marker,))
        return rows[0][0] if rows else BEFORE_ALL_TIME

    def _log_rows(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a statement about a range of user numbers, some users at a time."""
        ((last,),) = self.log.read("SELECT max(user_number) FROM users", ())
        for first in range(0, (last or 0) + 1, USERS_AT_ONCE):
            yield self.log.read(statement, (first, first + USERS_AT_ONCE - 1))

    def _marker(self, user_id: Id) -> bytes:
        return user_hash(self._secret, user_id)

    def _push(self, events: Sequence[Event], run: str) -> Appended:
        words = [word for event in events for word in append_arguments(event, self._marker(event.user_id))]
        reply = self._scripts["APPEND"](args=[self._identity, run, self.history_limit, *words])
        if reply[0] == b"not filled":
            raise NotSynchronized
        if reply[0] == b"conflict":
            # Two replicas took the same id with different content in the same moment; the other one was first.
            raise EventConflict(next(event for event in events if event.event_id.encode() == reply[1]))
        accepted, duplicates, refused, ids = reply[1:]
        return Appended(int(accepted), int(duplicates), int(refused), frozenset(one.decode() for one in ids))

    def _erase(self, user_id: Id, until: int, extent: str, run: str) -> int:
        marker = self._marker(user_id)
        reply = self._scripts["ERASE"](args=[self._identity, run, user_key(user_id), marker, until, extent])
        if reply[0] == b"not filled":
            raise NotSynchronized
        return int(reply[1])

    def _read(self, *words: object) -> Any:
        """The answer to one command, from a Redis that has the whole log."""

        def checked(run: str) -> Any:
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
                pipeline.hget("variseq:filled", self._identity)
                answer, filled_in = pipeline.execute()
            if filled_in != run.encode():
                raise NotSynchronized
            return answer

        return self._call(checked)

    def _call_or_queue(self, change: Change[Result]) -> Result:
        """Make a change that is in the log already; if Redis is away, it is made as soon as it is back."""
        try:
            return self._call(change)
        except StoreUnavailable:
            self._pending.append(change)
            raise

    def _call(self, change: Change[Result]) -> Result:
        for _ in range(3):
            self._require()
            try:
                return change(self._run)
            except (NotSynchronized, _Restarted):
                self._is_ready.clear()
                self._wake.set()
            except OutOfMemoryError as error:
                # Reading goes on.
                raise StoreUnavailable(
                    f"The Redis at {self._safe_url} is full. Raise its maxmemory, or lower history_limit."
                ) from error
            except RedisError as error:
                raise self._away(error) from error
        raise StoreUnavailable(f"The Redis at {self._safe_url} loses its data again and again. Check it.")

    def _require(self) -> None:
        """Raises StoreUnavailable at once while Redis is away, and after a while while it is being filled."""
        if self._is_ready.is_set():
            return
        if self._problem is None:
            self._wake.set()
            self._is_ready.wait(MAX_FILLING_SECONDS)
        if not self._is_ready.is_set():
            problem = self._problem or "it is being filled again from the durable log"
            raise StoreUnavailable(f"The Redis at {self._safe_url} cannot be used now: {problem}. Try again.")

    def _away(self, error: RedisError) -> StoreUnavailable:
        self._problem = f"{error}"
        self._is_ready.clear()
        self._wake.set()
        return StoreUnavailable(
            f"The Redis at {self._safe_url} does not answer ({error}). Start it, or check the network; "
            "calls work again as soon as it is back."
        )

    def _start(self) -> None:
        try:
            memory = self._unchecked.info("memory")
            if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
                raise InputError(
                    f"The Redis at {self._safe_url} evicts data when its memory is full "
                    f"({memory['maxmemory_policy']}). Set its maxmemory-policy to noeviction."
                )
            self._synchronize()
        except RedisError as error:
            raise self._away(error) from error
        self._thread.start()

    def _maintain(self) -> None:
        while not self._is_closed:
            self._wake.wait(POLL_SECONDS if self._is_ready.is_set() else POLL_SECONDS_WHEN_AWAY)
            self._wake.clear()
            if self._is_closed:
                return
            try:
                self._synchronize()
            except (RedisError, StoreUnavailable) as error:
                self._is_ready.clear()
                self._problem = f"{error}"

    def _synchronize(self) -> None:
        run = str(self._unchecked.info("server")["run_id"])
        if run != self._run:
            self._is_ready.clear()
            self._run = run
        filled_in = self._client.hget("variseq:filled", self._identity)
        if filled_in != run.encode() or len(self._pending) > MAX_PENDING:
            self._is_ready.clear()
            self._problem = None
            self._num_fillings += 1
            # The log contains all pending changes, except erasures, which are made once more below.
            if not self._fill(run):
                return
        self._import_erasures()
        while self._pending:
            try:
                self._pending[0](run)
            except NotSynchronized:
                return
            except OutOfMemoryError:
                break
            except InputError:
                pass  # A conflict: another replica was first.
            self._pending.popleft()
        if not self._is_closed:
            self._problem = None
            self._is_ready.set()

    def _on_connect(self, connection: Any) -> None:
        """Every new connection has to be to the run of Redis that was filled."""
        connection.on_connect()
        connection.send_command("INFO", "server")
        found = re.search(rb"run_id:([0-9a-f]+)", connection.read_response())
        if found is None or found[1].decode() != self._run:
            raise _Restarted("another run of Redis")

    def _fill(self, run: str) -> bool:
        """Push the whole log, and make its erasures; whether Redis kept its data meanwhile."""
        token, secret = secrets.token_hex(16), secrets.token_bytes(SECRET_BYTES)
        now = time.time_ns() // 1000
        self._secret = self._scripts["BEGIN_FILLING"](args=[self._identity, token, secret, now])
        if erasures := dict(self.log.read("SELECT user_hash, erased_until FROM erased", ())):
            numbers: list[Id] = [int(text) for text, _ in self._client.zscan_iter("variseq:users:i")]
            texts: list[Id] = [text.decode() for text, _ in self._client.zscan_iter("variseq:users:s")]
            for user_id in numbers + texts:
                until = erasures.get(user_hash(self._log_secret, user_id))
                if until is not None:
                    self._erase(user_id, until, "until", "")
        self._num_erasures = object()
        self._import_erasures()
        for rows in self._log_rows(EVENTS_OF_USERS):
            for index in range(0, len(rows), EVENTS_AT_ONCE):
                self._push([Event(*row) for row in rows[index : index + EVENTS_AT_ONCE]], "")
        # After the events: those that are kept may have the very time of one that was not.
        for rows in self._log_rows(TRIMMED_USERS):
            self._scripts["TRIMMED"](args=[word for user_id, until in rows for word in (user_key(user_id), until)])
        return bool(self._scripts["END_FILLING"](args=[self._identity, token, run]))

    def _import_erasures(self) -> None:
        """Erase from the log whom other replicas have erased."""
        count: object = self._client.get("variseq:erasures")
        if not self._secret:
            secret: Any = self._client.get("variseq:secret")
            self._secret = secret or b""
        if count == self._num_erasures:
            return
        erased = self._client.hgetall("variseq:erased")
        for rows in self._log_rows(USERS) if erased else ():
            for (user_id,) in rows:
                until = erased.get(self._marker(user_id))
                if until is not None and self._erased_until(user_id) < int(until):
                    self.log.erase_until(user_id, int(until))
        self._num_erasures = count
