"""Numbers in a time column become SQL that yields UTC microseconds; the unit is found over the whole column.

A number of seconds, milliseconds, microseconds or nanoseconds since 1970 that lies between 1973 and 2100 can be of one
unit only: the next unit is a thousand times as large. So numbers of several units in one column are told apart, but
only where they speak of the same years; what does not fit is rejected, and what nothing decides is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from variseq.errors import InputError
from variseq.events.time_reading import LATEST_MICROSECONDS, TimeReading
from variseq.events.workspace import Workspace

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_LIMITS = (1e11, 1e14, 1e17, float("inf"))  # of the magnitudes of each unit; seconds reach 1e11 in the year 5138
_EARLIEST = 1e8  # seconds; numbers below are before March 1973 in seconds and on 2 January 1970 in any other unit
_GAP = 4  # numbers below it are no times if they are that many times smaller than all others
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
    """SQL of the numbers of a column, NULL where none can be read; `filled` says where something stands."""

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


def read_numbers(workspace: Workspace, numbers: Numbers, unit: str) -> TimeReading:
    """How the numbers are read, in the unit that was set or ("auto") in the one that the whole column shows.

    Raises InputError for a unit that is for text, and when the numbers can be read in two ways.
    """
    if unit != "auto":
        if unit not in WORDS:
            allowed = ", ".join(("auto", *WORDS))
            raise InputError(f"time_unit={unit!r} is for text, but the times are numbers. Allowed: {allowed}.")
        return _in_unit(numbers, unit, "as set")
    seen = _measure(workspace, numbers.number)
    if seen is None:
        return _in_unit(numbers, "seconds", "found")
    calendar = _calendar_unit(workspace, numbers, seen)
    if calendar is not None:
        return _in_unit(numbers, calendar, "found")
    _refuse_other_clocks(workspace, numbers, seen)
    if len(seen.units) == 1 and not seen.num_early:
        return _in_unit(numbers, seen.units[0], "found")
    if seen.num_early > seen.count / 2:
        return _in_unit(numbers, "seconds", "found")
    return _of_several_units(workspace, numbers, seen)


def _in_unit(numbers: Numbers, unit: str, how: str) -> TimeReading:
    words, missing = f"{WORDS[unit]} ({how})", f"NOT {numbers.filled}"
    if unit in UNITS:
        return TimeReading(words, missing, _scaled(numbers, unit), unit=unit)
    if unit in DATE_FORMATS:
        return TimeReading(words, missing, calendar_microseconds(numbers.digits, unit), unit=unit)
    _, _, zero, step = _OTHER_CLOCKS[unit]
    return TimeReading(words, missing, _shifted(numbers.number, zero, step), unit=unit)


def calendar_microseconds(digits: str, unit: str) -> str:
    time = f"CAST(try_strptime({digits}, '{DATE_FORMATS[unit]}') AS TIMESTAMP WITH TIME ZONE)"
    return f"CASE WHEN strlen({digits}) = {len(unit)} THEN epoch_us({time}) END"


def _shifted(number: str, zero: int, step: float) -> str:
    last = (LATEST_MICROSECONDS + 1) / step
    scaled = f"CAST({number} - {zero} AS BIGINT) // {round(1 / step)}"
    if step > 1:
        scaled = f"CAST(round(({number} - {zero}) * {int(step)}) AS BIGINT)"
    return (
        f"CASE WHEN {number} IS NULL THEN NULL WHEN {number} < {zero} THEN -1 "
        f"WHEN {number} - {zero} < {last!r} THEN {scaled} ELSE {LATEST_MICROSECONDS} END"
    )


def _scaled(numbers: Numbers, unit: str) -> str:
    """Microseconds of a number; one out of any calendar is cut to -1 or the latest time, and so counts as absurd."""
    number, scale = numbers.number, 1_000_000 // 1000 ** UNITS.index(unit)
    latest = LATEST_MICROSECONDS // scale if scale else LATEST_MICROSECONDS * 1000
    nothing = f"{number} IS NULL"
    if numbers.is_whole:
        exact = f"CAST({number} AS BIGINT) * {scale}" if scale else f"CAST({number} AS BIGINT) // 1000"
    else:
        exact = f"CAST(round({number} * {scale}) AS BIGINT)" if scale else f"CAST(floor({number} / 1000) AS BIGINT)"
        nothing += f" OR isnan({number})"
    return (
        f"CASE WHEN {nothing} THEN NULL WHEN {number} < 0 THEN -1 WHEN {number} < {latest} THEN {exact} "
        f"ELSE {LATEST_MICROSECONDS} END"
    )


@dataclass(frozen=True)
class _Measured:
    """The numbers of a column that are not negative: how many, the least and the largest, by the unit they fit."""

    num_early: int
    last_early: float
    by_unit: dict[str, tuple[int, float, float]]

    @property
    def units(self) -> list[str]:
        """From the unit of most numbers to that of fewest."""
        return sorted(self.by_unit, key=lambda unit: (-self.by_unit[unit][0], UNITS.index(unit)))

    @property
    def count(self) -> int:
        return self.num_early + sum(count for count, _, _ in self.by_unit.values())

    @property
    def first(self) -> float:
        return min(first for _, first, _ in self.by_unit.values())


def _measure(workspace: Workspace, number: str) -> _Measured | None:
    """One pass over the column; None where there is no number that could be a time."""
    usable = f"(SELECT {number} AS x FROM raw WHERE {number} >= 0 AND {number} < 1e19)"
    count, first, last = workspace.row(f"SELECT count(x), min(x), max(x) FROM {usable}")
    if not count:
        return None
    unit_of_first, unit_of_last = _unit_of_magnitude(float(first)), _unit_of_magnitude(float(last))
    if unit_of_first == unit_of_last and (first >= _EARLIEST or last < _EARLIEST):
        return _Measured(0, 0.0, {unit_of_first: (count, float(first), float(last))})
    edges = [_EARLIEST, *_LIMITS[:-1], 1e19]
    counts = "".join(
        f", count(*) FILTER (WHERE {within}), min(x) FILTER (WHERE {within}), max(x) FILTER (WHERE {within})"
        for within in (f"x >= {low!r} AND x < {high!r}" for low, high in pairwise(edges))
    )
    early = f"x < {_EARLIEST!r}"
    found = workspace.row(
        f"SELECT count(*) FILTER (WHERE {early}), max(x) FILTER (WHERE {early}){counts} FROM {usable}"
    )
    by_unit = {
        unit: (int(found[2 + 3 * place]), float(found[3 + 3 * place]), float(found[4 + 3 * place]))
        for place, unit in enumerate(UNITS)
        if found[2 + 3 * place]
    }
    return _Measured(int(found[0]), float(found[1] or 0.0), by_unit)


def _unit_of_magnitude(number: float) -> str:
    return next(unit for unit, limit in zip(UNITS, _LIMITS, strict=True) if number < limit)


def _calendar_unit(workspace: Workspace, numbers: Numbers, seen: _Measured) -> str | None:
    """The spelling yyyymmdd (and with a clock behind it) that at least nine in ten numbers have."""
    ranges = {
        unit: (int(f"1970{'0101000000'[: len(unit) - 4]}"), int(f"2100{'0' * (len(unit) - 4)}"))
        for unit in DATE_FORMATS
    }
    ranges["yyyymmdd"] = (19_000_101, 21_001_231)
    edges = [seen.last_early] + [edge for _, first, last in seen.by_unit.values() for edge in (first, last)]
    for unit, (low, high) in ranges.items():
        if min(edges) > high or max(edges) < low:
            continue
        num_dates = workspace.number(
            f"SELECT count({calendar_microseconds(numbers.digits, unit)}) FROM raw "
            f"WHERE {numbers.number} BETWEEN {low} AND {high}"
        )
        if num_dates >= 0.9 * seen.count:
            return unit
    return None


def _refuse_other_clocks(workspace: Workspace, numbers: Numbers, seen: _Measured) -> None:
    """Numbers that all make sense on a clock of another zero point are asked about."""
    if seen.num_early or len(seen.by_unit) > 1:
        return
    (unit,) = seen.units
    _, first, last = seen.by_unit[unit]
    readings = [
        (other, zero, step) for other, (low, high, zero, step) in _OTHER_CLOCKS.items() if low <= first and last <= high
    ]
    if readings:
        shown = "; ".join(f"{_instant((first - zero) * step)} as {other!r}" for other, zero, step in readings)
        raise InputError(
            f"The times can be read in several ways: {first:g} is {_instant(first * 1e6 / 1000 ** UNITS.index(unit))} "
            f"as {unit!r}; {shown}. Say which: time_unit={' or '.join(repr(other) for other, _, _ in readings)} or "
            f"{unit!r} (--time-unit ...)."
        )
    if unit == "seconds" and first >= 1_970_010_100 and last <= 2_099_123_123:
        hours = f"try_strptime({numbers.digits}, '%Y%m%d%H')"
        if workspace.number(f"SELECT count({hours}) FROM raw WHERE {numbers.number} >= 0") == seen.count:
            raise InputError(
                f"The times can be read in two ways: {int(first)} is {_instant(first * 1e6)} as seconds since 1970, or "
                "a day and an hour as yyyymmddhh. Say which: time_unit='seconds' or time_format='%Y%m%d%H' "
                "(--time-unit, --time-format)."
            )


def _of_several_units(workspace: Workspace, numbers: Numbers, seen: _Measured) -> TimeReading:
    """Each number by its own magnitude, where that gives times of the same years as the unit of most numbers."""
    number, unit = numbers.number, seen.units[0]
    early_are_times = seen.num_early and unit == "seconds" and seen.last_early * _GAP > seen.first
    first, last = (_microseconds(edge, unit) for edge in seen.by_unit[unit][1:])
    branches, parts = [], [f"{seen.by_unit[unit][0]:,} {unit}"]
    if seen.num_early and not early_are_times:
        branches.append(f"WHEN {number} >= 0 AND {number} < {_EARLIEST!r} THEN -1")
    for other in seen.units[1:]:
        place = UNITS.index(other)
        low, high = ((_EARLIEST, *_LIMITS)[place], min(_LIMITS[place], 1e19))
        within = f"{number} >= {low!r} AND {number} < {high!r}"
        microseconds = _scaled(numbers, other)
        fits = f"{microseconds} BETWEEN {first - _MARGIN_MICROSECONDS} AND {last + _MARGIN_MICROSECONDS}"
        num_fitting = workspace.number(f"SELECT count(*) FROM raw WHERE {within} AND {fits}")
        if num_fitting:
            parts.append(f"{num_fitting:,} {other}")
        branches.append(f"WHEN {within} THEN CASE WHEN {fits} THEN {microseconds} ELSE -1 END")
    reading = TimeReading(
        f"{WORDS[unit]} (found)",
        f"NOT {numbers.filled}",
        f"CASE {' '.join(branches)} ELSE {_scaled(numbers, unit)} END" if branches else _scaled(numbers, unit),
        unit=unit,
    )
    if len(parts) > 1:
        words = f"numbers since 1970, each in the unit that its size shows: {', '.join(parts)} (found)"
        reading = TimeReading(words, reading.missing, reading.microseconds)
        reading.warnings.append(
            f"the times are of several units ({', '.join(parts)}): each number was read by its size. Set time_unit if "
            "all are of one"
        )
    return reading


def _microseconds(number: float, unit: str) -> int:
    return min(int(number * 1e6 / 1000 ** UNITS.index(unit)), LATEST_MICROSECONDS)


def _instant(microseconds: float) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M}"
    except OverflowError:
        return "no date"
