"""A real server as its users have it: a process of its own, on loopback, at a free port."""

from __future__ import annotations

import json
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

COMMAND = [sys.executable, "-c", "from variseq.cli import main; main()", "serve"]
START_SECONDS = 90
STOP_SECONDS = 60


class ServerProcess:
    """`variseq serve` with some flags; `client` talks to it."""

    def __init__(self, folder: Path, run: Path, *flags: str, **environment: str) -> None:
        self.folder = folder
        self.error_file = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        settings = {"OMP_NUM_THREADS": "1", **os.environ, **environment}
        with self.error_file.open("wb") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, str(run), "--port", "0", *flags],
                cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        self.said: list[str] = []
        self.address = self._address()
        self.client = httpx.Client(base_url=self.address, timeout=30.0)

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

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def errors(self) -> str:
        """What was written to stderr so far."""
        return self.error_file.read_text(encoding="utf-8")

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

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def serving(folder: Path, run: Path, *flags: str, **environment: str) -> Iterator[ServerProcess]:
    """A server that is stopped at the end, whatever happens."""
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
