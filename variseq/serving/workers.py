"""Several server processes that share one socket; a process that ends is replaced.

`python -m variseq.serving.workers SOCKET` is one of these processes; `Workers` alone starts it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType

from prometheus_client import multiprocess

from variseq.errors import VariseqError
from variseq.output.printable import printable
from variseq.serving.settings import ServeSettings
from variseq.serving.telemetry import DIRECTORY_VARIABLE, json_logging

log = logging.getLogger("variseq.serving")
READY = "ready"
CANNOT_START = 2
POLL_SECONDS = 0.2
RESTART_SECONDS = 1.0
STOP_SECONDS = 40.0


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
            while not self._stopping.wait(POLL_SECONDS):
                self._replace_ended()
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "variseq.serving.workers", str(self.listener.fileno())],
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


def main() -> int:
    """Run one worker: settings on standard input, the number of the inherited socket as argument; the exit code."""
    from variseq.serving.app import Application  # The parent loads no model.
    from variseq.serving.server import run

    settings = ServeSettings.model_validate_json(sys.stdin.readline())
    listener = socket.socket(fileno=int(sys.argv[1]))
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


if __name__ == "__main__":
    sys.exit(main())
