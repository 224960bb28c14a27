"""What happened while reading becomes one record that can be printed and written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from variseq.events.table import EventTable
from variseq.events.vocabulary import Vocabulary
from variseq.output.printable import printable

_HINTS = {
    "ambiguous date": "the day or the month may be first: set --time-unit day/month/year or month/day/year",
    "ambiguous time zone": "short names stand for several zones: write an offset such as +01:00 or a name such as "
    "Europe/Paris",
    "year of two digits": "give the format, such as --time-format '%d/%m/%y'",
    "month name not in English": "month names are read in English only: write times as 2020-02-13",
    "absurd time": "before 1970, after 2100, or in no unit near the other times; see --time-unit",
    "unparsable time": "is it of another format? Give it with --time-format",
}


@dataclass(frozen=True)
class ReadReport:
    """Every row that came is in `num_events`, in `rejected` or in `filtered`.

    `rejected` counts invalid rows by reason, `filtered` rows that an option asked to drop; `first_faults` says where
    each reason was first met; `columns` is the canonical name to the name in the source; `span` is the first
    and the last UTC time. `notes` say how columns were read, `warnings` where that may be wrong;
    `num_unreadable_values` counts rows whose value is no number and was left out.
    `low_behaviors` are those that low values were put under, which are never asked for.
    `options` are those that decide what was read, so that another file can be read alike.
    """

    num_rows: int
    num_events: int
    num_users: int
    num_items: int
    rejected: dict[str, int]
    filtered: dict[str, int]
    first_faults: dict[str, str]
    columns: dict[str, str]
    time_unit: str
    span: tuple[str, str]
    behaviors: dict[str, int]
    notes: list[str] = field(default_factory=list)
    low_behaviors: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    num_unreadable_values: int = 0

    def __post_init__(self) -> None:
        num_counted = self.num_events + sum(self.rejected.values()) + sum(self.filtered.values())
        if num_counted != self.num_rows:
            raise RuntimeError(f"{self.num_rows:,} rows were read, but {num_counted:,} are accounted for.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.num_rows:,} rows read, {self.num_events:,} events kept: "
            f"{self.num_users:,} users, {self.num_items:,} items",
            "columns: " + ", ".join(f"{column} = {printable(name)}" for column, name in self.columns.items()),
            f"times: {self.time_unit}; from {self.span[0]} to {self.span[1]}",
            "behaviors: " + ", ".join(f"{printable(name)} {count:,}" for name, count in self.behaviors.items()),
        ]
        for reason, count in self.rejected.items():
            lines.append(f"rejected: {count:,} × {reason} ({printable(fault_in_words(reason, self.first_faults))})")
        lines += [f"filtered: {count:,} × {reason}" for reason, count in self.filtered.items()]
        lines += [f"note: {printable(note)}" for note in self.notes]
        lines += [f"warning: {printable(warning)}" for warning in self.warnings]
        return "\n".join(lines)


def fault_in_words(reason: str, first_faults: Mapping[str, str]) -> str:
    """Where a reason was first met, and what helps."""
    hint = f"; {_HINTS[reason]}" if reason in _HINTS else ""
    return f"first: {first_faults.get(reason, 'unknown')}{hint}"


def utc_text(microseconds: int) -> str:
    """An instant in words.

    >>> utc_text(0)
    '1970-01-01 00:00:00'
    """
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return instant.replace(tzinfo=None).isoformat(sep=" ")


def span_of(table: EventTable) -> tuple[str, str]:
    return utc_text(int(table.timestamp.min())), utc_text(int(table.timestamp.max()))


def behavior_mix(table: EventTable, vocabulary: Vocabulary) -> dict[str, int]:
    counts = np.bincount(table.behavior, minlength=vocabulary.num_behaviors)
    return {name: int(count) for name, count in zip(vocabulary.behaviors, counts, strict=True)}
