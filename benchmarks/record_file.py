"""Records into files and back, and a command that ends in one message when its user was mistaken."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from variseq.atomic import atomic_write
from variseq.errors import InputError, VariseqError

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a file of lines; none where there is no file. Raises InputError for a line that is no JSON."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Remove the line that is no JSON.") from error


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write, so that two processes can share a file. The folder is made.

    Raises InputError when there is no room for them; then nothing is added.
    """
    lines = "".join(_line(record) for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            if file.write(lines) != len(lines):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(before)
            raise InputError(f"The records cannot be added to {path}: {error}.") from error


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_record(path: Path, record: Record) -> None:
    """One record as a file of its own; whole or not at all. The folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rounded(value: Any, digits: int = 6) -> Any:
    """A record with its decimal numbers to so many figures, which is more than any table shows.

    >>> rounded({"ndcg": [0.123456789, 1234.56789], "users": 5000000001})
    {'ndcg': [0.123457, 1234.57], 'users': 5000000001}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: rounded(one, digits) for name, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list | tuple) else value


def changed_settings(settings: Record, usual: Record) -> list[str]:
    """The names of those that are not as usual. One that the usual ones lack was not there yet and had no say.

    >>> changed_settings({"hidden_size": 64, "heads": 2, "new": 1}, {"hidden_size": 32, "heads": 2})
    ['width']
    """
    return sorted(name for name, value in settings.items() if usual.get(name, value) != value)


def exit_code(work: Callable[[], None]) -> int:
    """0, or 2 after a message when a mistake of the user was found."""
    try:
        work()
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
