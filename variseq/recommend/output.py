"""Tables of recommendations into one Parquet or CSV file, as they come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from variseq.errors import InputError


def write_tables(tables: Iterator[pa.Table], path: Path) -> int:
    """Writes to a temporary name and renames; the number of rows. In CSV the reasons are joined with "; ".

    Raises InputError for another ending than .parquet or .csv, and when the file cannot be written.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(
            f"Recommendations cannot be written to {path.name!r}. Allowed: a name ending in .parquet or .csv."
        )
    partial = path.with_name(f".{path.name}.partial")
    writer = None
    num_rows = 0
    try:
        for table in tables:
            if path.suffix == ".csv" and "because" in table.column_names:
                table = _flat(table)
            if writer is None:
                kind = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
                writer = kind(str(partial), table.schema)
            writer.write_table(table)
            num_rows += table.num_rows
        if writer is not None:
            writer.close()
            os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    finally:
        partial.unlink(missing_ok=True)
    return num_rows


def _flat(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("because")
    return table.set_column(place, "because", pc.binary_join(table.column("because"), "; "))
