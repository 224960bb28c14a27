"""Paths, globs, folders, archives, standard input and table formats as data files of one format."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import lzma
import os
import re
import shutil
import stat
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote

import pyarrow as pa

from variseq.errors import InputError
from variseq.events.frames import Frame, open_frame
from variseq.events.session import Session, name_in_sql

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab", ".inter", ".item"), "tsv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
STANDARD_INPUT = "-"
NUM_HEAD_BYTES = 1 << 20
_MAX_SMALL_BYTES = 1 << 21
_UNPACKED = (".zip", ".bz2", ".xz")
_IN_MEMORY = "Read it with pandas, Polars or DuckDB, and give that table to variseq.read, or save it as Parquet."
_OTHER_FORMATS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), f"a spreadsheet. {_IN_MEMORY}"),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".orc", ".avro", ".h5", ".hdf5", ".sav", ".dta"), _IN_MEMORY),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), f"a database. {_IN_MEMORY}"),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".mat", ".rds"), f"not read, for safety. {_IN_MEMORY}"),
    **dict.fromkeys((".zst", ".7z", ".rar", ".tar", ".tgz", ".lz4", ".snappy"), "packed. Unpack it first."),
    **dict.fromkeys((".html", ".xml", ".pdf", ".doc", ".docx", ".png", ".jpg"), "no table. Save the data as CSV."),
}
_PARTITION = re.compile(r"([^=/\\]+)=([^/\\]*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One file. `name` is what messages call it; `partition` holds the folders `key=value` above it."""

    path: Path
    name: str
    partition: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """Existing files, all of one format, in reading order."""

    files: tuple[DataFile, ...]
    format: Format

    @property
    def is_small(self) -> bool:
        """Whether the files are few megabytes."""
        return sum(file.path.stat().st_size for file in self.files) <= _MAX_SMALL_BYTES


def open_source(session: Session, source: object, chosen: Format | None = None) -> Files | Frame:
    """Files or a frame.

    Args:
        session: Its folder holds what has to be unpacked or copied; it keeps the database of a small source in memory.
        source: A path, a glob, a folder, "-" (standard input), a list of paths, a data frame, Arrow or DuckDB.
        chosen: The format of the files; None takes it from the suffix, or from the content where that is unknown.

    Raises:
        InputError: For what is neither, for missing files, for addresses, and for formats that are not read.
    """
    given = source if isinstance(source, list | tuple) else [source]
    paths = [os.fspath(path) for path in given if isinstance(path, str | os.PathLike)]
    are_paths = len(paths) == len(given) > 0
    opened = _open_paths(session, paths, chosen) if are_paths else open_frame(source)
    session.is_small = opened.is_small
    return opened


def open_bytes(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """The bytes of a text file, unzipped where its name ends in .gz."""
    return gzip.open(path, "rb") if is_gzip(path) else path.open("rb")


def read_head(file: DataFile) -> bytes:
    """The first bytes of a text file. Raises InputError when it cannot be read, also when it is cut off."""
    try:
        with open_bytes(file.path) as opened:
            return opened.read(NUM_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file.name} cannot be read: {error}.") from error


def suffix_of(path: Path) -> str:
    """The suffix that shows the format, without .gz.

    >>> suffix_of(Path("log.CSV.gz"))
    '.csv'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_gzip(path: Path) -> bool:
    """Whether the file is gzipped, by its name."""
    return path.suffix.lower() == ".gz"


def _open_paths(session: Session, patterns: Sequence[str], chosen: Format | None) -> Files | Frame:
    for pattern in patterns:
        _refuse_address(pattern)
    if len(patterns) == 1 and (Path(patterns[0]) / "_delta_log").is_dir():
        return _delta_table(session, Path(patterns[0]))
    files = _in_order_given(patterns) if len(patterns) > 1 else _matching(patterns[0], chosen, session.notes)
    for parent in {file.path.parent for file in files}:
        _refuse_table_format(parent)
    files = [_as_plain_file(file, session.folder / f"input-{number}") for number, file in enumerate(files)]
    files = _without_empty(files, session.notes)
    formats: dict[Format, DataFile] = {}
    for file in files:
        formats.setdefault(chosen or _format_of(file, session.notes), file)
    if {"csv", "tsv"} >= set(formats) and len(formats) > 1:
        formats = {"csv": formats["csv"]}  # the delimiter is found for each file
    if len(formats) > 1:
        raise InputError(
            f"The files are of different formats ({', '.join(file.name for file in formats.values())}). "
            "Read one format at a time, or convert them to Parquet."
        )
    return Files(tuple(files), next(iter(formats)))


def _refuse_address(path: str) -> None:
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", path):
        way = (
            f"Download the file first (curl -LO {path}), and give its path."
            if found[1].lower() in ("http", "https", "ftp")
            else "Copy the files to a disk first, or let DuckDB read them in Python and give its relation: "
            f"variseq.read(duckdb.sql(\"FROM '{path}'\"))."
        )
        raise InputError(f"{path} is an address, and addresses are not read. {way}")


def _matching(pattern: str, chosen: Format | None, notes: list[str]) -> list[DataFile]:
    if not pattern:
        raise InputError("The path of the log is empty. Give a file, a folder or a glob.")
    path = Path(pattern)
    if pattern == STANDARD_INPUT:
        return [DataFile(Path(STANDARD_INPUT), "standard input")]
    if path.is_dir():
        return _inside(path, chosen, notes)
    if path.exists():
        if key := next((part for part in path.absolute().parts[:-1] if _PARTITION.fullmatch(part)), None):
            notes.append(f"the folder {key} is not read as a column, for a single file was given")
        return [DataFile(path, pattern)]
    if glob.has_magic(pattern):
        matches = [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]
        if not matches:
            hint = " It matches folders: give one folder." if glob.glob(pattern, recursive=True) else ""
            raise InputError(f"No file matches {pattern}.{hint}")
        fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        return _with_partitions(matches, Path(fixed) if fixed.endswith(("/", "\\")) else Path(fixed).parent)
    raise InputError(f"The file {path} does not exist.")


def _in_order_given(patterns: Sequence[str]) -> list[DataFile]:
    """Several paths in the order given; folders named key=value below their common parent are columns."""
    found = [file for pattern in patterns for file in _matching(pattern, None, [])]
    paths = [file.path for file in found]
    if len(set(paths)) < len(paths):
        raise InputError(f"{Counter(paths).most_common(1)[0][0]} is given twice. Give each file once.")
    if STANDARD_INPUT in patterns:
        raise InputError("Standard input (-) is read alone. Give files, or - and nothing else.")
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [DataFile(file.path, file.name, file.partition or _partition(file.path.absolute(), root)) for file in found]


def _inside(folder: Path, chosen: Format | None, notes: list[str]) -> list[DataFile]:
    """The data files of a folder: its own, or else those of subfolders. Names that begin with . or _ are not data."""
    if (folder / "_delta_log").is_dir():
        raise InputError(f"{folder} is a Delta table. Give it alone.")
    shown = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "_"))]
    own = [entry for entry in shown if entry.is_file()]
    folders = [entry for entry in shown if entry.is_dir()]
    is_partitioned = any(_PARTITION.fullmatch(entry.name) for entry in folders)
    deeper: list[Path] = []
    if is_partitioned or not any(chosen or _may_be_data(path) for path in own):
        deeper = _files_below(folder)
    candidates = deeper or own
    data = [path for path in candidates if chosen or _may_be_data(path)]
    if not data:
        raise InputError(f"The folder {folder} has no data file. Looked for: {', '.join(SUFFIXES)} (also .gz).")
    left_out = sorted({path.name for path in candidates} - {path.name for path in data})
    if left_out:
        notes.append(f"{len(left_out)} files of the folder are no data and are not read: {', '.join(left_out[:3])}")
    if not deeper and folders:
        names = ", ".join(sorted(entry.name for entry in folders)[:3])
        notes.append(f"subfolders are not read with the files of the folder: {names}")
    return _with_partitions(data, folder)


def _files_below(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders, also behind links; names that begin with . or _ are left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for above, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(above)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith((".", "_"))]
        if real not in seen:
            found += [Path(above) / name for name in names if not name.startswith((".", "_"))]
        seen.add(real)
    return [path for path in found if path.is_file()]


def _may_be_data(path: Path) -> bool:
    """Whether a file of a folder is data: by its suffix, also packed, or as text without one (part-00000)."""
    inner = path.with_suffix("") if path.suffix.lower() in (".bz2", ".xz") else path
    allowed = (*SUFFIXES, "", ".txt", ".dat", ".data", ".json", ".zip")
    return suffix_of(inner) in allowed


def _with_partitions(paths: Sequence[Path], root: Path) -> list[DataFile]:
    return [DataFile(path, str(path), _partition(path, root)) for path in sorted(paths, key=_natural)]


def _natural(path: Path) -> list[Any]:
    """Numbers by their size: part-2 comes before part-10."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", str(path)))]


def _partition(path: Path, root: Path) -> dict[str, str | None]:
    """The columns that the folders between `root` and a file name.

    >>> _partition(Path("lake/event=buy/day=1/part-0.csv"), Path("lake"))
    {'event': 'buy', 'day': '1'}
    """
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    pairs = [match for part in parts if (match := _PARTITION.fullmatch(part))]
    return {unquote(pair[1]): None if pair[2] == _NO_VALUE else unquote(pair[2]) for pair in pairs}


def _refuse_table_format(folder: Path) -> None:
    """Files of a table that is kept with a log must be read by that log, or what was deleted comes back."""
    replaced = "Its files hold rows that were replaced or deleted."
    for above in [folder.absolute(), *folder.absolute().parents][:6]:
        if (above / "_delta_log").is_dir():
            raise InputError(
                f"{folder} belongs to the Delta table {above}. Some of its files may be deleted rows. "
                f"Give the folder of the table alone: {above}."
            )
        if (above / ".hoodie").is_dir():
            way = f"Write its present rows to Parquet with Spark: spark.read.format('hudi').load('{above}')."
            raise InputError(f"{folder} belongs to a Hudi table. {replaced} {way}")
        if any((above / "metadata").glob("*.metadata.json")):
            way = "Give its present rows: variseq.read(pyiceberg_table.scan().to_arrow())."
            raise InputError(f"{folder} belongs to an Iceberg table. {replaced} {way}")


def _delta_table(session: Session, folder: Path) -> Frame:
    """The present rows of a Delta table, by its log."""
    try:
        from deltalake import DeltaTable, QueryBuilder
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise InputError(
            f"{folder} is a Delta table. Reading it by its log needs one more library: pip install 'variseq[lake]'. "
            "Its files must not be read without the log, or deleted rows come back."
        ) from error
    try:
        table = DeltaTable(str(folder))
        query = QueryBuilder().register("delta_table", table)
        names = [entry.name for entry in table.schema().fields]
    except (DeltaError, OSError, ValueError) as error:
        raise InputError(_delta_fault(folder, error)) from error

    def rows(wanted: Sequence[str]) -> pa.RecordBatchReader:
        listed = ", ".join(map(name_in_sql, wanted))
        try:
            return pa.RecordBatchReader.from_stream(query.execute(f"SELECT {listed} FROM delta_table"))
        except (DeltaError, OSError, ValueError) as error:
            raise InputError(_delta_fault(folder, error)) from error

    session.notes.append(f"{folder} is a Delta table: version {table.version()} is read, by its log")
    return Frame(names, rows)


def _delta_fault(folder: Path, error: Exception) -> str:
    return (
        f"The Delta table {folder} cannot be read by its log: {str(error).splitlines()[0].rstrip('.')}. "
        "Write its present rows to Parquet with the engine that keeps the table, and give that file."
    )


def _as_plain_file(file: DataFile, copy: Path) -> DataFile:
    """The file itself; of standard input, a pipe or a packed file a copy."""
    if file.path == Path(STANDARD_INPUT):
        copied = _copied(sys.stdin.buffer, copy)
    elif not stat.S_ISREG(file.path.stat().st_mode):
        copied = _copied(file.path.open("rb"), copy)
    else:
        return _unpacked(file, copy) if file.path.suffix.lower() in _UNPACKED else file
    with copied.open("rb") as begun:
        is_packed = begun.read(2) == b"\x1f\x8b"
    return replace(file, path=copied.rename(copied.with_suffix(".gz")) if is_packed else copied)


def _copied(source: IO[bytes], copy: Path) -> Path:
    with source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return copy


def _unpacked(file: DataFile, copy: Path) -> DataFile:
    try:
        if file.path.suffix.lower() == ".zip":
            with zipfile.ZipFile(file.path) as packed:
                inside = Path(name := _only_data_file(file, packed))
                copy = copy.with_suffix(suffix_of(inside) + (".gz" if is_gzip(inside) else ""))
                return replace(file, path=_copied(packed.open(name), copy), name=f"{file.name}/{name}")
        unpack = bz2.open if file.path.suffix.lower() == ".bz2" else lzma.open
        return replace(file, path=_copied(unpack(file.path), copy.with_suffix(file.path.with_suffix("").suffix)))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{file.name} cannot be unpacked: {error}. Unpack it first, and give the file.") from error


def _only_data_file(file: DataFile, packed: zipfile.ZipFile) -> str:
    names = [name for name in packed.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    data = [name for name in names if _may_be_data(Path(name))]
    if len(data) == 1:
        return data[0]
    shown = ", ".join(data[:5]) or "none"
    raise InputError(
        f"{file.name} has {len(data)} data files ({shown}), and one is needed. Unpack it, and give the file."
    )


def _without_empty(files: list[DataFile], notes: list[str]) -> list[DataFile]:
    """Empty parts of several files (blanks, also gzipped) are left out, with a note."""
    sizes = [file.path.stat().st_size for file in files]
    filled = [file for file, size in zip(files, sizes, strict=True) if size and (size >= 100 or _start_of(file))]
    if not filled or len(filled) == len(files):
        return files
    names = ", ".join([Path(file.name).name for file in files if file not in filled][:3])
    notes.append(f"{len(files) - len(filled)} of {len(files)} files are empty: {names}")
    return filled


def _start_of(file: DataFile) -> bytes:
    """The head of a file from its first letter on."""
    return read_head(file).lstrip(b"\xef\xbb\xbf \t\r\n")


def _format_of(file: DataFile, notes: list[str]) -> Format:
    """By the suffix; where it is unknown, by the content."""
    suffix = suffix_of(file.path)
    if suffix in SUFFIXES:
        if is_gzip(file.path) and SUFFIXES[suffix] == "parquet":
            raise InputError(f"{file.name} has an unknown format: Parquet within gzip. Unzip it first.")
        return SUFFIXES[suffix]
    if suffix in _OTHER_FORMATS:
        raise InputError(
            f"{file.name} has an unknown format ({suffix}): {_OTHER_FORMATS[suffix]} Known: {', '.join(SUFFIXES)}."
        )
    head = _start_of(file)
    found: Format = "csv"
    if head.startswith(b"PAR1"):
        found = "parquet"
    elif head.startswith((b"{", b"[")) and _is_json(head):
        found = "jsonl"
    if suffix != ".txt" or found != "csv":
        notes.append(f"{file.name} is read as {found}, by its content; --format (format=) sets it")
    return found


def _is_json(head: bytes) -> bool:
    """Whether the first line is JSON, or begins as an array of objects does."""
    try:
        json.loads(head.split(b"\n", 1)[0])
    except ValueError:
        return b'"' in head[:200]
    return True
