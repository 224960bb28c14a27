"""Deduplicate, filter, encode and order parsed rows; count and write rejected ones."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.ingest import Ingested
from variseq.events.options import ReadOptions
from variseq.events.parse import low_suffix
from variseq.events.session import Session, SqlEngine, name_in_sql, shortened, text_in_sql
from variseq.events.table import Columns, EventTable
from variseq.events.vocabulary import Vocabulary

MAX_NUM_BEHAVIORS = 256  # a behavior is stored in one byte


def statements() -> dict[str, str]:
    """The named statements of clean.sql; any engine that has `parsed` and `settings` can run them in this order.

    >>> list(statements())[:2]
    ['user_ids', 'item_ids']
    """
    text = resources.files("variseq.events").joinpath("clean.sql").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in parts}


_KINDS = {"user": "user_id", "item": "item_id", "event": "event"}


def drop_duplicates(engine: SqlEngine) -> int:
    """From `parsed`, make the coded events and the list of rows that are dropped from them; their number."""
    sql = statements()
    for kind, column in _KINDS.items():
        engine.number_ids(f"{kind}_codes", column, f"{kind}_code", sql[f"{kind}_ids"])
    for name in ("encoded", "dropped", "kept"):
        engine.run(sql[name])
    return _count_dropped(engine)


def _count_dropped(engine: SqlEngine) -> int:
    ((number,),) = engine.rows("SELECT count(*) FROM dropped")
    return int(number)


def drop_rare_and_repeated(engine: SqlEngine, options: ReadOptions) -> dict[str, int]:
    """Drop until nothing more has to go: one removal can make another user rare, or two events neighbors.

    Returns the numbers of dropped events by reason.
    """
    engine.drop("parsed")  # only its coded copy is needed from here on
    sql = statements()
    names = ["consecutive_repeats"] if options.collapse_repeats else []
    names += ["rare_users"] if options.min_user_events > 1 else []
    names += ["rare_items"] if options.min_item_events > 1 else []
    min_value = "NULL" if options.min_value is None else f"'{options.min_value!r}'"
    engine.run(
        f"CREATE TABLE settings AS SELECT {options.min_user_events} AS min_user_events, "
        f"{options.min_item_events} AS min_item_events, CAST({min_value} AS DOUBLE) AS min_value"
    )
    has_minimum = options.min_value is not None and options.low_values == "leave-out"
    if has_minimum:
        engine.run(sql["low_values"])
    if not names and not has_minimum:
        return {}
    num_dropped = -1
    while names and num_dropped != (num_dropped := _count_dropped(engine)):
        for name in names:
            engine.run(sql[name])
    counts = engine.rows(
        "SELECT reason, count(*) FROM dropped WHERE reason <> 'exact duplicate' GROUP BY reason ORDER BY reason"
    )
    return {str(reason): int(count) for reason, count in counts}


def number_what_is_left(engine: SqlEngine, options: ReadOptions, is_filtered: bool) -> Vocabulary:
    """Positions for what is left. Raises InputError for too many behaviors."""
    sql = statements()
    for kind in _KINDS:
        if is_filtered:
            engine.number_ids(f"{kind}s", f"{kind}_code", f"{kind}_position", sql[f"{kind}s_left"])
        else:
            engine.run(f"CREATE VIEW {kind}s AS SELECT *, {kind}_code AS {kind}_position FROM {kind}_codes")
    filling = {"keep": "NULL", "zero": "0", "mean": "(SELECT avg(value) FROM kept)"}[options.missing_value]
    engine.run(f"CREATE TABLE filling AS SELECT CAST({filling} AS DOUBLE) AS fill_value")
    behaviors = tuple(str(event) for (event,) in engine.rows("SELECT event FROM events ORDER BY event_position"))
    if len(behaviors) > MAX_NUM_BEHAVIORS:
        raise InputError(
            f"The event column has {len(behaviors)} different behaviors, e.g. {', '.join(behaviors[:3])}; at most "
            f"{MAX_NUM_BEHAVIORS} are allowed. Is it the right column? Leave it out with columns={{'event': ''}}."
        )
    return Vocabulary(_ids(engine, "user"), _ids(engine, "item"), behaviors)


def ordered(engine: SqlEngine) -> pa.RecordBatchReader:
    """The events in the order of (user, time, row of the input), in batches; the sixth column is the row."""
    return engine.stream(statements()["ordered"], "user_position", "time_us", "input_row")


def low_behaviors(vocabulary: Vocabulary, options: ReadOptions) -> list[str]:
    """The behaviors that low values were put under."""
    if options.low_values != "negative":
        return []
    return [name for name in vocabulary.behaviors if name.endswith(low_suffix(options))]


def _ids(engine: SqlEngine, kind: str) -> pa.Array:
    ids = engine.stream(f"SELECT {kind}_id, {kind}_position FROM {kind}s", f"{kind}_position").read_all()
    column = ids.column(0).combine_chunks()
    wanted = pa.int64() if pa.types.is_integer(column.type) else pa.string()
    return column.cast(wanted)


def to_arrays(batches: Iterable[pa.RecordBatch], num_events: int) -> EventTable:
    """Batches of `ordered` are copied into arrays made beforehand: the sorted result is never held twice."""
    table = EventTable(
        user=np.empty(num_events, dtype=np.int32),
        item=np.empty(num_events, dtype=np.int32),
        timestamp=np.empty(num_events, dtype=np.int64),
        behavior=np.empty(num_events, dtype=np.uint8),
        value=np.empty(num_events, dtype=np.float32),
    )
    columns = (table.user, table.item, table.timestamp, table.behavior, table.value)
    start = 0
    for batch in batches:
        end = start + batch.num_rows
        for column, values in zip(columns, batch.columns, strict=False):
            filled = pc.fill_null(values, np.nan) if values.null_count else values
            column[start:end] = filled.to_numpy(zero_copy_only=False)
        start = end
    return table


def shuffle_ties(table: EventTable) -> None:
    """Draws the order of each user's events of one time anew, in place; the same table gives the same order."""
    same = (np.diff(table.user) == 0) & (np.diff(table.timestamp) == 0)
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    group = np.cumsum(np.append(True, ~same))[tied] if len(tied) else tied
    drawn = tied[np.lexsort((np.random.default_rng(0).random(len(tied)), group))]
    for column in (table.item, table.behavior, table.value):
        column[tied] = column[drawn]


# Which column to show for a reason.
_FAULTY = {
    **dict.fromkeys(("missing user", "too long user"), Columns.USER),
    **dict.fromkeys(("missing item", "too long item"), Columns.ITEM),
    **dict.fromkeys(("missing time", "unparsable time", "absurd time", "ambiguous time zone"), Columns.TIME),
    **dict.fromkeys(("ambiguous date", "year of two digits", "month name not in English"), Columns.TIME),
}


def count_rejects(session: Session, with_duplicates: bool, all_rows: bool) -> dict[str, int]:
    """Counts of the rows that were not kept by reason, most frequent first.

    The table `rejected` has all of them, or all broken lines and the first row of each other reason.
    """
    rows = "SELECT input_row, reason FROM parsed WHERE reason IS NOT NULL"
    if with_duplicates:
        rows += " UNION ALL SELECT input_row, reason FROM dropped WHERE reason = 'exact duplicate'"
    of_reasons = "SELECT reason, count(*) FROM {} GROUP BY reason"
    counts = session.engine.rows(of_reasons.format(f"({rows}) AS rejected_rows"))
    counts += session.rows(of_reasons.format("malformed"))
    first = f"SELECT min(input_row) AS input_row, reason FROM ({rows}) AS rejected_rows GROUP BY reason"
    session.make_found(rows if all_rows else first)
    session.run(
        "CREATE OR REPLACE TABLE rejected AS "
        "SELECT input_row, 0 AS extra, NULL AS file_index, reason, NULL AS line, 0 AS line_number FROM found "
        "UNION ALL SELECT input_row, extra, file_index, reason, line, line_number FROM malformed"
    )
    return {str(reason): int(count) for reason, count in sorted(counts, key=lambda row: (-row[1], row[0]))}


def first_faults(session: Session, ingested: Ingested) -> dict[str, str]:
    """For each reason the first row that has it: row, column and value, in words."""
    faults: dict[str, str] = {}
    is_first = "row_number() OVER (PARTITION BY reason ORDER BY file_index, row) = 1"
    query = f"SELECT * FROM ({_query(ingested)}) QUALIFY {is_first}"
    for entry in session.arrow(query).to_pylist():
        where = f"row {entry['row']}" + (f" of {entry['file']}" if len(ingested.files) > 1 else "")
        column = _FAULTY.get(entry["reason"])
        if column is not None:
            where += f": {ingested.columns[column]} = {shortened(entry['raw_' + column])}"
        elif entry["line"] is not None:
            where += f": {shortened(entry['line'])}"
        faults[entry["reason"]] = where
    return faults


def write_rejects(session: Session, ingested: Ingested, path: Path) -> None:
    """Write all rejected rows: file, row, reason, the raw fields under their own names, and the text of a broken line.

    Rows count the data rows of the file from 1 (in a text file the header is not counted, nor are blank lines).
    The file appears whole or not at all; an existing one is replaced at the end. Raises InputError.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"The rejects file {path} must end in .csv or .parquet.")
    columns = {f"raw_{column}": name for column, name in ingested.columns.items()}
    names = {"file": "file", "row": "row", "reason": "reason", **columns, "line": "line"}
    try:
        rows = session.stream(f"{_query(ingested)} ORDER BY numbered.file_index, row")
        schema = pa.schema([pa.field(name, rows.schema.field(column).type) for column, name in names.items()])
        make = pa.csv.CSVWriter if path.suffix.lower() == ".csv" else pa.parquet.ParquetWriter
        with atomic_write(path) as unfinished, unfinished.open("wb") as file, make(file, schema) as writer:
            for batch in rows:
                arrays = [batch.column(column) for column in names]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"The rejects file {path} could not be written: {error}. Is there room, and may it be written?"
        ) from error


def _query(ingested: Ingested) -> str:
    """Rejected rows and their numbers in the file: rows of earlier files are taken off, broken lines before added."""
    files = ", ".join(
        f"({index}, {text_in_sql(name)}, CAST({offset} AS BIGINT))"
        for index, (name, offset) in enumerate(zip(ingested.files, ingested.offsets, strict=True))
    )
    fields = "".join(
        f", CAST(raw.{name_in_sql(column)} AS VARCHAR) AS {name_in_sql('raw_' + column)}" for column in ingested.columns
    )
    return f"""
        WITH files (file_number, file, rows_before) AS (VALUES {files}),
        numbered AS (
            SELECT rejected.* REPLACE (coalesce(file_index, (
                SELECT max(file_number) FROM files WHERE files.rows_before < rejected.input_row
            )) AS file_index) FROM rejected
        )
        SELECT file, reason, line, numbered.file_index, numbered.input_row, extra,
            numbered.input_row - rows_before + CAST(sum(extra) OVER (
                PARTITION BY numbered.file_index ORDER BY numbered.input_row, extra, line_number
                ROWS UNBOUNDED PRECEDING
            ) AS BIGINT) AS row {fields}
        FROM numbered JOIN files ON numbered.file_index = file_number
        LEFT JOIN raw ON numbered.input_row = raw.input_row AND line IS NULL
    """
