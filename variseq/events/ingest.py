"""Load a source into the table `raw` and its broken lines into `malformed`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.columns import Layout, looks_like_data, parquet_types, union
from variseq.events.delimited import Broken, Dialect, Splitter, Survey, choose_dialect, lines_of
from variseq.events.frames import Frame, cell_types, check_required, is_period, start_of_periods
from variseq.events.header import Header
from variseq.events.json_lines import check_line_counts, extract, make_records, pointer
from variseq.events.options import ReadOptions
from variseq.events.session import (
    Session,
    forget_rejected_lines,
    literal_path,
    move_rejected_lines,
    name_in_sql,
    text_in_sql,
)
from variseq.events.sources import DataFile, Files, Format, is_gzip
from variseq.events.table import Columns

_ROWS_PER_BATCH = 50_000
_MAX_DECIMAL_DIGITS = 38  # of the database


@dataclass
class Ingested:
    """A source in the table `raw`: its columns, the name of each file and the rows before it, and its rows."""

    columns: dict[str, str]
    kind: Literal["delimited", "jsonl", "parquet", "frame"]
    files: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_rows: int = 0
    types: dict[str, str] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether numbers came as text, so that their type has to be found."""
        return self.kind in ("delimited", "jsonl")


def ingest(
    session: Session, source: Files | Frame, columns: Mapping[str, str], layout: Layout, options: ReadOptions
) -> Ingested:
    """Fill `raw` and `malformed`. `columns` is the name in the session to the name in the source."""
    if isinstance(source, Frame):
        ingested = Ingested(dict(columns), "frame", notes=list(layout.notes))
        _ingest_frame(session, source, ingested)
    else:
        kinds: dict[Format, Literal["delimited", "jsonl", "parquet"]] = {"jsonl": "jsonl", "parquet": "parquet"}
        ingested = Ingested(dict(columns), kinds.get(source.format, "delimited"), notes=list(layout.notes))
        ingested.files = [file.name for file in source.files]
        if ingested.kind == "parquet":
            _ingest_parquet(session, source.files, ingested)
        elif ingested.kind == "jsonl":
            _ingest_json_lines(session, source.files, ingested, layout)
        else:
            _ingest_text_files(session, source.files, ingested, layout, options)
        _note_partitions(source.files, ingested)
    ingested.types = session.column_types("raw")
    found = session.number("SELECT (SELECT count(*) FROM raw) + (SELECT count(*) FROM malformed)")
    if found == 0:
        label = "The table" if isinstance(source, Frame) else ", ".join(file.name for file in source.files[:3])
        raise InputError(f"{label} has no rows{'' if isinstance(source, Frame) else ', only a header'}.")
    if found != ingested.num_rows:
        raise InputError(
            f"{ingested.num_rows:,} rows were counted and {found:,} were read. Nothing may be lost: "
            "save the log as Parquet, and report this file."
        )
    return ingested


def _absent(name: str, column: str, file: DataFile, files: Sequence[DataFile], names: Sequence[str]) -> None:
    """A column that one of several files lacks: refused when it is needed, else the events have none."""
    if column in Columns.REQUIRED:
        hint = "Is its first line data?" if looks_like_data(names) else "Name the columns alike in all files."
        raise InputError(f"{file.name} has no column {name!r}, as others have. It has: {', '.join(names)}. {hint}")


def _note_absent(absent: Mapping[str, list[str]], num_files: int, ingested: Ingested) -> None:
    for name, files in absent.items():
        ingested.notes.append(
            f"{len(files)} of {num_files} files have no column {name!r}, and their rows have none (first: {files[0]})"
        )


def _note_partitions(files: Sequence[DataFile], ingested: Ingested) -> None:
    taken = [name for name in union(file.partition for file in files) if name in ingested.columns.values()]
    if taken:
        ingested.notes.append(f"folders named key=value are columns: {', '.join(taken)}")


def _ingest_text_files(
    session: Session, files: Sequence[DataFile], ingested: Ingested, layout: Layout, options: ReadOptions
) -> None:
    kinds = "".join(f", {name_in_sql(column)} VARCHAR" for column in ingested.columns)
    session.run(f"CREATE TABLE raw (input_row BIGINT{kinds})")
    absent: dict[str, list[str]] = {}
    num_read = 0
    for file, header in zip(files, layout.headers, strict=True):
        for column, name in ingested.columns.items():
            if name not in header.names and name not in file.partition:
                _absent(name, column, file, files, header.names)
                absent.setdefault(name, []).append(file.name)
        ingested.offsets.append(num_read)
        try:
            dialect, found = choose_dialect(file, header, options)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file.name} cannot be read: {error}. Is it cut off?") from error
        if found.has_quotes and str(dialect) != str(Dialect(header.delimiter)):
            ingested.notes.append(f"{file.name}: {dialect}; --quoting, --quote and --escape set it")
        if len(found.line_ends) > 1:
            ingested.notes.append(f"{file.name}: line ends are mixed")
        num_read += _ingest_delimited(session, file, header, dialect, found, ingested)
    _note_absent(absent, len(files), ingested)
    _note_encoding(session, ingested, num_read)


def _note_encoding(session: Session, ingested: Ingested, num_read: int) -> None:
    if ingested.num_rows == num_read:
        return
    num_lines = session.number("SELECT count(*) FROM malformed WHERE reason = 'invalid UTF-8'")
    if num_lines:
        ingested.notes.append(
            f"{num_lines:,} lines are no UTF-8 text. Is it Latin-1? Save it as UTF-8: iconv -f LATIN1 -t UTF-8"
        )


def _ingest_delimited(
    session: Session, file: DataFile, header: Header, dialect: Dialect, found: Survey, ingested: Ingested
) -> int:
    """By the database where every line is a record and it counts as many; else line by line. Readable rows."""
    file_index, offset = len(ingested.offsets) - 1, ingested.offsets[-1]
    num_rows = found.num_lines - (not header.is_data)
    are_lines = not dialect.quote or found.lines_are_records
    if are_lines and len(found.line_ends) <= 1:
        counts = _read_by_database(session, file, header, dialect, ingested)
        # Rows of broken lines follow from line numbers, which blank lines would shift.
        if counts is not None and sum(counts) == num_rows and not (counts[1] and found.num_blank):
            ingested.num_rows += num_rows
            return counts[0]
        session.run("DELETE FROM raw WHERE input_row > ?", [offset])
        session.run("DELETE FROM malformed WHERE file_index = ?", [file_index])
    num_records, num_readable = _read_line_by_line(session, file, header, dialect, found, ingested)
    ingested.num_rows += num_records
    return num_readable


def _read_by_database(
    session: Session, file: DataFile, header: Header, dialect: Dialect, ingested: Ingested
) -> tuple[int, int] | None:
    """The numbers of readable and of broken lines; None where the reader failed, and nothing was inserted.

    Header names never reach the SQL text: fields are called c0, c1, ... and taken by position.
    """
    forget_rejected_lines(session)
    fields = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(header.num_fields))
    wanted = ", ".join(_source_of(name, header, file) for name in ingested.columns.values())
    reader = (
        f"read_csv(?, auto_detect=false, header={str(not header.is_data).lower()}, "
        f"delim={text_in_sql(dialect.delimiter)}, quote={text_in_sql(dialect.quote)}, "
        f"escape={text_in_sql(dialect.escape)}, columns={{{fields}}}, strict_mode=true, store_rejects=true, "
        f"compression='{'gzip' if is_gzip(file.path) else 'none'}')"
    )
    try:
        num_readable = session.insert(
            f"INSERT INTO raw SELECT row_number() OVER () + ?, {wanted} FROM {reader}",
            [ingested.offsets[-1], literal_path(file.path)],
        )
    except duckdb.InvalidInputException:
        return None
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise InputError(f"{file.name} cannot be read: {str(error).splitlines()[0]}") from error
    num_broken = move_rejected_lines(
        session, len(ingested.offsets) - 1, ingested.offsets[-1], 0 if header.is_data else 1
    )
    return num_readable, num_broken


def _source_of(name: str, header: Header, file: DataFile) -> str:
    if name in header.names:
        return f"c{header.names.index(name)}"
    value = file.partition.get(name)
    return "NULL" if value is None else text_in_sql(value)


def _read_line_by_line(
    session: Session, file: DataFile, header: Header, dialect: Dialect, found: Survey, ingested: Ingested
) -> tuple[int, int]:
    """The plain reading; the number of records by its own count of lines, and of those that are readable."""
    splitter = Splitter(dialect, header)
    file_index, offset = len(ingested.offsets) - 1, ingested.offsets[-1]
    broken: list[tuple[int, int, int, str, str, int]] = []
    indices = [header.names.index(name) if name in header.names else None for name in ingested.columns.values()]
    constants = [file.partition.get(name) for name in ingested.columns.values()]
    schema = pa.schema([("input_row", pa.int64()), *((column, pa.string()) for column in ingested.columns)])

    def batch(start: int, records: list[list[str]]) -> pa.RecordBatch:
        numbers = pa.array(np.arange(start, start + len(records)))
        columns = [
            pa.array(
                [constant] * len(records) if index is None else [record[index] or None for record in records],
                pa.string(),
            )
            for index, constant in zip(indices, constants, strict=True)
        ]
        return pa.RecordBatch.from_arrays([numbers, *columns], schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        row, held = offset, list[list[str]]()
        records = splitter.records(lines_of(file))
        if not header.is_data:
            next(records, None)
        for record in records:
            if isinstance(record, Broken):
                broken.append((row, 1, file_index, record.reason, record.line[:10_000], len(broken)))
                continue
            row += 1
            held.append(record)
            if len(held) == _ROWS_PER_BATCH:
                yield batch(row - len(held) + 1, held)
                held = []
        yield batch(row - len(held) + 1, held)

    session.connection.register("arriving", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        num_readable = session.insert("INSERT INTO raw SELECT * FROM arriving")
    finally:
        session.connection.unregister("arriving")
    if broken:
        listed = pa.table(
            dict(
                zip(
                    ("input_row", "extra", "file_index", "reason", "line", "line_number"),
                    zip(*broken, strict=True),
                    strict=True,
                )
            )
        )
        session.connection.register("broken", listed)
        session.run("INSERT INTO malformed SELECT * FROM broken")
        session.connection.unregister("broken")
    if splitter.num_joined:
        ingested.notes.append(f"{file.name}: {splitter.num_joined:,} records have line breaks within quotes")
    if splitter.num_lines != found.num_lines:
        raise InputError(
            f"{file.name}: {found.num_lines:,} lines were counted and {splitter.num_lines:,} were read. "
            "Is the file being written to? Read it when it is whole."
        )
    return splitter.num_records - (not header.is_data), num_readable


def _ingest_json_lines(session: Session, files: Sequence[DataFile], ingested: Ingested, layout: Layout) -> None:
    assert layout.keys is not None
    session.run("DELETE FROM lines WHERE line IS NULL")  # blank lines keep their number and are no rows
    check_line_counts(session, files)
    ingested.num_rows = session.number("SELECT count(*) + (SELECT count(*) FROM malformed) FROM lines")
    ingested.offsets = make_records(session, len(files), layout.explode)
    ingested.notes += extract(session, ingested.columns, layout.keys, layout.explode, files)
    if layout.explode is not None:
        num_lines, num_further = session.row(
            "SELECT count(*), coalesce(sum(CASE WHEN is_object THEN greatest(json_array_length(line, ?), 1) - 1 END), "
            "0) FROM lines",
            [pointer(layout.explode)],
        )
        ingested.num_rows += int(num_further)
        ingested.notes.append(f"each element of {layout.explode!r} is a row, of {num_lines:,} lines")


def _ingest_parquet(session: Session, files: Sequence[DataFile], ingested: Ingested) -> None:
    """Parquet is not copied: `raw` is a view, and every later pass reads only the columns it needs."""
    parts: list[str] = []
    types: dict[str, tuple[str, DataFile]] = {}
    absent: dict[str, list[str]] = {}
    found = [parquet_types(session, file) for file in files]
    for file, kinds in zip(files, found, strict=True):
        for column, name in ingested.columns.items():
            if name in kinds:
                _refuse_unequal_types(column, name, kinds[name], file, types)
            elif name not in file.partition:
                _absent(name, column, file, files, list(kinds))
                absent.setdefault(name, []).append(file.name)
    for file, kinds in zip(files, found, strict=True):
        fields = ", ".join(
            f"{_of_parquet(name, kinds, file, types)} AS {name_in_sql(column)}"
            for column, name in ingested.columns.items()
        )
        parts.append(
            f"SELECT file_row_number + {ingested.num_rows + 1} AS input_row, {fields} "
            f"FROM read_parquet({text_in_sql(literal_path(file.path))}, file_row_number=true, hive_partitioning=false)"
        )
        ingested.offsets.append(ingested.num_rows)
        rows = session.row("SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata(?)", [literal_path(file.path)])
        ingested.num_rows += int(rows[0])
    session.run("CREATE VIEW raw AS " + " UNION ALL ".join(parts))
    _note_absent(absent, len(files), ingested)


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


def _ingest_frame(session: Session, source: Frame, ingested: Ingested) -> None:
    reader = source.open(list(ingested.columns.values()))
    num_rows: list[int] = []
    _note_or_refuse_mixed_types(reader.schema, ingested)
    fields = [pa.field("input_row", pa.int64())]
    fields += [
        pa.field(column, _plain_type(reader.schema.field(name).type)) for column, name in ingested.columns.items()
    ]
    schema = pa.schema(fields)
    arriving = pa.RecordBatchReader.from_batches(schema, _numbered(reader, schema, num_rows))
    try:
        session.connection.register("arriving", arriving)
        session.run("CREATE TABLE raw AS SELECT * FROM arriving")
    except duckdb.NotImplementedException as error:
        raise InputError(
            f"A column has a type that cannot be read ({str(error).splitlines()[0]}). The types are: "
            f"{', '.join(f'{field.name} {field.type}' for field in reader.schema)}. Convert that column."
        ) from error
    finally:
        session.connection.unregister("arriving")
    ingested.num_rows = sum(num_rows)
    ingested.files.append("")
    ingested.offsets.append(0)


def _note_or_refuse_mixed_types(schema: pa.Schema, ingested: Ingested) -> None:
    """Columns whose cells became text one by one: optional ones, and ids that are integers beyond 64 bits."""
    for column, name in ingested.columns.items():
        types = cell_types(schema.field(name))
        if column == Columns.TIME:
            check_required(schema.field(name), column, "times, dates, text, or numbers of one type")
        elif column in Columns.REQUIRED and types == ["int"]:
            ingested.notes.append(f"some ids in {name!r} do not fit into 64-bit integers, so all of them are text")
        elif column in Columns.REQUIRED:
            check_required(schema.field(name), column, "ids that are all integers, or all text")
        elif types:
            ingested.notes.append(f"cells of {name!r} ({', '.join(types)}) were read as text, one by one")


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
