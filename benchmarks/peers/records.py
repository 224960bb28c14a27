"""Answers of systems into lines of a results file, and back; a finished entry is known by its settings and data."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_sets import SequenceFile
from judge import judge
from measure import Settings
from sequences import Sequences

from variseq.errors import InputError

Record = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_records(path: Path) -> list[Record]:
    """All records of a file, none where it does not exist. Raises InputError for a line that is no JSON."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Remove the line that is no JSON.") from error


def is_finished(records: list[Record], system: str, file: SequenceFile, settings: Settings) -> bool:
    """Whether a record answers this very question; the commit is not part of it, so that a bench can be resumed."""
    wanted = (system, file.sha256, asdict(settings))
    return any((record["system"], record["data"]["sha256"], record["settings"]) == wanted for record in records)


def record_of(system: str, file: SequenceFile, settings: Settings, answer: Mapping[str, Any]) -> Record:
    """What a system measured of itself, and what its lists are worth."""
    lists = {int(user): items for user, items in answer["lists"].items()}
    test = None if settings.only_cost else judge(lists, Sequences.read(file.path))
    return {
        "system": system,
        "data": file.described(),
        "settings": asdict(settings),
        "date": now(),
        **commit(),
        "hardware": hardware(),
        **answer["facts"],
        "test": test,
    }


def append(record: Record, path: Path) -> None:
    """One line, written at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def commit() -> dict[str, Any]:
    """The commit, and whether code that decides results has changed since; None where there is no repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--", "variseq", "benchmarks/peers")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def hardware() -> dict[str, Any]:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": 1, "system": platform.system()}
