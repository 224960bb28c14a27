"""A table of users becomes columns in the order of the vocabulary: a number, a text or nothing for each user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.layout import Wanted, find_layout
from variseq.events.matched_rows import first_outside_id, place_rows
from variseq.events.options import ReadOptions
from variseq.events.source import open_source
from variseq.events.stage import stage
from variseq.events.table import Columns
from variseq.events.vocabulary import Vocabulary
from variseq.events.workspace import open_workspace

UserColumn = list[float | str | None]


def read_users(source: object, vocabulary: Vocabulary, options: ReadOptions | None = None) -> dict[str, UserColumn]:
    """Each further column of a table with user_id, one value for every user of the vocabulary, None without a row.

    `source` is what `read` takes. A column whose values are all numbers (also in a text file) is one of floats, any
    other is one of text. Rows of users that are not in the log are left out.

    Raises InputError without a column user_id or any other, for doubled ids, and when no id is one of the log's.

    >>> vocabulary = Vocabulary(pa.array([7, 12]), pa.array(["a"]), ("event",))
    >>> read_users(pa.table({"user_id": [12], "country": ["DE"], "age": [31]}), vocabulary)
    {'country': [None, 'DE'], 'age': [None, 31.0]}
    """
    options = options or ReadOptions()
    with open_workspace(options.memory_limit, options.temporary_folder) as workspace:
        opened = open_source(source, workspace.folder)
        layout = find_layout(workspace, opened, options, Wanted({}, {}, (), "columns"))
        others = _other_names(layout.names)
        staged_columns = {Columns.USER: Columns.USER} | {f"other_{place}": name for place, name in enumerate(others)}
        staged = stage(workspace, opened, staged_columns, layout, options)
        place_rows(workspace, staged, Columns.USER, vocabulary.users, "The table of users")
        if workspace.number("SELECT count(position) FROM placed_rows") == 0:
            raise InputError(
                "No id of the table of users is a user of the log: the log has ids like "
                f"{vocabulary.users[0].as_py()!r}, the table like {first_outside_id(workspace)!r}. Check which column "
                f"is {Columns.USER}."
            )
        table = workspace.arrow(
            "SELECT position" + "".join(f", other_{place}" for place in range(len(others))) + " FROM placed_rows "
            "JOIN raw USING (input_row) WHERE position IS NOT NULL"
        )
    position = table.column("position").to_numpy()
    of_rows = [_plain(table.column(f"other_{place}"), staged.is_text) for place in range(len(others))]
    return {name: _spread(values, position, vocabulary.num_users) for name, values in zip(others, of_rows, strict=True)}


def _other_names(names: Sequence[str]) -> list[str]:
    others = [name for name in names if name != Columns.USER]
    if len(set(names)) < len(names) or Columns.USER not in names or not others:
        raise InputError(
            f"The table of users has the columns {', '.join(names)}. It needs a column {Columns.USER!r} and at least "
            "one more to group by, each name once."
        )
    return others


def _plain(column: pa.ChunkedArray, is_text: bool) -> UserColumn:
    """Numbers as floats, where all are numbers; otherwise everything as text. What is empty or not finite is None."""
    values: list[Any] = column.to_pylist()
    if is_text:
        values = [None if value is None or not value.strip() else value.strip() for value in values]
    numbers = [_number(value) for value in values]
    if all(number is not None for number, value in zip(numbers, values, strict=True) if value is not None):
        return [number if number is not None and math.isfinite(number) else None for number in numbers]
    return [None if value is None else str(value) for value in values]


def _number(value: object) -> float | None:
    """A number, or a text that is one; a truth value is none.

    >>> _number("1.5"), _number("DE"), _number(True)
    (1.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _spread(values: UserColumn, position: np.ndarray, num_users: int) -> UserColumn:
    """The value of each user, in the order of the vocabulary."""
    spread: UserColumn = [None] * num_users
    for value, user in zip(values, position.tolist(), strict=True):
        spread[user] = value
    return spread
