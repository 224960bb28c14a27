"""The optional columns of events become SQL: a value as a number, a behaviour as text. Neither ever costs an event.

A value that is absent (a word for nothing, see `text_cells`, or NaN) is missing. One that cannot be read is missing,
too, and counted. Where a whole column of text has one other spelling, it is read: decimal commas, durations as
hours:minutes:seconds (then seconds), true and false (then 1 and 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from variseq.events.stage import Staged
from variseq.events.table import Columns
from variseq.events.text_cells import TextCells
from variseq.events.workspace import Workspace, name_in_sql

DEFAULT_EVENT = "event"  # the behaviour of an event that names none
_LARGEST_VALUE = 3.4028234e38  # values are kept as 32-bit floats
_NUMBER = r"'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?'"
_WITHOUT_FRACTION = r"'[+-]?[0-9]+'"
_DECIMAL_COMMA = r"'[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+'"
_THOUSANDS = r"'[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+'"
_DURATION = r"'[0-9]+:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?'"
_HINTS = {
    r"[+-]?[0-9.]*,[0-9]{1,2}": "a decimal comma? Write 4.5",
    r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?": "commas between thousands? Write 1234.50",
    r".*%": "a percentage? Write the number without %",
    r"[0-9]+:[0-9:.]+": "a duration? Write seconds",
    r"[^0-9]{1,4}[0-9].*|.*[0-9] ?[^0-9]{1,4}": "a currency or unit? Write the number alone",
}


@dataclass(frozen=True)
class ValueReading:
    """SQL of the value, NULL for none; how many values could not be read, with the first in words."""

    sql: str = "CAST(NULL AS DOUBLE)"
    num_unreadable: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_value(workspace: Workspace, staged: Staged, cells: Mapping[str, TextCells]) -> ValueReading:
    """How the value column is read; of a type that is no number, nothing is, and a note says so."""
    if Columns.VALUE not in staged.columns:
        return ValueReading()
    column, name = name_in_sql(Columns.VALUE), staged.columns[Columns.VALUE]
    kind = workspace.column_types("raw")[Columns.VALUE]
    family = kind.split("(")[0]
    if family in ("VARCHAR", "ENUM"):
        return _from_text(workspace, cells[Columns.VALUE].sql, name)
    if family in ("FLOAT", "DOUBLE", "DECIMAL"):
        number = f"CAST({column} AS DOUBLE)"
        return _counted(workspace, number, f"{column} IS NOT NULL AND NOT isnan({number})", column, name, [])
    if family == "BOOLEAN":
        return ValueReading(f"CAST({column} AS DOUBLE)", notes=[f"{name!r} holds true and false, read as 1 and 0"])
    if family == "INTERVAL":
        return ValueReading(f"epoch({column})", notes=[f"{name!r} holds durations, read as seconds"])
    if family.endswith(("INT", "INTEGER")):
        return ValueReading(f"CAST({column} AS DOUBLE)")
    if family in ('"NULL"', "NULL"):
        return ValueReading()
    return ValueReading(notes=[f"{name!r} is of type {kind}, not of numbers: events have no value"])


def read_event(workspace: Workspace, staged: Staged, cells: Mapping[str, TextCells]) -> tuple[str, list[str]]:
    """SQL of the behaviour, never NULL, and notes. Numbers are written out, whole ones without decimals."""
    if Columns.EVENT not in staged.columns:
        return f"'{DEFAULT_EVENT}'", []
    column = name_in_sql(Columns.EVENT)
    family = workspace.column_types("raw")[Columns.EVENT].split("(")[0]
    if Columns.EVENT in cells:
        cell = cells[Columns.EVENT]
        text = cell.sql
        if staged.is_text and _all_whole(workspace, text):
            text = rf"regexp_replace({text}, '\.0+$', '')"
        notes = []
        if cell.num_trimmed:
            notes.append(f"blanks around texts in {staged.columns[Columns.EVENT]!r} were cut")
        return f"coalesce({text}, '{DEFAULT_EVENT}')", notes
    text = f"CAST({column} AS VARCHAR)"
    if family in ("FLOAT", "DOUBLE", "DECIMAL"):
        text = (
            f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL WHEN {column} = floor({column}) "
            f"THEN CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR) ELSE {text} END"
        )
    return f"coalesce({text}, '{DEFAULT_EVENT}')", []


def _all_whole(workspace: Workspace, text: str) -> bool:
    return bool(
        workspace.row(
            rf"SELECT coalesce(bool_and(regexp_full_match(t, '-?[0-9]+(\.0+)?')), false) "
            f"FROM (SELECT DISTINCT {text} AS t FROM raw) WHERE t IS NOT NULL"
        )[0]
    )


def _from_text(workspace: Workspace, text: str, name: str) -> ValueReading:
    num_filled, num_plain, num_whole, num_commas, num_thousands, num_durations, num_truths = workspace.row(
        f"SELECT count(t), count(*) FILTER (WHERE regexp_full_match(t, {_NUMBER})), "
        f"count(*) FILTER (WHERE regexp_full_match(t, {_WITHOUT_FRACTION})), "
        f"count(*) FILTER (WHERE contains(t, ',') AND regexp_full_match(t, {_DECIMAL_COMMA})), "
        f"count(*) FILTER (WHERE contains(t, ',') AND regexp_full_match(t, {_THOUSANDS})), "
        f"count(*) FILTER (WHERE contains(t, ':') AND regexp_full_match(t, {_DURATION})), "
        f"count(*) FILTER (WHERE lower(t) IN ('true', 'false')) FROM (SELECT {text} AS t FROM raw)"
    )
    notes: list[str] = []
    number = f"CASE WHEN regexp_full_match({text}, {_NUMBER}) THEN TRY_CAST({text} AS DOUBLE) END"
    if num_plain == num_filled:
        number = f"TRY_CAST({text} AS DOUBLE)"
    elif num_whole + num_commas == num_filled and num_commas > num_thousands:
        number = f"TRY_CAST(replace(replace({text}, '.', ''), ',', '.') AS DOUBLE)"
        notes = [f"numbers in {name!r} have decimal commas: 4,5 was read as 4.5"]
    elif num_durations == num_filled:
        number = (
            f"(TRY_CAST(split_part({text}, ':', 1) AS DOUBLE) * 3600 + TRY_CAST(split_part({text}, ':', 2) AS DOUBLE) "
            f"* 60 + TRY_CAST(split_part({text}, ':', 3) AS DOUBLE))"
        )
        notes = [f"{name!r} holds durations (hours:minutes:seconds), read as seconds"]
    elif num_truths == num_filled:
        number = f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
        notes = [f"{name!r} holds true and false, read as 1 and 0"]
    return _counted(workspace, number, f"{text} IS NOT NULL", name_in_sql(Columns.VALUE), name, notes)


def _counted(workspace: Workspace, number: str, filled: str, column: str, name: str, notes: list[str]) -> ValueReading:
    """The number where it is one of 32 bits; the others are counted and the first of them shown."""
    readable = f"coalesce(abs({number}) <= {_LARGEST_VALUE!r} AND NOT isnan({number}), false)"
    sql = f"CASE WHEN {readable} THEN {number} END"
    unreadable = f"{filled} AND NOT {readable}"
    count, first_row, hints = _first_unreadable(workspace, unreadable, column)
    if not count:
        return ValueReading(sql, notes=notes)
    told = f"{count:,} values in {name!r} could not be read as numbers, so these events have no value (first: row "
    return ValueReading(sql, count, notes, [f"{told}{first_row}{hints})"])


def _first_unreadable(workspace: Workspace, unreadable: str, column: str) -> tuple[int, int, str]:
    count, row, shown = workspace.row(
        f"SELECT count(*), min(input_row), arg_min(CAST({column} AS VARCHAR), input_row) FROM raw WHERE {unreadable}"
    )
    if not count:
        return 0, 0, ""
    (hint,) = workspace.row(
        "SELECT CASE " + " ".join("WHEN regexp_full_match(?, ?) THEN ?" for _ in _HINTS) + " ELSE '' END",
        [part for pattern, hint in _HINTS.items() for part in (shown.strip(), pattern, hint)],
    )
    example = repr(shown if len(shown) <= 60 else shown[:57] + "...")
    return int(count), int(row), f": {example}" + (f"; {hint}" if hint else "")
