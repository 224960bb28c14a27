"""A uvicorn server that answers every accepted request before it stops, with limits for slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from variseq.serving.app import Application
from variseq.serving.settings import ServeSettings

HEAD_BYTES = 32 * 1024
UNREAD_SECONDS = 30.0
BACKLOG = 2048
CLOSE_SECONDS = 1.5
FINISH_SECONDS = 30.0
POLL_SECONDS = 0.02


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with three more limits: a slow request head, a long one, and a response that is not read."""

    def __init__(self, head_seconds: float, *details: Any, **more: Any) -> None:
        super().__init__(*details, **more)
        self._head_seconds = head_seconds
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect("head", self._head_seconds, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._timers):
            self._cancel(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._close()
            else:
                self._expect("head", self._head_seconds, self._close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._cancel("head")
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect("read", UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel("read")
        super().resume_writing()

    def _expect(self, name: str, seconds: float, otherwise: Callable[[], None]) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, otherwise)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def bind_socket(settings: ServeSettings) -> socket.socket:
    """The socket of the server; it accepts no connection before the server runs. Raises OSError with what to do."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"port {settings.port} of {settings.host} cannot be listened at: {error.strerror}. Choose another with "
            "--port."
        ) from error
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(application: Application, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until a signal, then finish accepted requests."""

    async def serve() -> None:
        async with application.running():
            await Server(application, on_ready).serve([listener])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


class Server(uvicorn.Server):
    """A uvicorn server that stops gracefully.

    At a signal it reports that it is not ready and closes each connection after its next response. After
    `shutdown_grace_seconds` it stops listening, answers every connection that the system has accepted, and ends.
    """

    def __init__(self, application: Application, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(application))
        self.auth = application.services.auth
        self.settings = application.settings
        self.on_ready = on_ready
        self._stop_at: float | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which raises the signal again, so that the exit code would be that of a failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second SIGINT stops at once."""
        if self._stop_at is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        self.auth.is_draining = True
        if self._stop_at is None:
            self._stop_at = monotonic() + self.settings.shutdown_grace_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer every accepted connection, and end."""
        self.auth.is_draining = True
        accepted = self._stop_listening(sockets or [])
        loop = asyncio.get_running_loop()
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        for connection in accepted:
            await loop.connect_accepted_socket(
                partial(make, self.config, self.server_state, self.lifespan.state), connection
            )
        if not self.force_exit:
            await self._wait(CLOSE_SECONDS)
        for protocol in list(self.server_state.connections):
            protocol.shutdown()
        if not self.force_exit:
            await self._wait(FINISH_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()

    def _stop_listening(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Connections that the system has made but uvicorn has not accepted; closing the socket would reset them."""
        kept = [socket.socket(fileno=os.dup(one.fileno())) for one in sockets]
        for server in self.servers:
            server.close()
        accepted: list[socket.socket] = []
        for one in kept:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(one.accept()[0])
            one.close()
        for one in sockets:
            one.close()
        return accepted

    async def _wait(self, seconds: float) -> None:
        """Until no connection and no request is left, for so long at most."""
        end = monotonic() + seconds
        # A connection that was accepted in this turn of the loop is among them only in the next.
        await asyncio.sleep(POLL_SECONDS)
        while (self.server_state.connections or self.server_state.tasks) and monotonic() < end and not self.force_exit:
            await asyncio.sleep(POLL_SECONDS)


def _config(application: Application) -> uvicorn.Config:
    settings = application.settings
    return uvicorn.Config(
        application,
        http=cast("type[asyncio.Protocol]", partial(LimitedHttpProtocol, settings.request_timeout_seconds)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(settings.keep_alive_seconds)),
        limit_concurrency=settings.max_connections,
        backlog=BACKLOG,
    )
