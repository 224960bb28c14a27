"""Parse `raw` into typed rows with a reject reason: ids, times, behaviors and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from variseq.events.identifiers import Ids, TextCells, read_ids, read_text_cells
from variseq.events.ingest import Ingested
from variseq.events.numeric_times import LATEST_MICROSECONDS, TimeReading
from variseq.events.options import ReadOptions
from variseq.events.session import Session, name_in_sql
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
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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
    family = kind.split("(")[0]
    if family in ("VARCHAR", "ENUM"):
        return _from_text(session, cells[Columns.VALUE].sql, name, deciding)
    if family in ("FLOAT", "DOUBLE", "DECIMAL"):
        number = f"CAST({column} AS DOUBLE)"
        return _limited(number, f"{column} IS NOT NULL AND NOT isnan({number})")
    if family == "BOOLEAN":
        return ValueReading(f"CAST({column} AS DOUBLE)", notes=[f"{name!r} holds true and false, read as 1 and 0"])
    if family == "INTERVAL":
        return ValueReading(f"epoch({column})", notes=[f"{name!r} holds durations, read as seconds"])
    if family.endswith(("INT", "INTEGER")):
        return ValueReading(f"CAST({column} AS DOUBLE)")
    if family in ('"NULL"', "NULL"):
        return ValueReading()
    return ValueReading(notes=[f"{name!r} is of type {kind}, not of numbers: events have no value"])


def unreadable_warning(session: Session, ingested: Ingested, count: int, row: int) -> list[str]:
    """A warning that shows the first value that cannot be read, which is in `row`."""
    (shown,) = session.row(f"SELECT CAST({name_in_sql(Columns.VALUE)} AS VARCHAR) FROM raw WHERE input_row = ?", [row])
    (hint,) = session.row(
        "SELECT CASE " + " ".join("WHEN regexp_full_match(?, ?) THEN ?" for _ in _HINTS) + " ELSE '' END",
        [part for pattern, hint in _HINTS.items() for part in (shown.strip(), pattern, hint)],
    )
    example = repr(shown if len(shown) <= 60 else shown[:57] + "...") + (f"; {hint}" if hint else "")
    return [
        f"{count:,} values in {ingested.columns[Columns.VALUE]!r} could not be read as numbers, so these events have "
        f"no value (first: row {row}: {example})"
    ]


def read_event(
    session: Session, ingested: Ingested, cells: Mapping[str, TextCells], deciding: str = "true"
) -> tuple[str, list[str]]:
    """SQL of the behavior, never NULL, and notes.

    Numbers and truth values are written alike by every source: whole numbers without decimals, truth values in small
    letters. A text file has no types, so there the rows of `deciding` show whether a column is one of these.
    """
    if Columns.EVENT not in ingested.columns:
        return f"'{DEFAULT_EVENT}'", []
    column = name_in_sql(Columns.EVENT)
    family = ingested.types[Columns.EVENT].split("(")[0]
    if Columns.EVENT in cells:
        cell = cells[Columns.EVENT]
        text = _written_alike(session, cell.sql, deciding) if ingested.is_text else cell.sql
        notes = []
        if cell.num_trimmed:
            notes.append(f"blanks around texts in {ingested.columns[Columns.EVENT]!r} were cut")
        return f"coalesce({text}, '{DEFAULT_EVENT}')", notes
    text = f"CAST({column} AS VARCHAR)"
    if family in ("FLOAT", "DOUBLE", "DECIMAL"):
        text = (
            f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL WHEN {column} = floor({column}) "
            f"THEN CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR) ELSE {text} END"
        )
    return f"coalesce({text}, '{DEFAULT_EVENT}')", []


def _written_alike(session: Session, text: str, deciding: str) -> str:
    """SQL of a behavior that does not show how a text file writes numbers and truth values."""
    are_numbers, are_truths, is_mixed = _kinds(session, text, "true")
    if is_mixed and deciding != "true":
        are_numbers, are_truths, _ = _kinds(session, text, deciding)
    if are_numbers:
        return (
            rf"CASE WHEN regexp_full_match({text}, {_DECIMAL}) THEN regexp_replace({text}, '\.0+$', '') ELSE {text} END"
        )
    return f"CASE WHEN lower({text}) IN ('true', 'false') THEN lower({text}) ELSE {text} END" if are_truths else text


def _kinds(session: Session, text: str, deciding: str) -> tuple[bool, bool, bool]:
    """Whether all filled cells are numbers, or truth values; whether only some are."""
    num_filled, num_numbers, num_truths = session.row(
        f"SELECT count(t), count(*) FILTER (WHERE regexp_full_match(t, {_DECIMAL})), "
        f"count(*) FILTER (WHERE lower(t) IN ('true', 'false')) "
        f"FROM (SELECT DISTINCT {text} AS t FROM raw WHERE {deciding})"
    )
    are_numbers, are_truths = num_numbers == num_filled > 0, num_truths == num_filled > 0
    return are_numbers, are_truths, num_numbers + num_truths > 0 and not (are_numbers or are_truths)


@dataclass(frozen=True)
class _Spellings:
    num_filled: int
    num_plain: int
    num_whole: int
    num_commas: int  # that may be decimal ones
    num_thousands: int  # of these, those that may stand between thousands
    num_points: int  # plain numbers whose points may stand between thousands
    num_durations: int
    num_truths: int
    has_minus: bool

    def reading(self) -> str:
        """The spelling that most cells can be read by; that of plain numbers where none fits nearly all."""
        readings = {"plain": self.num_plain, "durations": self.num_durations, "truths": self.num_truths}
        if self.num_commas > self.num_thousands and not (self.num_points and self.fits(self.num_plain)):
            readings["commas"] = self.num_whole + self.num_commas + self.num_points
        best = max(readings, key=readings.__getitem__)
        return best if self.fits(readings[best]) else "plain"

    def fits(self, count: int) -> bool:
        """Whether so many cells are all but a few."""
        return self.num_filled - count <= _MAX_ODD_SHARE * self.num_filled


def _count_spellings(session: Session, text: str, deciding: str) -> _Spellings:
    return _Spellings(
        *session.row(
            f"SELECT count(t), count(*) FILTER (WHERE regexp_full_match(t, {_NUMBER})), "
            f"count(*) FILTER (WHERE regexp_full_match(t, {_WITHOUT_FRACTION})), "
            f"count(*) FILTER (WHERE contains(t, ',') AND regexp_full_match(t, {_DECIMAL_COMMA})), "
            f"count(*) FILTER (WHERE contains(t, ',') AND regexp_full_match(t, {_THOUSANDS})), "
            f"count(*) FILTER (WHERE contains(t, '.') AND regexp_full_match(t, {_POINTS})), "
            f"count(*) FILTER (WHERE contains(t, ':') AND regexp_full_match(t, {_DURATION})), "
            "count(*) FILTER (WHERE lower(t) IN ('true', 'false')), coalesce(bool_or(has_minus), false) "
            f"FROM (SELECT replace({text}, {_MINUS}, '-') AS t, contains({text}, {_MINUS}) AS has_minus FROM raw "
            f"WHERE {deciding})"
        )
    )


def _from_text(session: Session, text: str, name: str, deciding: str) -> ValueReading:
    found = _count_spellings(session, text, "true")
    filled = f"{text} IS NOT NULL"
    number_text = f"replace({text}, {_MINUS}, '-')" if found.has_minus else text
    if found.num_plain == found.num_filled:
        return _limited(f"TRY_CAST({number_text} AS DOUBLE)", filled)
    if deciding != "true":
        found = _count_spellings(session, text, deciding)
    number, notes, warnings = _read_as(found, number_text, name)
    return _limited(number, filled, notes, warnings)


def _read_as(found: _Spellings, text: str, name: str) -> tuple[str, list[str], list[str]]:
    """SQL of the number by the reading that fits, notes and warnings."""
    reading = found.reading()
    if reading == "commas":
        number = (
            f"CASE WHEN regexp_full_match({text}, {_WITHOUT_FRACTION}) OR regexp_full_match({text}, {_DECIMAL_COMMA}) "
            f"OR regexp_full_match({text}, {_POINTS}) "
            f"THEN TRY_CAST(replace(replace({text}, '.', ''), ',', '.') AS DOUBLE) END"
        )
        warnings = [
            f"{found.num_points:,} values in {name!r} have points that were taken to stand between thousands, "
            "for other values have decimal commas: 1.234 was read as 1234"
        ]
        notes = [f"numbers in {name!r} have decimal commas: 4,5 was read as 4.5"]
        return number, notes, warnings if found.num_points else []
    if reading == "durations":
        parts = [f"TRY_CAST(split_part({text}, ':', {index}) AS DOUBLE)" for index in (1, 2, 3)]
        number = (
            f"CASE WHEN regexp_full_match({text}, {_DURATION}) "
            f"THEN {parts[0]} * 3600 + {parts[1]} * 60 + {parts[2]} END"
        )
        return number, [f"{name!r} holds durations (hours:minutes:seconds), read as seconds"], []
    if reading == "truths":
        number = f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
        return number, [f"{name!r} holds true and false, read as 1 and 0"], []
    return f"CASE WHEN regexp_full_match({text}, {_NUMBER}) THEN TRY_CAST({text} AS DOUBLE) END", [], []


def _limited(number: str, filled: str, notes: Sequence[str] = (), warnings: Sequence[str] = ()) -> ValueReading:
    """The number where it is one of 32 bits."""
    readable = f"coalesce(abs({number}) <= {_LARGEST_VALUE!r} AND NOT isnan({number}), false)"
    return ValueReading(
        f"CASE WHEN {readable} THEN {number} END", f"{filled} AND NOT {readable}", list(notes), list(warnings)
    )


@dataclass(frozen=True)
class Parsed:
    """What the times were taken for; the numbers of valid rows and of values that could not be read; messages."""

    time_unit: str
    num_valid: int
    num_unreadable_values: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def parse(session: Session, ingested: Ingested, options: ReadOptions) -> Parsed:
    """Make `parsed`.

    Raises InputError where a column is of a wrong type or can be read in several ways.
    """
    with local_zone(session, options.time_zone):
        cells = read_text_cells(session, ingested.types, list(ingested.columns))
        time = read_time(session, ingested, cells, options)
        deciding = _deciding(cells, time)
        user, item = (read_ids(session, ingested, column, cells, deciding) for column in (Columns.USER, Columns.ITEM))
        value = read_value(session, ingested, cells, deciding)
        event, event_notes = read_event(session, ingested, cells, deciding)
        _make_parsed(session, user, item, time, event, value)
        num_valid, num_unreadable, first = session.row(
            "SELECT count(*), count(*) FILTER (WHERE is_unreadable), min(input_row) FILTER (WHERE is_unreadable) "
            "FROM parsed WHERE reason IS NULL"
        )
        value_warnings = unreadable_warning(session, ingested, num_unreadable, first) if num_unreadable else []
    return Parsed(
        time.words,
        num_valid,
        num_unreadable,
        time.notes + user.notes + item.notes + event_notes + value.notes,
        time.warnings + user.warnings + item.warnings + value.warnings + value_warnings,
    )


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
    kinds = session.rows(f"DESCRIBE SELECT {user.sql} AS user_id, {item.sql} AS item_id FROM raw")
    return " ".join(
        f"WHEN strlen({name}) > {MAX_ID_BYTES} THEN 'too long {name.removesuffix('_id')}'"
        for name, kind, *_ in kinds
        if kind == "VARCHAR"
    )


def _make_parsed(session: Session, user: Ids, item: Ids, time: TimeReading, event: str, value: ValueReading) -> None:
    session.run(
        f"""
        CREATE TABLE parsed AS
        SELECT input_row, user_id, item_id, time_us, event, value, is_unreadable,
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
    )
