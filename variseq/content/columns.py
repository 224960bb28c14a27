"""The columns of a table of items as texts, vectors and numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.events.columns import plain_name
from variseq.events.identifiers import NULL_WORDS
from variseq.events.table import Columns

TEXT_NAMES = ("text", "description", "abstract", "summary", "body")
ENCODER = b"variseq.encoder"
"""In the metadata of a column of vectors: the encoder that made them."""
NUM_NAMED = 5
Ids = Sequence[object] | None


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def text_columns(table: pa.Table) -> list[str]:
    """The title and the columns that are named for a text, the title first."""
    wanted = [name for name in table.column_names if plain_name(name) in TEXT_NAMES]
    return [
        name
        for name in dict.fromkeys([Columns.TITLE, *wanted])
        if name in table.column_names and _holds_text(table.column(name).type)
    ]


def _holds_text(kind: pa.DataType) -> bool:
    return is_text(kind) or (pa.types.is_list(kind) and is_text(kind.value_type))


def joined_texts(table: pa.Table, columns: Sequence[str]) -> list[str | None]:
    """The texts of each row in one; None where it has none. Columns that the table lacks are empty."""
    cells = [table.column(name).to_pylist() for name in columns if name in table.column_names]
    if not cells:
        return [None] * len(table)
    return [_joined(row) for row in zip(*cells, strict=True)]


def _joined(cells: Sequence[str | list[str | None] | None]) -> str | None:
    parts = (part for cell in cells for part in (cell if isinstance(cell, list) else [cell]))
    text = "\n".join(str(part).strip() for part in parts if part is not None)
    return text.strip() or None


@dataclass(frozen=True, eq=False)
class NumberLists:
    """A column of lists of numbers, end to end; a row without a list has the length 0."""

    values: Float[np.ndarray, " value"]
    length: Int[np.ndarray, " row"]
    are_integers: bool

    def matrix(self, name: str, ids: Ids = None, width: int | None = None) -> Float[np.ndarray, "row width"]:
        """One row a cell, zero where there is none.

        Raises:
            InputError: Lists have another length than `width` (the most frequent one by default), or hold NaN or inf.
        """
        filled = self.length > 0
        found = np.bincount(self.length[filled])
        width = int(found.argmax()) if width is None else width
        refuse_rows(
            filled & (self.length != width),
            ids,
            f"Column {name!r} holds lists of {width:,} numbers, and others",
            "All vectors of a column need the same length",
        )
        rows = np.zeros((len(self.length), width), np.float32)
        rows[filled] = self.values.reshape(-1, width) if width else 0
        refuse_rows(
            np.asarray(~np.isfinite(rows).all(axis=1)),
            ids,
            f"Column {name!r} holds vectors with NaN, infinite or missing numbers",
            "Leave the cell empty where an item has no vector",
        )
        return rows


def refuse_rows(are_bad: Bool[np.ndarray, " row"], ids: Ids, problem: str, remedy: str) -> None:
    """Raises InputError that names up to five rows, by id or by their number from 1, where any is bad."""
    rows = np.flatnonzero(are_bad)
    if len(rows):
        shown = [f"row {row + 1}" if ids is None else f"item {ids[row]!r}" for row in rows.tolist()]
        raise InputError(f"{problem}: {first_of(shown)}. {remedy}.")


def first_of(texts: Sequence[str], separator: str = ", ") -> str:
    """The first texts, for a message.

    >>> first_of(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(texts) - NUM_NAMED:,} more" if len(texts) > NUM_NAMED else ""
    return separator.join(texts[:NUM_NAMED]) + more


def number_lists(column: pa.ChunkedArray) -> NumberLists | None:
    """The lists of a column of lists of numbers, or of texts that are all JSON lists of numbers; None for others."""
    kind = column.type
    if is_text(kind):
        return _json_lists(column)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not is_number(kind.value_type):
        return None
    plain = pa.large_list(pa.float32())
    array = pa.chunked_array([chunk.cast(plain, safe=False) for chunk in column.chunks], plain)
    length = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    values = pc.list_flatten(array).to_numpy().astype(np.float32)
    return NumberLists(values, length, pa.types.is_integer(kind.value_type))


def _json_lists(column: pa.ChunkedArray) -> NumberLists | None:
    cells: list[list[int | float | None]] = []
    for text in column.to_pylist():
        cell = _json_list(text) if text and text.strip() else []
        if cell is None:
            return None
        cells.append(cell)
    if not any(cells):
        return None
    values = np.array([value for cell in cells for value in cell], np.float64)
    are_integers = all(isinstance(value, int) for cell in cells for value in cell)
    with np.errstate(over="ignore"):
        return NumberLists(values.astype(np.float32), np.array(list(map(len, cells))), are_integers)


def _json_list(text: str) -> list[int | float | None] | None:
    if text.strip()[0] != "[":
        return None
    try:
        value = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    is_one = isinstance(value, list) and all(one is None or type(one) in (int, float) for one in value)
    return value if is_one else None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def numbers(column: pa.ChunkedArray) -> Float[np.ndarray, " row"] | None:
    """The numbers of a column, also where all its texts are numbers, NaN for none; None for another column."""
    if is_text(column.type):
        trimmed = pc.utf8_trim_whitespace(column)
        is_missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(["", *NULL_WORDS], column.type))
        try:
            column = pc.if_else(is_missing, None, trimmed).cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    elif not is_number(column.type) and not pa.types.is_boolean(column.type):
        return None
    found = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)
