"""`variseq serve` as a process of its own on loopback, for as long as it is measured or harmed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
START_SECONDS, STOP_SECONDS = 90, 60


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process: all that is in memory, and what of it is not of a file."""

    resident: float
    anonymous: float


class LiveServer:
    """A running server: its address, its process, and what it has written to stderr."""

    def __init__(self, model: Path, folder: Path, flags: Sequence[str] = (), core: int | None = None) -> None:
        self.errors_file = folder / "stderr"
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        command = [*pinned, sys.executable, "-c", "from variseq.cli import main; main()", "serve", str(model.resolve())]
        store = [] if "--store" in flags else ["--store", f"sqlite:///{folder}/events.db"]
        with self.errors_file.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *store, *flags],
                stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder, env={**os.environ, **ONE_THREAD},
            )  # fmt: skip
        self.address = self._address()
        self.port = int(self.address.rsplit(":", 1)[1])

    def errors(self) -> str:
        """What was written to stderr so far."""
        return self.errors_file.read_text(encoding="utf-8", errors="replace")

    def memory(self) -> Memory:
        """What the process holds now (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return Memory(*(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")))

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def _address(self) -> str:
        assert self.process.stdout is not None
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            if " at http://" in line:
                timer.cancel()
                return line.split(" at ")[1].split()[0]
        timer.cancel()
        raise RuntimeError(f"the server did not start: {self.errors()[-2000:]}")


@contextmanager
def live_server(model: Path, flags: Sequence[str] = (), core: int | None = None) -> Iterator[LiveServer]:
    """A server that is stopped at the end, whatever happens."""
    with tempfile.TemporaryDirectory() as folder:
        server = LiveServer(model, Path(folder), flags, core)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()


def on_core(core: int, command: list[str], given: str | None = None) -> str:
    """What a Python program prints that runs on one core."""
    done = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, *command],
        input=given, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD},
    )  # fmt: skip
    return done.stdout


def run_of(folder: Path, num_items: int) -> Path:
    """The untrained run with so many items, made the first time, in a process of its own."""
    run = folder / f"run-{num_items}"
    if not run.exists():
        folder.mkdir(parents=True, exist_ok=True)
        program = "import sys, pathlib, untrained as u; u.untrained_run(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", program, str(run), str(num_items)], check=True, cwd=HERE)
    return run


def model_of(folder: Path, num_items: int) -> Path:
    """The same, exported."""
    model = folder / f"model-{num_items}"
    if not model.exists():
        words = ["export", str(run_of(folder, num_items)), "--out", str(model)]
        program = "from variseq.cli import main; main()"
        subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.DEVNULL)
    return model
