"""Commands into finished processes that take turns: exactly one runs at any time, the others stand still.

A machine that grows slower or faster during the hours of a bench then does so for all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """One process: what it is called, how it is started, and the file for what it prints."""

    name: str
    command: Sequence[str]
    log: Path
    variables: dict[str, str] = field(default_factory=dict)


OnFinish = Callable[[Work, int], None]


def run_in_slices(works: Sequence[Work], slice_seconds: float, on_finish: OnFinish) -> None:
    """Let each work run for a slice in turn until all are done; a process is first started when its turn comes.

    `on_finish` gets a work and its exit code while all others stand still. Whatever ends this function, none of the
    processes is left behind.
    """
    waiting = list(works)
    running: dict[str, subprocess.Popen[bytes]] = {}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting:
            for work in list(waiting):
                code = _one_slice(work, running, slice_seconds)
                if code is not None:
                    waiting.remove(work)
                    del running[work.name]
                    on_finish(work, code)
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running.values():
            _signal(process, signal.SIGKILL)
            process.wait()


def _one_slice(work: Work, running: dict[str, subprocess.Popen[bytes]], seconds: float) -> int | None:
    """The exit code, or None when the work is to go on later."""
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
    """In a session of its own, so that whatever it starts is stopped with it."""
    with work.log.open("wb") as log:
        return subprocess.Popen(
            work.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **work.variables},
            start_new_session=True,
        )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
