"""Values that only one library writes become plain ones: periods and objects of pandas, and NaN in JSON."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from variseq.errors import InputError


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
        values = frame[name].dropna() if pd.api.types.is_object_dtype(frame[name]) else ()
        if not len(values) or not isinstance(next(iter(values)), date):
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
