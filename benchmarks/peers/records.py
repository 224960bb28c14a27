"""Answers of systems into records of a results file; a finished one is known by its settings and data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_sets import SequenceFile
from judge import judge
from measure import Settings
from sequences import Sequences

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from provenance import commit, hardware  # noqa: E402
from record_file import Record, append_records, read_records  # noqa: E402

__all__ = ["ROOT", "Record", "append_records", "is_finished", "now", "read_records", "record_of"]
CODE = ("variseq", "benchmarks/peers")
"""What decides the results."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
        **commit(CODE),
        "hardware": hardware() | {"threads": 1},
        **answer["facts"],
        "test": test,
    }
