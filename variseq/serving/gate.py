"""Every request, before it reaches a route: who sends it, whether it may come in, and what is recorded of it."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from time import monotonic, perf_counter
from typing import Protocol, runtime_checkable

from starlette.types import ASGIApp, Receive, Scope, Send

from variseq.errors import InputError
from variseq.serving.audit import AuditLog
from variseq.serving.exchange import JSON, Disconnected, Exchange, Page
from variseq.serving.keys import Caller, KeyRing
from variseq.serving.limits import TokenBuckets
from variseq.serving.refusals import Refusal, overloaded, unavailable
from variseq.serving.schemas import encode
from variseq.serving.stores.protocol import EventConflict, StoreUnavailable

log = logging.getLogger("variseq.serving")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rb"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
REFUSED_RATE, REFUSED_BURST = 5.0, 20.0  # Wrong keys a second from one address that are looked at.
CLIENT_CLOSED = 499


@runtime_checkable
class Recorder(Protocol):
    """Takes note of a request that is done, and of a store that failed."""

    def record(self, exchange: Exchange, method: str, seconds: float) -> None: ...

    def store_failed(self, error: StoreUnavailable) -> None: ...


@dataclass
class Door:
    """What the gate goes by. `keys` None lets everybody in who names this machine as the host."""

    keys: KeyRing | None
    buckets: TokenBuckets | None
    audit: AuditLog
    is_draining: bool = False

    def charge(self, caller: Caller, requests: int) -> None:
        """Count what stands for several requests as several: the caller's next ones wait the longer."""
        if self.buckets is not None:
            self.buckets.charge(caller.name, requests, monotonic())


class Gate:
    """The outermost ASGI application; whatever happens behind it, the answer is one of the API's."""

    def __init__(self, inside: ASGIApp, door: Door, open_paths: Collection[str], recorder: Recorder) -> None:
        self.inside = inside
        self.door = door
        self.open_paths = frozenset(open_paths)
        self.recorder = recorder
        self._refused = TokenBuckets(REFUSED_RATE, REFUSED_BURST)
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = perf_counter()
        headers = dict(scope["headers"])
        exchange = Exchange(scope, receive, send, self._request_id(headers), headers, closes=self.door.is_draining)
        scope["exchange"] = exchange
        # Matched as it was sent: what is encoded in an id is not decoded before the path is taken apart.
        scope["path"] = scope["raw_path"].decode("latin-1")
        try:
            await self._admit(exchange)
            await self.inside(scope, receive, send)
        except Disconnected:
            exchange.status = CLIENT_CLOSED
        except Exception as error:
            await self._refuse(exchange, error)
        self.recorder.record(exchange, scope["method"], perf_counter() - start)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}-{next(self._numbers):x}"

    async def _admit(self, exchange: Exchange) -> None:
        """Raises Refusal unless the request may go on to the routes."""
        door = self.door
        if door.keys is None:
            _refuse_other_hosts(exchange)
        if exchange.scope["path"] in self.open_paths and exchange.scope["method"] in ("GET", "HEAD"):
            return
        if door.keys is not None:
            exchange.caller = await self._caller(exchange, door.keys)
        if door.buckets is not None:
            wait = door.buckets.wait_seconds(exchange.caller.name, monotonic())
            if wait > 0.0:
                raise overloaded(f"This key may send {door.buckets.rate:g} requests a second.", wait)

    async def _caller(self, exchange: Exchange, keys: KeyRing) -> Caller:
        scheme, _, key = exchange.headers.get(b"authorization", b"").partition(b" ")
        caller = keys.find(key.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None
        if caller is not None:
            return caller
        wait = self._refused.wait_seconds(exchange.client, monotonic())
        if wait > 0.0:
            raise overloaded("Too many requests without a valid key came from this address.", wait)
        if key:
            await self.door.audit.write("refused key", "-", "refused", exchange.request_id)
        raise Refusal(
            401, "This needs a key. Send the header Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"}
        )

    async def _refuse(self, exchange: Exchange, error: Exception) -> None:
        refusal = _refusal_of(error)
        if refusal is None:
            log.error("unexpected error", exc_info=error, extra={"request_id": exchange.request_id})
            refusal = Refusal(500, "Something went wrong inside the server; its log has more under the request id.")
        if exchange.status:
            raise error  # An answer was begun, a second one cannot be sent.
        if isinstance(error, StoreUnavailable):
            self.recorder.store_failed(error)
        if refusal.status == 403 and self.door.keys is not None:
            await self._note_refusal(exchange)
        has_body = exchange.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in exchange.headers
        exchange.closes |= refusal.closes or (has_body and not exchange.body_read)
        answer = encode(refusal.answer(exchange.request_id))
        await exchange.reply(refusal.status, Page(answer, JSON), refusal.headers)

    async def _note_refusal(self, exchange: Exchange) -> None:
        """A key was used for what it may not do: on record, unless the same key does so all the time."""
        name = exchange.caller.name
        if self._refused.wait_seconds(f"key {name}", monotonic()) == 0.0:
            act = f"{exchange.scope['method']} {exchange.template}"
            try:
                await self.door.audit.write(act, name, "refused: no such role", exchange.request_id)
            except Refusal as error:
                log.error("%s", error.message)


def _refusal_of(error: Exception) -> Refusal | None:
    """What an error means to the client; None for one that nobody foresaw."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, StoreUnavailable):
        # What it says names files and addresses of the server: that is for the log.
        return unavailable("The store of histories cannot be used now. Nothing was stored. Send the request again.")
    if isinstance(error, EventConflict):
        return Refusal(409, str(error))
    if isinstance(error, InputError):
        return Refusal(400, str(error))
    return None


def _refuse_other_hosts(exchange: Exchange) -> None:
    """Without keys, a page of another site must reach nothing here: neither by a name that leads to this machine, nor
    from its own origin."""
    origin = exchange.headers.get(b"origin")
    if not _LOCAL_HOST.fullmatch(exchange.headers.get(b"host", b"")):
        raise Refusal(403, "Without keys only localhost, 127.0.0.1 and [::1] are answered as Host.", closes=True)
    if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
        raise Refusal(403, "Without keys no page of another site is answered.", closes=True)
