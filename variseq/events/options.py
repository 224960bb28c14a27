"""What the reader of events may be asked to do: the user's wishes in, one checked object out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
MissingValue = Literal["keep", "zero", "mean"]


class ReadOptions(BaseModel):
    """Options of `variseq.read`; every default is the careful choice.

    - `columns`: canonical name to the name in the source, e.g. `{"user_id": "uid"}`; an optional column given as ""
      is left out even if an alias of it is there.
    - `time_unit`: "auto" finds the unit over the whole column and the report states it. "days" are days since 1970,
      "excel" those of a spreadsheet, "filetime" is the clock of Windows, "ticks" that of .NET.
    - `time_format`: how times are written, in the letters of strptime such as "%d.%m.%y %H:%M"; instead of `time_unit`.
    - `time_zone`: the zone of times that name none, as in "Europe/Berlin"; None is UTC. Of an hour that the clock of
      that zone shows twice the second is taken; a time that it skips is moved on by what was skipped.
    - `delimiter`: of text files; None takes it from the header line.
    - `min_user_events`, `min_item_events`: users and items with fewer events are dropped, again and again until none
      is left (the k-core).
    - `collapse_repeats`: of consecutive events of a user with the same item and behaviour only the first stays.
    - `missing_value`: "keep" leaves NaN (a regression loss skips it), "zero" and "mean" fill; the mean is that of
      the events that are kept.
    - `memory_limit`: what the database may use, besides the arrays that are returned (21 bytes an event).
    - `temporary_folder`: where the database keeps what does not fit; None is the system's own.
    - `rejects`: a .csv or .parquet file for the rejected rows; None only counts them.

    >>> ReadOptions(columns={"user_id": "uid"}).time_unit
    'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str] = Field(default_factory=dict)
    item_columns: dict[str, str] = Field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    time_format: str | None = Field(default=None, min_length=2)
    time_zone: str | None = Field(default=None, min_length=1)
    delimiter: str | None = Field(default=None, min_length=1, max_length=4)
    min_user_events: int = Field(default=1, ge=1)
    min_item_events: int = Field(default=1, ge=1)
    collapse_repeats: bool = False
    missing_value: MissingValue = "keep"
    memory_limit: str = Field(default="1GB", pattern=r"^\d+(\.\d+)? ?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$")
    temporary_folder: Path | None = None
    rejects: Path | None = None
