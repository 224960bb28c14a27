"""Coordinates of items in degrees: columns of latitude and longitude, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from variseq.errors import InputError
from variseq.events.identifiers import NULL_WORDS
from variseq.events.table import Columns

LIMITS = {Columns.LATITUDE: 90.0, Columns.LONGITUDE: 180.0}
_NUM_NAMED = 5


def degrees_of(table: pa.Table, ids: Sequence[object]) -> Float[np.ndarray, "item two"] | None:
    """Latitude and longitude of each item in degrees, NaN where an item has none; None without such columns.

    Args:
        table: Columns of items, with the names of `Columns`.
        ids: The id of each item, for messages.

    Raises:
        InputError: One of the two columns is missing, or an item has one coordinate alone, no number, or a number
            out of range.

    >>> degrees_of(pa.table({"latitude": ["40.7", ""], "longitude": ["-74", ""]}), ["a", "b"])
    array([[ 40.7, -74. ],
           [  nan,   nan]])
    """
    there = [name for name in LIMITS if name in table.column_names]
    if not there:
        return None
    if len(there) == 1:
        (missing,) = LIMITS.keys() - set(there)
        raise InputError(
            f"The items have the column {there[0]} and no {missing}. Coordinates need both: name the other one with "
            f"item_columns={{{missing!r}: ...}}, or rename this one if it is no coordinate."
        )
    degrees, bad = np.full((len(table), 2), np.nan), np.zeros(len(table), dtype=bool)
    for column, (name, limit) in enumerate(LIMITS.items()):
        cells = pd.Series(table.column(name).to_pylist(), dtype=object)
        texts = cells.where(cells.notna(), "").astype(str).str.strip()
        is_missing = texts.str.lower().isin(["", *NULL_WORDS]).to_numpy(dtype=bool)
        degrees[:, column] = pd.to_numeric(texts.where(~is_missing), errors="coerce")
        bad |= ~is_missing & ~(np.abs(degrees[:, column]) <= limit)
    bad |= np.isnan(degrees).sum(axis=1) == 1
    if bad.any():
        rows = np.flatnonzero(bad)[:_NUM_NAMED]
        cells_of = zip(*(table.column(name).take(pa.array(rows)).to_pylist() for name in LIMITS), strict=True)
        shown = ", ".join(
            f"item {ids[row]!r} has {cells!r}" for row, cells in zip(rows.tolist(), cells_of, strict=True)
        )
        raise InputError(
            f"{int(bad.sum()):,} items have no latitude from -90 to 90 with a longitude from -180 to 180, in degrees: "
            f"{shown}. Correct these cells, or leave both of an item empty."
        )
    return degrees
