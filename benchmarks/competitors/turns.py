"""Processes in environments of their own that take turns: exactly one runs at any time, the others stand still.

A machine that grows slower or faster during the hours of a benchmark then does so for all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from variseq.errors import InputError

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """Packages of a library; `first` is installed before the rest, so that pip looks for no other build of it."""

    name: str
    first: tuple[str, ...]
    packages: tuple[str, ...]


def python_of(environment: Environment | None, folder: Path) -> Path:
    """The interpreter of an environment, made the first time (minutes); this one for None. Raises InputError."""
    if environment is None:
        return Path(sys.executable)
    home = folder / environment.name
    python, marker = home / "bin" / "python", home / "installed.txt"
    needed = "\n".join([*environment.first, *environment.packages]) + "\n"
    if marker.exists() and marker.read_text(encoding="utf-8") == needed:
        return python
    print(f"preparing {home.name} (a few minutes the first time)", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [[sys.executable, "-m", "venv", str(home)]]
    steps += [[str(python), *PIP, *names] for names in (environment.first, environment.packages) if names]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                f"The environment of {environment.name} cannot be made: {done.stderr.strip()[-500:]} Is there a "
                f"network? Otherwise leave its systems out with --systems, and remove {home}."
            )
    marker.write_text(needed, encoding="utf-8")
    return python


@dataclass(frozen=True)
class Work:
    """One process: its name, how it is started, and the file for what it prints."""

    name: str
    command: Sequence[str]
    log: Path
    variables: dict[str, str] = field(default_factory=dict)


def take_turns(works: Sequence[Work], turn_seconds: float, on_finish: Callable[[Work, int], None]) -> None:
    """Let each work run for a turn until all are done; a process is first started at its first turn.

    `on_finish` gets a work and its exit code while all others stand still. Whatever ends this function, none of the
    processes stays behind.
    """
    waiting = list(works)
    running: dict[str, subprocess.Popen[bytes]] = {}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting:
            for work in list(waiting):
                code = _one_turn(work, running, turn_seconds)
                if code is not None:
                    waiting.remove(work)
                    del running[work.name]
                    on_finish(work, code)
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running.values():
            _signal(process, signal.SIGKILL)
            process.wait()


def _one_turn(work: Work, running: dict[str, subprocess.Popen[bytes]], seconds: float) -> int | None:
    """The exit code, or None when the work goes on later."""
    if work.name in running:
        _signal(running[work.name], signal.SIGCONT)
    else:
        running[work.name] = _start(work)
    process = running[work.name]
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGSTOP)
        return None


def _start(work: Work) -> subprocess.Popen[bytes]:
    """In a session of its own, so that its child processes are stopped with it."""
    with work.log.open("wb") as log:
        return subprocess.Popen(
            work.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, **work.variables}, start_new_session=True,
        )  # fmt: skip


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
