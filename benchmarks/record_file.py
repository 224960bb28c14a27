"""A file with one record a line, and a command that ends in one message when its user was mistaken."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from variseq.errors import InputError, VariseqError

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a file; none where there is no such file. Raises InputError for a line that is no JSON."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Remove the line that is no JSON.") from error


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records, all at once."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def exit_code(work: Callable[[], None]) -> int:
    """0, or 2 after a message when a mistake of the user was found."""
    try:
        work()
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
