"""The HTTP server of a coordinator: it runs until every party has the sums, or nothing arrives any more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from variseq.errors import InputError
from variseq.federation.connection import MESSAGES_PATH, OUTDATED, TERMS_PATH, is_loopback
from variseq.federation.coordinator import Coordinator, OutdatedError
from variseq.federation.messages import encode

WATCH_SECONDS = 0.02
MINUTE = 60.0
MEDIA_TYPE = "application/vnd.msgpack"


@dataclass(frozen=True)
class Address:
    """Where a coordinator listens.

    Args:
        host: A name or an address; without TLS one of this machine.
        port: 0 takes a free one.
        certificate, key: The PEM files of TLS.

    Raises:
        InputError: For another machine without TLS, and for one file of TLS without the other.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs both files. Give --tls-cert and --tls-key.")
        if self.certificate is None and not is_loopback(self.host):
            raise InputError(f"Without TLS only this machine can be listened at, and not {self.host}. Give --tls-cert.")

    def bind(self) -> socket.socket:
        """A socket that listens. Raises InputError for a port that is taken."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise InputError(
                f"Port {self.port} of {self.host} cannot be listened at: {error.strerror}. Choose another with --port."
            ) from error


def application(coordinator: Coordinator) -> Starlette:
    """The two routes: terms for everybody, and messages of parties."""

    async def terms(request: Request) -> Response:
        return Response(encode(coordinator.terms), media_type=MEDIA_TYPE)

    async def messages(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > coordinator.max_bytes:
                text = f"The body is larger than {coordinator.max_bytes:,} bytes."
                coordinator.report(f"Refused: {text}")
                return PlainTextResponse(text, 413, {"Connection": "close"})
        try:
            return Response(coordinator.answer(bytes(body)), media_type=MEDIA_TYPE)
        except InputError as error:
            return PlainTextResponse(str(error), OUTDATED if isinstance(error, OutdatedError) else 400)

    return Starlette(routes=[Route(TERMS_PATH, terms), Route(MESSAGES_PATH, messages, methods=["POST"])])


def serve(
    coordinator: Coordinator,
    address: Address,
    listener: socket.socket,
    timeout_seconds: float,
    save: Callable[[], None],
) -> None:
    """Answer the parties until each has the sums. The sums are saved as soon as they are complete.

    Args:
        coordinator: The state.
        address: Where the listener is bound.
        listener: The socket.
        timeout_seconds: The longest time in which nothing arrives that goes on with the federation.
        save: Writes the result.

    Raises:
        InputError: When a party is missing for too long, and for sums that are not possible.
    """
    config = uvicorn.Config(
        application(coordinator),
        log_level="warning",
        access_log=False,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        timeout_graceful_shutdown=5,
    )
    asyncio.run(_serve(uvicorn.Server(config), coordinator, listener, timeout_seconds, save))


async def _serve(
    server: uvicorn.Server,
    coordinator: Coordinator,
    listener: socket.socket,
    timeout_seconds: float,
    save: Callable[[], None],
) -> None:
    serving = asyncio.create_task(server.serve([listener]))
    try:
        while not coordinator.is_complete:
            await _next_progress(serving, coordinator, timeout_seconds)
        await asyncio.to_thread(save)
        coordinator.last_progress = monotonic()
        while coordinator.awaited:
            await _next_progress(serving, coordinator, timeout_seconds)
    finally:
        server.should_exit = True
        await serving


async def _next_progress(serving: asyncio.Task[None], coordinator: Coordinator, timeout_seconds: float) -> None:
    """Return when something has arrived, or after a minute. Raises InputError where that is too late."""
    begun, since = coordinator.position, monotonic()
    coordinator.report(coordinator.progress())
    while coordinator.position == begun and monotonic() - since < MINUTE:
        if coordinator.failure is not None:
            raise coordinator.failure
        if serving.done():
            raise InputError("The coordinator was stopped before all parties had the sums. Start all again.")
        if monotonic() - coordinator.last_progress > timeout_seconds:
            raise InputError(
                f"Nothing arrived for {timeout_seconds:g} seconds. {coordinator.progress()} Start the federation "
                "again, with a longer --timeout where a party needs more time."
            )
        await asyncio.sleep(WATCH_SECONDS)
