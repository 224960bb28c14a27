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
    notes: tuple[str, ...] = ()
    is_small: bool = False


_REFUSALS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError)
_MAX_SMALL_ROWS = 50_000
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


def open_frame(source: object) -> Frame:
    if isinstance(source, pa.RecordBatchReader):
        return Frame(list(source.schema.names), lambda names: _selected(source, names))
    if type(source).__module__.partition(".")[0] in ("duckdb", "_duckdb") and hasattr(source, "__arrow_c_stream__"):
        relation: Any = source  # it belongs to a connection of its own, so its rows come over as Arrow batches
        return Frame(list(relation.columns), lambda names: _selected(stream(relation), names))
    if type(source).__module__.partition(".")[0] == "pandas":
        _refuse_doubled_names(getattr(source, "columns", ()))
        source = _with_named_index(source)
    if isinstance(source, pa.Table | pa.RecordBatch):
        _refuse_doubled_names(source.schema.names)
    frame = nw.from_native(source, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        return Frame(frame.collect_schema().names(), lambda names: stream(frame.select(*names).collect().to_native()))
    if isinstance(frame, nw.DataFrame):
        # A pandas index that is no plain range comes over as one more column.
        return Frame(
            _text_names(frame.columns),
            lambda names: _selected(stream(frame.select(*names).to_native()), names),
            is_small=len(frame) <= _MAX_SMALL_ROWS,
        )
    if hasattr(source, "__arrow_c_stream__"):
        reader = stream(source)
        return Frame(list(reader.schema.names), lambda names: _selected(reader, names))
    raise InputError(
        f"Events cannot be read from {kind_of(source)}. Give a path, a list of paths, or a pandas, Polars or Arrow "
        "table or a DuckDB relation."
    )


def _with_named_index(frame: Any) -> Any:
    """A pandas frame whose named index, as grouping leaves it, is made of columns."""
    names = [name for name in frame.index.names if name is not None] if hasattr(frame, "index") else []
    return frame.reset_index() if names and not set(names) & set(frame.columns) else frame


def _refuse_doubled_names(names: Iterable[object]) -> None:
    listed = list(names)
    if doubled := sorted({str(name) for name in listed if listed.count(name) > 1}):
        raise InputError(f"Column names appear twice: {', '.join(doubled)}. Give every column a name of its own.")


def _selected(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    schema = pa.schema([reader.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(list(names)) for batch in reader))


def _text_names(names: Sequence[object]) -> list[str]:
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"Column names must be text, and are: {', '.join(str(name) for name in names)}.")
    return [str(name) for name in names]


def kind_of(source: object) -> str:
    return "nothing" if source is None else f"an object of type {type(source).__name__}"


def is_period(kind: pa.DataType) -> bool:
    """Whether a type of Arrow is the one that pandas makes of periods."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "pandas.period"


def start_of_periods(array: pa.ExtensionArray) -> pa.Array:
    """The first moment of each period, as a timestamp without a zone."""
    periods = pd.PeriodIndex(array.to_pandas(), freq=array.type.freq)
    return pa.array(periods.to_timestamp(how="start"), pa.timestamp("us"), from_pandas=True)


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


def with_text_for_nan(line: str) -> str:
    """SQL of a line of JSON in which NaN and Infinity, which Python writes but JSON lacks, are in quotes."""
    pattern = r'([^\\]"\s*:\s*)(NaN|-?Infinity)(\s*[,}])'
    return (
        f"CASE WHEN (contains({line}, 'NaN') OR contains({line}, 'Infinity')) AND NOT json_valid({line}) "
        f"THEN regexp_replace({line}, '{pattern}', '\\1\"\\2\"\\3', 'g') ELSE {line} END"
    )
