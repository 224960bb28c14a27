"""Real servers at free ports of loopback: in a thread of the tests, or as a process where the fact is about one."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from variseq.serving.app import Application
from variseq.serving.server import Server, bind_socket, url_of
from variseq.serving.settings import serve_settings
from variseq.serving.telemetry import JsonLog

COMMAND = [sys.executable, "-c", "from variseq.cli import main; main()", "serve"]
START_SECONDS = 90
STOP_SECONDS = 60


class RunningServer:
    """A server at an address; `client` talks to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = httpx.Client(base_url=self.address, timeout=30.0)

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def errors(self) -> str:
        """What was written to the log so far."""
        raise NotImplementedError

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return [json.loads(line) for line in self.errors().splitlines()]

    def recommend(self, user_id: Any = None, **wish: Any) -> dict[str, Any]:
        """An answer that must come."""
        whom = {} if user_id is None else {"user_id": user_id}
        response = self.client.post("/v1/recommend", json={**whom, **wish})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def add(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Events that must be taken."""
        response = self.client.post("/v1/events", json={"events": list(events)})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


class LocalServer(RunningServer):
    """A server of this process."""

    def __init__(self, application: Application, server: Server, address: str, output: io.StringIO) -> None:
        super().__init__(address)
        self.application, self.server, self.output = application, server, output

    def errors(self) -> str:
        return self.output.getvalue()

    def stop(self) -> None:
        """Begin to stop, as at a signal."""
        self.server.handle_exit(signal.SIGTERM, None)


@contextmanager
def serving_here(run: Path, **settings: Any) -> Iterator[LocalServer]:
    """A server in a thread, stopped at the end. Its store is in memory unless another is named.

    The loop is asyncio's own: the transports and timers of uvloop are not of the types that annotations name.
    """
    flags = {"run": run, "port": 0, "store": "memory://", "shutdown_grace_seconds": 0, **settings}
    application = Application(serve_settings(flags, {}))
    listener = bind_socket(application.settings)
    is_ready, output = threading.Event(), io.StringIO()
    server = Server(application, is_ready.set)
    handler, logger = JsonLog(output), logging.getLogger("variseq")

    async def serve() -> None:
        async with application.running():
            await server.serve([listener])

    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert is_ready.wait(START_SECONDS)
    running = LocalServer(application, server, url_of(listener), output)
    try:
        yield running
    finally:
        running.client.close()
        running.stop()
        thread.join(STOP_SECONDS)
        logger.removeHandler(handler)
        handler.close()


class ServerProcess(RunningServer):
    """`variseq serve` with some flags."""

    def __init__(self, folder: Path, run: Path, *flags: str, **environment: str) -> None:
        self.folder = folder
        self.error_file = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        defaults = {"OMP_NUM_THREADS": "1", "VARISEQ_SERVE_SHUTDOWN_GRACE_SECONDS": "0"}
        with self.error_file.open("wb") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, str(run), "--port", "0", *flags],
                cwd=folder, env={**defaults, **os.environ, **environment}, stdout=subprocess.PIPE, stderr=stream,
                text=True,
            )  # fmt: skip
        self.said: list[str] = []
        super().__init__(self._address())

    def _address(self) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        for line in stdout:
            self.said.append(line.strip())
            if " at http://" in line:
                timer.cancel()
                return line.split(" at ")[1].split()[0]
        timer.cancel()
        self.process.wait(STOP_SECONDS)
        stdout.close()
        raise AssertionError(f"the server did not start: {self.said} {self.errors()[-3000:]}")

    def errors(self) -> str:
        return self.error_file.read_text(encoding="utf-8")

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def serving(folder: Path, run: Path, *flags: str, **environment: str) -> Iterator[ServerProcess]:
    """A server process that is stopped at the end, whatever happens."""
    server = ServerProcess(folder, run, *flags, **environment)
    try:
        yield server
    finally:
        try:
            server.stop()
        finally:
            server.process.kill()


def event(event_id: str, user_id: str, item_id: str, timestamp: Any = 1_700_000_000, **more: Any) -> dict[str, Any]:
    """An event as a shop sends it."""
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "timestamp": timestamp, **more}
