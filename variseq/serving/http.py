"""HTTP requests, responses, errors and routes of the API: bounded bodies, validated input, one error format."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.types import Receive, Scope, Send

from variseq.serving.keys import ANONYMOUS, Key, Role

JSON = b"application/json"
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
LINGER_SECONDS = 1.0
LINGER_BYTES = 4 * 1024 * 1024
KIB = 1024
BODY_BYTES = 64 * KIB
MAX_QUERY_BYTES = 4 * KIB
ERRORS = {
    400: ("invalid_request", "The request is not of the right form, or contradicts itself."),
    401: ("unauthorized", "There is no valid key."),
    403: ("forbidden", "The key has no role for this, or the host is not answered without keys."),
    404: ("not_found", "There is no such thing."),
    405: ("method_not_allowed", "The path does not take this method."),
    408: ("body_timeout", "The body did not come in time."),
    409: ("conflict", "It contradicts what is there; nothing was changed."),
    413: ("too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body is no JSON."),
    429: ("too_many_requests", "Too many requests; try again after Retry-After seconds."),
    500: ("internal_error", "Something went wrong inside the server."),
    503: ("unavailable", "Not now; try again after Retry-After seconds."),
}
"""The code and the meaning of each status that a request can fail with."""
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


def unavailable(message: str) -> HTTPError:
    """The request is valid and cannot be answered now."""
    return HTTPError(503, message, {"Retry-After": "1"})


class ClientDisconnected(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(frozen=True, slots=True)
class Page:
    """A body that is not JSON, with its own content policy; it holds no personal data.

    `etag` changes with the body: a client that names it gets 304 and no body.
    """

    body: bytes
    media_type: bytes
    policy: bytes = API_POLICY
    cache: bytes = b"no-store"
    etag: bytes | None = None


@dataclass(slots=True, eq=False)
class RequestContext:
    """A request. `template` is the path of its route, never its own path, which may name a user."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[bytes, bytes]
    caller: Key = ANONYMOUS
    template: str = "unmatched"
    status: int = 0
    closes: bool = False
    body_read: bool = False

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
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if not message.get("more_body", False):
                return bytes(body)

    async def reply(self, status: int, page: Page, headers: Mapping[str, str] | None = None) -> None:
        """Send the response; once only."""
        body, of_body = page.body, [(b"content-length", str(len(page.body)).encode())]
        if page.etag is not None:
            of_body.append((b"etag", page.etag))
            if page.etag in self.headers.get(b"if-none-match", b""):
                status, body, of_body = 304, b"", of_body[1:]
        self.status = status
        sent = [
            (b"content-type", page.media_type),
            *of_body,
            (b"x-request-id", self.request_id.encode()),
            (b"cache-control", page.cache),
            (b"content-security-policy", page.policy),
            *SECURITY_HEADERS,
            *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
        ]
        if self.closes:
            sent.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        lingers = self.closes and not self.body_read
        await self.send({"type": "http.response.body", "body": body, "more_body": lingers})
        if lingers:
            await self._discard_body()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: HTTPError) -> None:
        """Send an error in the format of the API."""
        self.closes |= error.closes or (self.has_body and not self.body_read)
        code, _ = ERRORS[error.status]
        body = encode(ErrorResponse(ErrorDetail(code, error.message, self.request_id)))
        await self.reply(error.status, Page(body, JSON), error.headers)

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


Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One method of one path. `role` None is open to everybody.

    The handler takes the services, the context, the parts of the path and, where it names them, `body` and `query`,
    which are decoded as their annotations say. It returns a Struct or a Page. The first line of its docstring is the
    summary. `statuses` are the errors that it may return in addition to those of every route.
    """

    method: str
    path: str
    role: Role | None
    handler: Handler
    max_bytes: int = BODY_BYTES
    statuses: tuple[int, ...] = ()
    media_type: str = "application/json"
    types: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", get_type_hints(self.handler))

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").splitlines()[0].rstrip(".")

    @property
    def answer(self) -> Any:
        """The type of the response; None for a page."""
        return None if self.types["return"] is Page else self.types["return"]

    async def arguments(self, context: RequestContext, path: Mapping[str, str], seconds: float) -> dict[str, Any]:
        """What the handler takes of a request besides the context. Raises HTTPError where it cannot be read."""
        found: dict[str, Any] = {name: _unquoted(text) for name, text in path.items()}
        if "body" in self.types:
            found["body"] = _decoded(await context.read_body(self.max_bytes, seconds), self.types["body"])
        elif context.has_body:
            raise HTTPError(400, "This request takes no body. Send it without.", closes=True)
        context.body_read = True
        query = _decoded_query(context.scope["query_string"], self.types.get("query"))
        return found if query is None else {**found, "query": query}


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise HTTPError(400, f"The request is not of the right form: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPError(400, f"The body is no JSON: {error}.") from error


def _too_large(max_bytes: int) -> HTTPError:
    return HTTPError(413, f"The body is larger than {max_bytes:,} bytes. Send less at once.", closes=True)


def _decoded_query(raw: bytes, kind: Any) -> Any:
    if not raw and kind is None:
        return None
    try:
        text = raw[: MAX_QUERY_BYTES + 1].decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=20)
    except ValueError as error:
        raise HTTPError(400, f"The part after ? cannot be read: {error}.") from error
    values = dict(pairs)
    if len(raw) > MAX_QUERY_BYTES or len(values) < len(pairs) or kind is None:
        raise HTTPError(400, "The part after ? is too long, names something twice, or is not taken here.")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPError(400, f"The part after ? is not of the right form: {error}.") from error


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise HTTPError(400, "The path is no UTF-8 text, percent-encoded.") from error
