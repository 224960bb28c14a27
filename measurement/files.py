"""The files of published data sets: which are needed, and their lines and tables."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from variseq.errors import InputError


def find_files(data: Path, *patterns: str) -> list[Path]:
    """One file for each name or pattern, in the folder `data` or that of the file `data`. Raises InputError."""
    is_one_of_them = data.is_file() and any(fnmatch(data.name, pattern) for pattern in patterns)
    folder = data.parent if is_one_of_them else data
    needed = f"Give the folder that holds {', '.join(patterns)}."
    if not folder.is_dir():
        raise InputError(f"DATA {data} is not a folder of this data set. {needed}")
    found = [[file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in patterns]
    for pattern, files in zip(patterns, found, strict=True):
        if len(files) != 1:
            raise InputError(f"One file {pattern} is needed, and {folder} has {len(files)}. {needed}")
        if not files[0].stat().st_size:
            raise InputError(f"{files[0]} is empty. {needed}")
    return [files[0] for files in found]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1. Raises InputError where it is not UTF-8."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}). Is it the file of this data set?") from error


def read_csv(
    path: Path, columns: dict[str, pa.DataType], header: bool, delimiter: str = ",", may_skip: bool = False
) -> tuple[pa.Table, int]:
    """Columns of a delimited file, and how many rows with another number of fields were left out, if allowed."""
    broken: list[Any] = []

    def leave_out(row: Any) -> str:
        broken.append(row)
        return "skip" if may_skip else "error"

    try:
        # One thread: the order of rows decides between equal times. latin-1: a foreign byte makes a wrong row.
        names = None if header else list(columns)
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, encoding="latin-1"),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=leave_out),
            convert_options=pa.csv.ConvertOptions(column_types=columns, include_columns=list(columns)),
        )
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{path} is not a table with the columns {', '.join(columns)} ({error}).") from error
    return table, len(broken)
