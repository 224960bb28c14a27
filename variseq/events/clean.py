"""The table `parsed` becomes ordered events in numpy arrays and their vocabulary, by the statements of clean.sql."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.table import EventTable
from variseq.events.vocabulary import Vocabulary
from variseq.events.workspace import Workspace

MAX_NUM_BEHAVIORS = 256  # a behavior is stored in one byte


def statements() -> dict[str, str]:
    """The named statements of clean.sql; any engine that has `parsed` and `settings` can run them in this order.

    >>> list(statements())[:2]
    ['user_codes', 'item_codes']
    """
    text = resources.files("variseq.events").joinpath("clean.sql").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in parts}


def drop_duplicates(workspace: Workspace, options: ReadOptions) -> None:
    """From `parsed`, make the coded events and the list of rows that are dropped from them."""
    sql = statements()
    if options.low_values == "negative":
        workspace.run("UPDATE parsed SET event = event || ? WHERE value < ?", [_low_suffix(options), options.min_value])
    for name in ("user_codes", "item_codes", "event_codes", "encoded", "dropped", "kept"):
        workspace.run(sql[name])


def drop_rare_and_repeated(workspace: Workspace, options: ReadOptions) -> None:
    """Drop until nothing more has to go: one removal can make another user rare, or two events neighbors."""
    sql = statements()
    names = ["consecutive_repeats"] if options.collapse_repeats else []
    names += ["rare_users"] if options.min_user_events > 1 else []
    names += ["rare_items"] if options.min_item_events > 1 else []
    workspace.run(
        "CREATE TABLE settings (min_user_events BIGINT, min_item_events BIGINT, min_value DOUBLE, fill_value DOUBLE)"
    )
    limits = [options.min_user_events, options.min_item_events, options.min_value]
    workspace.run("INSERT INTO settings VALUES (?, ?, ?, NULL)", limits)
    if options.min_value is not None and options.low_values == "leave-out":
        workspace.run(sql["low_values"])
    num_dropped = -1
    while names and num_dropped != (num_dropped := workspace.number("SELECT count(*) FROM dropped")):
        for name in names:
            workspace.run(sql[name])


def number_and_order(workspace: Workspace, options: ReadOptions) -> tuple[EventTable, Vocabulary]:
    """Positions for what is left, and the events in the order of (user, time, row of the input)."""
    sql = statements()
    for name in ("users", "items", "events"):
        workspace.run(sql[name])
    _choose_fill_value(workspace, options)
    behaviors = tuple(str(event) for (event,) in workspace.rows("SELECT event FROM events ORDER BY event_position"))
    if len(behaviors) > MAX_NUM_BEHAVIORS:
        raise InputError(
            f"The event column has {len(behaviors)} different behaviors, e.g. {', '.join(behaviors[:3])}; at most "
            f"{MAX_NUM_BEHAVIORS} are allowed. Is it the right column? Leave it out with columns={{'event': ''}}."
        )
    vocabulary = Vocabulary(_ids(workspace, "user"), _ids(workspace, "item"), behaviors)
    return _stream_to_arrays(workspace, sql["ordered"]), vocabulary


def low_behaviors(vocabulary: Vocabulary, options: ReadOptions) -> list[str]:
    """The behaviors that low values were put under."""
    if options.low_values != "negative":
        return []
    return [name for name in vocabulary.behaviors if name.endswith(_low_suffix(options))]


def _low_suffix(options: ReadOptions) -> str:
    return f" below {options.min_value:g}"


def _choose_fill_value(workspace: Workspace, options: ReadOptions) -> None:
    if options.missing_value == "zero":
        workspace.run("UPDATE settings SET fill_value = 0")
    elif options.missing_value == "mean":
        workspace.run("UPDATE settings SET fill_value = (SELECT avg(value) FROM kept)")


def _ids(workspace: Workspace, kind: str) -> pa.Array:
    column = workspace.arrow(f"SELECT {kind}_id FROM {kind}s ORDER BY {kind}_position").column(0).combine_chunks()
    wanted = pa.int64() if pa.types.is_integer(column.type) else pa.string()
    return column.cast(wanted)


def _stream_to_arrays(workspace: Workspace, query: str) -> EventTable:
    """Batches are copied into arrays made beforehand: the sorted result is never held twice."""
    num_events = workspace.number("SELECT count(*) FROM kept")
    table = EventTable(
        user=np.empty(num_events, dtype=np.int32),
        item=np.empty(num_events, dtype=np.int32),
        timestamp=np.empty(num_events, dtype=np.int64),
        behavior=np.empty(num_events, dtype=np.uint8),
        value=np.empty(num_events, dtype=np.float32),
    )
    columns = (table.user, table.item, table.timestamp, table.behavior, table.value)
    start = 0
    for batch in workspace.stream(query):
        end = start + batch.num_rows
        for column, values in zip(columns, batch.columns, strict=True):
            filled = pc.fill_null(values, np.nan) if values.null_count else values
            column[start:end] = filled.to_numpy(zero_copy_only=False)
        start = end
    return table
