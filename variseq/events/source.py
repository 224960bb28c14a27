"""Whatever holds a table (paths, data frames, Arrow, DuckDB) becomes files of one format or a stream of batches."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import pyarrow as pa

from variseq.errors import InputError

Format = Literal["delimited", "jsonl", "parquet"]

SUFFIXES: dict[str, Format] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".txt": "delimited",
    ".inter": "delimited",
    ".item": "delimited",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Files:
    """Existing files, all of one format, in reading order."""

    paths: tuple[Path, ...]
    format: Format


@dataclass(frozen=True)
class Frame:
    """A table in memory or behind a reader; `open` gives the named columns as a stream of Arrow batches, once."""

    names: list[str]
    open: Callable[[Sequence[str]], pa.RecordBatchReader]


def open_source(source: object) -> Files | Frame:
    """Files or a frame. Raises InputError for what is neither, for missing files and for unknown formats."""
    if isinstance(source, str | os.PathLike):
        return _files([os.fspath(source)])
    if isinstance(source, list | tuple) and source and all(isinstance(path, str | os.PathLike) for path in source):
        return _files([os.fspath(path) for path in source])
    if isinstance(source, list | tuple | dict | None):
        raise InputError(
            f"Events cannot be read from {_kind(source)}. Give a path, a list of paths, or a pandas, Polars or Arrow "
            "table or a DuckDB relation."
        )
    return _frame(source)


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, without .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _files(patterns: Sequence[str]) -> Files:
    paths = [path for pattern in patterns for path in _matching(pattern)]
    formats: dict[Format, Path] = {}
    for path in paths:
        suffix = suffix_of(path)
        if suffix not in SUFFIXES or (is_gzip(path) and SUFFIXES[suffix] == "parquet"):
            raise InputError(
                f"{path} has an unknown format ({path.suffix or 'no suffix'}). Known: {', '.join(SUFFIXES)}; "
                "text files also with .gz behind it."
            )
        formats.setdefault(SUFFIXES[suffix], path)
    if len(formats) > 1:
        raise InputError(
            f"The files are of different formats ({', '.join(str(path) for path in formats.values())}). "
            "Read one format at a time, or convert them to Parquet."
        )
    return Files(tuple(paths), next(iter(formats)))


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) in SUFFIXES)
        if not inside:
            raise InputError(f"The folder {path} has no data file. Looked for: {', '.join(SUFFIXES)} (also .gz).")
        return inside
    if path.exists():
        return [path]
    if glob.has_magic(pattern):
        matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
        if not matches:
            raise InputError(f"No file matches {pattern}.")
        return matches
    raise InputError(f"The file {path} does not exist.")


def _frame(source: object) -> Frame:
    frame = nw.from_native(source, pass_through=True)
    if isinstance(source, pa.RecordBatchReader):
        return Frame(list(source.schema.names), lambda names: _selected(source, names))
    if type(source).__module__.partition(".")[0] in ("duckdb", "_duckdb") and hasattr(source, "__arrow_c_stream__"):
        relation: Any = source  # it belongs to a connection of its own, so its rows come over as Arrow batches
        return Frame(list(relation.columns), lambda names: _selected(_stream(relation), names))
    if isinstance(frame, nw.LazyFrame):
        return Frame(
            frame.collect_schema().names(), lambda names: _stream(frame.select(*names).collect("pyarrow").to_native())
        )
    if isinstance(frame, nw.DataFrame):
        # A pandas index that is no plain range comes over as one more column.
        return Frame(
            _text_names(frame.columns), lambda names: _selected(_stream(frame.select(*names).to_native()), names)
        )
    if hasattr(source, "__arrow_c_stream__"):
        reader = _stream(source)
        return Frame(list(reader.schema.names), lambda names: _selected(reader, names))
    raise InputError(
        f"Events cannot be read from {_kind(source)}. Give a path, a list of paths, or a pandas, Polars or Arrow table "
        "or a DuckDB relation."
    )


def _stream(native: Any) -> pa.RecordBatchReader:
    try:
        if hasattr(native, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(native)
        return nw.from_native(native).to_arrow().to_reader()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"A column has mixed types, e.g. mixed id types ({'; '.join(str(part) for part in error.args)}). "
            "Make all ids text, or all ids integers, before reading."
        ) from error


def _selected(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    schema = pa.schema([reader.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(list(names)) for batch in reader))


def _text_names(names: Sequence[object]) -> list[str]:
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"Column names must be text, and are: {', '.join(str(name) for name in names)}.")
    return [str(name) for name in names]


def _kind(source: object) -> str:
    return "nothing" if source is None else f"an object of type {type(source).__name__}"
