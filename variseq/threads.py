"""Sets how many threads compute and how they wait, before torch is imported."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

NUMBER, POLICY, SPINS = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SPIN_COUNT = "1000"  # some microseconds: enough on a quiet machine, and short where a core is shared


def prepare_threads() -> None:
    """Set what OpenMP reads when torch is imported; what the user has set stays.

    A thread that waits for others spins by default. On a busy machine it spins away the time of the threads that it
    waits for, and training becomes many times slower; so waiting threads soon sleep. In a container the number of
    threads is that of the cores it may use.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(SPINS, SPIN_COUNT)
    cores, quota = _allowed_cores(), _quota_cores()
    if quota is not None and quota < cores:
        os.environ.setdefault(NUMBER, str(quota))


def use_threads(number: int | None) -> None:
    """Compute with so many threads in this process; None leaves the number as it is."""
    if number is None:
        return
    os.environ[NUMBER] = str(number)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(number)


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
