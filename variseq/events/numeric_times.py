"""Numeric timestamps: detect the unit of the column and convert to UTC microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from variseq.errors import InputError
from variseq.events.session import Session

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


UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_LIMITS = (1e11, 1e14, 1e17, float("inf"))  # of the magnitudes of each unit; seconds reach 1e11 in the year 5138
_EARLIEST = 1e8  # seconds; numbers below are before March 1973 in seconds and on 2 January 1970 in any other unit
_GAP = 4  # numbers below it are no times if they are that many times smaller than all others
MAX_CONTRADICTING = 0.1  # of the rows that decide between two readings
_MARGIN_MICROSECONDS = 366 * 86_400 * 1_000_000
DATE_FORMATS = {"yyyymmdd": "%Y%m%d", "yyyymmddhhmm": "%Y%m%d%H%M", "yyyymmddhhmmss": "%Y%m%d%H%M%S"}
_DAY = 86_400_000_000.0
# unit: first and last number that can be a time from 1970 (days: 2000) to 2100, zero point, microseconds of a step
_OTHER_CLOCKS: dict[str, tuple[int, int, int, float]] = {
    "days": (10_957, 47_482, 0, _DAY),
    "excel": (25_569, 73_050, 25_569, _DAY),
    "filetime": (116_444_736_000_000_000, 157_469_184_000_000_000, 116_444_736_000_000_000, 0.1),
    "ticks": (621_355_968_000_000_000, 662_380_416_000_000_000, 621_355_968_000_000_000, 0.1),
}
WORDS = {
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "microseconds": "microseconds since 1970",
    "nanoseconds": "nanoseconds since 1970",
    "yyyymmdd": "days written as yyyymmdd, taken as midnight",
    "yyyymmddhhmm": "minutes written as yyyymmddhhmm",
    "yyyymmddhhmmss": "seconds written as yyyymmddhhmmss",
    "days": "days since 1970",
    "excel": "days of a spreadsheet (since 1899-12-30)",
    "filetime": "steps of 100 nanoseconds since 1601 (Windows file times)",
    "ticks": "steps of 100 nanoseconds since the year 1 (.NET ticks)",
}


@dataclass(frozen=True)
class Numbers:
    """SQL of the numbers of a column, NULL where none can be read; `filled` is SQL of where there is any."""

    number: str
    filled: str
    is_whole: bool

    @property
    def digits(self) -> str:
        """SQL of the number written out, for units that are digits of a calendar."""
        return f"CAST(TRY_CAST({self.number} AS BIGINT) AS VARCHAR)"


def numeric_column(column: str, is_whole: bool) -> Numbers:
    if is_whole:
        return Numbers(column, f"({column} IS NOT NULL)", True)
    number = f"CAST({column} AS DOUBLE)"
    return Numbers(number, f"NOT coalesce(isnan({number}), true)", False)


def read_numbers(session: Session, numbers: Numbers, unit: str) -> TimeReading:
    """How the numbers are read, in the unit that was set or ("auto") in the one that the whole column shows.

    Raises InputError for a unit that is for text, and when the numbers can be read in two ways.
    """
    if unit != "auto":
        if unit not in WORDS:
            allowed = ", ".join(("auto", *WORDS))
            raise InputError(f"time_unit={unit!r} is for text, but the times are numbers. Allowed: {allowed}.")
        return _in_unit(numbers, unit, "as set")
    seen = _measure(session, numbers.number)
    if seen is None:
        return _in_unit(numbers, "seconds", "found")
    calendar, strays = _calendar_units(session, numbers, seen)
    if calendar is not None:
        return _in_unit(numbers, calendar, "found")
    _refuse_other_clocks(session, numbers, seen)
    if seen.early_are_times and len(seen.units) <= 1:
        return _in_unit(numbers, "seconds", "found")
    _refuse_counters_among_times(seen)
    if len(seen.units) == 1 and not seen.num_early and not seen.num_zero and not strays:
        return _in_unit(numbers, seen.units[0], "found")
    return _of_several_units(session, numbers, seen, strays)


def _in_unit(numbers: Numbers, unit: str, how: str) -> TimeReading:
    if unit in DATE_FORMATS:
        time = (
            f"CASE WHEN {numbers.number} IS NULL THEN NULL WHEN coalesce(strlen({numbers.digits}), 0) <> {len(unit)} "
            f"THEN -1 ELSE {calendar_microseconds(numbers.digits, unit)} END"
        )
    else:
        time = _scaled(numbers, unit)
    return TimeReading(f"{WORDS[unit]} ({how})", f"NOT {numbers.filled}", time, unit=unit)


def calendar_microseconds(digits: str, unit: str) -> str:
    time = f"CAST(try_strptime({digits}, '{DATE_FORMATS[unit]}') AS TIMESTAMP WITH TIME ZONE)"
    return f"CASE WHEN strlen({digits}) = {len(unit)} THEN epoch_us({time}) END"


def _scaled(numbers: Numbers, unit: str) -> str:
    """Microseconds of a number; one out of any calendar is cut to -1 or the last time, and so counts as absurd.

    Days are those of the zone of times without one, as dates are; all other clocks run in UTC.
    """
    _, _, zero, step = _OTHER_CLOCKS.get(unit, (0, 0, 0, 1e6 / 1000 ** (UNITS.index(unit) if unit in UNITS else 0)))
    number = f"({numbers.number} - {zero})" if zero else numbers.number
    if unit in ("days", "excel"):
        local = f"make_timestamp(CAST(round({number} * {int(step)}) AS BIGINT))"
        microseconds = f"epoch_us(CAST({local} AS TIMESTAMP WITH TIME ZONE))"
    elif step >= 1:
        exact = f"CAST({number} AS BIGINT) * {int(step)}"
        microseconds = exact if numbers.is_whole else f"CAST(round({number} * {int(step)}) AS BIGINT)"
    else:
        exact = f"CAST({number} AS BIGINT) // {round(1 / step)}"
        microseconds = exact if numbers.is_whole else f"CAST(floor({number} / {round(1 / step)}) AS BIGINT)"
    nothing = f"{number} IS NULL" + ("" if numbers.is_whole else f" OR isnan({number})")
    last = LATEST_MICROSECONDS // int(step) if step >= 1 else LATEST_MICROSECONDS * round(1 / step)
    return (
        f"CASE WHEN {nothing} THEN NULL WHEN {number} < 0 THEN -1 WHEN {number} < {last} THEN {microseconds} "
        f"ELSE {LATEST_MICROSECONDS} END"
    )


class _Group(NamedTuple):
    """How many numbers there are, the least and the largest."""

    num: int
    first: float
    last: float


@dataclass(frozen=True)
class _Measured:
    """The positive numbers of a column, by the unit they fit. Zeros are apart.

    Early are those that would be before March 1973 in seconds and on 2 January 1970 in any other unit.
    """

    num_zero: int
    early: _Group | None
    by_unit: dict[str, _Group]

    @property
    def units(self) -> list[str]:
        """From the unit of most numbers to that of fewest."""
        return sorted(self.by_unit, key=lambda unit: (-self.by_unit[unit].num, UNITS.index(unit)))

    @property
    def num_early(self) -> int:
        return self.early.num if self.early else 0

    @property
    def groups(self) -> list[_Group]:
        return [*([self.early] if self.early else []), *self.by_unit.values()]

    @property
    def count(self) -> int:
        return sum(group.num for group in self.groups)

    @property
    def main(self) -> tuple[str, _Group]:
        """The unit of most numbers, and how many, the least and the largest; seconds where most are early."""
        if self.early and 2 * self.num_early > self.count:
            return "seconds", self.early
        return self.units[0], self.by_unit[self.units[0]]

    @property
    def early_are_times(self) -> bool:
        """Whether the early numbers stand alone, or go over into the others without a gap."""
        if not self.early or not self.by_unit:
            return bool(self.early)
        first = min(group.first for group in self.by_unit.values())
        return self.units[0] == "seconds" and self.early.last * _GAP > first


def _measure(session: Session, number: str) -> _Measured | None:
    """The numbers of a column by size; None where there is none that could be a time.

    Zero, what is negative and what is out of any calendar decide nothing.
    """
    limits = " ".join(f"WHEN x < {limit!r} THEN '{unit}'" for unit, limit in zip(UNITS, _LIMITS[:-1], strict=False))
    groups = session.aggregate(
        f"SELECT CASE WHEN x = 0 THEN 'zero' WHEN x < {_EARLIEST!r} THEN 'early' {limits} ELSE '{UNITS[-1]}' END AS "
        f"size, count(*), min(x), max(x) FROM (SELECT {number} AS x FROM raw WHERE {number} >= 0 AND {number} < 1e19) "
        "GROUP BY size",
        "key sum min max",
    )
    found = {str(size): _Group(int(count), float(first), float(last)) for size, count, first, last in groups}
    zero, early = found.pop("zero", None), found.pop("early", None)
    if not found and early is None:
        return None
    return _Measured(zero.num if zero else 0, early, {unit: found[unit] for unit in UNITS if unit in found})


def _calendar_units(session: Session, numbers: Numbers, seen: _Measured) -> tuple[str | None, list[str]]:
    """The spelling yyyymmdd (and with a clock behind it) of most numbers, and those of a few among other numbers.

    Raises InputError where most numbers are such dates, but with the day before the month.
    """
    ranges = {
        unit: (int(f"1970{'0101000000'[: len(unit) - 4]}"), int(f"2100{'0' * (len(unit) - 4)}"))
        for unit in DATE_FORMATS
    }
    ranges["yyyymmdd"] = (19_000_101, 21_001_231)
    strays = []
    for unit, (low, high) in ranges.items():
        if not any(first <= high and last >= low for _, first, last in seen.groups):
            continue
        is_date = f"{calendar_microseconds(numbers.digits, unit)} IS NOT NULL"
        swapped_format = DATE_FORMATS[unit].replace("%m%d", "%d%m")
        is_swapped = f"try_strptime({numbers.digits}, '{swapped_format}') IS NOT NULL"
        conditions = {
            "all": "true",
            "dates": is_date,
            "swapped": f"NOT {is_date} AND {is_swapped}",
            "both": f"{is_date} AND {is_swapped}",
        }
        within = session.counts(
            conditions, f"raw WHERE {numbers.number} BETWEEN {low} AND {high}", {"swapped": numbers.digits}
        )
        num_dates, (num_swapped, example) = within["dates"].num, within["swapped"]
        num_decided = num_swapped + num_dates - within["both"].num
        if 2 * (num_dates + num_swapped) > seen.count and num_swapped > MAX_CONTRADICTING * num_decided:
            raise InputError(
                f"The dates contradict year, month, day: {num_swapped:,} can only be year, day, month, e.g. {example}. "
                f"If all are, set --time-format '{swapped_format}' (time_format=)."
            )
        if 2 * num_dates > seen.count:
            return unit, []
        if 2 * num_dates > within["all"].num:
            strays.append(unit)
    return None, strays


def _refuse_other_clocks(session: Session, numbers: Numbers, seen: _Measured) -> None:
    """Numbers of which most make sense on a clock of another zero point are refused."""
    unit, (count, first, last) = seen.main
    readings = []
    for other, (low, high, zero, step) in _OTHER_CLOCKS.items():
        if first > high or last < low:
            continue
        ((num_within, example),) = session.aggregate(
            f"SELECT count(*), min({numbers.number}) FROM raw WHERE {numbers.number} BETWEEN {low} AND {high}",
            "sum min",
        )
        # Counters run through the numbers of days as well, so that only a few may lie outside of these.
        most_outside = count / 2 if step < 1 else max(1, MAX_CONTRADICTING * count)
        if 2 * num_within > count and count - num_within <= most_outside:
            readings.append((other, float(example), _instant((float(example) - zero) * step)))
    if readings:
        shown = "; ".join(f"{instant} as {other!r}" for other, _, instant in readings)
        example = readings[0][1]
        raise InputError(
            f"The times can be read in several ways: {example:g} is "
            f"{_instant(example * 1e6 / 1000 ** UNITS.index(unit))} as {unit!r}; {shown}. Say which: "
            f"time_unit={' or '.join(repr(other) for other, _, _ in readings)} or {unit!r} (--time-unit ...)."
        )
    if unit == "seconds" and last >= 1_970_010_100 and first <= 2_099_123_123:
        hours = f"try_strptime({numbers.digits}, '%Y%m%d%H')"
        ((num_hours, example),) = session.aggregate(
            f"SELECT count(*), min({numbers.number}) FROM raw "
            f"WHERE {numbers.number} BETWEEN 1970010100 AND 2099123123 AND {hours} IS NOT NULL",
            "sum min",
        )
        if 2 * num_hours > count:
            raise InputError(
                f"The times can be read in two ways: {int(example)} is {_instant(float(example) * 1e6)} as seconds "
                "since 1970, or a day and an hour as yyyymmddhh. Say which: time_unit='seconds' or "
                "time_format='%Y%m%d%H' (--time-unit, --time-format)."
            )


def _refuse_counters_among_times(seen: _Measured) -> None:
    """Raises InputError where most numbers would be in 1970, and the others decades later."""
    if seen.early is None or seen.early_are_times or 2 * seen.num_early <= seen.count:
        return
    unit = seen.units[0]
    first = seen.by_unit[unit].first
    instant = _instant(float(_microseconds(first, unit)))
    raise InputError(
        f"The times are of several kinds: {seen.num_early:,} numbers such as {seen.early.first:.15g} would be near "
        f"1970, and {seen.count - seen.num_early:,} such as {first:.15g} are {instant} in {unit}. "
        "Leave out one kind, or set the unit of all: time_unit='seconds' (--time-unit ...)."
    )


def _of_several_units(session: Session, numbers: Numbers, seen: _Measured, strays: list[str]) -> TimeReading:
    """Each number by its own magnitude, where that gives times of the same years as the unit of most numbers."""
    number, unit = numbers.number, seen.units[0]
    first, last = (_microseconds(edge, unit) for edge in seen.by_unit[unit][1:])
    parts = [f"{seen.by_unit[unit][0]:,} {unit}"]
    branches = [f"WHEN {calendar_microseconds(numbers.digits, stray)} IS NOT NULL THEN -1" for stray in strays]
    if (seen.num_early or seen.num_zero) and not seen.early_are_times:
        branches.append(f"WHEN {number} >= 0 AND {number} < {_EARLIEST!r} THEN -1")
    for other in seen.units[1:]:
        index = UNITS.index(other)
        low, high = ((_EARLIEST, *_LIMITS)[index], min(_LIMITS[index], 1e19))
        within = f"{number} >= {low!r} AND {number} < {high!r}"
        microseconds = _scaled(numbers, other)
        fits = f"{microseconds} BETWEEN {first - _MARGIN_MICROSECONDS} AND {last + _MARGIN_MICROSECONDS}"
        ((num_fitting,),) = session.aggregate(f"SELECT count(*) FROM raw WHERE {within} AND {fits}", "sum")
        if num_fitting:
            parts.append(f"{num_fitting:,} {other}")
        branches.append(f"WHEN {within} THEN CASE WHEN {fits} THEN {microseconds} ELSE -1 END")
    missing, scaled = f"NOT {numbers.filled}", _scaled(numbers, unit)
    time = f"CASE {' '.join(branches)} ELSE {scaled} END" if branches else scaled
    if len(parts) == 1:
        return TimeReading(f"{WORDS[unit]} (found)", missing, time, unit=unit)
    session.warnings.append(
        f"the times are of several units ({', '.join(parts)}): each number was read by its size. Set time_unit if "
        "all are of one"
    )
    words = f"numbers since 1970, each in the unit that its size shows: {', '.join(parts)} (found)"
    return TimeReading(words, missing, time)


def _microseconds(number: float, unit: str) -> int:
    return min(int(number * 1e6 / 1000 ** UNITS.index(unit)), LATEST_MICROSECONDS)


def _instant(microseconds: float) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M}"
    except OverflowError:
        return "no date"
