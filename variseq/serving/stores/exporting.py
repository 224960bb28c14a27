"""The events of a store into one Parquet file that `variseq fit` reads: a model is fitted again by one command."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.table import Columns
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import connect, readable

ROWS_AT_ONCE = 65_536
# What an event without a behavior is called beside others that have one; the name that a log without the column has.
USUAL_BEHAVIOR = "event"
ALL_EVENTS = """
SELECT user_id, item_id, timestamp, behavior, value FROM events JOIN users USING (user_number)
ORDER BY events.user_number, timestamp, arrival
"""
KINDS = "SELECT DISTINCT typeof(user_id) FROM users", "SELECT DISTINCT typeof(item_id) FROM events"


def export_events(store: SqliteStore, target: Path, ids_as_text: bool = False) -> int:
    """Write all events of one moment, in parts, so that memory does not grow with them; the number of events.

    Columns: user_id, item_id, timestamp (UTC), event, value. Whole or not at all; the store goes on meanwhile.
    Ids are whole numbers where all are, and text where all are; `ids_as_text` writes a mixture as text, in which 12
    and "12" are the same.

    Raises InputError for a mixture of ids and for a target that cannot be written, StoreUnavailable.
    """
    if target.suffix != ".parquet":
        raise InputError(f"Events are exported to Parquet; got {target.name!r}. Name a file that ends in .parquet.")
    try:
        with (
            atomic_write(target) as unfinished,
            closing(connect(store.path, store.options, writes=False)) as connection,
        ):
            connection.execute("BEGIN")
            schema = _schema(connection, store.path, ids_as_text)
            return _write(_tables(connection, schema), schema, unfinished)
    except sqlite3.Error as error:
        raise readable(error, store.path) from error
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error


def _schema(connection: sqlite3.Connection, path: Path, ids_as_text: bool) -> pa.Schema:
    types = []
    for name, statement in zip((Columns.USER, Columns.ITEM), KINDS, strict=True):
        kinds = {kind for (kind,) in connection.execute(statement).fetchall()}
        if len(kinds) > 1 and not ids_as_text:
            raise InputError(
                f"Some values of {name} in {path} are whole numbers and some are text, and a column holds one kind. "
                "Export with ids_as_text=True to write all as text; 12 and '12' are the same then."
            )
        types.append(pa.int64() if kinds == {"integer"} and not ids_as_text else pa.string())
    return pa.schema(
        [
            (Columns.USER, types[0]),
            (Columns.ITEM, types[1]),
            (Columns.TIME, pa.timestamp("us", tz="UTC")),
            (Columns.EVENT, pa.string()),
            (Columns.VALUE, pa.float64()),
        ]
    )


def _tables(connection: sqlite3.Connection, schema: pa.Schema) -> Iterator[pa.Table]:
    cursor = connection.execute(ALL_EVENTS)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        users, items, times, behaviors, values = zip(*rows, strict=True)
        named = [USUAL_BEHAVIOR if behavior is None else behavior for behavior in behaviors]
        columns = [_ids(users, schema.types[0]), _ids(items, schema.types[1]), pa.array(times, pa.int64())]
        yield pa.table(
            [*columns[:2], columns[2].cast(schema.types[2]), pa.array(named), pa.array(values, pa.float64())],
            schema=schema,
        )


def _ids(ids: tuple[object, ...], kind: pa.DataType) -> pa.Array:
    return pa.array([str(outside) for outside in ids] if pa.types.is_string(kind) else ids, kind)


def _write(tables: Iterator[pa.Table], schema: pa.Schema, partial: Path) -> int:
    num_events = 0
    with pq.ParquetWriter(str(partial), schema) as writer:
        for table in tables:
            writer.write_table(table)
            num_events += table.num_rows
    return num_events
