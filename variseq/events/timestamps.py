"""A time column of any kind becomes SQL that yields UTC microseconds, and words that say what it was taken for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from variseq.errors import InputError
from variseq.events.numeric_times import DATE_FORMATS, UNITS, numeric_column, read_numbers
from variseq.events.options import ReadOptions
from variseq.events.stage import Staged
from variseq.events.table import Columns
from variseq.events.text_cells import TextCells
from variseq.events.time_reading import TimeReading
from variseq.events.workspace import Workspace, name_in_sql, text_in_sql
from variseq.events.written_times import read_text

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
_UNITS_IN_NAMES = {
    "seconds": ("s", "sec", "secs", "second", "seconds"),
    "milliseconds": ("ms", "msec", "millis", "millisecond", "milliseconds"),
    "microseconds": ("us", "usec", "micros", "microsecond", "microseconds"),
    "nanoseconds": ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
}


def read_time(
    workspace: Workspace, staged: Staged, cells: Mapping[str, TextCells], options: ReadOptions
) -> TimeReading:
    """How the times in `raw` are read. Raises InputError for a type that is no time, and where nothing decides."""
    column = name_in_sql(Columns.TIME)
    kind = workspace.column_types("raw")[Columns.TIME]
    family = kind.split("(")[0]
    if options.time_format is not None:
        return _by_format(workspace, column, family, cells, options)
    if family.startswith("TIMESTAMP") or family == "DATE":
        return _native(column, family, options)
    if Columns.TIME in cells:
        reading = read_text(workspace, cells[Columns.TIME].sql, options)
    elif family in _NUMERIC or family in _FRACTIONAL:
        reading = read_numbers(workspace, numeric_column(column, family in _NUMERIC), options.time_unit)
        if family == "FLOAT":
            reading.warnings.extend(_rounding(workspace, column))
    elif family in ('"NULL"', "NULL"):
        return TimeReading("none: every time is missing", "true", "CAST(NULL AS BIGINT)")
    else:
        raise InputError(f"The time column is of type {kind}. Allowed: numbers, text, dates and timestamps.")
    if options.time_zone is not None and (reading.unit in DATE_FORMATS or reading.unit in ("days", "excel")):
        reading = replace(reading, words=f"{reading.words}, in {options.time_zone}")
    reading.warnings.extend(_contradicted_name(staged.columns[Columns.TIME], reading.unit))
    return reading


@contextmanager
def local_zone(workspace: Workspace, zone: str | None) -> Iterator[None]:
    """Within it, times without a zone are those of `zone` (an IANA name); UTC where it is None. Raises InputError."""
    if zone is None:
        yield
        return
    known = [str(name) for (name,) in workspace.rows("SELECT DISTINCT name FROM pg_timezone_names() ORDER BY name")]
    usable = [name for name in known if "/" in name or name in ("UTC", "GMT")]
    if zone not in usable:
        near = difflib.get_close_matches(zone, usable, 3, 0.5) or ["Europe/Berlin"]
        raise InputError(
            f"time_zone={zone!r} is no zone of the IANA list. Give a full name such as {', '.join(near)}: short names "
            "such as BST stand for several zones."
        )
    workspace.run(f"SET TimeZone = {text_in_sql(zone)}")
    try:
        yield
    finally:
        workspace.run("SET TimeZone = 'UTC'")


def _zone_in_words(options: ReadOptions) -> str:
    return "UTC" if options.time_zone is None else options.time_zone


def _native(column: str, family: str, options: ReadOptions) -> TimeReading:
    if options.time_unit not in ("auto", "iso"):
        raise InputError(
            f"time_unit={options.time_unit!r} was set, but the column holds {family} values, whose unit is known. "
            "Use 'auto'."
        )
    zone = "" if family in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") else f", taken as {_zone_in_words(options)}"
    plain = f"make_timestamp(epoch_ns({column}) // 1000)" if family == "TIMESTAMP_NS" else column
    time = f"CAST({plain} AS TIMESTAMP WITH TIME ZONE)"
    words = "dates" if family == "DATE" else "timestamps"
    return TimeReading(f"{words}{zone}", f"({column} IS NULL)", f"CASE WHEN isfinite({time}) THEN epoch_us({time}) END")


def _by_format(
    workspace: Workspace, column: str, family: str, cells: Mapping[str, TextCells], options: ReadOptions
) -> TimeReading:
    """Times as `time_format` says; numbers are written out first. Raises InputError for a wrong one."""
    form = str(options.time_format)
    if options.time_unit != "auto":
        raise InputError(f"time_format={form!r} and time_unit={options.time_unit!r} were both set. Set one of them.")
    if Columns.TIME in cells:
        text = cells[Columns.TIME].sql
    elif family in _NUMERIC:
        text = f"CAST({column} AS VARCHAR)"
    else:
        raise InputError(
            f"time_format was set, but the time column holds {family} values. It is for text and integers."
        )
    _check_format(workspace, form)
    time = f"CAST(try_strptime({text}, {text_in_sql(form)}) AS TIMESTAMP WITH TIME ZONE)"
    zone = "" if "%z" in form else f", taken as {_zone_in_words(options)}"
    return TimeReading(f"text of the format {form!r}{zone} (as set)", f"({text} IS NULL)", f"epoch_us({time})")


def _check_format(workspace: Workspace, form: str) -> None:
    given = set(re.findall(r"%-?([A-Za-z])", form.replace("%%", "")))
    absent = [
        name
        for name, letters in (("a year (%Y, %y)", "Yycx"), ("a month (%m, %b, %B)", "mbBjcx"), ("a day (%d)", "djcx"))
        if not given & set(letters)
    ]
    if absent:
        raise InputError(f"time_format={form!r} lacks {', '.join(absent)}. An example: '%d/%m/%Y %H:%M:%S'.")
    if "Z" in given:
        raise InputError(
            f"time_format={form!r} has %Z: names of zones stand for several offsets. Use %z for +0100, or write the "
            "name into the format and set time_zone."
        )
    try:
        workspace.rows(f"SELECT CAST(strptime(strftime(TIMESTAMP '2020-02-01 12:30:00', {text_in_sql(form)}), "
                       f"{text_in_sql(form)}) AS VARCHAR)")  # fmt: skip
    except duckdb.Error as error:
        if "%z" in form:  # a timestamp without a zone cannot be written with one, but is read well
            return
        raise InputError(
            f"time_format={form!r} cannot be used: {str(error).splitlines()[0]}. An example: '%d/%m/%Y %H:%M:%S'."
        ) from error


def _rounding(workspace: Workspace, column: str) -> list[str]:
    """32-bit floats keep 24 binary digits, so large numbers are rounded to a multiple of a power of two."""
    (largest,) = workspace.row(f"SELECT max(abs({column})) FILTER (WHERE isfinite({column})) FROM raw")
    if largest is None or largest < 2**24:
        return []
    step = 2 ** (int(largest).bit_length() - 24)
    return [
        f"the times are 32-bit floats, which are exact only to {step}: times were rounded before they came, and the "
        "order of events within such a step is lost. Write them as 64-bit integers"
    ]


def _contradicted_name(name: str, unit: str) -> list[str]:
    words_of_name = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split(":")[0])
    word = next((word for word in reversed(words_of_name) if word), "")
    named = next((named for named, words in _UNITS_IN_NAMES.items() if word in words), None)
    if named is None or unit not in UNITS or unit == named:
        return []
    return [
        f"the name of the column {name!r} says {named}, but its numbers are as large as {unit} and were read as such"
    ]
