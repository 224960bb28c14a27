"""An address into a connection to a Redis that is known to have all of this replica's record, or a quick refusal.

Redis may go away, come back empty, or come back without its last second. Every connection asks at its beginning in
which run of Redis it is, and every read and change asks whether the record was pushed in this run. One thread looks
after Redis: it pushes the record again when it has to, and what could not be pushed when Redis was away.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from redis import BlockingConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry

from variseq.errors import InputError
from variseq.serving.stores.protocol import StoreUnavailable

Result = TypeVar("Result")

CONNECT_SECONDS, ANSWER_SECONDS = 0.5, 1.0
MAX_CONNECTIONS = 32
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LOOKS_WHEN_AWAY = 0.1
# How long a call waits while the record is being pushed; a larger record takes longer, and calls are refused.
FILLING_PATIENCE_SECONDS = 2.0
MAX_OWED = 10_000


class NotFilled(Exception):
    """Redis does not have all of the record: it was emptied, or it is another run of it."""


class _Restarted(RedisConnectionError):
    """A connection has come to another run of Redis than the record was pushed to."""


# A change of Redis in the run that is expected; it raises NotFilled.
Change = Callable[[Redis, str], Result]


class RedisLink:
    """The way to Redis of one replica."""

    def __init__(
        self,
        url: str,
        record: str,
        fill: Callable[[Redis, str], bool],
        look: Callable[[Redis], None],
    ) -> None:
        self._shown_url = re.sub(r"//[^@/]*@", "//", url)
        self._record = record
        self._fill = fill
        self._look = look
        self._run = ""
        self.num_fillings = 0
        limits: dict[str, Any] = {
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        try:
            self._asking = Redis.from_url(url, **limits)
            self._pool = BlockingConnectionPool.from_url(
                url, max_connections=MAX_CONNECTIONS, timeout=ANSWER_SECONDS, redis_connect_func=self._greet, **limits
            )
        except ValueError as error:
            raise InputError(f"The address of Redis {self._shown_url!r} cannot be read ({error}).") from error
        self._client = Redis(connection_pool=self._pool)
        self._owed: deque[Change[Any]] = deque()
        self._is_ready = threading.Event()
        self._trouble: str | None = None
        self._wake = threading.Event()
        self._is_closed = False
        self._keeper = threading.Thread(target=self._look_after, name="variseq-redis", daemon=True)

    def start(self) -> None:
        """Connect and fill; raises StoreUnavailable, and InputError for a Redis that throws histories away."""
        try:
            memory = self._asking.info("memory")
            if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
                raise InputError(
                    f"The Redis at {self._shown_url} throws data away when its memory is full "
                    f"({memory['maxmemory_policy']}). Set its maxmemory-policy to noeviction."
                )
            self._bring_up_to_date()
        except RedisError as error:
            raise self._away(error) from error
        self._keeper.start()

    def close(self) -> None:
        """End the thread that looks after Redis, and all connections."""
        self._is_closed = True
        self._is_ready.clear()
        self._trouble = "it has been closed"
        self._wake.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self._client.close()
        self._pool.disconnect()
        self._asking.close()

    def script(self, text: str) -> Script:
        """A script that is sent once and then named by its digest."""
        return self._client.register_script(text)

    def read(self, ask: Callable[[Pipeline], object]) -> Any:
        """The answer to one question, from a Redis that has the whole record."""

        def ask_both(client: Redis, run: str) -> Any:
            with client.pipeline(transaction=False) as pipeline:
                ask(pipeline)
                pipeline.hget("variseq:filled", self._record)
                answer, filled_in = pipeline.execute()
            if filled_in != run.encode():
                raise NotFilled
            return answer

        return self._call(ask_both)

    def call_or_owe(self, change: Change[Result]) -> Result:
        """Make a change whose counterpart is in the record; if Redis is away, it is made as soon as it is back."""
        try:
            return self._call(change)
        except StoreUnavailable:
            self._owed.append(change)
            raise

    def refuse_if_away(self) -> None:
        """Raises StoreUnavailable at once while Redis is away, and after a while while it is being filled."""
        if self._is_ready.is_set():
            return
        if self._trouble is None:
            self._wake.set()
            self._is_ready.wait(FILLING_PATIENCE_SECONDS)
        if not self._is_ready.is_set():
            trouble = self._trouble or "it is being filled again from the record"
            raise StoreUnavailable(f"The Redis at {self._shown_url} cannot be used now: {trouble}. Try again.")

    def _call(self, change: Change[Result]) -> Result:
        for _ in range(3):
            self.refuse_if_away()
            try:
                return change(self._client, self._run)
            except (NotFilled, _Restarted):
                self._is_ready.clear()
                self._wake.set()
            except OutOfMemoryError as error:
                # Reading goes on.
                raise StoreUnavailable(
                    f"The Redis at {self._shown_url} is full. Raise its maxmemory, or lower history_limit."
                ) from error
            except RedisError as error:
                raise self._away(error) from error
        raise StoreUnavailable(f"The Redis at {self._shown_url} loses its data again and again. See to it.")

    def _away(self, error: RedisError) -> StoreUnavailable:
        self._trouble = f"{error}"
        self._is_ready.clear()
        self._wake.set()
        return StoreUnavailable(
            f"The Redis at {self._shown_url} does not answer ({error}). Start it, or see to the network; "
            "calls work again as soon as it is back."
        )

    def _look_after(self) -> None:
        while not self._is_closed:
            self._wake.wait(SECONDS_BETWEEN_LOOKS if self._is_ready.is_set() else SECONDS_BETWEEN_LOOKS_WHEN_AWAY)
            self._wake.clear()
            if self._is_closed:
                return
            try:
                self._bring_up_to_date()
            except (RedisError, StoreUnavailable) as error:
                self._is_ready.clear()
                self._trouble = f"{error}"

    def _bring_up_to_date(self) -> None:
        run = str(self._asking.info("server")["run_id"])
        if run != self._run:
            self._is_ready.clear()
            self._run = run
        filled_in = self._client.hget("variseq:filled", self._record)
        if filled_in != run.encode() or len(self._owed) > MAX_OWED:
            self._is_ready.clear()
            self._trouble = None
            self.num_fillings += 1
            # A filling has all that is owed in it, but for erasures that Redis has to hear of once more.
            if not self._fill(self._client, run):
                return
        self._look(self._client)
        while self._owed:
            try:
                self._owed[0](self._client, run)
            except NotFilled:
                return
            except OutOfMemoryError:
                break
            except InputError:
                pass  # A conflict: another replica was first.
            self._owed.popleft()
        if not self._is_closed:
            self._trouble = None
            self._is_ready.set()

    def _greet(self, connection: Any) -> None:
        """What every connection says first."""
        connection.on_connect()
        connection.send_command("INFO", "server")
        found = re.search(rb"run_id:([0-9a-f]+)", connection.read_response())
        if found is None or found[1].decode() != self._run:
            raise _Restarted("another run of Redis")
