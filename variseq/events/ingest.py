"""Load a source into the table `raw` and its broken lines into `malformed`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import duckdb
import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.columns import Layout, looks_like_data, parquet_types, union
from variseq.events.delimited import Broken, Dialect, Splitter, Survey, choose_dialect, lines_of
from variseq.events.frames import Frame, cell_types, plain_array
from variseq.events.header import Header
from variseq.events.json_lines import check_line_counts, extract, make_records, pointer
from variseq.events.options import ReadOptions
from variseq.events.session import Session, insert_from_text, literal_path, name_in_sql, text_in_sql
from variseq.events.sources import DataFile, Files, is_gzip
from variseq.events.table import Columns

_ROWS_PER_BATCH = 50_000


@dataclass
class Ingested:
    """A source in the table `raw`: its columns, the name of each file and the rows before it, and its rows."""

    columns: dict[str, str]
    is_text: bool = False
    """Whether numbers came as text, so that their type has to be found."""
    is_json: bool = False
    files: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    num_rows: int = 0
    types: dict[str, str] = field(default_factory=dict)


def ingest(
    session: Session, source: Files | Frame, columns: Mapping[str, str], layout: Layout, options: ReadOptions
) -> Ingested:
    """Fill `raw` and `malformed`. `columns` is the name in the session to the name in the source."""
    ingested = Ingested(dict(columns))
    if isinstance(source, Frame):
        _ingest_frame(session, source, ingested)
    else:
        ingested.is_text, ingested.is_json = source.format != "parquet", source.format == "jsonl"
        ingested.files = [file.name for file in source.files]
        if source.format == "parquet":
            _ingest_parquet(session, source.files, ingested)
        elif ingested.is_json:
            _ingest_json_lines(session, source.files, ingested, layout)
        else:
            _ingest_text_files(session, source.files, ingested, layout, options)
        if taken := [name for name in union(file.partition for file in source.files) if name in columns.values()]:
            session.notes.append(f"folders named key=value are columns: {', '.join(taken)}")
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


def _check_absent(
    session: Session, files: Sequence[DataFile], names_of_files: Sequence[Sequence[str]], ingested: Ingested
) -> None:
    """A column that one of several files lacks: refused when it is needed, else the events have none, with a note."""
    for column, name in ingested.columns.items():
        absent = [
            (file, names)
            for file, names in zip(files, names_of_files, strict=True)
            if name not in names and name not in file.partition
        ]
        if absent and column in Columns.REQUIRED:
            file, names = absent[0]
            hint = "Is its first line data?" if looks_like_data(names) else "Name the columns alike in all files."
            raise InputError(f"{file.name} has no column {name!r}, as others have. It has: {', '.join(names)}. {hint}")
        if absent:
            session.notes.append(
                f"{len(absent)} of {len(files)} files have no column {name!r}, and their rows have none "
                f"(first: {absent[0][0].name})"
            )


def _ingest_text_files(
    session: Session, files: Sequence[DataFile], ingested: Ingested, layout: Layout, options: ReadOptions
) -> None:
    kinds = "".join(f", {name_in_sql(column)} VARCHAR" for column in ingested.columns)
    session.run(f"CREATE TABLE raw (input_row BIGINT{kinds})")
    _check_absent(session, files, [header.names for header in layout.headers], ingested)
    num_read = 0
    for file, header in zip(files, layout.headers, strict=True):
        ingested.offsets.append(num_read)
        try:
            dialect, found = choose_dialect(file, header, options)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file.name} cannot be read: {error}. Is it cut off?") from error
        if found.has_quotes and str(dialect) != str(Dialect(header.delimiter)):
            session.notes.append(f"{file.name}: {dialect}; --quoting, --quote and --escape set it")
        if len(found.line_ends) > 1:
            session.notes.append(f"{file.name}: line ends are mixed")
        num_read += _ingest_delimited(session, file, header, dialect, found, ingested)
    if num_lines := session.number("SELECT count(*) FROM malformed WHERE reason = 'invalid UTF-8'"):
        session.notes.append(
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
    fields = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(header.num_fields))
    wanted = ", ".join(
        f"c{header.names.index(name)}" if name in header.names else _of_folder(name, file)
        for name in ingested.columns.values()
    )
    statement = (
        f"INSERT INTO raw SELECT row_number() OVER () + ?, {wanted} FROM "
        f"read_csv(?, auto_detect=false, header={str(not header.is_data).lower()}, "
        f"delim={text_in_sql(dialect.delimiter)}, quote={text_in_sql(dialect.quote)}, "
        f"escape={text_in_sql(dialect.escape)}, columns={{{fields}}}, strict_mode=true, store_rejects=true, "
        f"compression='{'gzip' if is_gzip(file.path) else 'none'}')"
    )
    file_index, offset = len(ingested.offsets) - 1, ingested.offsets[-1]
    parameters = [offset, literal_path(file.path)]
    try:
        return insert_from_text(session, statement, parameters, file_index, offset, int(not header.is_data))
    except duckdb.InvalidInputException:
        return None
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise InputError(f"{file.name} cannot be read: {str(error).splitlines()[0]}") from error


def _of_folder(name: str, file: DataFile) -> str:
    value = file.partition.get(name)
    return "CAST(NULL AS VARCHAR)" if value is None else text_in_sql(value)


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

    def readable() -> Iterator[list[str]]:
        row = offset
        for record in islice(splitter.records(lines_of(file)), int(not header.is_data), None):
            if isinstance(record, Broken):
                broken.append((row, 1, file_index, record.reason, record.line[:10_000], len(broken)))
            else:
                row += 1
                yield record

    def batches() -> Iterator[pa.RecordBatch]:
        row, all_records = offset, readable()
        while records := list(islice(all_records, _ROWS_PER_BATCH)):
            columns = [
                [constant] * len(records) if index is None else [record[index] or None for record in records]
                for index, constant in zip(indices, constants, strict=True)
            ]
            numbers = range(row + 1, row + len(records) + 1)
            yield pa.RecordBatch.from_arrays(list(map(pa.array, [numbers, *columns], schema.types)), schema=schema)
            row += len(records)

    with session.registered("arriving", pa.RecordBatchReader.from_batches(schema, batches())):
        num_readable = session.number("INSERT INTO raw SELECT * FROM arriving")
    if broken:
        columns = [pa.array(column) for column in zip(*broken, strict=True)]
        with session.registered("broken", pa.table(columns, list("abcdef"))):
            session.run("INSERT INTO malformed SELECT * FROM broken")
    if splitter.num_joined:
        session.notes.append(f"{file.name}: {splitter.num_joined:,} records have line breaks within quotes")
    if splitter.num_lines != found.num_lines:
        raise InputError(
            f"{file.name}: {found.num_lines:,} lines were counted and {splitter.num_lines:,} were read; they part "
            f"at line {min(found.num_lines, splitter.num_lines) + 1:,}. Is the file being written to? Read it when it "
            "is whole."
        )
    return splitter.num_records - (not header.is_data), num_readable


def _ingest_json_lines(session: Session, files: Sequence[DataFile], ingested: Ingested, layout: Layout) -> None:
    assert layout.keys is not None
    session.run("DELETE FROM lines WHERE line IS NULL")  # blank lines keep their number and are no rows
    check_line_counts(session, files)
    ingested.num_rows = session.number("SELECT count(*) + (SELECT count(*) FROM malformed) FROM lines")
    ingested.offsets = make_records(session, len(files), layout.explode)
    extract(session, ingested.columns, layout.keys, layout.explode, files)
    if layout.explode is not None:
        num_lines, num_further = session.row(
            "SELECT count(*), coalesce(sum(CASE WHEN is_object THEN greatest(json_array_length(line, ?), 1) - 1 END), "
            "0) FROM lines",
            [pointer(layout.explode)],
        )
        ingested.num_rows += int(num_further)
        session.notes.append(f"each element of {layout.explode!r} is a row, of {num_lines:,} lines")


def _ingest_parquet(session: Session, files: Sequence[DataFile], ingested: Ingested) -> None:
    """Parquet is not copied: `raw` is a view, and every later pass reads only the columns it needs."""
    parts: list[str] = []
    types: dict[str, tuple[str, DataFile]] = {}
    found = [parquet_types(session, file) for file in files]
    for file, kinds in zip(files, found, strict=True):
        for column, name in ingested.columns.items():
            if name in kinds:
                _refuse_unequal_types(column, name, kinds[name], file, types)
    _check_absent(session, files, list(map(list, found)), ingested)
    for file, kinds in zip(files, found, strict=True):
        fields = ", ".join(
            f"{_of_parquet(name, kinds, file, types)} AS {name_in_sql(column)}"
            for column, name in ingested.columns.items()
        )
        parts.append(
            f"SELECT file_row_number + {ingested.num_rows + 1} AS input_row, {fields} "
            # Statistics in Parquet leave NaN out: without can_have_nan, isnan() is false for each of its rows.
            f"FROM read_parquet({text_in_sql(literal_path(file.path))}, file_row_number=true, hive_partitioning=false, "
            "can_have_nan=true)"
        )
        ingested.offsets.append(ingested.num_rows)
        rows = session.row("SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata(?)", [literal_path(file.path)])
        ingested.num_rows += int(rows[0])
    session.run("CREATE VIEW raw AS " + " UNION ALL ".join(parts))


def _of_parquet(name: str, kinds: Mapping[str, str], file: DataFile, types: Mapping[str, tuple[str, DataFile]]) -> str:
    if name in kinds:
        return name_in_sql(name)
    return _of_folder(name, file) if name in file.partition else f"CAST(NULL AS {types[name][0]})"


def _family(kind: str) -> str:
    """Types that the database unites without loss."""
    if kind.endswith(("INT", "INTEGER")) and "HUGE" not in kind and kind != "UBIGINT":
        return "whole numbers"
    if kind.startswith("TIMESTAMP") and "ZONE" not in kind:
        return "times"
    return "decimal numbers" if kind in ("FLOAT", "DOUBLE") else kind


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
    _note_or_refuse_mixed_types(session, reader.schema, ingested)
    plain = [plain_array(column.combine_chunks()).type for column in reader.schema.empty_table().columns]
    schema = pa.schema([("input_row", pa.int64()), *zip(ingested.columns, plain, strict=True)])

    def numbered() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            numbers = pa.array(np.arange(ingested.num_rows + 1, ingested.num_rows + batch.num_rows + 1))
            ingested.num_rows += batch.num_rows
            yield pa.RecordBatch.from_arrays([numbers, *map(plain_array, batch.columns)], schema=schema)

    try:
        with session.registered("arriving", pa.RecordBatchReader.from_batches(schema, numbered())):
            session.run("CREATE TABLE raw AS SELECT * FROM arriving")
    except duckdb.NotImplementedException as error:
        raise InputError(
            f"A column has a type that cannot be read ({str(error).splitlines()[0]}). The types are: "
            f"{', '.join(f'{field.name} {field.type}' for field in reader.schema)}. Convert that column."
        ) from error
    ingested.files.append("")
    ingested.offsets.append(0)


def _note_or_refuse_mixed_types(session: Session, schema: pa.Schema, ingested: Ingested) -> None:
    """Columns whose cells became text one by one: optional ones, and ids that are integers beyond 64 bits."""
    for column, name in ingested.columns.items():
        types = cell_types(schema.field(name))
        if not types:
            continue
        if column not in Columns.REQUIRED:
            session.notes.append(f"cells of {name!r} ({', '.join(types)}) were read as text, one by one")
        elif column != Columns.TIME and types == ["int"]:
            session.notes.append(f"some ids in {name!r} do not fit into 64-bit integers, so all of them are text")
        else:
            are_ids = "ids that are all integers, or all text"
            allowed = "times, dates, text, or numbers of one type" if column == Columns.TIME else are_ids
            raise InputError(
                f"Column {name!r} ({column}) has cells of {'mixed types' if len(types) > 1 else 'the type'}: "
                f"{', '.join(types)}. Allowed: {allowed}. Convert the column before reading."
            )
