"""A database of one's own: opened on a temporary folder with a memory limit, gone when the work is done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class Workspace:
    """Runs SQL on a database on disk. Outside text reaches it as a parameter, or quoted by `name_in_sql`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self.connection = connection
        self.folder = folder

    def run(self, statement: str, parameters: Sequence[object] = ()) -> None:
        self.connection.execute(statement, list(parameters))

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, list(parameters)).fetchall()

    def row(self, query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
        return self.rows(query, parameters)[0]

    def number(self, query: str, parameters: Sequence[object] = ()) -> int:
        return int(self.row(query, parameters)[0])

    def arrow(self, query: str) -> pa.Table:
        """A result that is known to be small enough for memory."""
        return self.stream(query).read_all()

    def stream(self, query: str) -> pa.RecordBatchReader:
        """A result in batches, so that it need not fit into memory."""
        return pa.RecordBatchReader.from_stream(self.connection.sql(query))

    def drop(self, name: str) -> None:
        """Drop a table or view, if it is there."""
        query = "SELECT table_type FROM information_schema.tables WHERE table_name = ?"
        for (kind,) in self.rows(query, [name]):
            self.run(f"DROP {'VIEW' if kind == 'VIEW' else 'TABLE'} {name_in_sql(name)}")

    def column_types(self, table: str) -> dict[str, str]:
        return {name: str(kind) for name, kind, *_ in self.rows(f"DESCRIBE {name_in_sql(table)}")}


@contextmanager
def open_workspace(memory_limit: str, temporary_folder: Path | None) -> Iterator[Workspace]:
    """A workspace in a folder that is removed at the end. Failures of room become InputError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="variseq-", dir=temporary_folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"The temporary folder cannot be used: {error}. Choose another: temporary_folder=..."
        ) from error
    with folder as name:
        spill = Path(name) / "spill"
        connection = duckdb.connect(
            str(Path(name) / "work.duckdb"), config={"memory_limit": memory_limit, "temp_directory": str(spill)}
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield Workspace(connection, Path(name))
        except duckdb.OutOfMemoryException as error:
            raise InputError(
                f"The data could not be sorted within memory_limit={memory_limit!r} and the room in "
                f"{spill.parent.parent}. Raise memory_limit, or point temporary_folder to a disk with more room."
            ) from error
        except duckdb.IOException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"Reading or writing failed: {reason}. Is there room in {spill.parent.parent}?") from error
        except (duckdb.InterruptException, RuntimeError) as error:
            # What the database makes of Ctrl-C while it runs a statement; some releases raise the one, some the other.
            if "interrupted" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
        finally:
            connection.close()


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


def literal_path(path: Path) -> str:
    """A path with the characters that would mean a pattern made literal."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def forget_rejected_lines(workspace: Workspace) -> None:
    """Before a text file is read: the reader's list of lines that it could not split starts anew."""
    workspace.drop("reject_errors")
    workspace.drop("reject_scans")


def move_rejected_lines(
    workspace: Workspace, file_index: int, offset: int, num_header_lines: int, table: str = "malformed"
) -> None:
    """The reader's own list of lines it could not split goes to `malformed`, each line once."""
    reasons = " ".join(f"WHEN '{kind}' THEN '{reason}'" for kind, reason in _REASONS.items())
    workspace.run(
        f"INSERT INTO {table} SELECT "
        f"CAST(line AS BIGINT) - {num_header_lines} - row_number() OVER (ORDER BY line) + ?, 1, ?, "
        f"CASE kind {reasons} ELSE 'malformed line' END, text, line "
        "FROM (SELECT line, min(CAST(error_type AS VARCHAR)) AS kind, any_value(csv_line) AS text "
        "FROM reject_errors GROUP BY line)",
        [offset, file_index],
    )
    forget_rejected_lines(workspace)
