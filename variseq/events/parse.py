"""The table `raw` becomes `parsed`: typed ids, UTC microseconds, behavior, value, and a reason where invalid."""

from __future__ import annotations

from dataclasses import dataclass, field

from variseq.events.event_values import count_unreadable, read_event, read_value
from variseq.events.identifiers import Ids, read_ids
from variseq.events.options import ReadOptions
from variseq.events.stage import Staged
from variseq.events.table import Columns
from variseq.events.text_cells import TextCells, read_text_cells, text_columns
from variseq.events.time_reading import LATEST_MICROSECONDS, TimeReading
from variseq.events.timestamps import local_zone, read_time
from variseq.events.vocabulary import MAX_ID_BYTES
from variseq.events.workspace import Workspace, name_in_sql


@dataclass(frozen=True)
class Parsed:
    """What the times were taken for, in words; how many values could not be read; what to say besides."""

    time_unit: str
    num_unreadable_values: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def parse(workspace: Workspace, staged: Staged, options: ReadOptions) -> Parsed:
    """Make `parsed` and `unreadable_values`.

    Raises InputError where a column is of a wrong type or can be read in several ways.
    """
    with local_zone(workspace, options.time_zone):
        cells = _cells(workspace, staged)
        time = read_time(workspace, staged, cells, options)
        deciding = _deciding(cells, time)
        user, item = (read_ids(workspace, staged, column, cells, deciding) for column in (Columns.USER, Columns.ITEM))
        value = read_value(workspace, staged, cells, deciding)
        event, event_notes = read_event(workspace, staged, cells, deciding)
        _make_parsed(workspace, user, item, time, event, value.sql)
        num_unreadable, value_warnings = count_unreadable(workspace, staged, value)
    return Parsed(
        time.words,
        num_unreadable,
        time.notes + user.notes + item.notes + event_notes + value.notes,
        time.warnings + user.warnings + item.warnings + value.warnings + value_warnings,
    )


def _cells(workspace: Workspace, staged: Staged) -> dict[str, TextCells]:
    """Events have few different texts, which are looked at once each."""
    texts = text_columns(workspace, list(staged.columns))
    events = {column: text for column, text in texts.items() if column == Columns.EVENT}
    few = f"(SELECT DISTINCT {name_in_sql(Columns.EVENT)} FROM raw)"
    others = {column: text for column, text in texts.items() if column != Columns.EVENT}
    return read_text_cells(workspace, others) | read_text_cells(workspace, events, few)


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


def _too_long(workspace: Workspace, user: Ids, item: Ids) -> str:
    """The branches of CASE for ids that are longer than allowed; numbers never are."""
    kinds = workspace.rows(f"DESCRIBE SELECT {user.sql} AS user_id, {item.sql} AS item_id FROM raw")
    return " ".join(
        f"WHEN strlen({name}) > {MAX_ID_BYTES} THEN 'too long {name.removesuffix('_id')}'"
        for name, kind, *_ in kinds
        if kind == "VARCHAR"
    )


def _make_parsed(workspace: Workspace, user: Ids, item: Ids, time: TimeReading, event: str, value: str) -> None:
    workspace.run(
        f"""
        CREATE TABLE parsed AS
        SELECT input_row, user_id, item_id, time_us, event, value,
            CASE
                WHEN user_missing THEN 'missing user'
                WHEN item_missing THEN 'missing item'
                WHEN time_missing THEN 'missing time'
                WHEN time_us IS NULL THEN time_reason
                WHEN time_us < 0 OR time_us >= {LATEST_MICROSECONDS} THEN 'absurd time'
                WHEN user_id IS NULL THEN 'missing user'
                WHEN item_id IS NULL THEN 'missing item'
                {_too_long(workspace, user, item)}
            END AS reason
        FROM (
            SELECT input_row, {user.sql} AS user_id, {user.missing} AS user_missing,
                {item.sql} AS item_id, {item.missing} AS item_missing,
                {time.missing} AS time_missing, CASE WHEN NOT ({time.missing}) THEN {time.microseconds} END AS time_us,
                {time.reason} AS time_reason, {event} AS event, {value} AS value
            FROM {f"(SELECT *, {time.parts} AS time_parts FROM raw)" if time.parts != "NULL" else "raw"}
        )
        """
    )
