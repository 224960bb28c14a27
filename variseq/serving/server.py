"""The processes of a server: one, or several workers that share a socket; each answers what it has accepted.

A worker is a process that the parent starts and replaces when it ends; the parent loads no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, cast

import uvicorn
import uvloop
from prometheus_client import multiprocess
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from variseq.errors import VariseqError
from variseq.output.printable import printable
from variseq.serving.app import Application
from variseq.serving.settings import ServeSettings
from variseq.serving.telemetry import DIRECTORY_VARIABLE, json_logging

HEAD_BYTES = 32 * 1024
UNREAD_SECONDS = 30.0
BACKLOG = 2048
CLOSE_SECONDS = 1.5
FINISH_SECONDS = 30.0
POLL_SECONDS = 0.02
READY = "ready"
CANNOT_START = 2
WORKER = "import sys; from variseq.serving.server import work; sys.exit(work(int(sys.argv[1])))"
WATCH_SECONDS = 0.2
RESTART_SECONDS = 1.0
STOP_SECONDS = 40.0
log = logging.getLogger("variseq.serving")


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
        accepted = accepted_at_the_end(kept)
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


def accepted_at_the_end(listeners: list[socket.socket]) -> list[socket.socket]:
    """Close listening sockets, and accept the connections that wait there, which closing alone would reset.

    One that is made after the last of them was accepted, and before the socket is closed, is reset.
    """
    accepted: list[socket.socket] = []
    for one in listeners:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted.append(one.accept()[0])
        one.close()
    return accepted


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


class Workers:
    """The parent of the workers. It loads no model; workers share the socket, the store and files."""

    def __init__(self, settings: ServeSettings, listener: socket.socket) -> None:
        self.settings = settings
        self.listener = listener
        self.metrics = tempfile.TemporaryDirectory(prefix="variseq-metrics-")
        self.processes: list[subprocess.Popen[str]] = []
        self._stopping = threading.Event()

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until a signal. Raises VariseqError where a worker cannot start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            for _ in range(self.settings.workers):
                self.processes.append(self._start())
            for process in self.processes:
                self._await_ready(process)
            if not self._stopping.is_set():
                on_ready()
            while not self._stopping.wait(WATCH_SECONDS):
                self._replace_ended()
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(self.listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.listener.fileno()],
            env={**os.environ, DIRECTORY_VARIABLE: self.metrics.name},
            text=True,
            start_new_session=True,  # A Ctrl-C goes to the parent, which stops the workers.
        )
        assert process.stdin is not None
        process.stdin.write(self.settings.model_dump_json() + "\n")
        process.stdin.flush()
        return process

    def _await_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY and not self._stopping.is_set():
            raise VariseqError("A worker could not start; its message is above.")

    def _replace_ended(self) -> None:
        for index, process in enumerate(self.processes):
            if process.poll() is None:
                continue
            multiprocess.mark_process_dead(process.pid, self.metrics.name)  # type: ignore[no-untyped-call]
            log.error("worker %d ended (%d); another one starts", process.pid, process.returncode)
            if self._stopping.wait(RESTART_SECONDS):
                return
            self.processes[index] = self._start()

    def _stop(self) -> None:
        """The socket is closed here first, so that the last worker to close it accepts the connections that wait."""
        self.listener.close()
        for process in self.processes:
            process.terminate()
        end = monotonic() + self.settings.shutdown_grace_seconds + STOP_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.0, end - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.metrics.cleanup()


def work(socket_number: int) -> int:
    """Run one worker at an inherited socket, with settings from standard input; the exit code."""
    settings = ServeSettings.model_validate_json(sys.stdin.readline())
    listener = socket.socket(fileno=socket_number)
    try:
        with json_logging():
            application = Application(settings)
            threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
            run(application, listener, lambda: print(READY, flush=True))
    except (VariseqError, OSError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return CANNOT_START
    return 0


def _stop_with_parent() -> None:
    """The pipe from the parent ends when the parent does, however it ends."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
