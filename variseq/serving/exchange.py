"""One HTTP request under way: what is known of it, its bounded body, and its one answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from variseq.serving.keys import EVERYBODY, Caller
from variseq.serving.refusals import Refusal

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


@dataclass(frozen=True, slots=True)
class Page:
    """A body that is not JSON, with its own content policy; it holds no personal data."""

    body: bytes
    media_type: bytes
    policy: bytes = API_POLICY
    cache: bytes = NO_STORE


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and what was found out about it. `template` is its route, never its path: a path may name a user."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[bytes, bytes]
    caller: Caller = EVERYBODY
    template: str = "unmatched"
    status: int = 0
    closes: bool = False
    body_read: bool = False
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def client(self) -> str:
        """The address of the other side."""
        client = self.scope.get("client")
        return str(client[0]) if client else "unknown"

    def refuse_odd_body(self) -> None:
        """For a request that takes no body. Raises Refusal where one is announced."""
        if self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers:
            raise Refusal(400, "This request takes no body. Send it without.", closes=True)
        self.body_read = True

    async def read_body(self, max_bytes: int, seconds: float) -> bytes:
        """The body, counted as it is received. Raises Refusal: no JSON (415), too large (413), too slow (408)."""
        content_type = self.headers.get(b"content-type", b"")
        if content_type.split(b";", 1)[0].strip().lower() != JSON or b"content-encoding" in self.headers:
            raise Refusal(
                415, "Send JSON, not compressed, with the header Content-Type: application/json.", closes=True
            )
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(seconds):
                body = await self._received(max_bytes)
        except TimeoutError as error:
            raise Refusal(408, f"The request was not complete after {seconds:g} seconds.", closes=True) from error
        self.body_read = True
        return body

    async def _received(self, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        num_bytes = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk: bytes = message.get("body", b"")
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def reply(self, status: int, page: Page, headers: Mapping[str, str] | None = None) -> None:
        """Send the answer; once only."""
        self.status = status
        sent = [
            (b"content-type", page.media_type),
            (b"content-length", str(len(page.body)).encode()),
            (b"x-request-id", self.request_id.encode()),
            (b"cache-control", page.cache),
            (b"content-security-policy", page.policy),
            *SECURITY_HEADERS,
            *self.extra_headers,
        ]
        if headers:
            sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if self.closes:
            sent.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        lingers = self.closes and not self.body_read
        await self.send({"type": "http.response.body", "body": page.body, "more_body": lingers})
        if lingers:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        """Throw away what still comes, for a moment: a connection closed with unread data loses the answer, too."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while num_bytes < LINGER_BYTES:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    num_bytes += len(message.get("body", b""))


class Disconnected(Exception):
    """The other side went away before its request was complete; there is nobody to answer."""


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"The body is larger than {max_bytes:,} bytes. Send less at once.", closes=True)
