"""Values that only one library writes become plain ones: periods of pandas, and NaN in JSON."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa


def is_period(kind: pa.DataType) -> bool:
    """Whether a type of Arrow is the one that pandas makes of periods."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "pandas.period"


def start_of_periods(array: pa.ExtensionArray) -> pa.Array:
    """The first moment of each period, as a timestamp without a zone."""
    periods = pd.PeriodIndex(array.to_pandas(), freq=array.type.freq)
    return pa.array(periods.to_timestamp(how="start"), pa.timestamp("us"), from_pandas=True)


def with_text_for_nan(line: str) -> str:
    """SQL of a line of JSON in which NaN and Infinity, which Python writes but JSON lacks, are in quotes."""
    pattern = r'([^\\]"\s*:\s*)(NaN|-?Infinity)(\s*[,}])'
    return (
        f"CASE WHEN (contains({line}, 'NaN') OR contains({line}, 'Infinity')) AND NOT json_valid({line}) "
        f"THEN regexp_replace({line}, '{pattern}', '\\1\"\\2\"\\3', 'g') ELSE {line} END"
    )
