"""Parse `raw` into typed rows with a reject reason: ids, times, behaviors and values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from variseq.events.identifiers import Ids, TextCells, read_ids, read_text_cells
from variseq.events.ingest import Ingested
from variseq.events.numeric_times import LATEST_MICROSECONDS, TimeReading
from variseq.events.options import ReadOptions
from variseq.events.session import Evidence, Session, group_of, name_in_sql, shortened, text_in_sql
from variseq.events.table import Columns
from variseq.events.times import local_zone, read_time
from variseq.events.vocabulary import MAX_ID_BYTES

DEFAULT_EVENT = "event"  # the behavior of an event that names none
_LARGEST_VALUE = 3.4028234e38  # values are kept as 32-bit floats
_MAX_ODD_SHARE = 0.1
_NUMBER = r"'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?'"
_DECIMAL = r"'-?[0-9]+(\.[0-9]+)?'"
_WITHOUT_FRACTION = r"'[+-]?[0-9]+'"
_DECIMAL_COMMA = r"'[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+'"
_POINTS = r"'[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+'"  # between thousands, or one decimal point
_THOUSANDS = r"'[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+'"
_DURATION = r"'[0-9]+:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?'"
_MINUS = "'\u2212'"  # of typesetting
_HINTS = {
    r"\[.*\]|\{.*\}": "a list or an object? Give one number",
    r"[+-]?[0-9.]*,[0-9]{1,2}": "a decimal comma? Write 4.5",
    r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?": "commas between thousands? Write 1234.50",
    r".*%": "a percentage? Write the number without %",
    r"[0-9]+:[0-9:.]+": "a duration? Write seconds",
    r"[^0-9]{1,4}[0-9].*|.*[0-9] ?[^0-9]{1,4}": "a currency or unit? Write the number alone",
}


@dataclass(frozen=True)
class ValueReading:
    """SQL of the value, NULL for none; SQL of the rows whose value cannot be read."""

    sql: str = "CAST(NULL AS DOUBLE)"
    unreadable: str = "false"


def read_value(
    session: Session, ingested: Ingested, cells: Mapping[str, TextCells], deciding: str = "true"
) -> ValueReading:
    """How the value column is read; of a type that is no number, no value is read, with a note.

    `deciding` is SQL of the rows whose values decide how they are read.
    """
    if Columns.VALUE not in ingested.columns:
        return ValueReading()
    column, name = name_in_sql(Columns.VALUE), ingested.columns[Columns.VALUE]
    kind = ingested.types[Columns.VALUE]
    group = group_of(kind)
    number = f"CAST({column} AS DOUBLE)"
    if group in ("VARCHAR", "ENUM"):
        return _from_text(session, cells[Columns.VALUE].sql, name, deciding)
    if group == "fractional":
        return _limited(number, f"{column} IS NOT NULL AND NOT isnan({number})")
    if group == "whole":
        return ValueReading(number)
    if group == "BOOLEAN":
        session.notes.append(f"{name!r} holds true and false, read as 1 and 0")
        return ValueReading(number)
    if group == "INTERVAL":
        session.notes.append(f"{name!r} holds durations, read as seconds")
        return ValueReading(f"epoch({column})")
    if group != "nothing":
        session.notes.append(f"{name!r} is of type {kind}, not of numbers: events have no value")
    return ValueReading()


def warn_of_unreadable(session: Session, ingested: Ingested, count: int, row: int) -> None:
    """Show the first value that cannot be read, which is in `row`."""
    column = name_in_sql(Columns.VALUE)
    ((cell,),) = session.aggregate(f"SELECT min(CAST({column} AS VARCHAR)) FROM raw WHERE input_row = {row}", "min")
    hint = next((f"; {hint}" for pattern, hint in _HINTS.items() if re.fullmatch(pattern, cell.strip())), "")
    session.warnings.append(
        f"{count:,} values in {ingested.columns[Columns.VALUE]!r} could not be read as numbers, so these events have "
        f"no value (first: row {row}: {shortened(cell)}{hint})"
    )


def read_event(session: Session, ingested: Ingested, cells: Mapping[str, TextCells], deciding: str = "true") -> str:
    """SQL of the behavior, never NULL.

    Numbers and truth values are written alike by every source: whole numbers without decimals, truth values in small
    letters. A text file has no types, so there the rows of `deciding` show whether a column is one of these.
    """
    if Columns.EVENT not in ingested.columns:
        return f"'{DEFAULT_EVENT}'"
    column = name_in_sql(Columns.EVENT)
    text = f"CAST({column} AS VARCHAR)"
    if cell := cells.get(Columns.EVENT):
        text = _written_alike(session, cell.sql, deciding) if ingested.is_text else cell.sql
        if cell.num_trimmed:
            session.notes.append(f"blanks around texts in {ingested.columns[Columns.EVENT]!r} were cut")
    elif group_of(ingested.types[Columns.EVENT]) == "fractional":
        text = (
            f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL WHEN {column} = floor({column}) "
            f"THEN CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR) ELSE {text} END"
        )
    return f"coalesce({text}, '{DEFAULT_EVENT}')"


def _written_alike(session: Session, text: str, deciding: str) -> str:
    """SQL of a behavior that does not show how a text file writes numbers and truth values."""
    conditions = {
        "filled": "t IS NOT NULL",
        "numbers": f"regexp_full_match(t, {_DECIMAL})",
        "truths": "lower(t) IN ('true', 'false')",
    }
    for rows in dict.fromkeys(("true", deciding)):
        found = session.counts(conditions, f"(SELECT DISTINCT {text} AS t FROM raw WHERE {rows})")
        num_filled, num_numbers, num_truths = (one.num for one in found.values())
        if num_numbers == num_filled > 0:
            return (
                f"CASE WHEN regexp_full_match({text}, {_DECIMAL}) "
                rf"THEN regexp_replace({text}, '\.0+$', '') ELSE {text} END"
            )
        if num_truths == num_filled > 0:
            return f"CASE WHEN lower({text}) IN ('true', 'false') THEN lower({text}) ELSE {text} END"
        if num_numbers + num_truths == 0:
            break
    return text


def _from_text(session: Session, text: str, name: str, deciding: str) -> ValueReading:
    filled = f"{text} IS NOT NULL"
    found = _spellings(session, text, "true")
    number = f"replace({text}, {_MINUS}, '-')" if found["minus"].num else text
    if found["plain"].num == found["filled"].num:
        return _limited(f"TRY_CAST({number} AS DOUBLE)", filled)
    if deciding != "true":
        found = _spellings(session, text, deciding)
    return _limited(_read_as(session, found, number, name), filled)


def _spellings(session: Session, text: str, deciding: str) -> dict[str, Evidence]:
    """How many values are written in each way; commas may be decimal ones, and points may stand between thousands."""
    conditions = {
        "filled": "t IS NOT NULL",
        "plain": f"regexp_full_match(t, {_NUMBER})",
        "whole": f"regexp_full_match(t, {_WITHOUT_FRACTION})",
        "commas": f"contains(t, ',') AND regexp_full_match(t, {_DECIMAL_COMMA})",
        "thousands": f"contains(t, ',') AND regexp_full_match(t, {_THOUSANDS})",
        "points": f"contains(t, '.') AND regexp_full_match(t, {_POINTS})",
        "durations": f"contains(t, ':') AND regexp_full_match(t, {_DURATION})",
        "truths": "lower(t) IN ('true', 'false')",
        "minus": "t <> written",
    }
    texts = f"(SELECT {text} AS written, replace({text}, {_MINUS}, '-') AS t FROM raw WHERE {deciding})"
    return session.counts(conditions, texts)


def _best_reading(found: Mapping[str, Evidence]) -> str:
    """The spelling that most cells can be read by; that of plain numbers where none fits nearly all."""
    num_filled, num_points = found["filled"].num, found["points"].num
    max_odd = _MAX_ODD_SHARE * num_filled
    readings = {name: found[name].num for name in ("plain", "durations", "truths")}
    are_plain = num_filled - readings["plain"] <= max_odd
    if found["commas"].num > found["thousands"].num and not (num_points and are_plain):
        readings["commas"] = found["whole"].num + found["commas"].num + num_points
    best = max(readings, key=readings.__getitem__)
    return best if num_filled - readings[best] <= max_odd else "plain"


def _read_as(session: Session, found: Mapping[str, Evidence], text: str, name: str) -> str:
    """SQL of the number by the reading that fits."""
    reading = _best_reading(found)
    if reading == "commas":
        if num_points := found["points"].num:
            session.warnings.append(
                f"{num_points:,} values in {name!r} have points that were taken to stand between thousands, "
                "for other values have decimal commas: 1.234 was read as 1234"
            )
        session.notes.append(f"numbers in {name!r} have decimal commas: 4,5 was read as 4.5")
        return (
            f"CASE WHEN regexp_full_match({text}, {_WITHOUT_FRACTION}) OR regexp_full_match({text}, {_DECIMAL_COMMA}) "
            f"OR regexp_full_match({text}, {_POINTS}) "
            f"THEN TRY_CAST(replace(replace({text}, '.', ''), ',', '.') AS DOUBLE) END"
        )
    if reading == "durations":
        session.notes.append(f"{name!r} holds durations (hours:minutes:seconds), read as seconds")
        hours, minutes, seconds = (f"TRY_CAST(split_part({text}, ':', {index}) AS DOUBLE)" for index in (1, 2, 3))
        return f"CASE WHEN regexp_full_match({text}, {_DURATION}) THEN {hours} * 3600 + {minutes} * 60 + {seconds} END"
    if reading == "truths":
        session.notes.append(f"{name!r} holds true and false, read as 1 and 0")
        return f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
    return f"CASE WHEN regexp_full_match({text}, {_NUMBER}) THEN TRY_CAST({text} AS DOUBLE) END"


def _limited(number: str, filled: str) -> ValueReading:
    """The number where it is one of 32 bits."""
    readable = f"coalesce(abs({number}) <= {_LARGEST_VALUE!r} AND NOT isnan({number}), false)"
    return ValueReading(f"CASE WHEN {readable} THEN {number} END", f"{filled} AND NOT {readable}")


@dataclass(frozen=True)
class Parsed:
    """What the times were taken for; the numbers of valid rows and of values that could not be read."""

    time_unit: str
    num_valid: int
    num_unreadable_values: int


def parse(session: Session, ingested: Ingested, options: ReadOptions) -> Parsed:
    """Make `parsed`.

    Raises InputError where a column is of a wrong type or can be read in several ways.
    """
    with local_zone(session, options.time_zone):
        cells = read_text_cells(session, ingested.types, list(ingested.columns))
        time = read_time(session, ingested, cells, options)
        deciding = _deciding(cells, time)
        user, item = (read_ids(session, ingested, column, cells, deciding) for column in (Columns.USER, Columns.ITEM))
        event = read_event(session, ingested, cells, deciding)
        value = read_value(session, ingested, cells, deciding)
        session.make_parsed(_parsing(session, options, user, item, time, event, value))
        ((num_valid, num_unreadable, first),) = session.engine.rows(
            "SELECT count(*), count(*) FILTER (WHERE is_unreadable), min(input_row) FILTER (WHERE is_unreadable) "
            "FROM parsed WHERE reason IS NULL"
        )
        if num_unreadable:
            warn_of_unreadable(session, ingested, num_unreadable, first)
    return Parsed(time.words, num_valid, num_unreadable)


def _deciding(cells: dict[str, TextCells], time: TimeReading) -> str:
    """SQL of the rows that hold a user, an item and a time that can be read."""
    filled = " AND ".join(
        f"{cells[column].sql if column in cells else name_in_sql(column)} IS NOT NULL"
        for column in (Columns.USER, Columns.ITEM)
    )
    moment = f"CASE WHEN NOT ({time.missing}) THEN {time.microseconds} END"
    return (
        f"input_row IN (SELECT input_row FROM (SELECT *, {time.parts} AS time_parts FROM raw) "
        f"WHERE {filled} AND {moment} >= 0 AND {moment} < {LATEST_MICROSECONDS})"
    )


def _too_long(session: Session, user: Ids, item: Ids) -> str:
    """The branches of CASE for ids that are longer than allowed; numbers never are."""
    kinds = session.column_types(f"SELECT {user.sql} AS user_id, {item.sql} AS item_id FROM raw")
    return " ".join(
        f"WHEN strlen({name}) > {MAX_ID_BYTES} THEN 'too long {name.removesuffix('_id')}'"
        for name, kind in kinds.items()
        if kind == "VARCHAR"
    )


def low_suffix(options: ReadOptions) -> str:
    """The end of the name of a behavior that low values are put under."""
    return f" below {options.min_value:g}"


def _parsing(
    session: Session, options: ReadOptions, user: Ids, item: Ids, time: TimeReading, event: str, value: ValueReading
) -> str:
    """SQL of `parsed`, which goes from row to row of `raw`."""
    named = "event"
    if options.low_values == "negative":
        low = f"value < CAST('{options.min_value!r}' AS DOUBLE)"
        named = f"CASE WHEN {low} THEN event || {text_in_sql(low_suffix(options))} ELSE event END AS event"
    return f"""
        SELECT input_row, user_id, item_id, time_us, {named}, value, is_unreadable,
            CASE
                WHEN user_missing THEN 'missing user'
                WHEN item_missing THEN 'missing item'
                WHEN time_missing THEN 'missing time'
                WHEN time_us IS NULL THEN time_reason
                WHEN time_us < 0 OR time_us >= {LATEST_MICROSECONDS} THEN 'absurd time'
                WHEN user_id IS NULL THEN 'missing user'
                WHEN item_id IS NULL THEN 'missing item'
                {_too_long(session, user, item)}
            END AS reason
        FROM (
            SELECT input_row, {user.sql} AS user_id, {user.missing} AS user_missing,
                {item.sql} AS item_id, {item.missing} AS item_missing,
                {time.missing} AS time_missing, CASE WHEN NOT ({time.missing}) THEN {time.microseconds} END AS time_us,
                {time.reason} AS time_reason, {event} AS event, {value.sql} AS value,
                {value.unreadable} AS is_unreadable
            FROM {f"(SELECT *, {time.parts} AS time_parts FROM raw)" if time.parts != "NULL" else "raw"}
        )
    """
