"""A source becomes the table `raw` (input_row and the wanted columns), its broken lines the table `malformed`.

This is the part that is bound to one engine: it knows how DuckDB reads files. What follows is plain SQL.

`input_row` counts the readable rows over all files from 1. A line that the CSV reader could not split into fields has
no number of its own there: `malformed` holds the `input_row` before it and `extra` = 1, from which the row in the file
follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.foreign_values import is_period, start_of_periods, with_text_for_nan
from variseq.events.source import Files, Format, Frame, is_gzip
from variseq.events.text_head import Header, read_header, read_keys
from variseq.events.workspace import Workspace, name_in_sql, text_in_sql

_REASONS = {
    "MISSING COLUMNS": "wrong number of fields",
    "TOO MANY COLUMNS": "wrong number of fields",
    "UNQUOTED VALUE": "unbalanced quote",
    "LINE SIZE OVER MAXIMUM": "line too long",
    "INVALID ENCODING": "invalid UTF-8",
    "INVALID UNICODE": "invalid UTF-8",
}
_LINES = (
    "auto_detect=false, header=false, delim='\x01', quote='', escape='', strict_mode=false, columns={'line': 'VARCHAR'}"
)


@dataclass
class Staged:
    """What was staged: the columns taken, and per file its name and the number of rows before it."""

    columns: dict[str, str]
    kind: Format | Literal["frame"]
    files: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """Whether numbers came as text, so that their type has to be found."""
        return self.kind in ("delimited", "jsonl")


def names_in(source: Files | Frame, delimiter: str | None, workspace: Workspace) -> list[str]:
    """The column names of a source; of several files those of the first."""
    if isinstance(source, Frame):
        return source.names
    path = source.paths[0]
    if source.format == "delimited":
        return read_header(path, delimiter).names
    if source.format == "jsonl":
        return read_keys(path)
    return list(_parquet_types(workspace, path))


def stage(workspace: Workspace, source: Files | Frame, columns: Mapping[str, str], delimiter: str | None) -> Staged:
    """Fill `raw` and `malformed`. `columns` is the name in the workspace to the name in the source."""
    for table in ("raw", "malformed"):
        workspace.drop(table)
    workspace.run("CREATE TABLE malformed (input_row BIGINT, extra INT, file_index INT, reason VARCHAR, line VARCHAR)")
    staged = Staged(dict(columns), "frame" if isinstance(source, Frame) else source.format)
    if isinstance(source, Frame):
        _stage_frame(workspace, source, staged)
    elif source.format == "parquet":
        _stage_parquet(workspace, source.paths, staged)
    else:
        kinds = "".join(f", {name_in_sql(column)} VARCHAR" for column in columns)
        if source.format == "jsonl":
            kinds += "".join(f", {name_in_sql(column + '_type')} VARCHAR" for column in columns)
        workspace.run(f"CREATE TABLE raw (input_row BIGINT{kinds})")
        for path in source.paths:
            staged.files.append(str(path))
            staged.offsets.append(workspace.number("SELECT coalesce(max(input_row), 0) FROM raw"))
            if source.format == "delimited":
                _stage_delimited(workspace, path, read_header(path, delimiter), staged)
            else:
                _stage_json_lines(workspace, path, staged)
    if workspace.number("SELECT (SELECT count(*) FROM raw) + (SELECT count(*) FROM malformed)") == 0:
        raise InputError(f"{_label(source)} has no rows{'' if isinstance(source, Frame) else ', only a header'}.")
    return staged


def _label(source: Files | Frame) -> str:
    return "The table" if isinstance(source, Frame) else ", ".join(str(path) for path in source.paths[:3])


def _stage_delimited(workspace: Workspace, path: Path, header: Header, staged: Staged) -> None:
    """Header names never reach the SQL text: fields are called c0, c1, ... and taken by position."""
    absent = [name for name in staged.columns.values() if name not in header.names]
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]!r}, as {staged.files[0]} has. It has: {', '.join(header.names)}."
        )
    fields = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(header.names)))
    wanted = ", ".join(f"c{header.names.index(name)}" for name in staged.columns.values())
    options = (
        f"auto_detect=false, header=true, delim={text_in_sql(header.delimiter)}, quote='\"', escape='\"', "
        f"columns={{{fields}}}"
    )
    if not _insert_rows(workspace, path, f"{options}, strict_mode=true", wanted, staged):
        if not _insert_rows(workspace, path, f"{options}, strict_mode=false", wanted, staged):
            raise InputError(
                f"{path} cannot be read as text with fields separated by {header.delimiter!r}. Is it damaged?"
            )
        staged.notes.append(f"{path}: line ends are mixed, so row numbers may be off")
    _move_rejected_lines(workspace, staged, num_header_lines=1)


def _insert_rows(workspace: Workspace, path: Path, options: str, wanted: str, staged: Staged) -> bool:
    """Whether the reader got through; if not, nothing was inserted."""
    _forget_rejected_lines(workspace)
    compression = "gzip" if is_gzip(path) else "none"
    reader = f"read_csv(?, {options}, store_rejects=true, compression='{compression}')"
    try:
        workspace.run(
            f"INSERT INTO raw SELECT row_number() OVER () + ?, {wanted} FROM {reader}",
            [staged.offsets[-1], _no_glob(path)],
        )
    except duckdb.InvalidInputException:
        return False
    except (duckdb.IOException, duckdb.Error) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return True


def _stage_json_lines(workspace: Workspace, path: Path, staged: Staged) -> None:
    """A line is split by the JSON functions, so that a broken one is kept as text and counted, not skipped."""
    _forget_rejected_lines(workspace)
    compression = "gzip" if is_gzip(path) else "none"
    try:
        workspace.run(
            "CREATE TABLE lines AS SELECT input_row, line, coalesce(json_valid(line), true) AS valid FROM "
            f"(SELECT row_number() OVER () + ? AS input_row, {with_text_for_nan('line')} AS line "
            f"FROM read_csv(?, {_LINES}, store_rejects=true, compression='{compression}'))",
            [staged.offsets[-1], _no_glob(path)],
        )
    except duckdb.Error as error:
        raise InputError(f"{path} cannot be read as JSON lines: {str(error).splitlines()[0]}") from error
    is_object = "CASE WHEN valid THEN json_type(line) = 'OBJECT' ELSE false END"
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in staged.columns.values()]
    values = "".join(", json_extract_string(line, ?)" for _ in pointers)
    types = "".join(", json_type(line, ?)" for _ in pointers)
    workspace.run(f"INSERT INTO raw SELECT input_row{values}{types} FROM lines WHERE {is_object}", pointers + pointers)
    workspace.run(
        "INSERT INTO malformed SELECT input_row, 0, ?, 'not a JSON object', left(line, 10000) FROM lines "
        f"WHERE line IS NOT NULL AND NOT ({is_object})",
        [len(staged.files) - 1],
    )
    workspace.run("DROP TABLE lines")
    _move_rejected_lines(workspace, staged, num_header_lines=0)


def _forget_rejected_lines(workspace: Workspace) -> None:
    workspace.drop("reject_errors")
    workspace.drop("reject_scans")


def _move_rejected_lines(workspace: Workspace, staged: Staged, num_header_lines: int) -> None:
    """The reader's own list of lines it could not split goes to `malformed`, each line once."""
    reasons = " ".join(f"WHEN '{kind}' THEN '{reason}'" for kind, reason in _REASONS.items())
    workspace.run(
        "INSERT INTO malformed SELECT "
        f"CAST(line AS BIGINT) - {num_header_lines} - row_number() OVER (ORDER BY line) + ?, 1, ?, "
        f"CASE kind {reasons} ELSE 'malformed line' END, text "
        "FROM (SELECT line, min(CAST(error_type AS VARCHAR)) AS kind, any_value(csv_line) AS text "
        "FROM reject_errors GROUP BY line)",
        [staged.offsets[-1], len(staged.files) - 1],
    )
    _forget_rejected_lines(workspace)


def _stage_parquet(workspace: Workspace, paths: Sequence[Path], staged: Staged) -> None:
    """Parquet is not copied: `raw` is a view, and every later pass reads only the columns it needs."""
    parts, num_rows = [], 0
    types: dict[str, str] = {}
    for path in paths:
        found = _parquet_types(workspace, path)
        absent = [name for name in staged.columns.values() if name not in found]
        if absent:
            raise InputError(f"{path} has no column {absent[0]!r}, as {paths[0]} has. It has: {', '.join(found)}.")
        for name in staged.columns.values():
            if types.setdefault(name, found[name]) != found[name]:
                raise InputError(
                    f"Column {name!r} is {types[name]} in {paths[0]} and {found[name]} in {path}: mixed types. "
                    "Write the files with the same types."
                )
        wanted = ", ".join(f"{name_in_sql(name)} AS {name_in_sql(column)}" for column, name in staged.columns.items())
        parts.append(
            f"SELECT file_row_number + {num_rows + 1} AS input_row, {wanted} "
            f"FROM read_parquet({text_in_sql(_no_glob(path))}, file_row_number=true)"
        )
        staged.files.append(str(path))
        staged.offsets.append(num_rows)
        num_rows += int(workspace.row("SELECT sum(num_rows) FROM parquet_file_metadata(?)", [_no_glob(path)])[0])
    workspace.run("CREATE VIEW raw AS " + " UNION ALL ".join(parts))


def _parquet_types(workspace: Workspace, path: Path) -> dict[str, str]:
    try:
        described = workspace.rows("DESCRIBE SELECT * FROM read_parquet(?)", [_no_glob(path)])
    except duckdb.Error as error:
        raise InputError(
            f"{path} is not a Parquet file, or is damaged ({str(error).splitlines()[0][:200]})."
        ) from error
    return {name: str(kind) for name, kind, *_ in described}


def _no_glob(path: Path) -> str:
    """The path with the characters that would mean a pattern made literal."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def _stage_frame(workspace: Workspace, source: Frame, staged: Staged) -> None:
    reader = source.open(list(staged.columns.values()))
    fields = [pa.field("input_row", pa.int64())]
    fields += [pa.field(column, _plain_type(reader.schema.field(name).type)) for column, name in staged.columns.items()]
    schema = pa.schema(fields)
    arriving = pa.RecordBatchReader.from_batches(schema, _numbered(reader, schema))
    workspace.connection.register("arriving", arriving)
    try:
        workspace.run("CREATE TABLE raw AS SELECT * FROM arriving")
    finally:
        workspace.connection.unregister("arriving")
    staged.files.append("")
    staged.offsets.append(0)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if is_period(kind):
        return pa.timestamp("us")
    return kind.storage_type if isinstance(kind, pa.ExtensionType) else kind


def _numbered(reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    num_rows = 0
    for batch in reader:
        numbers = np.arange(num_rows + 1, num_rows + batch.num_rows + 1)
        arrays = [_plain_array(array, kind.type) for array, kind in zip(batch.columns, list(schema)[1:], strict=True)]
        yield pa.RecordBatch.from_arrays([pa.array(numbers), *arrays], schema=schema)
        num_rows += batch.num_rows


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], kind)
    if is_period(array.type):
        return start_of_periods(array)
    return array.storage if isinstance(array.type, pa.ExtensionType) else array
