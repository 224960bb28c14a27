"""Options of reading a log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from variseq.errors import InputError
from variseq.events.table import MICROSECONDS_PER_SECOND

TimeUnit = Literal[
    "auto",
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "yyyymmdd",
    "yyyymmddhhmm",
    "yyyymmddhhmmss",
    "days",
    "excel",
    "filetime",
    "ticks",
    "iso",
    "month/day/year",
    "day/month/year",
]
Ties = Literal["keep", "shuffle"]
MissingValue = Literal["keep", "zero", "mean"]
ColumnNames = dict[str, str | int] | list[str]
LowValues = Literal["leave-out", "negative"]
DURATION = r"^\s*\d{1,9}(\.\d{1,6})?\s*[smhdw]\s*$"
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""A number and a unit, such as 30m."""


def duration(text: object, name: str) -> int:
    """A duration in microseconds, from a number and a unit. Raises InputError that names the option.

    >>> duration("30m", "visit_gap")
    1800000000
    """
    if not isinstance(text, str) or re.fullmatch(DURATION, text) is None:
        raise InputError(f"{name}={text!r} is not a duration. Allowed: a number and s, m, h, d or w, such as '7d'.")
    number = text.strip()
    return round(float(number[:-1]) * UNIT_SECONDS[number[-1]] * MICROSECONDS_PER_SECOND)


class ReadOptions(BaseModel):
    """Options of `variseq.read`; every default is the careful choice.

    - `columns`: canonical name to the name in the source, e.g. `{"user_id": "uid"}`; an optional column given as ""
      is left out even if an alias of it is there. For text files without a header line: the names by index, e.g.
      `["user_id", "item_id", "timestamp"]` ("" for a column that is not read), or numbers from 1:
      `{"user_id": 1, ...}`. In JSON lines a dotted name is a path: `"user.id"`.
    - `item_columns`: the same for `items`.
    - `format`: "csv", "tsv", "jsonl" or "parquet"; None takes it from the suffix, or from the content.
    - `explode`: the list within each JSON line that holds the events; None finds it from dotted names.
    - `time_unit`: "auto" finds the unit over the whole column and the report states it. "days" are days since 1970,
      "excel" those of a spreadsheet, "filetime" is the clock of Windows, "ticks" that of .NET.
    - `time_format`: how times are written, in the letters of strptime such as "%d.%m.%y %H:%M"; instead of `time_unit`.
    - `time_zone`: the zone of times that name none, as in "Europe/Berlin"; None is UTC. Of an hour that the clock of
      that zone shows twice the second is taken; a time that it skips is moved on by what was skipped.
    - `delimiter`: of text files; None takes it from the header line.
    - `quoting`: "auto" finds by trying how fields are quoted, and the report states it; "none" means that quotes are
      text. `quote` and `escape` set the two characters.
    - `visit_gap`: events of a user at most this long apart ("30m"; units s, m, h, d, w) are one visit, a set without
      order. A column of visits is named with columns={"visit": ...} instead.
    - `min_user_events`, `min_item_events`: users and items with fewer events are dropped, again and again until none
      is left (the k-core).
    - `collapse_repeats`: of consecutive events of a user with the same item and behavior only the first stays.
    - `ties`: events of a user with the same time "keep" the order of the input. "shuffle" draws it, with a fixed seed:
      where it means nothing, as within a visit, a sorted file would give the next item away.
    - `missing_value`: "keep" leaves NaN (a regression loss skips it), "zero" and "mean" fill; the mean is that of
      the events that are kept.
    - `min_value`: events with a lower value, such as bad ratings, are handled by `low_values`. "leave-out"
      drops and counts them. "negative" keeps them in the histories as a behavior of their own ("rating below 4"), which
      is never a target. Events without a value stay as they are.
    - `memory_limit`: what the database may use, besides the arrays that are returned (21 bytes an event).
    - `temporary_folder`: where the database keeps what does not fit; None is the system's own.
    - `rejects`: a .csv or .parquet file for the rejected rows; None only counts them.

    >>> ReadOptions(columns={"user_id": "uid"}).time_unit
    'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("delimiter", mode="before")
    @classmethod
    def _tab_by_name(cls, delimiter: object) -> object:
        """A tab as it is typed on a command line."""
        return "\t" if delimiter in ("tab", "\\t") else delimiter

    @model_validator(mode="after")
    def _quoting_agrees(self) -> ReadOptions:
        if self.quoting == "none" and (self.quote or self.escape):
            raise ValueError("quoting='none' takes no quote and no escape: set one or the other")
        return self

    columns: ColumnNames = Field(default_factory=dict)
    item_columns: ColumnNames = Field(default_factory=dict)
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = None
    explode: str | None = Field(default=None, min_length=1)
    time_unit: TimeUnit = "auto"
    time_format: str | None = Field(default=None, min_length=2)
    time_zone: str | None = Field(default=None, min_length=1)
    delimiter: str | None = Field(default=None, min_length=1, max_length=4)
    quoting: Literal["auto", "none"] = "auto"
    quote: str | None = Field(default=None, min_length=1, max_length=1)
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    visit_gap: str | None = Field(default=None, pattern=DURATION)
    min_user_events: int = Field(default=1, ge=1)
    min_item_events: int = Field(default=1, ge=1)
    collapse_repeats: bool = False
    ties: Ties = "keep"
    missing_value: MissingValue = "keep"
    min_value: float | None = Field(default=None, allow_inf_nan=False)
    low_values: LowValues = "leave-out"
    memory_limit: str = Field(default="1GB", pattern=r"^\d+(\.\d+)? ?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$")
    temporary_folder: Path | None = None
    rejects: Path | None = None

    def for_items(self) -> ReadOptions:
        """The options for the table of items: format, quoting and explode are those of the log alone."""
        return self.model_copy(
            update={"format": None, "explode": None, "quoting": "auto", "quote": None, "escape": None}
        )
