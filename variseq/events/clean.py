"""Deduplicate, filter, encode and order parsed rows; count and write rejected ones."""

from __future__ import annotations

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
from variseq.events.session import Session, name_in_sql, shortened, text_in_sql
from variseq.events.table import Columns, EventTable
from variseq.events.visits import by_visit
from variseq.events.vocabulary import Vocabulary

MAX_NUM_BEHAVIORS = 256  # a behavior is stored in one byte


def statements() -> dict[str, str]:
    """The named statements of clean.sql; any engine that has `parsed` and `settings` can run them in this order.

    >>> list(statements())[:2]
    ['user_codes', 'item_codes']
    """
    text = resources.files("variseq.events").joinpath("clean.sql").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in parts}


def drop_duplicates(session: Session, options: ReadOptions) -> int:
    """From `parsed`, make the coded events and the list of rows that are dropped from them; their number."""
    sql = statements()
    if options.low_values == "negative":
        session.run("UPDATE parsed SET event = event || ? WHERE value < ?", [_low_suffix(options), options.min_value])
    for name in ("user_codes", "item_codes", "event_codes", "encoded", "dropped", "kept"):
        session.run(sql[name])
    return session.number("SELECT count(*) FROM dropped")


def drop_rare_and_repeated(session: Session, options: ReadOptions) -> dict[str, int]:
    """Drop until nothing more has to go: one removal can make another user rare, or two events neighbors.

    Returns the numbers of dropped events by reason.
    """
    session.run("DROP TABLE parsed")  # only its coded copy is needed from here on
    sql = statements()
    names = ["consecutive_repeats"] if options.collapse_repeats else []
    names += ["rare_users"] if options.min_user_events > 1 else []
    names += ["rare_items"] if options.min_item_events > 1 else []
    session.run(
        "CREATE TABLE settings AS SELECT CAST(? AS BIGINT) AS min_user_events, CAST(? AS BIGINT) AS min_item_events, "
        "CAST(? AS DOUBLE) AS min_value, CAST(NULL AS DOUBLE) AS fill_value",
        [options.min_user_events, options.min_item_events, options.min_value],
    )
    has_minimum = options.min_value is not None and options.low_values == "leave-out"
    if has_minimum:
        session.run(sql["low_values"])
    if not names and not has_minimum:
        return {}
    num_dropped = -1
    while names and num_dropped != (num_dropped := session.number("SELECT count(*) FROM dropped")):
        for name in names:
            session.run(sql[name])
    counts = session.rows(
        "SELECT reason, count(*) FROM dropped WHERE reason <> 'exact duplicate' GROUP BY reason ORDER BY reason"
    )
    return {str(reason): int(count) for reason, count in counts}


def number_and_order(
    session: Session, options: ReadOptions, num_events: int, is_filtered: bool, has_visits: bool
) -> tuple[EventTable, Vocabulary]:
    """Positions for what is left, and the events in the order of (user, time, row of the input)."""
    sql = statements()
    for kind in ("user", "item", "event"):
        all_of_kind = f"CREATE VIEW {kind}s AS SELECT *, {kind}_code AS {kind}_position FROM {kind}_codes"
        session.run(sql[f"{kind}s"] if is_filtered else all_of_kind)
    if options.missing_value != "keep":
        mean = "0" if options.missing_value == "zero" else "(SELECT avg(value) FROM kept)"
        session.run(f"UPDATE settings SET fill_value = {mean}")
    behaviors = tuple(str(event) for (event,) in session.rows("SELECT event FROM events ORDER BY event_position"))
    if len(behaviors) > MAX_NUM_BEHAVIORS:
        raise InputError(
            f"The event column has {len(behaviors)} different behaviors, e.g. {', '.join(behaviors[:3])}; at most "
            f"{MAX_NUM_BEHAVIORS} are allowed. Is it the right column? Leave it out with columns={{'event': ''}}."
        )
    vocabulary = Vocabulary(_ids(session, "user"), _ids(session, "item"), behaviors)
    table = _stream_to_arrays(session, sql["ordered"], num_events)
    if has_visits:
        table = by_visit(session, table, vocabulary)
    return table, vocabulary


def low_behaviors(vocabulary: Vocabulary, options: ReadOptions) -> list[str]:
    """The behaviors that low values were put under."""
    if options.low_values != "negative":
        return []
    return [name for name in vocabulary.behaviors if name.endswith(_low_suffix(options))]


def _low_suffix(options: ReadOptions) -> str:
    return f" below {options.min_value:g}"


def _ids(session: Session, kind: str) -> pa.Array:
    column = session.arrow(f"SELECT {kind}_id FROM {kind}s ORDER BY {kind}_position").column(0).combine_chunks()
    wanted = pa.int64() if pa.types.is_integer(column.type) else pa.string()
    return column.cast(wanted)


def _stream_to_arrays(session: Session, query: str, num_events: int) -> EventTable:
    """Batches are copied into arrays made beforehand: the sorted result is never held twice."""
    table = EventTable(
        user=np.empty(num_events, dtype=np.int32),
        item=np.empty(num_events, dtype=np.int32),
        timestamp=np.empty(num_events, dtype=np.int64),
        behavior=np.empty(num_events, dtype=np.uint8),
        value=np.empty(num_events, dtype=np.float32),
    )
    columns = (table.user, table.item, table.timestamp, table.behavior, table.value)
    start = 0
    for batch in session.stream(query):
        end = start + batch.num_rows
        for column, values in zip(columns, batch.columns, strict=True):
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


def count_rejects(session: Session, with_duplicates: bool) -> dict[str, int]:
    """Make the table `rejected` of the rows that were not kept; its counts by reason, most frequent first."""
    duplicates = (
        "UNION ALL SELECT input_row, 0, NULL, reason, NULL, 0 FROM dropped WHERE reason = 'exact duplicate'"
        if with_duplicates
        else ""
    )
    session.run(
        "CREATE OR REPLACE TABLE rejected AS "
        "SELECT input_row, 0 AS extra, NULL AS file_index, reason, NULL AS line, 0 AS line_number FROM parsed "
        "WHERE reason IS NOT NULL UNION ALL "
        f"SELECT input_row, extra, file_index, reason, line, line_number FROM malformed {duplicates}"
    )
    counts = session.rows("SELECT reason, count(*) FROM rejected GROUP BY reason ORDER BY count(*) DESC, reason")
    return {str(reason): int(count) for reason, count in counts}


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
