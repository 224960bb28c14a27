"""Data frames, Arrow tables and DuckDB relations as streams of Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa

from variseq.errors import InputError


@dataclass(frozen=True)
class Frame:
    """A table in memory or behind a reader; `open` gives the named columns as a stream of Arrow batches, once."""

    names: list[str]
    open: Callable[[Sequence[str]], pa.RecordBatchReader]
    is_small: bool = False


_REFUSALS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError)
_MAX_SMALL_ROWS = 50_000
_MAX_DECIMAL_DIGITS = 38  # of the database
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
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)


def open_frame(source: object) -> Frame:
    """A table of pandas, Polars, Arrow or DuckDB, or what has an Arrow stream. Raises InputError for anything else."""
    library = type(source).__module__.partition(".")[0]
    if library == "pandas":
        _refuse_doubled_names(getattr(source, "columns", ()))
        if isinstance(source, pd.DataFrame):  # a named index, as grouping leaves it, is columns
            names = [name for name in source.index.names if name is not None]
            source = source.reset_index() if names and not set(names) & set(source.columns) else source
    if isinstance(source, pa.Table | pa.RecordBatch):
        _refuse_doubled_names(source.schema.names)
    # A relation belongs to a connection of its own, so its rows come over as Arrow batches.
    frame = source if library in ("duckdb", "_duckdb") else nw.from_native(source, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        return Frame(frame.collect_schema().names(), lambda names: stream(frame.select(*names).collect().to_native()))
    if isinstance(frame, nw.DataFrame):
        if not all(isinstance(name, str) for name in frame.columns):
            raise InputError(f"Column names must be text, and are: {', '.join(map(str, frame.columns))}.")
        # A pandas index that is no plain range comes over as one more column.
        return Frame(
            frame.columns,
            lambda names: _selected(stream(frame.select(*names).to_native()), names),
            is_small=len(frame) <= _MAX_SMALL_ROWS,
        )
    if hasattr(source, "__arrow_c_stream__"):
        reader = stream(source)
        return Frame(list(reader.schema.names), lambda names: _selected(reader, names))
    raise InputError(
        f"Events cannot be read from {'nothing' if source is None else f'an object of type {type(source).__name__}'}. "
        "Give a path, a list of paths, or a pandas, Polars or Arrow table or a DuckDB relation."
    )


def _refuse_doubled_names(names: Iterable[object]) -> None:
    listed = list(names)
    if doubled := sorted({str(name) for name in listed if listed.count(name) > 1}):
        raise InputError(f"Column names appear twice: {', '.join(doubled)}. Give every column a name of its own.")


def _selected(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    schema = pa.schema([reader.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(list(names)) for batch in reader))


def plain_array(array: pa.Array) -> pa.Array:
    """An array in a type that the database has; of a period of pandas the first moment."""
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "pandas.period":
        periods = pd.PeriodIndex(array.to_pandas(), freq=kind.freq)
        return pa.array(periods.to_timestamp(how="start"), pa.timestamp("us"), from_pandas=True)
    if isinstance(kind, pa.ExtensionType):
        return plain_array(array.storage)
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal256(kind):
        is_narrow = kind.precision <= _MAX_DECIMAL_DIGITS
        return array.cast(pa.decimal128(kind.precision, kind.scale) if is_narrow else pa.string())
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return array.cast(pa.timestamp("us", kind.tz), safe=False)  # the database would round
    return array


def with_typed_times(frame: Any) -> Any:
    """A frame whose pandas columns of objects hold dates and datetimes side by side, with timestamps for these.

    Raises InputError for datetimes of which only some have a zone.
    """
    if not isinstance(frame, pd.DataFrame):
        return frame
    typed = {}
    for name in frame.columns:
        if not pd.api.types.is_object_dtype(frame[name]):
            continue
        values = frame[name].dropna()
        if values.empty or not isinstance(values.iloc[0], date):
            continue
        kinds = set(map(type, values))
        if len(kinds) > 1 and date in kinds and kinds <= {date, datetime, pd.Timestamp}:
            try:
                typed[name] = pd.to_datetime(frame[name])
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"Column {name!r} holds dates and datetimes that are no timestamps of one kind: {error}. "
                    "Convert them before: pandas.to_datetime(column, utc=True)."
                ) from error
    return frame.assign(**typed) if typed else frame
