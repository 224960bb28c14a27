"""A data frame becomes Arrow; a column that Arrow refuses, such as one of mixed types, becomes one of text by cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.foreign_values import with_typed_times

_REFUSALS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError)
_CELL_TYPES = b"cell types"  # in the metadata of a field: the types that were found in its cells


def stream(native: Any) -> pa.RecordBatchReader:
    """The batches of what has an Arrow stream, or of a frame that narwhals knows. Raises InputError."""
    native = with_typed_times(native)
    try:
        return _stream(native)
    except _REFUSALS as error:
        frame = nw.from_native(native, pass_through=True)
        if isinstance(frame, nw.DataFrame):
            return _by_column(frame)
        raise InputError(
            f"The table has a column of a type that Arrow cannot give ({'; '.join(map(str, error.args))}). "
            "Allowed: integers, decimal numbers, text and times. Convert that column."
        ) from error


def check_required(field: pa.Field, column: str, allowed: str) -> None:
    """Raises InputError for a column that became text by cell, which only an optional one may."""
    if types := cell_types(field):
        raise InputError(
            f"Column {field.name!r} ({column}) has cells of {'mixed types' if len(types) > 1 else 'the type'}: "
            f"{', '.join(types)}. Allowed: {allowed}. Convert the column before reading."
        )


def cell_types(field: pa.Field) -> list[str]:
    """The types of the cells of a column that became text by cell; empty for any other column."""
    return (field.metadata or {}).get(_CELL_TYPES, b"").decode().split()


def _stream(native: Any) -> pa.RecordBatchReader:
    if hasattr(native, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(native)
    return nw.from_native(native).to_arrow().to_reader()


def _by_column(frame: nw.DataFrame[Any]) -> pa.RecordBatchReader:
    fields, columns = [], []
    for name in frame.columns:
        try:
            column = _stream(frame.select(name).to_native()).read_all().column(name)
            field = pa.field(name, column.type)
        except _REFUSALS:
            field, column = _by_cell(name, frame.get_column(name).to_list())
        fields.append(field)
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields)).to_reader()


def _by_cell(name: str, cells: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    filled = [None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell for cell in cells]
    try:
        array = pa.array(filled)
        return pa.field(name, array.type), array
    except _REFUSALS:
        types = sorted({type(cell).__name__ for cell in filled if cell is not None})
        texts = pa.array([None if cell is None else _text(cell) for cell in filled], pa.string())
        return pa.field(name, pa.string(), metadata={_CELL_TYPES: " ".join(types).encode()}), texts


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
