"""Rejected rows become counts per reason, the first fault of each in words, and, if asked for, a file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.stage import Staged
from variseq.events.table import Columns
from variseq.events.workspace import Workspace, name_in_sql, text_in_sql

# Which column to show for a reason.
_FAULTY = {
    "missing user": Columns.USER,
    "missing item": Columns.ITEM,
    "too long user": Columns.USER,
    "too long item": Columns.ITEM,
    "missing time": Columns.TIME,
    "unparsable time": Columns.TIME,
    "absurd time": Columns.TIME,
    "ambiguous date": Columns.TIME,
    "ambiguous time zone": Columns.TIME,
    "year of two digits": Columns.TIME,
    "month name not in English": Columns.TIME,
}


def count_rejects(workspace: Workspace, with_duplicates: bool) -> dict[str, int]:
    """Make the table `rejected` of the rows that were not kept; its counts by reason, most frequent first."""
    duplicates = (
        "UNION ALL SELECT input_row, 0, NULL, reason, NULL, 0 FROM dropped WHERE reason = 'exact duplicate'"
        if with_duplicates
        else ""
    )
    workspace.run(
        "CREATE OR REPLACE TABLE rejected AS "
        "SELECT input_row, 0 AS extra, NULL AS file_index, reason, NULL AS line, 0 AS place FROM parsed "
        "WHERE reason IS NOT NULL UNION ALL "
        f"SELECT input_row, extra, file_index, reason, line, place FROM malformed {duplicates}"
    )
    counts = workspace.rows("SELECT reason, count(*) FROM rejected GROUP BY reason ORDER BY count(*) DESC, reason")
    return {str(reason): int(count) for reason, count in counts}


def first_faults(workspace: Workspace, staged: Staged) -> dict[str, str]:
    """For each reason the first row that has it: row, column and value, in words."""
    faults: dict[str, str] = {}
    query = (
        f"SELECT * FROM ({_query(staged)}) QUALIFY row_number() OVER (PARTITION BY reason ORDER BY file_index, row) = 1"
    )
    for entry in workspace.arrow(query).to_pylist():
        where = f"row {entry['row']}" + (f" of {entry['file']}" if len(staged.files) > 1 else "")
        column = _FAULTY.get(entry["reason"])
        if column is not None:
            where += f": {staged.columns[column]} = {_short(entry['raw_' + column])}"
        elif entry["line"] is not None:
            where += f": {_short(entry['line'])}"
        faults[entry["reason"]] = where
    return faults


def write_rejects(workspace: Workspace, staged: Staged, path: Path) -> None:
    """Write all rejected rows: file, row, reason, the raw fields under their own names, and the text of a broken line.

    Rows count the data rows of the file from 1 (in a text file the header is not counted, nor are blank lines).
    The file appears whole or not at all; an existing one is replaced at the end. Raises InputError.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"The rejects file {path} must end in .csv or .parquet.")
    try:
        rows = workspace.stream(f"{_query(staged)} ORDER BY placed.file_index, row")
        with atomic_write(path) as unfinished:
            _write(rows, staged, unfinished, path.suffix.lower())
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"The rejects file {path} could not be written: {error}. Is there room, and may it be written?"
        ) from error


def _write(rows: pa.RecordBatchReader, staged: Staged, partial: Path, suffix: str) -> None:
    wanted = ["file", "row", "reason", *(f"raw_{column}" for column in staged.columns), "line"]
    names = ["file", "row", "reason", *staged.columns.values(), "line"]
    fields = [pa.field(name, rows.schema.field(column).type) for name, column in zip(names, wanted, strict=True)]
    schema = pa.schema(fields)
    with partial.open("wb") as file:
        make = pa.csv.CSVWriter if suffix == ".csv" else pa.parquet.ParquetWriter
        with make(file, schema) as writer:
            for batch in rows:
                arrays = [batch.column(column) for column in wanted]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _query(staged: Staged) -> str:
    """Rejected rows and their numbers in the file: rows of earlier files are taken off, broken lines before added."""
    files = ", ".join(
        f"({index}, {text_in_sql(name)}, CAST({offset} AS BIGINT))"
        for index, (name, offset) in enumerate(zip(staged.files, staged.offsets, strict=True))
    )
    fields = "".join(
        f", CAST(raw.{name_in_sql(column)} AS VARCHAR) AS {name_in_sql('raw_' + column)}" for column in staged.columns
    )
    return f"""
        WITH files (file_number, file, rows_before) AS (VALUES {files}),
        placed AS (
            SELECT rejected.* REPLACE (coalesce(file_index, (
                SELECT max(file_number) FROM files WHERE files.rows_before < rejected.input_row
            )) AS file_index) FROM rejected
        )
        SELECT file, reason, line, placed.file_index, placed.input_row, extra,
            placed.input_row - rows_before + CAST(sum(extra) OVER (
                PARTITION BY placed.file_index ORDER BY placed.input_row, extra, place ROWS UNBOUNDED PRECEDING
            ) AS BIGINT) AS row {fields}
        FROM placed JOIN files ON placed.file_index = file_number
        LEFT JOIN raw ON placed.input_row = raw.input_row AND line IS NULL
    """


def _short(value: str | None) -> str:
    if value is None:
        return "(nothing)"
    return repr(value if len(value) <= 60 else value[:57] + "...")
