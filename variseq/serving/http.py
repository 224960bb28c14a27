"""HTTP requests, responses and errors of the API: bounded bodies, validated input, one error format."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.types import Receive, Scope, Send

from variseq.serving.keys import ANONYMOUS, Caller, Role

JSON = b"application/json"
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
NO_STORE = b"no-store"
LINGER_SECONDS = 1.0
LINGER_BYTES = 4 * 1024 * 1024
KIB = 1024
BODY_BYTES = 64 * KIB
MAX_QUERY_BYTES = 4 * KIB
ERROR_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
State = TypeVar("State")
encode = msgspec.json.Encoder().encode


class ErrorDetail(msgspec.Struct):
    """What came, what is allowed, what to do."""

    code: str
    message: str
    request_id: str


class ErrorResponse(msgspec.Struct):
    """The response to every request that fails."""

    error: ErrorDetail


class HTTPError(Exception):
    """A request that fails with a status. `closes` ends the connection: the rest of the request stays unread."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, closes: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.closes = closes


def overloaded(message: str, seconds: float = 1.0) -> HTTPError:
    """More requests came than can be answered now."""
    return HTTPError(429, message, {"Retry-After": str(max(1, round(seconds + 0.5)))})


def unavailable(message: str, seconds: int = 1) -> HTTPError:
    """The request is valid and cannot be answered now."""
    return HTTPError(503, message, {"Retry-After": str(seconds)})


class ClientDisconnected(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(frozen=True, slots=True)
class Page:
    """A body that is not JSON, with its own content policy; it holds no personal data."""

    body: bytes
    media_type: bytes
    policy: bytes = API_POLICY
    cache: bytes = NO_STORE


@dataclass(slots=True, eq=False)
class RequestContext:
    """A request and its validated input. `template` is its route, never its path: a path may name a user."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[bytes, bytes]
    caller: Caller = ANONYMOUS
    template: str = "unmatched"
    status: int = 0
    closes: bool = False
    body_read: bool = False
    body: Any = None
    query: Any = None
    path: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> str:
        """The address of the client."""
        client = self.scope.get("client")
        return str(client[0]) if client else "unknown"

    @property
    def has_body(self) -> bool:
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    async def read_body(self, max_bytes: int, seconds: float) -> bytes:
        """The body, counted as it arrives. Raises HTTPError: not JSON (415), too large (413), too slow (408)."""
        content_type = self.headers.get(b"content-type", b"")
        if content_type.split(b";", 1)[0].strip().lower() != JSON or b"content-encoding" in self.headers:
            raise HTTPError(
                415, "Send JSON, not compressed, with the header Content-Type: application/json.", closes=True
            )
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(seconds):
                body = await self._receive_body(max_bytes)
        except TimeoutError as error:
            raise HTTPError(408, f"The request was not complete after {seconds:g} seconds.", closes=True) from error
        self.body_read = True
        return body

    async def _receive_body(self, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        num_bytes = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk: bytes = message.get("body", b"")
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def reply(self, status: int, page: Page, headers: Mapping[str, str] | None = None) -> None:
        """Send the response; once only."""
        self.status = status
        sent = [
            (b"content-type", page.media_type),
            (b"content-length", str(len(page.body)).encode()),
            (b"x-request-id", self.request_id.encode()),
            (b"cache-control", page.cache),
            (b"content-security-policy", page.policy),
            *SECURITY_HEADERS,
        ]
        if headers:
            sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if self.closes:
            sent.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        lingers = self.closes and not self.body_read
        await self.send({"type": "http.response.body", "body": page.body, "more_body": lingers})
        if lingers:
            await self._discard_body()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: HTTPError) -> None:
        """Send an error in the format of the API."""
        self.closes |= error.closes or (self.has_body and not self.body_read)
        detail = ErrorDetail(ERROR_CODES[error.status], error.message, self.request_id)
        await self.reply(error.status, Page(encode(ErrorResponse(detail)), JSON), error.headers)

    async def _discard_body(self) -> None:
        """Read on for a moment: a connection that is closed with unread data loses the response, too."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while num_bytes < LINGER_BYTES:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    num_bytes += len(message.get("body", b""))


@dataclass(frozen=True)
class Route(Generic[State]):
    """One method of one path. `role` None is open to everybody; the handler returns a Struct or a Page.

    `statuses` are the errors that it may return in addition to those of every route.
    """

    method: str
    path: str
    summary: str
    role: Role | None
    handler: Callable[[State, RequestContext], Awaitable[Any]]
    answer: Any = None
    body: Any = None
    query: Any = None
    max_bytes: int = BODY_BYTES
    statuses: tuple[int, ...] = ()
    media_type: str = "application/json"


class Endpoint(Generic[State]):
    """All methods of one path, as an ASGI application behind the middleware."""

    def __init__(self, routes: list[Route[State]], state: State, body_seconds: float) -> None:
        self.path = routes[0].path
        self.state = state
        self.body_seconds = body_seconds
        self.routes = {one.method: one for one in routes}
        self.decoders = {one.method: msgspec.json.Decoder(one.body) for one in routes if one.body is not None}
        if "GET" in self.routes:
            self.routes["HEAD"] = self.routes["GET"]
        self.allowed = ", ".join(sorted(self.routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["context"]
        context.template = self.path
        route = self.routes.get(scope["method"])
        if route is None:
            raise HTTPError(405, f"{self.path} takes {self.allowed}.", {"Allow": self.allowed})
        if route.role is not None and route.role not in context.caller.roles:
            raise HTTPError(403, f"This key has no role {route.role!r}, which {route.method} {self.path} needs.")
        if route.body is not None:
            context.body = self._decode(await context.read_body(route.max_bytes, self.body_seconds), route.method)
        elif context.has_body:
            raise HTTPError(400, "This request takes no body. Send it without.", closes=True)
        else:
            context.body_read = True
        context.query = _decode_query(scope["query_string"], route.query)
        context.path = {name: _unquoted(text) for name, text in scope["path_params"].items()}
        answer = await route.handler(self.state, context)
        await context.reply(200, answer if isinstance(answer, Page) else Page(encode(answer), JSON))

    def _decode(self, body: bytes, method: str) -> Any:
        try:
            return self.decoders[method].decode(body)
        except msgspec.ValidationError as error:
            raise HTTPError(400, f"The request is not of the right form: {error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HTTPError(400, f"The body is no JSON: {error}.") from error


def _too_large(max_bytes: int) -> HTTPError:
    return HTTPError(413, f"The body is larger than {max_bytes:,} bytes. Send less at once.", closes=True)


def _decode_query(raw: bytes, kind: Any) -> Any:
    if not raw and kind is None:
        return None
    try:
        pairs = parse_qsl(
            raw[: MAX_QUERY_BYTES + 1].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=20,
        )
    except ValueError as error:
        raise HTTPError(400, f"The part after ? cannot be read: {error}.") from error
    values = dict(pairs)
    if len(raw) > MAX_QUERY_BYTES or len(values) < len(pairs) or (values and kind is None):
        raise HTTPError(400, "The part after ? is too long, names something twice, or is not taken here.")
    if kind is None:
        return None
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPError(400, f"The part after ? is not of the right form: {error}.") from error


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise HTTPError(400, "The path is no UTF-8 text, percent-encoded.") from error
