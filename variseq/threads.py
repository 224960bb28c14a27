"""How many threads compute, and how long they wait for each other where other processes need the cores, too."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

NUMBER, POLICY, SPINS = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SAMPLE_SECONDS = 0.25
BUSY_QUEUE, QUIET_QUEUE = 0.1, 0.03
"""Threads of this process that wait for a core, on average: above the first the machine is busy, below the second it
is quiet."""
QUIET_SAMPLES = 8


def prepare_threads() -> None:
    """Set what OpenMP reads when torch is imported: in a container as many threads as cores; what is set stays."""
    cores, quota = _allowed_cores(), _quota_cores()
    if quota is not None and quota < cores:
        os.environ.setdefault(NUMBER, str(quota))


def use_threads(number: int | None) -> None:
    """Compute with so many threads in this process; None leaves the number as it is.

    Libraries that are loaded already ignore the environment, and the threads of BLAS spin between two products.
    """
    if number is None:
        return
    from threadpoolctl import threadpool_limits

    os.environ[NUMBER] = str(number)
    threadpool_limits(number)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(number)


@contextmanager
def short_waits_when_busy() -> Iterator[None]:
    """While this lasts, threads of torch that wait for others sleep soon whenever the machine is busy.

    A thread of OpenMP spins for milliseconds by default, which is fastest on a quiet machine. On a busy one it takes
    the time of the very threads that it waits for, and training becomes many times slower. The scheduler counts how
    long the threads of this process wait for a core, which tells one from the other. Does nothing where the user has
    set `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT`, and on systems without these counts or without libgomp.
    """
    if POLICY in os.environ or SPINS in os.environ or available_cores() < 2 or _queued_seconds() is None:
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(ended,), name="variseq-threads", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(ended: threading.Event) -> None:
    """Shorten the waits while the machine is busy, until the event is set."""
    load, team = Load(), None
    queued, since = _queued_seconds() or 0.0, monotonic()
    while not ended.wait(SAMPLE_SECONDS):
        now, total = monotonic(), _queued_seconds() or 0.0
        is_busy = load.is_busy((total - queued) / (now - since))
        queued, since = total, now
        if is_busy and team is None:
            team = IdleTeam.started()
        elif team is not None and not is_busy:
            team.stop()
            team = None
    if team is not None:
        team.stop()


class Load:
    """Whether other processes need the cores: busy at once, quiet again only after some quiet samples."""

    def __init__(self) -> None:
        self._busy = False
        self._num_quiet = 0

    def is_busy(self, queue: float) -> bool:
        """Takes the mean number of threads of this process that waited for a core since the last sample."""
        self._num_quiet = self._num_quiet + 1 if queue < QUIET_QUEUE else 0
        self._busy = queue > BUSY_QUEUE or (self._busy and self._num_quiet < QUIET_SAMPLES)
        return self._busy


class IdleTeam:
    """Sleeping threads of OpenMP, because of which the others sleep soon.

    libgomp shortens the waits of all its threads, about a thousandfold, while there are more of them than cores
    (`gomp_throttled_spin_count_var` in its `wait.h`). It knows no other way to change them after its start.
    """

    def __init__(self, libgomp: ctypes.CDLL, size: int) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(libgomp, size), name="variseq-idle-team", daemon=True)
        self._thread.start()

    @classmethod
    def started(cls) -> IdleTeam | None:
        """A team of one thread more than there are cores; None where libgomp is not loaded."""
        path = _libgomp()
        return None if path is None else cls(ctypes.CDLL(path), _allowed_cores() + 1)

    def _hold(self, libgomp: ctypes.CDLL, size: int) -> None:
        # A parallel region makes the threads. They run a function of libgomp that does nothing, then sleep.
        libgomp.GOMP_parallel(libgomp.omp_get_thread_num, None, ctypes.c_uint(size), ctypes.c_uint(0))
        self._ended.wait()

    def stop(self) -> None:
        """End the threads."""
        self._ended.set()
        self._thread.join()


def _libgomp() -> str | None:
    """The path of the libgomp that is loaded; torch brings its own."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(maxsplit=5)[5] for line in lines if "/libgomp" in line), None)


def _queued_seconds() -> float | None:
    """For how long the threads of this process have waited for a core so far; None where that is not counted."""
    total = None
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total = (total or 0.0) + int(task.read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            continue  # The thread has ended.
    return total


def compute_alone_after_fork() -> None:
    """Make every forked child of this process compute with one thread.

    The threads of OpenMP do not survive a fork, and the child would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def available_cores(system: Path = Path("/")) -> int:
    """The cores that this process may use: those it is bound to, and no more than its container has been given."""
    return min(_allowed_cores(), _quota_cores(system) or sys.maxsize)


def _allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota_cores(system: Path = Path("/")) -> int | None:
    """The smallest quota of the control groups that this process is in, in cores, rounded up; None without one."""
    try:
        lines = (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = [quota for line in lines for quota in _quotas(system / "sys/fs/cgroup", line)]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quotas(root: Path, line: str) -> Iterator[float]:
    """The quotas of a group and those it is in. Inside a container its path is often that of the host and not there."""
    number, controllers, path = line.split(":", 2)
    is_second = number == "0" and not controllers
    if not is_second and "cpu" not in controllers.split(","):
        return
    mount = root if is_second else root / "cpu"
    for group in {mount / part for part in _and_parents(path)}:
        quota = _quota_of(group, is_second)
        if quota is not None:
            yield quota


def _and_parents(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")
    return ("/".join(parts[:length]) for length in range(len(parts) + 1))


def _quota_of(group: Path, is_second: bool) -> float | None:
    names = ["cpu.max"] if is_second else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    try:
        words = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):
        return None  # Without a limit the second version has "max" here, and the first −1.
    return quota / period if quota > 0 and period > 0 else None
