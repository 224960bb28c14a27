"""The head of a text file becomes its delimiter and column names, or one clear message why it cannot be read."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from variseq.errors import InputError
from variseq.events.source import is_gzip, suffix_of

NUM_HEAD_BYTES = 1 << 20
DELIMITERS = (",", "\t", ";", "|")
_TAB_SUFFIXES = (".tsv", ".tab", ".inter", ".item")


@dataclass(frozen=True)
class Header:
    delimiter: str
    names: list[str]


def read_header(path: Path, delimiter: str | None) -> Header:
    """Delimiter and names of a delimited file. Raises InputError when the head is no text table with a header line."""
    head = _head(path)
    line, found, _ = head.partition("\n")
    if not found and len(head) >= NUM_HEAD_BYTES // 2:
        raise InputError(
            f"{path}: the first line has more than {len(head):,} characters, so it is no header line. "
            "Is this a table with one event a line?"
        )
    line = line.removeprefix("\ufeff").rstrip("\r")
    if not line.strip():
        raise InputError(f"{path}: the first line is empty. It must hold the column names.")
    if delimiter is None:
        delimiter = "\t" if suffix_of(path) in _TAB_SUFFIXES else _likely_delimiter(line)
    names = _fields(line, delimiter)
    if len(names) == 1:
        raise InputError(_one_column_message(path, line, delimiter))
    return Header(delimiter, names)


def read_keys(path: Path) -> list[str]:
    """The keys of the objects in the head of a JSON lines file, in order of appearance."""
    head = _head(path)
    if head.lstrip().startswith("["):
        raise InputError(f"{path} is one JSON array. One JSON object a line is needed (JSON lines).")
    keys: dict[str, None] = {}
    for line in head.splitlines()[:1000]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a damaged line is rejected later, with its number; here only names are gathered
        if isinstance(entry, dict):
            keys.update(dict.fromkeys(entry))
    if not keys:
        raise InputError(f"{path} has no JSON object in its first lines. One JSON object a line is needed.")
    return list(keys)


def _head(path: Path) -> str:
    try:
        with gzip.open(path, "rb") if is_gzip(path) else path.open("rb") as file:
            head = file.read(NUM_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not head:
        raise InputError(f"{path} is empty. A header line with column names and one event a line are needed.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in head or head.startswith((b"\x1f\x8b", b"PAR1", b"PK\x03\x04")):
        raise InputError(f"{path} is a binary file{_hint(head)}, not text.")
    line = head.split(b"\n", 1)[0]
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < NUM_HEAD_BYTES - 4:  # not merely a letter that the end of the head cut in two
            raise InputError(
                f"{path}: the first line is not UTF-8 text ({error.reason}). Save the file as UTF-8."
            ) from error
    return head.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _hint(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return " (gzip: name it .gz)"
    return " (Parquet: name it .parquet)" if head.startswith(b"PAR1") else ""


def _likely_delimiter(line: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: len(_fields(line, delimiter)))


def _fields(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return [line]


def _one_column_message(path: Path, line: str, delimiter: str) -> str:
    message = f"{path} has only one column, {line[:80]!r}, when fields are separated by {delimiter!r}."
    better = _likely_delimiter(line)
    if better in line:
        return f"{message} It seems to use {better!r}: set delimiter={better!r} (--delimiter)."
    other = re.findall(r"[^\w\s\"'.\-]| {1,4}", line)
    if other:
        return f"{message} It may use {other[0]!r}: set delimiter={other[0]!r} (--delimiter)."
    return f"{message} Columns for user, item and time are needed."
