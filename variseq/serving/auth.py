"""Authentication and accounting of requests: keys, rate limits, the audit log, and the middleware that applies them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic, perf_counter
from typing import Protocol, runtime_checkable

from starlette.types import ASGIApp, Receive, Scope, Send

from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.serving.http import ClientDisconnected, HTTPError, RequestContext, overloaded, unavailable
from variseq.serving.keys import Caller, KeyRing
from variseq.serving.stores.protocol import EventConflict, StoreUnavailable

log = logging.getLogger("variseq.serving")
SECRET_BYTES = 32
MAX_NAMES = 10_000
FAILED_RATE, FAILED_BURST = 5.0, 20.0  # Requests a second without a valid key, of one address.
CLIENT_CLOSED = 499
_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rb"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


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
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_seconds(self, name: str, now: float) -> float:
        """0 where the request may go on (one token is taken), otherwise how long to wait."""
        tokens = self._tokens(name, now)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self.rate
        self._keep(name, tokens - 1.0 if wait == 0.0 else tokens, now)
        return wait

    def charge(self, name: str, tokens: int, now: float) -> None:
        """Take tokens that may not be there yet: what follows waits until the bucket has one again.

        >>> buckets = TokenBuckets(rate=2.0, burst=1.0)
        >>> buckets.wait_seconds("shop", 0.0), buckets.charge("shop", 3, 0.0), buckets.wait_seconds("shop", 0.0)
        (0.0, None, 2.0)
        """
        self._keep(name, self._tokens(name, now) - tokens, now)

    def _tokens(self, name: str, now: float) -> float:
        tokens, since = self._buckets.get(name, (self.burst, now))
        return min(self.burst, tokens + (now - since) * self.rate)

    def _keep(self, name: str, tokens: float, now: float) -> None:
        self._buckets[name] = (tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self.max_names:
            self._buckets.popitem(last=False)


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
            self._secret = _read_or_make_secret(path.with_name(path.name + ".key"))
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


def _read_or_make_secret(path: Path) -> bytes:
    """The key of the hashes, made at the first start; of several processes that start at once, one makes it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if not path.exists():
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(SECRET_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_bytes()


@runtime_checkable
class RequestRecorder(Protocol):
    """Counts and logs a request that is done, and a store that failed."""

    def record(self, context: RequestContext, method: str, seconds: float) -> None: ...

    def store_failed(self, error: StoreUnavailable) -> None: ...


@dataclass
class AuthState:
    """What the middleware decides by. Without keys, everybody who names this machine as the host is let in."""

    keys: KeyRing | None
    buckets: TokenBuckets | None
    audit: AuditLog
    is_draining: bool = False

    def charge(self, caller: Caller, requests: int) -> None:
        """Count one request as several: the caller's next ones wait longer."""
        if self.buckets is not None:
            self.buckets.charge(caller.name, requests, monotonic())


class AuthMiddleware:
    """The outermost ASGI application; whatever happens behind it, the response has the format of the API."""

    def __init__(
        self, inside: ASGIApp, auth: AuthState, open_paths: Collection[str], recorder: RequestRecorder
    ) -> None:
        self.inside = inside
        self.auth = auth
        self.open_paths = frozenset(open_paths)
        self.recorder = recorder
        self._failed = TokenBuckets(FAILED_RATE, FAILED_BURST)
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = perf_counter()
        headers = dict(scope["headers"])
        context = RequestContext(scope, receive, send, self._request_id(headers), headers, closes=self.auth.is_draining)
        scope["context"] = context
        # Matched as it was sent: an id is decoded only after the path is split.
        scope["path"] = scope["raw_path"].decode("latin-1")
        try:
            await self._authorize(context)
            await self.inside(scope, receive, send)
        except ClientDisconnected:
            context.status = CLIENT_CLOSED
        except Exception as error:
            await self._fail(context, error)
        self.recorder.record(context, scope["method"], perf_counter() - start)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}-{next(self._numbers):x}"

    async def _authorize(self, context: RequestContext) -> None:
        """Raises HTTPError unless the request may go on to the routes."""
        auth = self.auth
        if auth.keys is None:
            _reject_other_hosts(context)
        if context.scope["path"] in self.open_paths and context.scope["method"] in ("GET", "HEAD"):
            return
        if auth.keys is not None:
            context.caller = await self._caller(context, auth.keys)
        if auth.buckets is not None:
            wait = auth.buckets.wait_seconds(context.caller.name, monotonic())
            if wait > 0.0:
                raise overloaded(f"This key may send {auth.buckets.rate:g} requests a second.", wait)

    async def _caller(self, context: RequestContext, keys: KeyRing) -> Caller:
        scheme, _, key = context.headers.get(b"authorization", b"").partition(b" ")
        caller = keys.find(key.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None
        if caller is not None:
            return caller
        wait = self._failed.wait_seconds(context.client, monotonic())
        if wait > 0.0:
            raise overloaded("Too many requests without a valid key came from this address.", wait)
        if key:
            await self.auth.audit.write("refused key", "-", "refused", context.request_id)
        raise HTTPError(
            401, "This needs a key. Send the header Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"}
        )

    async def _fail(self, context: RequestContext, error: Exception) -> None:
        response = _as_http_error(error)
        if response is None:
            log.error("unexpected error", exc_info=error, extra={"request_id": context.request_id})
            response = HTTPError(500, "Something went wrong inside the server; its log has more under the request id.")
        if context.status:
            raise error  # A response was begun, a second one cannot be sent.
        if isinstance(error, StoreUnavailable):
            self.recorder.store_failed(error)
        if response.status == 403 and self.auth.keys is not None:
            await self._audit_forbidden(context)
        await context.fail(response)

    async def _audit_forbidden(self, context: RequestContext) -> None:
        """Audit a key that was used without the role, unless the same key does so all the time."""
        name = context.caller.name
        if self._failed.wait_seconds(f"key {name}", monotonic()) == 0.0:
            act = f"{context.scope['method']} {context.template}"
            try:
                await self.auth.audit.write(act, name, "refused: no such role", context.request_id)
            except HTTPError as error:
                log.error("%s", error.message)


def _as_http_error(error: Exception) -> HTTPError | None:
    """What an error means to the client; None for an unexpected one."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, StoreUnavailable):
        # Its message names files and addresses of the server: that is for the log.
        return unavailable("The store of histories cannot be used now. Nothing was stored. Send the request again.")
    if isinstance(error, EventConflict):
        return HTTPError(409, str(error))
    if isinstance(error, InputError):
        return HTTPError(400, str(error))
    return None


def _reject_other_hosts(context: RequestContext) -> None:
    """Without keys, a page of another site reaches nothing: neither by DNS rebinding nor from its own origin."""
    origin = context.headers.get(b"origin")
    if not _LOCAL_HOST.fullmatch(context.headers.get(b"host", b"")):
        raise HTTPError(403, "Without keys only localhost, 127.0.0.1 and [::1] are answered as Host.", closes=True)
    if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
        raise HTTPError(403, "Without keys no page of another site is answered.", closes=True)
