"""A source becomes the table `raw` (input_row and the wanted columns), its broken lines the table `malformed`.

This is the part that is bound to one engine: it knows how DuckDB reads files. What follows is plain SQL.

`input_row` counts the readable rows over all files from 1. A line that could not be split into fields has no number of
its own there: `malformed` holds the `input_row` before it, `extra` = 1 and its `place` among broken lines, from which
the row in the file follows.
Every file is counted a second time, apart from the reader: `Staged.num_rows`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.columns import looks_like_data
from variseq.events.delimited import Broken, Dialect, Splitter, Survey, choose_dialect, lines_of
from variseq.events.foreign_values import is_period, start_of_periods
from variseq.events.frame_columns import cell_types, check_required
from variseq.events.json_lines import check_line_counts, extract, make_records, pointer
from variseq.events.layout import Layout, parquet_types, union
from variseq.events.options import ReadOptions
from variseq.events.source import DataFile, Files, Format, Frame, is_gzip
from variseq.events.table import Columns
from variseq.events.text_header import Header
from variseq.events.workspace import (
    Workspace,
    forget_rejected_lines,
    literal_path,
    move_rejected_lines,
    name_in_sql,
    text_in_sql,
)

_ROWS_PER_BATCH = 50_000
_MAX_DECIMAL_DIGITS = 38  # of the database


@dataclass
class Staged:
    """What was staged: the columns taken, the name of each file and the rows before it, and rows by a second count."""

    columns: dict[str, str]
    kind: Literal["delimited", "jsonl", "parquet", "frame"]
    files: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_rows: int = 0

    @property
    def is_text(self) -> bool:
        """Whether numbers came as text, so that their type has to be found."""
        return self.kind in ("delimited", "jsonl")


def stage(
    workspace: Workspace, source: Files | Frame, columns: Mapping[str, str], layout: Layout, options: ReadOptions
) -> Staged:
    """Fill `raw` and `malformed`. `columns` is the name in the workspace to the name in the source."""
    for table in ("raw", "malformed"):
        workspace.drop(table)
    workspace.run(
        "CREATE TABLE malformed "
        "(input_row BIGINT, extra INT, file_index INT, reason VARCHAR, line VARCHAR, place BIGINT)"
    )
    if isinstance(source, Frame):
        staged = Staged(dict(columns), "frame", notes=list(layout.notes))
        _stage_frame(workspace, source, staged)
    else:
        kinds: dict[Format, Literal["delimited", "jsonl", "parquet"]] = {"jsonl": "jsonl", "parquet": "parquet"}
        staged = Staged(dict(columns), kinds.get(source.format, "delimited"), notes=list(layout.notes))
        staged.files = [file.name for file in source.files]
        if staged.kind == "parquet":
            _stage_parquet(workspace, source.files, staged)
        elif staged.kind == "jsonl":
            _stage_json_lines(workspace, source.files, staged, layout)
        else:
            _stage_text_files(workspace, source.files, staged, layout, options)
        _note_partitions(source.files, staged)
    found = workspace.number("SELECT (SELECT count(*) FROM raw) + (SELECT count(*) FROM malformed)")
    if found == 0:
        label = "The table" if isinstance(source, Frame) else ", ".join(file.name for file in source.files[:3])
        raise InputError(f"{label} has no rows{'' if isinstance(source, Frame) else ', only a header'}.")
    if found != staged.num_rows:
        raise InputError(
            f"{staged.num_rows:,} rows were counted and {found:,} were read. Nothing may be lost: "
            "save the log as Parquet, and report this file."
        )
    return staged


def _absent(name: str, column: str, file: DataFile, files: Sequence[DataFile], names: Sequence[str]) -> None:
    """A column that one of several files lacks: refused when it is needed, else the events have none."""
    if column in Columns.REQUIRED:
        hint = "Is its first line data?" if looks_like_data(names) else "Name the columns alike in all files."
        raise InputError(f"{file.name} has no column {name!r}, as others have. It has: {', '.join(names)}. {hint}")


def _note_absent(absent: Mapping[str, list[str]], num_files: int, staged: Staged) -> None:
    for name, files in absent.items():
        staged.notes.append(
            f"{len(files)} of {num_files} files have no column {name!r}, and their rows have none (first: {files[0]})"
        )


def _note_partitions(files: Sequence[DataFile], staged: Staged) -> None:
    taken = [name for name in union(file.partition for file in files) if name in staged.columns.values()]
    if taken:
        staged.notes.append(f"folders named key=value are columns: {', '.join(taken)}")


def _stage_text_files(
    workspace: Workspace, files: Sequence[DataFile], staged: Staged, layout: Layout, options: ReadOptions
) -> None:
    kinds = "".join(f", {name_in_sql(column)} VARCHAR" for column in staged.columns)
    workspace.run(f"CREATE TABLE raw (input_row BIGINT{kinds})")
    absent: dict[str, list[str]] = {}
    for file, header in zip(files, layout.headers, strict=True):
        for column, name in staged.columns.items():
            if name not in header.names and name not in file.partition:
                _absent(name, column, file, files, header.names)
                absent.setdefault(name, []).append(file.name)
        staged.offsets.append(workspace.number("SELECT coalesce(max(input_row), 0) FROM raw"))
        try:
            dialect, found = choose_dialect(file, header, options)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file.name} cannot be read: {error}. Is it cut off?") from error
        if found.has_quotes and str(dialect) != str(Dialect(header.delimiter)):
            staged.notes.append(f"{file.name}: {dialect}; --quoting, --quote and --escape set it")
        if len(found.line_ends) > 1:
            staged.notes.append(f"{file.name}: line ends are mixed")
        _stage_delimited(workspace, file, header, dialect, found, staged)
    _note_absent(absent, len(files), staged)
    _note_encoding(workspace, staged)


def _note_encoding(workspace: Workspace, staged: Staged) -> None:
    num_lines = workspace.number("SELECT count(*) FROM malformed WHERE reason = 'invalid UTF-8'")
    if num_lines:
        staged.notes.append(
            f"{num_lines:,} lines are no UTF-8 text. Is it Latin-1? Save it as UTF-8: iconv -f LATIN1 -t UTF-8"
        )


def _stage_delimited(
    workspace: Workspace, file: DataFile, header: Header, dialect: Dialect, found: Survey, staged: Staged
) -> None:
    """By the database where every line is a record and it counts as many; else line by line."""
    index, offset = len(staged.offsets) - 1, staged.offsets[-1]
    num_rows = found.num_lines - (not header.is_data)
    are_lines = not dialect.quote or found.lines_are_records
    if are_lines and len(found.line_ends) <= 1 and _read_by_database(workspace, file, header, dialect, staged):
        counted = workspace.row(
            "SELECT (SELECT count(*) FROM raw WHERE input_row > ?), "
            "(SELECT count(*) FROM malformed WHERE file_index = ?)",
            [offset, index],
        )
        # Rows of broken lines are told from line numbers, which blank lines would shift.
        if sum(counted) == num_rows and not (counted[1] and found.num_blank):
            staged.num_rows += num_rows
            return
        workspace.run("DELETE FROM raw WHERE input_row > ?", [offset])
        workspace.run("DELETE FROM malformed WHERE file_index = ?", [index])
    staged.num_rows += _read_line_by_line(workspace, file, header, dialect, found, staged)


def _read_by_database(workspace: Workspace, file: DataFile, header: Header, dialect: Dialect, staged: Staged) -> bool:
    """Whether the reader got through; if not, nothing was inserted.

    Header names never reach the SQL text: fields are called c0, c1, ... and taken by position.
    """
    forget_rejected_lines(workspace)
    fields = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(header.num_fields))
    wanted = ", ".join(_source_of(name, header, file) for name in staged.columns.values())
    reader = (
        f"read_csv(?, auto_detect=false, header={str(not header.is_data).lower()}, "
        f"delim={text_in_sql(dialect.delimiter)}, quote={text_in_sql(dialect.quote)}, "
        f"escape={text_in_sql(dialect.escape)}, columns={{{fields}}}, strict_mode=true, store_rejects=true, "
        f"compression='{'gzip' if is_gzip(file.path) else 'none'}')"
    )
    try:
        workspace.run(
            f"INSERT INTO raw SELECT row_number() OVER () + ?, {wanted} FROM {reader}",
            [staged.offsets[-1], literal_path(file.path)],
        )
    except duckdb.InvalidInputException:
        return False
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise InputError(f"{file.name} cannot be read: {str(error).splitlines()[0]}") from error
    move_rejected_lines(workspace, len(staged.offsets) - 1, staged.offsets[-1], 0 if header.is_data else 1)
    return True


def _source_of(name: str, header: Header, file: DataFile) -> str:
    if name in header.names:
        return f"c{header.names.index(name)}"
    value = file.partition.get(name)
    return "NULL" if value is None else text_in_sql(value)


def _read_line_by_line(
    workspace: Workspace, file: DataFile, header: Header, dialect: Dialect, found: Survey, staged: Staged
) -> int:
    """The plain reading; the number of records by its own count of lines."""
    splitter = Splitter(dialect, header)
    index, offset = len(staged.offsets) - 1, staged.offsets[-1]
    broken: list[tuple[int, int, int, str, str, int]] = []
    places = [header.names.index(name) if name in header.names else None for name in staged.columns.values()]
    constants = [file.partition.get(name) for name in staged.columns.values()]
    schema = pa.schema([("input_row", pa.int64()), *((column, pa.string()) for column in staged.columns)])

    def batch(start: int, records: list[list[str]]) -> pa.RecordBatch:
        numbers = pa.array(np.arange(start, start + len(records)))
        columns = [
            pa.array(
                [constant] * len(records) if place is None else [record[place] or None for record in records],
                pa.string(),
            )
            for place, constant in zip(places, constants, strict=True)
        ]
        return pa.RecordBatch.from_arrays([numbers, *columns], schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        row, held = offset, list[list[str]]()
        records = splitter.records(lines_of(file))
        if not header.is_data:
            next(records, None)
        for record in records:
            if isinstance(record, Broken):
                broken.append((row, 1, index, record.reason, record.line[:10_000], len(broken)))
                continue
            row += 1
            held.append(record)
            if len(held) == _ROWS_PER_BATCH:
                yield batch(row - len(held) + 1, held)
                held = []
        yield batch(row - len(held) + 1, held)

    workspace.connection.register("arriving", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        workspace.run("INSERT INTO raw SELECT * FROM arriving")
    finally:
        workspace.connection.unregister("arriving")
    if broken:
        listed = pa.table(
            dict(
                zip(
                    ("input_row", "extra", "file_index", "reason", "line", "place"),
                    zip(*broken, strict=True),
                    strict=True,
                )
            )
        )
        workspace.connection.register("broken", listed)
        workspace.run("INSERT INTO malformed SELECT * FROM broken")
        workspace.connection.unregister("broken")
    if splitter.num_joined:
        staged.notes.append(f"{file.name}: {splitter.num_joined:,} records have line breaks within quotes")
    if splitter.num_lines != found.num_lines:
        raise InputError(
            f"{file.name}: {found.num_lines:,} lines were counted and {splitter.num_lines:,} were read. "
            "Is the file being written to? Read it when it is whole."
        )
    return splitter.num_records - (not header.is_data)


def _stage_json_lines(workspace: Workspace, files: Sequence[DataFile], staged: Staged, layout: Layout) -> None:
    assert layout.keys is not None
    workspace.run("DELETE FROM lines WHERE line IS NULL")  # blank lines keep their number and are no rows
    check_line_counts(workspace, files)
    staged.offsets = make_records(workspace, len(files), layout.explode)
    staged.notes += extract(workspace, staged.columns, layout.keys, layout.explode, files)
    workspace.run("INSERT INTO malformed SELECT * FROM unread")
    staged.num_rows = workspace.number(
        "SELECT (SELECT count(*) FROM lines WHERE NOT is_object) + (SELECT count(*) FROM unread)"
    )
    if layout.explode is None:
        staged.num_rows += workspace.number("SELECT count(*) FROM lines WHERE is_object")
    else:
        per_line = "coalesce(json_array_length(line, ?), 0)"
        staged.num_rows += workspace.number(
            f"SELECT coalesce(sum(greatest({per_line}, 1)), 0) FROM lines WHERE is_object",
            [pointer(layout.explode)],
        )
        staged.notes.append(
            f"each element of {layout.explode!r} is a row, of {workspace.number('SELECT count(*) FROM lines'):,} lines"
        )


def _stage_parquet(workspace: Workspace, files: Sequence[DataFile], staged: Staged) -> None:
    """Parquet is not copied: `raw` is a view, and every later pass reads only the columns it needs."""
    parts: list[str] = []
    types: dict[str, tuple[str, DataFile]] = {}
    absent: dict[str, list[str]] = {}
    found = [parquet_types(workspace, file) for file in files]
    for file, kinds in zip(files, found, strict=True):
        for column, name in staged.columns.items():
            if name in kinds:
                _refuse_unequal_types(column, name, kinds[name], file, types)
            elif name not in file.partition:
                _absent(name, column, file, files, list(kinds))
                absent.setdefault(name, []).append(file.name)
    for file, kinds in zip(files, found, strict=True):
        fields = ", ".join(
            f"{_of_parquet(name, kinds, file, types)} AS {name_in_sql(column)}"
            for column, name in staged.columns.items()
        )
        parts.append(
            f"SELECT file_row_number + {staged.num_rows + 1} AS input_row, {fields} "
            f"FROM read_parquet({text_in_sql(literal_path(file.path))}, file_row_number=true, hive_partitioning=false)"
        )
        staged.offsets.append(staged.num_rows)
        rows = workspace.row(
            "SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata(?)", [literal_path(file.path)]
        )
        staged.num_rows += int(rows[0])
    workspace.run("CREATE VIEW raw AS " + " UNION ALL ".join(parts))
    _note_absent(absent, len(files), staged)


def _of_parquet(name: str, kinds: Mapping[str, str], file: DataFile, types: Mapping[str, tuple[str, DataFile]]) -> str:
    if name in kinds:
        return name_in_sql(name)
    if name in file.partition:
        value = file.partition[name]
        return "CAST(NULL AS VARCHAR)" if value is None else text_in_sql(value)
    return f"CAST(NULL AS {types[name][0]})"


_FAMILIES = {
    "whole numbers": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"),
    "decimal numbers": ("FLOAT", "DOUBLE"),
    "times": ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
}


def _family(kind: str) -> str:
    return next((family for family, kinds in _FAMILIES.items() if kind in kinds), kind)


def _refuse_unequal_types(
    column: str, name: str, kind: str, file: DataFile, types: dict[str, tuple[str, DataFile]]
) -> None:
    """Numbers of other widths are united by the database; for a value also whole and decimal ones."""
    seen, first = types.setdefault(name, (kind, file))
    is_null = '"NULL"' in (kind, seen)
    if seen == '"NULL"':
        types[name] = (kind, file)
    are_numbers = {_family(kind), _family(seen)} <= {"whole numbers", "decimal numbers"}
    if is_null or _family(kind) == _family(seen) or (column == Columns.VALUE and are_numbers):
        return
    raise InputError(
        f"Column {name!r} is {seen} in {first.name} and {kind} in {file.name}: mixed types. "
        "Write the files with the same types."
    )


def _stage_frame(workspace: Workspace, source: Frame, staged: Staged) -> None:
    reader = source.open(list(staged.columns.values()))
    num_rows: list[int] = []
    _note_or_refuse_mixed_types(reader.schema, staged)
    fields = [pa.field("input_row", pa.int64())]
    fields += [pa.field(column, _plain_type(reader.schema.field(name).type)) for column, name in staged.columns.items()]
    schema = pa.schema(fields)
    arriving = pa.RecordBatchReader.from_batches(schema, _numbered(reader, schema, num_rows))
    try:
        workspace.connection.register("arriving", arriving)
        workspace.run("CREATE TABLE raw AS SELECT * FROM arriving")
    except duckdb.NotImplementedException as error:
        raise InputError(
            f"A column has a type that cannot be read ({str(error).splitlines()[0]}). The types are: "
            f"{', '.join(f'{field.name} {field.type}' for field in reader.schema)}. Convert that column."
        ) from error
    finally:
        workspace.connection.unregister("arriving")
    staged.num_rows = sum(num_rows)
    staged.files.append("")
    staged.offsets.append(0)


def _note_or_refuse_mixed_types(schema: pa.Schema, staged: Staged) -> None:
    """Columns whose cells became text one by one: optional ones, and ids that are integers beyond 64 bits."""
    for column, name in staged.columns.items():
        types = cell_types(schema.field(name))
        if column == Columns.TIME:
            check_required(schema.field(name), column, "times, dates, text, or numbers of one type")
        elif column in Columns.REQUIRED and types == ["int"]:
            staged.notes.append(f"some ids in {name!r} do not fit into 64-bit integers, so all of them are text")
        elif column in Columns.REQUIRED:
            check_required(schema.field(name), column, "ids that are all integers, or all text")
        elif types:
            staged.notes.append(f"cells of {name!r} ({', '.join(types)}) were read as text, one by one")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if is_period(kind):
        return pa.timestamp("us")
    if isinstance(kind, pa.ExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal256(kind):
        is_narrow = kind.precision <= _MAX_DECIMAL_DIGITS
        return pa.decimal128(kind.precision, kind.scale) if is_narrow else pa.string()
    if _is_in_nanoseconds(kind):
        return pa.timestamp("us", kind.tz)
    return kind


def _is_in_nanoseconds(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.unit == "ns"


def _numbered(reader: pa.RecordBatchReader, schema: pa.Schema, counts: list[int]) -> Iterator[pa.RecordBatch]:
    """The batches with numbers of rows; how many rows each has is added to `counts`."""
    num_rows = 0
    for batch in reader:
        counts.append(batch.num_rows)
        numbers = np.arange(num_rows + 1, num_rows + batch.num_rows + 1)
        arrays = [_plain_array(array, kind.type) for array, kind in zip(batch.columns, list(schema)[1:], strict=True)]
        yield pa.RecordBatch.from_arrays([pa.array(numbers), *arrays], schema=schema)
        num_rows += batch.num_rows


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], kind)
    if is_period(array.type):
        return start_of_periods(array)
    plain = array.storage if isinstance(array.type, pa.ExtensionType) else array
    if _is_in_nanoseconds(plain.type):
        return plain.cast(kind, safe=False)  # the database would round
    return plain if plain.type == kind else plain.cast(kind)
