"""Time columns: dates, timestamps and text as SQL that yields UTC microseconds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb

from variseq.errors import InputError
from variseq.events.identifiers import TextCells
from variseq.events.ingest import Ingested
from variseq.events.numeric_times import (
    DATE_FORMATS,
    MAX_CONTRADICTING,
    UNITS,
    WORDS,
    Numbers,
    TimeReading,
    numeric_column,
    read_numbers,
)
from variseq.events.options import ReadOptions
from variseq.events.session import Evidence, Session, group_of, name_in_sql, text_in_sql
from variseq.events.table import Columns

_UNITS_IN_NAMES = {
    "seconds": ("s", "sec", "secs", "second", "seconds"),
    "milliseconds": ("ms", "msec", "millis", "millisecond", "milliseconds"),
    "microseconds": ("us", "usec", "micros", "microsecond", "microseconds"),
    "nanoseconds": ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
}


def read_time(
    session: Session, ingested: Ingested, cells: Mapping[str, TextCells], options: ReadOptions
) -> TimeReading:
    """How the times in `raw` are read. Raises InputError for a type that is no time, and where nothing decides."""
    column = name_in_sql(Columns.TIME)
    kind = ingested.types[Columns.TIME]
    family = kind.split("(")[0]
    if options.time_format is not None:
        return _by_format(session, column, family, cells, options)
    if family.startswith("TIMESTAMP") or family == "DATE":
        return _native(column, family, options)
    if Columns.TIME in cells:
        reading = read_text(session, cells[Columns.TIME].sql, options)
    elif (group := group_of(kind)) in ("whole", "fractional"):
        reading = read_numbers(session, numeric_column(column, group == "whole"), options.time_unit)
        if family == "FLOAT":
            _warn_of_rounding(session, column)
    elif group == "nothing":
        return TimeReading("none: every time is missing", "true", "CAST(NULL AS BIGINT)")
    else:
        raise InputError(f"The time column is of type {kind}. Allowed: numbers, text, dates and timestamps.")
    if options.time_zone is not None and (reading.unit in DATE_FORMATS or reading.unit in ("days", "excel")):
        reading = replace(reading, words=f"{reading.words}, in {options.time_zone}")
    _warn_of_contradicted_name(session, ingested.columns[Columns.TIME], reading.unit)
    return reading


@contextmanager
def local_zone(session: Session, zone: str | None) -> Iterator[None]:
    """Within it, times without a zone are those of `zone` (an IANA name); UTC where it is None. Raises InputError."""
    if zone is None:
        yield
        return
    zones = [str(name) for (name,) in session.rows("SELECT DISTINCT name FROM pg_timezone_names() ORDER BY name")]
    usable = [name for name in zones if "/" in name or name in ("UTC", "GMT")]
    if zone not in usable:
        near = difflib.get_close_matches(zone, usable, 3, 0.5) or ["Europe/Berlin"]
        raise InputError(
            f"time_zone={zone!r} is no zone of the IANA list. Give a full name such as {', '.join(near)}: short names "
            "such as BST stand for several zones."
        )
    session.set_zone(zone)
    try:
        yield
    finally:
        session.set_zone("UTC")


def _native(column: str, family: str, options: ReadOptions) -> TimeReading:
    if options.time_unit not in ("auto", "iso"):
        raise InputError(
            f"time_unit={options.time_unit!r} was set, but the column holds {family} values, whose unit is fixed. "
            "Use 'auto'."
        )
    zone = "" if family in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") else f", taken as {options.time_zone or 'UTC'}"
    plain = f"make_timestamp(epoch_ns({column}) // 1000)" if family == "TIMESTAMP_NS" else column
    time = f"CAST({plain} AS TIMESTAMP WITH TIME ZONE)"
    words = "dates" if family == "DATE" else "timestamps"
    return TimeReading(f"{words}{zone}", f"({column} IS NULL)", f"CASE WHEN isfinite({time}) THEN epoch_us({time}) END")


def _by_format(
    session: Session, column: str, family: str, cells: Mapping[str, TextCells], options: ReadOptions
) -> TimeReading:
    """Times by `time_format`; numbers are written out first. Raises InputError for a wrong one."""
    form = str(options.time_format)
    if options.time_unit != "auto":
        raise InputError(f"time_format={form!r} and time_unit={options.time_unit!r} were both set. Set one of them.")
    if Columns.TIME in cells:
        text = cells[Columns.TIME].sql
    elif group_of(family) == "whole":
        text = f"CAST({column} AS VARCHAR)"
    else:
        raise InputError(
            f"time_format was set, but the time column holds {family} values. It is for text and integers."
        )
    _check_format(session, form)
    time = f"CAST(try_strptime({text}, {text_in_sql(form)}) AS TIMESTAMP WITH TIME ZONE)"
    zone = "" if "%z" in form else f", taken as {options.time_zone or 'UTC'}"
    return TimeReading(f"text of the format {form!r}{zone} (as set)", f"({text} IS NULL)", f"epoch_us({time})")


def _check_format(session: Session, form: str) -> None:
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
        session.rows(f"SELECT CAST(strptime(strftime(TIMESTAMP '2020-02-01 12:30:00', {text_in_sql(form)}), "
                       f"{text_in_sql(form)}) AS VARCHAR)")  # fmt: skip
    except duckdb.Error as error:
        if "%z" in form:  # a timestamp without a zone cannot be written with one, but is read well
            return
        raise InputError(
            f"time_format={form!r} cannot be used: {str(error).splitlines()[0]}. An example: '%d/%m/%Y %H:%M:%S'."
        ) from error


def _warn_of_rounding(session: Session, column: str) -> None:
    """32-bit floats keep 24 binary digits, so large numbers are rounded to a multiple of a power of two."""
    ((largest,),) = session.aggregate(f"SELECT max(abs({column})) FILTER (WHERE isfinite({column})) FROM raw", "max")
    if largest is not None and largest >= 2**24:
        session.warnings.append(
            f"the times are 32-bit floats, which are exact only to {2 ** (int(largest).bit_length() - 24)}: times were "
            "rounded before they came, and the order of events within such a step is lost. "
            "Write them as 64-bit integers"
        )


def _warn_of_contradicted_name(session: Session, name: str, unit: str) -> None:
    words_of_name = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split(":")[0])
    word = next((word for word in reversed(words_of_name) if word), "")
    named = next((named for named, words in _UNITS_IN_NAMES.items() if word in words), None)
    if named is not None and unit in UNITS and unit != named:
        session.warnings.append(
            f"the column {name!r} is named for {named}, but its numbers are as large as {unit} and were read as such"
        )


_MOST_DECIMALS_SHOWN = 5  # of a spreadsheet; programs write as many as there are
_NUMBER = r"'[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?'"
_ISO = (
    r"'[0-9]{4}-(0[0-9]|1[0-2])-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?)?'"
)
_MONTHS = "'jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'"
_MONTH = (
    "((?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    "nov(?:ember)?|dec(?:ember)?))"
)
_ANY_MONTH = r"(?:^|[ ,])\d{1,2}\.?[-/ ](?:de )?\pL{3,}\.?,?[-/ ](?:de )?\d{2,4}|\pL{3,}\.? \d{1,2},? \d{4}"
_WEEKDAY = r"(?:(?i:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?i:day)?\.?,? +)?"
# ctime has the year behind the clock; it is moved before it.
_YEAR_LAST = (
    rf"^({_WEEKDAY}){_MONTH} +(\d{{1,2}}) +(\d{{1,2}}:\d{{2}}(?::\d{{2}})?)( [+-]\d{{4}}| [A-Za-z]+)? (\d{{4}})$"
)
_DATE = (
    r"(?:(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"|(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4}|\d{2})"
    r"|(\d{4})(\d{2})(\d{2})"
    rf"|(\d{{1,2}})[-/ ]{_MONTH}\.?,?[-/ ](\d{{4}}|\d{{2}})"
    rf"|{_MONTH}\.? (\d{{1,2}}),? (\d{{4}}))"
)
_CLOCK = (
    r"(?:(?:[Tt:]|,? +)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)? ?(?:([AaPp])\.?[Mm]\.?)?"
    r"|[Tt ](\d{2})(\d{2})(\d{2})?(?:[.,](\d{1,9}))?)"
)
_ZONE = (
    r" ?([Zz]|UTC|GMT)?(?:([+-])(1[0-4]|0?\d)(?::?([0-5]\d))?)?"
    r"(?: ?\[([^\]]*)\]| ?\(([^)]*)\)| +([A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*))?"
)
_PATTERN = f"^{_WEEKDAY}{_DATE}(?:{_CLOCK}{_ZONE})?$"
_NAMES = (
    *("y1", "m1", "d1", "n1", "mark", "n2", "y2", "y3", "m3", "d3", "d4", "mon4", "y4", "mon5", "d5", "y5"),
    *("hour", "minute", "second", "fraction", "half", "hour2", "minute2", "second2", "fraction2"),
    *("utc", "sign", "offset_hours", "offset_minutes", "zone_in_brackets", "zone_in_parentheses", "zone"),
)
_ZONE_NAME = "(time_parts.zone || time_parts.zone_in_brackets || time_parts.zone_in_parentheses)"
_SHORT_YEAR = "(strlen(time_parts.y2) = 2 OR strlen(time_parts.y4) = 2)"
_SHORT_ZONE = (
    f"({_ZONE_NAME} NOT IN ('', 'UTC', 'GMT', 'Z') AND NOT contains({_ZONE_NAME}, '/') "
    "AND time_parts.utc = '' AND time_parts.sign = '')"
)
_ORDERS = ("day/month/year", "month/day/year")


def read_text(session: Session, text: str, options: ReadOptions) -> TimeReading:
    """How the texts are read. Raises InputError when dates can be read day first and month first and no row decides."""
    is_number = f"regexp_full_match(t, {_NUMBER})"
    conditions = {
        "filled": "t IS NOT NULL",
        "numbers": is_number,
        "whole": f"{is_number} AND TRY_CAST(t AS HUGEINT) IS NOT NULL AND NOT regexp_matches(t, '[.eE]')",
        "iso": f"regexp_full_match(t, {_ISO})",
    }
    found = session.counts(conditions, f"(SELECT {text} AS t FROM raw)")
    missing, unit = f"({text} IS NULL)", options.time_unit
    is_whole = found["whole"].num == found["numbers"].num
    plain = f"CASE WHEN regexp_full_match({text}, {_NUMBER}) THEN {text} END"
    numbers = Numbers(f"TRY_CAST({plain} AS {'BIGINT' if is_whole else 'DOUBLE'})", f"({text} IS NOT NULL)", is_whole)
    if unit in WORDS or (unit == "auto" and _are_numbers(session, text, numbers, found)):
        reading = read_numbers(session, numbers, unit)
        if not is_whole:
            _warn_of_rounded_text(session, text)
        return reading
    how = "found" if unit == "auto" else "as set"
    zone = options.time_zone or "UTC"
    iso = f"ISO 8601 text (a time without a zone is taken as {zone}) ({how})"
    if found["iso"].num == found["filled"].num:
        return TimeReading(iso, missing, f"epoch_us(TRY_CAST({text} AS TIMESTAMP WITH TIME ZONE))")
    parts = _parts(text)
    _refuse_day_before_month(session, text, parts)
    order = _order(session, text, parts, unit)
    words = iso
    if order.first is not None:
        words = f"{order.first} text, taken as {zone} ({how}{order.evidence})"
        words += "; other spellings by themselves" if order.num_other else ""
    elif found["iso"].num * 2 < found["filled"].num:
        words = f"dates and times as text (a time without a zone is taken as {zone}) ({how})"
    return TimeReading(words, missing, _microseconds(order), _reason(order, text), parts)


def _warn_of_rounded_text(session: Session, text: str) -> None:
    """Spreadsheets show large numbers as 1.58E+12, and save what they show."""
    decimals = "strlen(regexp_extract(t, '\\.([0-9]*)', 1))"
    ((most, power, example),) = session.aggregate(
        f"SELECT max({decimals}), min(CAST(regexp_extract(t, '[eE]\\+?([0-9]{{1,4}})', 1) AS INT)), min(t) "
        f"FROM (SELECT {text} AS t FROM raw) WHERE regexp_full_match(t, '[0-9](\\.[0-9]*)?[eE]\\+?[0-9]{{1,4}}')",
        "max min min",
    )
    if most is not None and most <= _MOST_DECIMALS_SHOWN and most < power:
        session.warnings.append(
            f"times such as {example!r} look rounded by a spreadsheet: at most {most} decimals are left, and the order "
            "of events is lost. Format the column as a number without decimals, and save it again"
        )


def _are_numbers(session: Session, text: str, numbers: Numbers, found: Mapping[str, Evidence]) -> bool:
    """Whether at least as many of the texts are numbers as are dates; what is neither decides nothing.

    Numbers among dates in words may be dates as well (20200201): then all are read as text.
    """
    num_numbers = found["numbers"].num
    if not num_numbers:
        return False
    if num_numbers <= found["filled"].num / 2:
        ((num_dates,),) = session.aggregate(
            f"SELECT count(*) FROM raw WHERE regexp_matches({text}, '{_PATTERN}') "
            f"AND NOT regexp_full_match({text}, {_NUMBER})",
            "sum",
        )
        if num_numbers < num_dates:
            return False
    if not found["iso"].num:
        return True
    ((num_dates,),) = session.aggregate(f"SELECT count(try_strptime({numbers.digits}, '%Y%m%d')) FROM raw", "sum")
    return 2 * num_dates <= num_numbers


def _parts(text: str) -> str:
    """SQL of the pieces of a time; those that are not there are empty."""
    moved = rf"regexp_replace({text}, '{_YEAR_LAST}', '\1\2 \3 \6 \4\5')"
    names = ", ".join(f"'{name}'" for name in _NAMES)
    return f"regexp_extract(regexp_replace({moved}, '  +', ' ', 'g'), '{_PATTERN}', [{names}])"


def _refuse_day_before_month(session: Session, text: str, parts: str) -> None:
    """Raises InputError where dates such as 2020-25-02 are more than a few."""
    first, second = "TRY_CAST(p.m1 AS INT)", "TRY_CAST(p.d1 AS INT)"
    conditions = {"day": f"{first} > 12 AND {second} <= 12", "month": f"{first} <= 12 AND {second} > 12"}
    (num_day, example), (num_month, _) = session.counts(conditions, _split(text, parts), {"day": "t"}).values()
    if num_day > MAX_CONTRADICTING * (num_day + num_month):
        mark = example[4]
        form = f"%Y{mark}%d{mark}%m"
        if clock := re.search(r"([T ])\d\d:\d\d(:\d\d)?", example):
            form += f"{clock[1]}%H:%M" + (":%S" if clock[2] else "")
        raise InputError(
            f"The dates contradict year, month, day: {num_day:,} can only be year, day, month, e.g. {example!r}, "
            f"and {num_month:,} only year, month, day. If all have the day before the month, set "
            f"--time-format '{form}' (time_format=)."
        )


def _split(text: str, parts: str) -> str:
    return f"(SELECT {text} AS t, {parts} AS p FROM raw WHERE {text} IS NOT NULL)"


@dataclass(frozen=True)
class _Order:
    """What is first in dates such as 1/2/2020, and in 1.2.2020: the day or the month. None: unknown."""

    first: str | None
    first_with_dots: str | None
    evidence: str = ""
    num_other: int = 0


def _order(session: Session, text: str, parts: str, unit: str) -> _Order:
    if unit in _ORDERS:
        return _Order(unit, unit)
    if unit == "iso":
        return _Order(None, None)
    day, month = "TRY_CAST(p.n1 AS INT)", "TRY_CAST(p.n2 AS INT)"
    cases = {
        "day": f"{day} > 12 AND {month} <= 12",
        "month": f"{month} > 12 AND {day} <= 12",
        "open": f"{day} <= 12 AND {month} <= 12 AND {day} <> {month}",
        "same": f"{day} = {month}",
    }
    marks = {"slash": "p.mark IN ('/', '-')", "dot": "p.mark = '.'"}
    conditions = {
        f"{mark} {case}": f"strlen(p.y2) = 4 AND {is_mark} AND {is_case}"
        for mark, is_mark in marks.items()
        for case, is_case in cases.items()
    }
    found = session.counts({"other": "p.n1 = ''", **conditions}, _split(text, parts), dict.fromkeys(conditions, "t"))
    num_other = found.pop("other").num
    slash, dot = ({case: found[f"{mark} {case}"] for case in cases} for mark in marks)
    num_slash, num_dot = (sum(dates.num for dates in of_mark.values()) for of_mark in (slash, dot))
    if not num_slash + num_dot:
        return _Order(None, None)
    with_dots, evidence = _decided(session, dot, if_open=_ORDERS[0])
    if not num_slash:
        return _Order(with_dots, with_dots, evidence, num_other)
    if num_other > num_slash + num_dot and not slash["day"].num and not slash["month"].num and slash["open"].num:
        return _Order(None, with_dots, "", num_other)  # a few rows of another spelling: they alone are rejected
    first, evidence = _decided(session, slash)
    return _Order(first, with_dots, evidence, num_other)


def _decided(session: Session, dates: Mapping[str, Evidence], if_open: str | None = None) -> tuple[str, str]:
    """The order and why, with a note. Raises InputError where nothing decides, or rows contradict each other."""
    (num_day, of_day), (num_month, of_month), (num_open, example), _ = dates.values()
    if min(num_day, num_month) > MAX_CONTRADICTING * (num_day + num_month):
        raise InputError(
            f"The dates contradict each other: {num_day:,} can only have the day first, e.g. {of_day!r}, "
            f"and {num_month:,} only the month, e.g. {of_month!r}. Write all of them alike, or choose "
            "the rows to keep: time_unit='day/month/year' or 'month/day/year' (--time-unit ...)."
        )
    if not num_day and not num_month:
        if not num_open or if_open is not None:
            return if_open or _ORDERS[1], ""
        first, second, rest = example.replace("-", "/").split("/", 2)
        day_first, month_first = (
            f"{rest[:4]}-{m.zfill(2)}-{d.zfill(2)}" for m, d in ((second, first), (first, second))
        )
        raise InputError(
            f"The dates can be read in two ways and no row decides: {example!r} is {day_first} with the day first or "
            f"{month_first} with the month first. Choose which: "
            "time_unit='day/month/year' or 'month/day/year' (--time-unit day/month/year)."
        )
    order, what = (_ORDERS[0], "day") if num_day > num_month else (_ORDERS[1], "month")
    against, deciding = sorted((num_day, num_month))
    if against:
        session.notes.append(
            f"{against:,} dates cannot have the {what} first, against {deciding:,} that must: they were rejected"
        )
    return order, f"; in {deciding:,} rows only the {what} can be first"


def _microseconds(order: _Order) -> str:
    """From the column `time_parts`: a text that leaves nothing open, cast to a moment."""
    p = "time_parts"
    month_of = {name: f"list_position([{_MONTHS}], lower(left({p}.{name}, 3)))" for name in ("mon4", "mon5")}
    short = {
        _ORDERS[0]: f"{p}.y2 || '-' || {p}.n2 || '-' || {p}.n1",
        _ORDERS[1]: f"{p}.y2 || '-' || {p}.n1 || '-' || {p}.n2",
        None: "NULL",
    }
    date = (
        f"CASE WHEN {p}.y1 <> '' THEN {p}.y1 || '-' || {p}.m1 || '-' || {p}.d1 "
        f"WHEN {p}.mark = '.' THEN {short[order.first_with_dots]} WHEN {p}.y2 <> '' THEN {short[order.first]} "
        f"WHEN {p}.y3 <> '' THEN {p}.y3 || '-' || {p}.m3 || '-' || {p}.d3 "
        f"WHEN {p}.y4 <> '' THEN {p}.y4 || '-' || {month_of['mon4']} || '-' || {p}.d4 "
        f"WHEN {p}.y5 <> '' THEN {p}.y5 || '-' || {month_of['mon5']} || '-' || {p}.d5 END"
    )
    hour = f"coalesce(TRY_CAST({p}.hour || {p}.hour2 AS INT), 0)"
    hour = (
        f"CASE WHEN {p}.half = '' THEN {hour} WHEN {hour} NOT BETWEEN 1 AND 12 THEN NULL "
        f"ELSE {hour} % 12 + CASE WHEN lower({p}.half) = 'p' THEN 12 ELSE 0 END END"
    )
    minute, second = (f"coalesce(nullif({p}.{name} || {p}.{name}2, ''), '00')" for name in ("minute", "second"))
    fraction = f"rpad(left({p}.fraction || {p}.fraction2, 6), 6, '0')"
    zone = (
        f"CASE WHEN {p}.sign <> '' THEN {p}.sign || lpad({p}.offset_hours, 2, '0') || ':' || "
        f"coalesce(nullif({p}.offset_minutes, ''), '00') WHEN {p}.utc <> '' THEN 'Z' "
        f"WHEN {_ZONE_NAME} IN ('UTC', 'GMT', 'Z') THEN 'Z' "
        f"WHEN contains({_ZONE_NAME}, '/') THEN ' ' || {_ZONE_NAME} ELSE '' END"
    )
    text = (
        f"({date}) || ' ' || lpad(CAST({hour} AS VARCHAR), 2, '0') || ':' || {minute} || ':' || {second} || '.' || "
        f"{fraction} || ({zone})"
    )
    return (
        f"CASE WHEN NOT {_SHORT_YEAR} AND NOT {_SHORT_ZONE} "
        f"THEN epoch_us(TRY_CAST({text} AS TIMESTAMP WITH TIME ZONE)) END"
    )


def _reason(order: _Order, text: str) -> str:
    is_open = "WHEN time_parts.mark IN ('/', '-') THEN 'ambiguous date' " if order.first is None else ""
    has_foreign_month = (
        f"regexp_matches({text}, '{_ANY_MONTH}') AND NOT regexp_matches({text}, '(?:^|[^\\pL]){_MONTH}(?:[^\\pL]|$)')"
    )
    return (
        f"CASE WHEN {_SHORT_YEAR} THEN 'year of two digits' "
        f"WHEN {_SHORT_ZONE} THEN 'ambiguous time zone' {is_open}"
        f"WHEN {has_foreign_month} THEN 'month name not in English' ELSE 'unparsable time' END"
    )
