"""Who may send a request: keys, rate limits and the audit log."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.privacy.erased_users import read_or_make_secret
from variseq.serving.http import HTTPError, RequestContext, overloaded, unavailable
from variseq.serving.keys import Key, find_key

log = logging.getLogger("variseq.serving")
MAX_NAMES = 10_000
NO_WAIT_SECONDS = 1e-9  # Sums of floats are this far off.
FAILED_RATE, FAILED_BURST = 5.0, 20.0  # Requests a second without a valid key, of one address.
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rb"https?://" + _LOCAL_HOST.pattern, re.IGNORECASE)


class TokenBuckets:
    """One token bucket a name: `burst` requests at once, `rate` a second in the long run. Used by one thread only.

    The table keeps the names that were used last; a name that falls out starts with a full bucket again.

    >>> buckets = TokenBuckets(rate=2.0, burst=1.0)
    >>> [buckets.wait_seconds("shop", now) for now in (0.0, 0.1, 0.6)]
    [0.0, 0.4, 0.0]
    """

    def __init__(self, rate: float, burst: float, max_names: int = MAX_NAMES) -> None:
        self.rate = rate
        self.burst = burst
        self.max_names = max_names
        self._emptied: OrderedDict[str, float] = OrderedDict()  # When the bucket had, or will have, no token.

    def __len__(self) -> int:
        return len(self._emptied)

    def wait_seconds(self, name: str, now: float) -> float:
        """0 where the request may go on (one token is taken), otherwise how long to wait."""
        wait = self._empty(name, now) + 1.0 / self.rate - now
        if wait > NO_WAIT_SECONDS:
            return wait
        self.charge(name, 1, now)
        return 0.0

    def charge(self, name: str, tokens: int, now: float) -> None:
        """Take tokens that may not be there yet: what follows waits until the bucket has one again.

        >>> buckets = TokenBuckets(rate=2.0, burst=1.0)
        >>> buckets.wait_seconds("shop", 0.0), buckets.charge("shop", 3, 0.0), buckets.wait_seconds("shop", 0.0)
        (0.0, None, 2.0)
        """
        self._emptied[name] = self._empty(name, now) + tokens / self.rate
        self._emptied.move_to_end(name)
        if len(self._emptied) > self.max_names:
            self._emptied.popitem(last=False)

    def _empty(self, name: str, now: float) -> float:
        full = now - self.burst / self.rate
        return max(self._emptied.get(name, full), full)


class AuditLog:
    """Appends one JSON line an act; a line is on the disk before the act is answered. `path` None keeps no log.

    A user is a keyed hash: the same user gives the same hash, and the hash does not give the user.
    One call writes a whole line, so several processes may share the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._secret = b""
        self._descriptor = -1
        self._pool = ThreadPoolExecutor(1, "audit")
        if path is None:
            return
        try:
            self._secret = read_or_make_secret(path.with_name(path.name + ".key"))
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise InputError(f"The audit log {path} cannot be written: {error.strerror}.") from error

    async def write(self, act: str, key: str, outcome: str, request_id: str, user_id: Id | None = None) -> None:
        """Return when the line is on the disk. `key` is the name of the caller's key. Raises HTTPError (503)."""
        if self._descriptor < 0:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": time, "act": act, "key": key, "outcome": outcome, "request_id": request_id}
        if user_id is not None:
            record["user"] = self.hash_of(user_id)
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._append, line)
        except OSError as error:
            raise unavailable(f"The audit log cannot be written ({error.strerror}). Inform the operator.") from error

    def hash_of(self, user_id: Id) -> str:
        """What stands for a user in the log."""
        return hmac.new(self._secret, f"{type(user_id).__name__}:{user_id}".encode(), hashlib.sha256).hexdigest()[:32]

    def close(self) -> None:
        self._pool.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: bytes) -> None:
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)


@dataclass
class Auth:
    """What decides about requests. Without keys, everybody who names this machine as the host is let in."""

    keys: Sequence[Key] | None
    buckets: TokenBuckets | None
    audit: AuditLog
    is_draining: bool = False
    failed: TokenBuckets = field(default_factory=lambda: TokenBuckets(FAILED_RATE, FAILED_BURST))

    def charge(self, caller: Key, requests: int) -> None:
        """Count one request as several: the caller's next ones wait longer."""
        if self.buckets is not None:
            self.buckets.charge(caller.name, requests, monotonic())

    async def authorize(self, context: RequestContext, is_open: bool) -> None:
        """Raises HTTPError unless the request may go on; `is_open` for a route that takes everybody."""
        if self.keys is None:
            _reject_other_hosts(context)
        if is_open:
            return
        if self.keys is not None:
            context.caller = await self._caller(context, self.keys)
        if self.buckets is not None:
            wait = self.buckets.wait_seconds(context.caller.name, monotonic())
            if wait > 0.0:
                raise overloaded(f"This key may send {self.buckets.rate:g} requests a second.", wait)

    async def _caller(self, context: RequestContext, keys: Sequence[Key]) -> Key:
        scheme, _, key = context.headers.get(b"authorization", b"").partition(b" ")
        caller = find_key(keys, key.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None
        if caller is not None:
            return caller
        wait = self.failed.wait_seconds(context.client, monotonic())
        if wait > 0.0:
            raise overloaded("Too many requests without a valid key came from this address.", wait)
        if key:
            await self.audit.write("refused key", "-", "refused", context.request_id)
        raise HTTPError(
            401, "This needs a key. Send the header Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"}
        )

    async def audit_forbidden(self, context: RequestContext) -> None:
        """Audit a key that was used without the role, unless the same key does so all the time."""
        name = context.caller.name
        if self.keys is None or self.failed.wait_seconds(f"key {name}", monotonic()) > 0.0:
            return
        act = f"{context.scope['method']} {context.template}"
        try:
            await self.audit.write(act, name, "refused: no such role", context.request_id)
        except HTTPError as error:
            log.error("%s", error.message)


def _reject_other_hosts(context: RequestContext) -> None:
    """Without keys, a page of another site reaches nothing: neither by DNS rebinding nor from its own origin."""
    origin = context.headers.get(b"origin")
    if not _LOCAL_HOST.fullmatch(context.headers.get(b"host", b"")):
        raise HTTPError(403, "Without keys only localhost, 127.0.0.1 and [::1] are answered as Host.", closes=True)
    if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
        raise HTTPError(403, "Without keys no page of another site is answered.", closes=True)
