"""Histories in a PostgreSQL database that servers share: it is durable by itself, so there is no log beside it.

Tables of the search path; ids are bytes with their type, `i:12` or `s:12`, as text of PostgreSQL has no character 0:
- `variseq_users` a row a user, which is locked by whoever changes the history
- `variseq_events` the events, `variseq_arrivals` the sequence of their arrival
- `variseq_erased` erasure markers; `variseq_store` one row: the format, and the secret of the markers
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from variseq.errors import InputError
from variseq.events.vocabulary import Id, typed
from variseq.privacy.erased_users import BEFORE_ALL_TIME, SECRET_BYTES, user_hash
from variseq.serving.stores.protocol import (
    Appended,
    Event,
    EventConflict,
    Row,
    Snapshot,
    StoreCounts,
    StoreUnavailable,
    check_id,
    erased_until,
    integer_prefix_ranges,
    validate_events,
    without_password,
)

FORMAT_VERSION = 1
SCHEMA = """
CREATE SEQUENCE variseq_arrivals;
CREATE TABLE variseq_users (user_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bytea NOT NULL UNIQUE,
    whole_id bigint UNIQUE, version bigint NOT NULL DEFAULT 0, num_events bigint NOT NULL DEFAULT 0,
    trimmed_until bigint);
CREATE TABLE variseq_events (user_number bigint NOT NULL, "timestamp" bigint NOT NULL, arrival bigint NOT NULL,
    event_id bytea NOT NULL UNIQUE, item_id bytea NOT NULL, behavior bytea, value double precision,
    PRIMARY KEY (user_number, "timestamp", arrival));
CREATE TABLE variseq_erased (user_hash bytea PRIMARY KEY, erased_until bigint NOT NULL);
CREATE TABLE variseq_store (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), format integer NOT NULL,
    secret bytea NOT NULL, checked timestamptz);
"""
OPENING = "SELECT pg_advisory_xact_lock(8026381950711)"
"""Held while the tables are made: of several servers that start at once, one makes them."""
CONTENT = 'event_id, item_id, "timestamp", behavior, value'
HISTORY = f"""
SELECT {CONTENT} FROM variseq_events WHERE user_number = (SELECT user_number FROM variseq_users WHERE user_id = %s)
ORDER BY "timestamp" DESC, arrival DESC LIMIT %s
"""
ADD_USERS = """
INSERT INTO variseq_users (user_id, whole_id) SELECT * FROM unnest(%s::bytea[], %s::bigint[]) AS added (id, whole)
ORDER BY id ON CONFLICT DO NOTHING
"""
LOCK_USERS = """
SELECT user_id, user_number, num_events, trimmed_until FROM variseq_users WHERE user_id = ANY(%s)
ORDER BY user_id FOR UPDATE
"""
KNOWN = f"""
SELECT user_id, {CONTENT} FROM variseq_events JOIN variseq_users USING (user_number) WHERE event_id = ANY(%s)
"""
# In the order of their ids, so that two batches with the same events wait for each other and do not lock up.
INSERT = f"""
INSERT INTO variseq_events (user_number, arrival, {CONTENT})
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[], %s::bigint[], %s::bytea[], %s::float8[])
AS added (number, arrival, id) ORDER BY id ON CONFLICT DO NOTHING
"""
TRIM = """
DELETE FROM variseq_events WHERE user_number = %s AND ("timestamp", arrival) <= (
    SELECT "timestamp", arrival FROM variseq_events WHERE user_number = %s
    ORDER BY "timestamp" DESC, arrival DESC LIMIT 1 OFFSET %s)
RETURNING "timestamp"
"""
CHANGE_USERS = """
UPDATE variseq_users SET version = new.version, num_events = new.num_events, trimmed_until = new.trimmed_until
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS new (number, version, num_events, trimmed_until)
WHERE user_number = new.number
"""
ERASED = "SELECT user_hash, erased_until FROM variseq_erased WHERE user_hash = ANY(%s)"
ARRIVALS = "SELECT nextval('variseq_arrivals') FROM generate_series(1, %s)"
REMOVE_EMPTY = "DELETE FROM variseq_users WHERE user_number = ANY(%s) AND num_events = 0"
MARK = """
INSERT INTO variseq_erased VALUES (%s, %s) ON CONFLICT (user_hash) DO UPDATE
SET erased_until = greatest(variseq_erased.erased_until, excluded.erased_until)
"""
COUNTS = """
SELECT count(*), coalesce(sum(num_events), 0), (SELECT count(*) FROM variseq_erased) FROM variseq_users
"""
ALL_EVENTS = """
SELECT user_id, item_id, "timestamp", behavior, value FROM variseq_events JOIN variseq_users USING (user_number)
ORDER BY variseq_events.user_number, "timestamp", arrival
"""
KINDS = (
    "SELECT DISTINCT substr(user_id, 1, 1) FROM variseq_users",
    "SELECT DISTINCT substr(item_id, 1, 1) FROM variseq_events",
)
CONNECT_SECONDS, ANSWER_SECONDS, POOL_SECONDS, RECONNECT_SECONDS = 3, 10, 2.0, 1.0
MAX_CONNECTIONS = 16
MAX_TRIES = 10
ROWS_AT_ONCE = 65_536
# A successful write shows for so long that the store can be written.
CHECK_SECONDS = 1.0
Result = TypeVar("Result")
Connection = psycopg.Connection[tuple[Any, ...]]


class _Again(Exception):
    """Another transaction came in between; the same work is done again from its begin."""


@dataclass
class _User:
    """A locked user during one batch."""

    number: int
    num_events: int
    trimmed_until: int
    erased_until: int
    added: list[tuple[int, Event]] = field(default_factory=list)
    trimmed: Iterable[tuple[int]] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored of the user, before and after the batch."""
        return not self.num_events and not self.added

    def changed(self) -> tuple[int, int, int, int | None]:
        """Number, version, number of events and the latest time that was trimmed, after the batch."""
        removed = [time for (time,) in self.trimmed]
        trimmed_until = max([self.trimmed_until, *removed])
        version = max(arrival for arrival, _ in self.added)
        num_events = self.num_events + len(self.added) - len(removed)
        return self.number, version, num_events, None if trimmed_until == BEFORE_ALL_TIME else trimmed_until


class PostgresqlStore:
    """A HistoryStore in a database. Servers may share it; an acknowledged event is committed there.

    Args:
        address: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with the options of libpq.
        history_limit: The latest so many events of a user are kept.
        durability: "durable": a commit waits for the disk. "fast": it does not, and a crash of the database may take
            the last commits.

    Raises:
        InputError: The database may not be changed, does not write to its disk, or has a store of a newer format.
        StoreUnavailable: It cannot be reached.
    """

    def __init__(self, address: str, history_limit: int = 1000, durability: str = "durable") -> None:
        self.history_limit, self.durability = history_limit, durability
        self.shown = without_password(address)
        self._limits: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "variseq"}
        self._address = address
        with self._errors():
            try:
                with psycopg.connect(address, **self._limits) as connection:
                    self._secret = self._make_tables(connection)
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn) as error:
                raise InputError(
                    f"The store {self.shown} cannot make its tables ({_first_line(error)}). Give a user that may "
                    "create tables, and a schema without other tables of these names."
                ) from error
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            address,
            connection_class=psycopg.Connection[tuple[Any, ...]],
            # A read is one statement, and a write begins its own transaction.
            kwargs=self._limits | {"autocommit": True},
            configure=self._configure,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            timeout=POOL_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            check=ConnectionPool.check_connection,
            open=True,
        )
        self._last_write = float("-inf")

    def append(self, events: Sequence[Event]) -> Appended:
        """Store all events or none; see `HistoryStore.append`."""
        valid = validate_events(events)
        return self._write(lambda connection: self._insert(connection, valid))

    def history(self, user_id: Id) -> list[Event]:
        """The user's latest events, oldest first."""
        check_id(user_id, "user_id")
        rows = self._read(HISTORY, (_bytes(user_id), self.history_limit))
        return [_event(user_id, *row) for row in reversed(rows)]

    def version(self, user_id: Id) -> int:
        """The order of arrival of the user's newest event; 0 for an unknown user."""
        check_id(user_id, "user_id")
        rows = self._read("SELECT version FROM variseq_users WHERE user_id = %s", (_bytes(user_id),))
        return int(rows[0][0]) if rows else 0

    def users(self, prefix: str, limit: int) -> list[Id]:
        """The first users whose id begins with `prefix`: whole numbers in order, then text."""
        found: list[Id] = []
        for first, last in integer_prefix_ranges(prefix):
            statement = "SELECT whole_id FROM variseq_users WHERE whole_id BETWEEN %s AND %s ORDER BY whole_id LIMIT %s"
            found += [one for (one,) in self._read(statement, (first, last, limit - len(found)))]
        begin = _bytes(prefix)
        # No byte of UTF-8 is 255.
        end = begin[:-1] + bytes([begin[-1] + 1])
        statement = "SELECT user_id FROM variseq_users WHERE user_id >= %s AND user_id < %s ORDER BY user_id LIMIT %s"
        return found + [_id(one) for (one,) in self._read(statement, (begin, end, limit - len(found)))]

    def erase(self, user_id: Id) -> int:
        """Remove all of a user; the number of events removed.

        No query finds them any more. Their bytes stay in files and in the write-ahead log of the database until it
        uses the space again.
        """
        check_id(user_id, "user_id")
        return self._write(lambda connection: self._delete(connection, user_id))

    def counts(self) -> StoreCounts:
        """The numbers of users, events and erasures; the users are counted at each call."""
        ((users, events, erased),) = self._read(COUNTS, ())
        return StoreCounts(int(users), int(events), int(erased))

    def check(self) -> None:
        """Read, and write unless a write succeeded within the last second."""
        if time.monotonic() - self._last_write > CHECK_SECONDS:
            self._write(lambda connection: connection.execute("UPDATE variseq_store SET checked = now()"))
        else:
            self._read("SELECT format FROM variseq_store", ())

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """See `DurableStore.snapshot`."""
        with self._errors(), psycopg.connect(self._address, **self._limits) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            users, items = (
                frozenset(int if kind == b"i" else str for (kind,) in connection.execute(one.encode())) for one in KINDS
            )
            with connection.cursor(name="variseq_events") as cursor:
                cursor.itersize = ROWS_AT_ONCE
                cursor.execute(ALL_EVENTS.encode())
                yield Snapshot(users, items, map(_row, cursor))

    def _configure(self, connection: Connection) -> None:
        """Settings of a new connection."""
        commit = "on" if self.durability == "durable" else "off"
        connection.execute(f"SET statement_timeout = {1000 * ANSWER_SECONDS}".encode())
        connection.execute(f"SET synchronous_commit = {commit}".encode())

    def _make_tables(self, connection: Connection) -> bytes:
        connection.execute(OPENING)
        if _one(connection, "SHOW fsync") == ("off",) and self.durability == "durable":
            raise InputError(
                f"The database of {self.shown} does not write to its disk (fsync = off), so no event would be safe. "
                "Switch fsync on, or give durability=fast."
            )
        if _one(connection, "SELECT to_regclass('variseq_store')") == (None,):
            connection.execute(SCHEMA.encode())
            statement = "INSERT INTO variseq_store (format, secret) VALUES (%s, %s)"
            connection.execute(statement, (FORMAT_VERSION, secrets.token_bytes(SECRET_BYTES)))
        version, secret = _one(connection, "SELECT format, secret FROM variseq_store")
        if version > FORMAT_VERSION:
            raise InputError(
                f"The store {self.shown} has format {version}; this release reads up to {FORMAT_VERSION}. Update "
                "variseq."
            )
        return bytes(secret)

    def _locked(self, connection: Connection, user_ids: Sequence[Id]) -> dict[Id, _User]:
        """The users, each with a row that no other transaction changes now; an unknown user gets one."""
        ids = sorted({_bytes(one): one for one in user_ids}.items())
        whole = [one if isinstance(one, int) else None for _, one in ids]
        names, hashes = [name for name, _ in ids], {user_hash(self._secret, one): one for _, one in ids}
        with connection.pipeline():
            connection.execute(ADD_USERS, (names, whole))
            locked = connection.execute(LOCK_USERS, (names,))
            markers = connection.execute(ERASED, (list(hashes),))
        rows = {bytes(name): rest for name, *rest in locked}
        if len(rows) < len(ids):
            # Somebody else removed a row after it was found.
            raise _Again
        erased = {hashes[bytes(marker)]: until for marker, until in markers}
        found = {}
        for name, one in ids:
            number, num_events, trimmed = rows[name]
            trimmed = BEFORE_ALL_TIME if trimmed is None else trimmed
            found[one] = _User(number, num_events, trimmed, erased.get(one, BEFORE_ALL_TIME))
        return found

    def _insert(self, connection: Connection, events: Sequence[Event]) -> Appended:
        if not events:
            return Appended(0, 0, 0)
        users = self._locked(connection, [one.user_id for one in events])
        with connection.pipeline():
            rows = connection.execute(KNOWN, ([one.event_id.encode() for one in events],))
            numbers = connection.execute(ARRIVALS, (len(events),))
        known = {event.event_id: event for event in (_event(_id(user_id), *rest) for user_id, *rest in rows)}
        arrivals = sorted(number for (number,) in numbers)
        duplicates = refused = 0
        accepted = set()
        for arrival, event in zip(arrivals, events, strict=True):
            user, same_id = users[event.user_id], known.get(event.event_id)
            if event.timestamp <= user.erased_until:
                refused += 1
            elif same_id is not None and same_id != event:
                raise EventConflict(event)
            elif same_id is not None:
                duplicates += 1
            else:
                accepted.add(event.event_id)
                # An event that is not newer than a removed one is accepted and not kept.
                if event.timestamp > user.trimmed_until:
                    user.added.append((arrival, event))
                    known[event.event_id] = event
        self._add(connection, list(users.values()))
        return Appended(len(events) - duplicates - refused, duplicates, refused, frozenset(accepted))

    def _add(self, connection: Connection, users: list[_User]) -> None:
        added = [(user.number, arrival, event) for user in users for arrival, event in user.added]
        columns = (
            [number for number, _, _ in added],
            [arrival for _, arrival, _ in added],
            [event.event_id.encode() for _, _, event in added],
            [_bytes(event.item_id) for _, _, event in added],
            [event.timestamp for _, _, event in added],
            [None if event.behavior is None else event.behavior.encode() for _, _, event in added],
            [event.value for _, _, event in added],
        )
        changed, empty = [user for user in users if user.added], [one.number for one in users if one.is_empty]
        with connection.pipeline():
            inserted = connection.execute(INSERT, columns)
            for user in changed:
                if user.num_events + len(user.added) > self.history_limit:
                    user.trimmed = connection.execute(TRIM, (user.number, user.number, self.history_limit))
            connection.execute(REMOVE_EMPTY, (empty,))
        if inserted.rowcount < len(added):
            # Another user's batch has stored one of these ids meanwhile.
            raise _Again
        states = zip(*(user.changed() for user in changed), strict=True)
        if changed:
            connection.execute(CHANGE_USERS, [list(one) for one in states])

    def _delete(self, connection: Connection, user_id: Id) -> int:
        (user,) = self._locked(connection, [user_id]).values()
        statement = 'DELETE FROM variseq_events WHERE user_number = %s RETURNING "timestamp"'
        removed = [time for (time,) in connection.execute(statement, (user.number,))]
        connection.execute("DELETE FROM variseq_users WHERE user_number = %s", (user.number,))
        connection.execute(MARK, (user_hash(self._secret, user_id), erased_until(max(removed, default=None))))
        return len(removed)

    def _write(self, work: Callable[[Connection], Result]) -> Result:
        """The result of work in one transaction, which is done again where another came in between."""
        with self._errors():
            for attempt in range(MAX_TRIES):
                try:
                    with self._pool.connection() as connection, connection.transaction():
                        result = work(connection)
                except (_Again, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                    time.sleep(0.001 * 2**attempt)
                    continue
                self._last_write = time.monotonic()
                return result
        raise StoreUnavailable(f"The store {self.shown} is changed by too many others at once. Try again.")

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._errors(), self._pool.connection() as connection:
            return connection.execute(statement.encode(), values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PoolClosed as error:
            raise StoreUnavailable(f"The store {self.shown} has been closed.") from error
        except PoolTimeout as error:
            raise StoreUnavailable(f"The store {self.shown} does not answer. Is PostgreSQL running?") from error
        except psycopg.Error as error:
            # The next check has to write.
            self._last_write = float("-inf")
            raise StoreUnavailable(
                f"The store {self.shown} cannot answer ({_first_line(error)}). Check PostgreSQL; then try again."
            ) from error


def _one(connection: Connection, statement: str) -> tuple[Any, ...]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _bytes(one: Id) -> bytes:
    return typed(one).encode("utf-8")


def _id(name: bytes) -> Id:
    text = bytes(name).decode("utf-8")
    return int(text[2:]) if text.startswith("i:") else text[2:]


def _row(row: tuple[Any, ...]) -> Row:
    user_id, item_id, timestamp, behavior, value = row
    return _id(user_id), _id(item_id), timestamp, _text(behavior), value


def _text(name: bytes | None) -> str | None:
    return None if name is None else bytes(name).decode("utf-8")


def _event(user_id: Id, event_id: bytes, item_id: bytes, *rest: Any) -> Event:
    timestamp, behavior, value = rest
    return Event(bytes(event_id).decode("utf-8"), user_id, _id(item_id), timestamp, _text(behavior), value)
