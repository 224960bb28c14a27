"""Rows of a table of items or users become `placed_rows`: each with the position of its id in the log, NULL if none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.identifiers import read_ids
from variseq.events.stage import Staged
from variseq.events.text_cells import read_text_cells, text_columns
from variseq.events.workspace import Workspace, name_in_sql

_MAX_WITHOUT_ROW = 0.5  # of the items of a log: with more, ids may be spelled in two ways


def place_rows(workspace: Workspace, staged: Staged, column: str, known: pa.Array, table: str) -> list[str]:
    """Make `placed_rows` (input_row, outside, position) and return notes. `table` is what messages call it.

    Rows that are alike in every column are kept once. Raises InputError for other rows of one id.
    """
    cells = read_text_cells(workspace, text_columns(workspace, [column]))
    ids = read_ids(workspace, staged, column, cells)
    # The log decides whether ids are integers or text; digits in a text file are written out or read accordingly.
    if pa.types.is_integer(known.type):
        outside = ids.sql
        same = "TRY_CAST(outside AS BIGINT) = known.id AND CAST(known.id AS VARCHAR) = CAST(outside AS VARCHAR)"
    else:
        outside = cells[column].sql if staged.is_text else ids.sql
        same = "CAST(outside AS VARCHAR) = known.id"
    workspace.connection.register("known", pa.table({"id": known, "position": np.arange(len(known))}))
    try:
        workspace.run(
            "CREATE OR REPLACE TABLE placed_rows AS SELECT input_row, outside, known.position FROM "
            f"(SELECT input_row, {outside} AS outside FROM raw WHERE NOT {ids.missing}) LEFT JOIN known ON {same}"
        )
    finally:
        workspace.connection.unregister("known")
    num_without = workspace.number("SELECT (SELECT count(*) FROM raw) - (SELECT count(*) FROM placed_rows)")
    label = table[0].lower() + table[1:]
    nameless = [f"{num_without:,} rows of {label} have no id and were left out"] if num_without else []
    return nameless + ids.notes + ids.warnings + _keep_one_of_equal_rows(workspace, list(staged.columns), column, table)


def _keep_one_of_equal_rows(workspace: Workspace, columns: Sequence[str], column: str, table: str) -> list[str]:
    doubled = workspace.number("SELECT count(*) - count(DISTINCT outside) FROM placed_rows")
    if not doubled:
        return []
    cells = ", ".join(f"CAST({name_in_sql(name)} AS VARCHAR)" for name in columns if name != column)
    num_before = workspace.number("SELECT count(*) FROM placed_rows")
    workspace.run(
        "DELETE FROM placed_rows WHERE input_row NOT IN (SELECT min(input_row) FROM placed_rows "
        f"JOIN raw USING (input_row) GROUP BY outside{', ' + cells if cells else ''})"
    )
    rows = workspace.rows(
        "SELECT outside, count(*) FROM placed_rows GROUP BY outside HAVING count(*) > 1 ORDER BY min(input_row)"
    )
    if rows:
        shown = ", ".join(f"{outside!r} ({count} rows)" for outside, count in rows[:5])
        raise InputError(
            f"{table} has {len(rows)} ids in more than one row: {shown}. Which row is right cannot be guessed: "
            f"keep one row for each {column.removesuffix('_id')}."
        )
    num_equal = num_before - workspace.number("SELECT count(*) FROM placed_rows")
    return [f"{num_equal:,} rows of {table[0].lower() + table[1:]} equal others and were left out"]


def first_outside_id(workspace: Workspace, condition: str = "true") -> object:
    """The id of the first row that meets a condition."""
    return workspace.row(f"SELECT min_by(outside, input_row) FROM placed_rows WHERE {condition}")[0]


def few_matches(workspace: Workspace, known: pa.Array, table: str) -> list[str]:
    """A warning when rows without an item of the log stand beside many items without a row."""
    placed = set(workspace.arrow("SELECT position FROM placed_rows WHERE position IS NOT NULL").column(0).to_pylist())
    other = first_outside_id(workspace, "position IS NULL")
    num_without = len(known) - len(placed)
    if other is None or num_without < _MAX_WITHOUT_ROW * len(known):
        return []
    example = next(known[place].as_py() for place in range(len(known)) if place not in placed)
    return [
        f"{num_without:,} of {len(known):,} ids of the log have no row in {table[0].lower() + table[1:]}, which has "
        f"other ids: the log has e.g. {example!r}, the table {other!r}. Are they spelled alike?"
    ]
