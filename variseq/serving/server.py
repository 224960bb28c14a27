"""An application and a listening socket into a running server, which stops without losing a request."""

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
from typing import cast

import uvicorn
import uvloop

from variseq.serving.app import Application
from variseq.serving.gate import Door, Gate
from variseq.serving.protocol import GuardedProtocol
from variseq.serving.settings import ServeSettings

BACKLOG = 2048
LAST_WORD_SECONDS = 1.5
FINISH_SECONDS = 30.0
REST_SECONDS = 0.02


def take_port(settings: ServeSettings) -> socket.socket:
    """The socket to be served; it takes no connection before the server runs. Raises OSError with what to do."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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


def address_of(listener: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(application: Application, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until a signal, then finish what was begun."""

    async def serve() -> None:
        async with application.running() as gate:
            config = _config(gate, application.settings)
            await Server(config, application, on_ready).serve([listener])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


class Server(uvicorn.Server):
    """A uvicorn server that drains.

    At a signal it says that it is not ready and asks every client to close its connection; after `drain_seconds` the
    door is closed, everybody who stood before it is let in, and all that was begun is answered.
    """

    def __init__(self, config: uvicorn.Config, application: Application, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.door: Door = application.services.door
        self.drain_seconds = application.settings.drain_seconds
        self.body_seconds = application.settings.body_seconds
        self.on_ready = on_ready
        self._stop_at: float | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which ends the process by the signal and so with an exit code of failure."""
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
        """Begin to drain; a second SIGINT stops at once."""
        if self._stop_at is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        self.drain()

    def drain(self) -> None:
        """Refuse to be ready, and stop after `drain_seconds`."""
        self.door.is_draining = True
        if self._stop_at is None:
            self._stop_at = monotonic() + self.drain_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let in who stood before it, answer everybody, and end."""
        self.door.is_draining = True
        arrived = self._close_door(sockets or [])
        loop = asyncio.get_running_loop()
        for connection in arrived:
            await loop.connect_accepted_socket(self._protocol, connection)
        if not self.force_exit:
            await self._wait(LAST_WORD_SECONDS)
        for protocol in list(self.server_state.connections):
            protocol.shutdown()
        if not self.force_exit:
            await self._wait(FINISH_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()

    def _close_door(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Stop listening; connections that the system made but nobody took yet are taken, for they would be reset."""
        kept = [socket.socket(fileno=os.dup(one.fileno())) for one in sockets]
        for server in self.servers:
            server.close()
        arrived: list[socket.socket] = []
        for one in kept:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    arrived.append(one.accept()[0])
            one.close()
        for one in sockets:
            one.close()
        return arrived

    def _protocol(self) -> asyncio.Protocol:
        return GuardedProtocol(self.body_seconds, self.config, self.server_state, self.lifespan.state)

    async def _wait(self, seconds: float) -> None:
        """Until there is no connection and no request any more, for so long at most."""
        end = monotonic() + seconds
        # A connection that was taken in this turn of the loop is among them only in the next.
        await asyncio.sleep(REST_SECONDS)
        while (self.server_state.connections or self.server_state.tasks) and monotonic() < end and not self.force_exit:
            await asyncio.sleep(REST_SECONDS)


def _config(gate: Gate, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=cast("type[asyncio.Protocol]", partial(GuardedProtocol, settings.body_seconds)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(settings.idle_seconds)),
        limit_concurrency=settings.max_connections,
        backlog=BACKLOG,
    )
