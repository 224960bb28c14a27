"""How a time column is read: SQL over `raw`, and what to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

LATEST_MICROSECONDS = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000  # from here on a time is absurd


@dataclass(frozen=True)
class TimeReading:
    """Is a time missing; which microsecond is it (NULL when unparsable; range not checked); why is it unparsable?

    `parts` is SQL of one more column that `microseconds` and `reason` refer to as `time_parts`. `unit` is the unit of
    numbers, empty for others.
    """

    words: str
    missing: str
    microseconds: str
    reason: str = "'unparsable time'"
    parts: str = "NULL"
    unit: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
