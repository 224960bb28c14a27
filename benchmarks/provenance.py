"""The machine and the working tree into what every measured number has to be read with."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
CODE = ("variseq", "benchmarks/*.py")
"""What decides the results of most scripts."""
VERSIONS_OF = ("variseq", "torch", "numpy")


def provenance() -> dict[str, Any]:
    """With which code, when, and on what machine; asked for after the number of threads has been set."""
    versions = {name: version(name) for name in VERSIONS_OF} | {"python": platform.python_version()}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {**commit(), "date": date, "hardware": hardware(), "versions": versions}


def commit(code: Sequence[str] = CODE) -> dict[str, str | bool | None]:
    """The commit, and whether code that decides results has changed since; None where there is no repository."""
    changed = _git("status", "--porcelain", "--", *code)
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def short_commit(record: dict[str, Any]) -> str:
    """The commit of a record as tables show it, with a word where it is not the whole truth."""
    name = f"`{record['commit'][:10]}`" if record.get("commit") else "unknown"
    return f"{name} with uncommitted changes" if record.get("dirty") else name


def hardware() -> dict[str, str | int | None]:
    """Processor, cores, and the threads that torch uses."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells of a child on Linux begins with its parent's peak; this does not.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Apple's system counts in bytes, others in kilobytes.
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
