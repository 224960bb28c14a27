"""Tables of recommendations into one Parquet or CSV file, as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from variseq.atomic import atomic_write
from variseq.errors import InputError


def write_tables(
    tables: Iterator[pa.Table],
    path: Path,
    what: str = "Recommendations",
    endings: Sequence[str] = (".parquet", ".csv"),
) -> int:
    """Writes to a temporary name and renames; the number of rows. In CSV the reasons are joined with "; ".

    Raises InputError for another ending than `endings`, and when the file cannot be written.
    """
    if path.suffix not in endings:
        raise InputError(
            f"{what} cannot be written to {path.name!r}. Allowed: a name ending in {' or '.join(endings)}."
        )
    is_csv = path.suffix == ".csv"
    tables = map(_flat, tables) if is_csv else tables
    kind = pa_csv.CSVWriter if is_csv else pq.ParquetWriter
    num_rows = 0
    try:
        first = next(tables, None)
        if first is None:
            return 0
        with atomic_write(path) as unfinished, kind(str(unfinished), first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
                num_rows += table.num_rows
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    return num_rows


def _flat(table: pa.Table) -> pa.Table:
    if "because" not in table.column_names:
        return table
    place = table.schema.get_field_index("because")
    return table.set_column(place, "because", pc.binary_join(table.column("because"), "; "))
