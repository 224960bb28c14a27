"""A time column of any kind becomes SQL that yields UTC microseconds, and words that say what it was taken for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from variseq.errors import InputError
from variseq.events.options import TimeUnit
from variseq.events.workspace import Workspace, name_in_sql

NUM_SAMPLE_ROWS = 100_000
LATEST_MICROSECONDS = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000  # from here on a time is absurd

_NUMERIC = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
_FRACTIONAL = ("FLOAT", "DOUBLE", "DECIMAL")
_MICROSECONDS: dict[str, float] = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}
_FORMATS = {
    "month/day/year": ["%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y"],
    "day/month/year": ["%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M %p", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y"],
    "yyyymmdd": ["%Y%m%d"],
}
_WORDS = {
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "microseconds": "microseconds since 1970",
    "nanoseconds": "nanoseconds since 1970",
    "yyyymmdd": "days written as yyyymmdd, taken as midnight UTC",
    "iso": "ISO 8601 text (a time without a zone is taken as UTC)",
    "month/day/year": "month/day/year text, taken as UTC",
    "day/month/year": "day/month/year text, taken as UTC",
}


@dataclass(frozen=True)
class TimeReading:
    """SQL over the raw column: is it missing, and which microsecond is it (NULL when unparsable)? Range not checked."""

    words: str
    missing: str
    microseconds: str


def read_time(workspace: Workspace, name: str, unit: TimeUnit) -> TimeReading:
    """How the times in the column `name` of `raw` are read. Raises InputError for a type that is no time."""
    column = name_in_sql(name)
    kind = workspace.column_types("raw")[name]
    family = kind.split("(")[0]
    if family.startswith("TIMESTAMP") or family == "DATE":
        return _native(column, family, unit)
    if family == "VARCHAR":
        text = f"trim({column})"
        found = unit if unit != "auto" else _unit_of_text(workspace, text)
        return _from_text(text, found, found_by_us=unit == "auto")
    if family in _NUMERIC or family in _FRACTIONAL:
        missing = f"({column} IS NULL OR isnan(CAST({column} AS DOUBLE)))"
        found = unit if unit != "auto" else _unit_of_numbers(workspace, f"CAST({column} AS DOUBLE)")
        if found in _MICROSECONDS:
            return TimeReading(_words(found, unit == "auto"), missing, _scaled(column, found, family in _NUMERIC))
        if found == "yyyymmdd":
            return TimeReading(
                _words(found, unit == "auto"), missing, _parsed(f"CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR)", found)
            )
        raise InputError(
            f"time_unit={unit!r} is for text, but the times are numbers. Allowed: auto, {', '.join(_MICROSECONDS)}."
        )
    if family in ('"NULL"', "NULL"):
        return TimeReading("none: every time is missing", "true", "CAST(NULL AS BIGINT)")
    raise InputError(f"The time column is of type {kind}. Allowed: numbers, text, dates and timestamps.")


def _words(unit: str, found_by_us: bool) -> str:
    return f"{_WORDS[unit]} ({'found' if found_by_us else 'as set'})"


def _native(column: str, family: str, unit: TimeUnit) -> TimeReading:
    if unit not in ("auto", "iso"):
        raise InputError(
            f"time_unit={unit!r} was set, but the column holds {family} values, whose unit is known. Use 'auto'."
        )
    zone = "" if family in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") else ", taken as UTC"
    time = f"CAST({column} AS TIMESTAMP WITH TIME ZONE)"
    words = "dates" if family == "DATE" else "timestamps"
    return TimeReading(f"{words}{zone}", f"({column} IS NULL)", f"CASE WHEN isfinite({time}) THEN epoch_us({time}) END")


def _from_text(text: str, unit: str, found_by_us: bool) -> TimeReading:
    missing = f"coalesce({text} = '', true)"
    words = _words(unit, found_by_us)
    if unit in _MICROSECONDS:
        number = f"TRY_CAST({text} AS DOUBLE)"
        return TimeReading(words, missing, _scaled(number, unit, whole=False))
    if unit == "iso":
        time = f"TRY_CAST({text} AS TIMESTAMP WITH TIME ZONE)"
        return TimeReading(words, missing, f"CASE WHEN isfinite({time}) THEN epoch_us({time}) END")
    return TimeReading(words, missing, _parsed(text, unit))


def _scaled(number: str, unit: str, whole: bool) -> str:
    """Microseconds of a number; one out of any calendar is cut to -1 or the latest time, and so counts as absurd."""
    scale = _MICROSECONDS[unit]
    latest = LATEST_MICROSECONDS * 1000 if scale < 1 else LATEST_MICROSECONDS // int(scale)
    if whole:
        exact = f"CAST({number} AS BIGINT) // 1000" if scale < 1 else f"CAST({number} AS BIGINT) * {int(scale)}"
        nothing = f"{number} IS NULL"
    else:
        exact = (
            f"CAST(floor({number} / 1000) AS BIGINT)" if scale < 1 else f"CAST(round({number} * {scale!r}) AS BIGINT)"
        )
        nothing = f"{number} IS NULL OR isnan(CAST({number} AS DOUBLE))"
    return (
        f"CASE WHEN {nothing} THEN NULL WHEN {number} < 0 THEN -1 WHEN {number} < {latest} THEN {exact} "
        f"ELSE {LATEST_MICROSECONDS} END"
    )


def _parsed(text: str, unit: str) -> str:
    formats = ", ".join(f"'{form}'" for form in _FORMATS[unit])
    return f"epoch_us(try_strptime({text}, [{formats}]))"


def _unit_of_numbers(workspace: Workspace, number: str) -> str:
    median, num_days, count = workspace.row(
        f"SELECT median(number), count(*) FILTER (WHERE day IS NOT NULL), count(*) FROM (SELECT {number} AS number, "
        f"try_strptime(CAST(TRY_CAST({number} AS BIGINT) AS VARCHAR), ['%Y%m%d']) AS day FROM raw "
        f"WHERE input_row <= {NUM_SAMPLE_ROWS}) WHERE isfinite(number)"
    )
    if count == 0:
        return "seconds"
    if 19_000_101 <= median <= 21_001_231 and num_days >= 0.9 * count:
        return "yyyymmdd"
    return _unit_of_magnitude(float(median))


def _unit_of_magnitude(median: float) -> str:
    """Seconds reach 1e11 in the year 5138; milliseconds 1e11 in 1973; and so on by thousands."""
    for unit, limit in (("seconds", 1e11), ("milliseconds", 1e14), ("microseconds", 1e17)):
        if median < limit:
            return unit
    return "nanoseconds"


def _unit_of_text(workspace: Workspace, text: str) -> str:
    """The reading that fits most of the first rows; the month comes first when a slash date can be read both ways."""
    sample = f"(SELECT {text} AS text FROM raw WHERE input_row <= {NUM_SAMPLE_ROWS} AND {text} <> '')"
    num_numbers, num_iso, num_month_first, num_day_first = workspace.row(
        "SELECT count(TRY_CAST(text AS DOUBLE)), count(TRY_CAST(text AS TIMESTAMP WITH TIME ZONE)), "
        f"count({_parsed('text', 'month/day/year')}), count({_parsed('text', 'day/month/year')}) FROM {sample}"
    )
    best = max(num_numbers, num_iso, num_month_first, num_day_first)
    if best == num_iso:
        return "iso"
    if best == num_numbers:
        return _unit_of_numbers(workspace, f"TRY_CAST({text} AS DOUBLE)")
    return "month/day/year" if best == num_month_first else "day/month/year"
