"""A DuckDB connection for one read, with a memory limit and a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import duckdb
import pyarrow as pa

from variseq.errors import InputError

NUM_ROWS_PER_BATCH = 1_000_000
_REASONS = {
    "MISSING COLUMNS": "wrong number of fields",
    "TOO MANY COLUMNS": "wrong number of fields",
    "UNQUOTED VALUE": "unbalanced quote",
    "LINE SIZE OVER MAXIMUM": "line too long",
    "INVALID ENCODING": "invalid UTF-8",
    "INVALID UNICODE": "invalid UTF-8",
}


class Evidence(NamedTuple):
    """How many rows fulfil a condition, and one of them."""

    num: int
    example: Any


class SqlEngine(Protocol):
    """Runs the statements of clean.sql: this database, or Spark."""

    def run(self, statement: str) -> None:
        """CREATE TABLE ... AS, CREATE VIEW ... AS, or INSERT INTO."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """A small result."""

    def stream(self, query: str, *order: str) -> pa.RecordBatchReader:
        """A result in batches, so that it need not fit into memory; in the order of some of its columns."""

    def drop(self, name: str) -> None:
        """Drop a table or view, if it is there."""

    def number_ids(self, table: str, column: str, position: str, query: str) -> None:
        """Make a table of what a query gives and one more column, the index of the row in the order of `column`."""


class Session:
    """Runs SQL. Outside text reaches it as a parameter, or quoted by `name_in_sql`.

    The database is a file in `folder`, which takes the least memory; `is_small` before the first statement keeps it in
    memory, which is faster. `notes` and `warnings` gather what the report says on how the source was read.
    """

    def __init__(self, memory_limit: str, folder: Path) -> None:
        self.memory_limit = memory_limit
        self.folder = folder
        self.is_small = False
        self.notes: list[str] = []
        self.warnings: list[str] = []

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(
            ":memory:" if self.is_small else str(self.folder / "work.duckdb"),
            config={"memory_limit": self.memory_limit, "temp_directory": str(self.folder / "spill")},
        )
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def run(self, statement: str, parameters: Sequence[object] = ()) -> None:
        self.connection.execute(statement, list(parameters))

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, list(parameters)).fetchall()

    def row(self, query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
        return self.rows(query, parameters)[0]

    def number(self, query: str, parameters: Sequence[object] = ()) -> int:
        """The one number that a query gives; of INSERT and DELETE the number of rows."""
        return int(self.row(query, parameters)[0])

    @property
    def engine(self) -> SqlEngine:
        """What cleans `parsed`: this database."""
        return self

    def aggregate(self, query: str, how: str) -> list[tuple[Any, ...]]:
        """Rows of an aggregate over `raw`. `how` joins those of its parts, by column: "key", "sum", "min" or "max"."""
        return self.rows(query)

    def num_distinct(self, *expressions: str) -> tuple[int, ...]:
        """How many different values each expression over `raw` has."""
        return self.row(f"SELECT {', '.join(f'count(DISTINCT {one})' for one in expressions)} FROM raw")

    def make_parsed(self, query: str) -> None:
        """Make the table `parsed` by a query that takes `raw` row by row."""
        self.run(f"CREATE TABLE parsed AS {query}")

    def make_found(self, query: str) -> None:
        """Make the table `found` by a query of the engine for input_row and reason; `raw` has at least these rows."""
        self.run(f"CREATE OR REPLACE TABLE found AS {query}")

    def number_ids(self, table: str, column: str, position: str, query: str) -> None:
        """Make a table of what a query gives and one more column, the index of the row in the order of `column`."""
        number = f"CAST(row_number() OVER (ORDER BY {column}) - 1 AS INT) AS {position}"
        self.run(f"CREATE TABLE {table} AS SELECT *, {number} FROM ({query})")

    def set_zone(self, zone: str) -> None:
        """The zone of times that name none."""
        self.run(f"SET TimeZone = {text_in_sql(zone)}")

    def counts(
        self, conditions: Mapping[str, str], source: str, examples: Mapping[str, str] | None = None
    ) -> dict[str, Evidence]:
        """How many rows of a source fulfil each condition; of these the least value of the expression in `examples`."""
        columns = ", ".join(
            f"count(*) FILTER (WHERE {condition}), min({(examples or {}).get(name, 'NULL')}) FILTER (WHERE {condition})"
            for name, condition in conditions.items()
        )
        (found,) = self.aggregate(f"SELECT {columns} FROM {source}", "sum min " * len(conditions))
        return {name: Evidence(*found[2 * index : 2 * index + 2]) for index, name in enumerate(conditions)}

    def arrow(self, query: str) -> pa.Table:
        """A result that is known to be small enough for memory."""
        return self.stream(query).read_all()

    def stream(self, query: str, *order: str) -> pa.RecordBatchReader:
        """A result in batches, so that it need not fit into memory; in the order of some of its columns."""
        in_order = f"{query} ORDER BY {', '.join(order)}" if order else query
        return pa.RecordBatchReader.from_stream(self.connection.sql(in_order))

    @contextmanager
    def registered(self, name: str, table: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Within it, queries can read a table of Arrow."""
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)

    def drop(self, name: str) -> None:
        """Drop a table or view, if it is there."""
        try:
            self.run(f"DROP TABLE IF EXISTS {name_in_sql(name)}")
        except duckdb.CatalogException:  # a view
            self.run(f"DROP VIEW {name_in_sql(name)}")

    def column_types(self, table_or_query: str) -> dict[str, str]:
        return {name: str(kind) for name, kind, *_ in self.rows(f"DESCRIBE {table_or_query}")}


@contextmanager
def open_session(
    memory_limit: str, temporary_folder: Path | None, make: Callable[[str, Path], Session] = Session
) -> Iterator[Session]:
    """A session in a folder that is removed at the end. Failures of room become InputError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="variseq-", dir=temporary_folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"The temporary folder cannot be used: {error}. Choose another: temporary_folder=..."
        ) from error
    with folder as name:
        session, parent = make(memory_limit, Path(name)), Path(name).parent
        try:
            yield session
        except duckdb.OutOfMemoryException as error:
            raise InputError(
                f"The data could not be sorted within memory_limit={memory_limit!r} and the room in "
                f"{parent}. Raise memory_limit, or point temporary_folder to a disk with more room."
            ) from error
        except duckdb.IOException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"Reading or writing failed: {reason}. Is there room in {parent}?") from error
        except (duckdb.InterruptException, RuntimeError) as error:
            # What the database makes of Ctrl-C while it runs a statement; some releases raise the one, some the other.
            if "interrupted" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
        finally:
            if "connection" in vars(session):
                session.connection.close()


def group_of(kind: str) -> str:
    """A type of the database without its width: whole, fractional, nothing, or the name of any other.

    >>> group_of("UBIGINT"), group_of("DECIMAL(10,2)"), group_of("VARCHAR")
    ('whole', 'fractional', 'VARCHAR')
    """
    family = kind.split("(")[0]
    if family.endswith(("INT", "INTEGER")):
        return "whole"
    if family in ("FLOAT", "DOUBLE", "DECIMAL"):
        return "fractional"
    return "nothing" if family in ('"NULL"', "NULL") else family


def name_in_sql(name: str) -> str:
    """An identifier, quoted.

    >>> print(name_in_sql('5" disk'))
    "5"" disk"
    """
    return '"' + name.replace('"', '""') + '"'


def text_in_sql(text: str) -> str:
    """A text literal, quoted; for the places of a statement where no parameter can stand.

    >>> text_in_sql("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def shortened(value: str | None) -> str:
    """A value of a cell as messages show it."""
    if value is None:
        return "(nothing)"
    return repr(value if len(value) <= 60 else value[:57] + "...")


def literal_path(path: Path) -> str:
    """A path with the characters that would mean a pattern made literal."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def start_tables(session: Session) -> None:
    """Drop what an earlier source left, and make the table of broken lines."""
    for table in ("raw", "lines", "records", "elements", "malformed"):
        session.drop(table)
    session.run(
        "CREATE TABLE malformed "
        "(input_row BIGINT, extra INT, file_index INT, reason VARCHAR, line VARCHAR, line_number BIGINT)"
    )


def insert_from_text(
    session: Session, statement: str, parameters: Sequence[object], file_index: int, offset: int, num_header_lines: int
) -> tuple[int, int]:
    """Run an INSERT that reads a text file, of which the reader lists the lines that it could not split.

    These go to `malformed`, each once. Returns the numbers of rows and of such lines.
    """
    session.run("DROP TABLE IF EXISTS reject_errors")
    session.run("DROP TABLE IF EXISTS reject_scans")
    num_readable = session.number(statement, parameters)
    if not session.number("SELECT count(*) FROM reject_errors"):
        return num_readable, 0
    reasons = " ".join(f"WHEN '{kind}' THEN '{reason}'" for kind, reason in _REASONS.items())
    num_broken = session.number(
        "INSERT INTO malformed SELECT "
        f"CAST(line AS BIGINT) - {num_header_lines} - row_number() OVER (ORDER BY line) + ?, 1, ?, "
        f"CASE kind {reasons} ELSE 'malformed line' END, text, line "
        "FROM (SELECT line, min(CAST(error_type AS VARCHAR)) AS kind, any_value(csv_line) AS text "
        "FROM reject_errors GROUP BY line)",
        [offset, file_index],
    )
    return num_readable, num_broken
