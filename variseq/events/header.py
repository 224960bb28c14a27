"""The delimiter and the column names of a text file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.sources import NUM_HEAD_BYTES, SUFFIXES, DataFile, read_head, suffix_of

DELIMITERS = (",", "\t", ";", "|", "::", "\x01")
_BINARY = {
    b"\x1f\x8b": " (gzip: name it .gz)",
    b"PK\x03\x04": " (zip: name it .zip)",
    b"PAR1": " (Parquet: name it .parquet)",
}
NUMBER_OR_TIME = re.compile(r"[\s\"']*[+-]?\d[\d:.,+\-/ TZ]*[\s\"']*")


@dataclass(frozen=True)
class Header:
    """The first line of a text file: names of its fields, and whether it holds them or is data."""

    delimiter: str
    names: list[str]
    is_data: bool = False
    has_empty_end: bool = False  # most rows end in one delimiter more
    digit_columns: frozenset[int] = frozenset()  # fields that hold numbers or times in all rows of the head

    @property
    def num_fields(self) -> int:
        return len(self.names)


def read_header(file: DataFile, options: ReadOptions, names_by_index: Sequence[str] = ()) -> Header:
    """Delimiter and names of a text file.

    Args:
        file: The file.
        options: `delimiter` and `format` are looked at.
        names_by_index: Names for a file whose first line is data; further fields are named by their number.

    Raises:
        InputError: When the head is no text, or has no fields.
    """
    head = decoded_head(file)
    line = _first_line(head, file)
    delimiter = options.delimiter
    if delimiter is None:
        is_tab = (options.format or SUFFIXES.get(suffix_of(file.path))) == "tsv"
        delimiter = "\t" if is_tab else _likely_delimiter(line)
    names = _first_record(head, delimiter, options)
    if len(names) == 1:
        raise InputError(_one_column_message(file, line, delimiter))
    lines = head.split("\n")
    following = lines[1:1001] if len(lines) > 1001 else lines[1:-1] or lines[1:2]
    rows = [_fields(line, delimiter) for line in following if line]
    whole = [row for row in rows if len(row) == len(names)]
    digit_columns = frozenset(
        index for index in range(len(names)) if whole and all(NUMBER_OR_TIME.fullmatch(row[index]) for row in whole)
    )
    if not names_by_index:
        has_empty_end = _ends_empty(file, rows, len(names))
        named = [name.strip() or f"unnamed {index}" for index, name in enumerate(names, 1)]
        return Header(delimiter, named, False, has_empty_end, digit_columns)
    if len(names_by_index) > len(names):
        raise InputError(
            f"{file.name} has {len(names)} fields in its first line, and {len(names_by_index)} are named by index. "
            "Name at most as many."
        )
    by_index = [name or str(index) for index, name in enumerate(names_by_index, 1)]
    by_index += [str(index) for index in range(len(names_by_index) + 1, len(names) + 1)]
    return Header(delimiter, by_index, is_data=True, digit_columns=digit_columns)


def decoded_head(file: DataFile) -> str:
    """The decoded head of a text file, with \\n as line end. Raises InputError when it is no UTF-8 text."""
    head = read_head(file)
    if not head:
        raise InputError(f"{file.name} is empty. A header line with column names and one event a line are needed.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{file.name} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in head or head.startswith(tuple(_BINARY)):
        hint = next((hint for start, hint in _BINARY.items() if head.startswith(start)), "")
        raise InputError(f"{file.name} is a binary file{hint}, not text.")
    line = head.split(b"\n", 1)[0]
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < NUM_HEAD_BYTES - 4:  # not merely a letter that the end of the head cut in two
            raise InputError(
                f"{file.name}: the first line is not UTF-8 text ({error.reason}). Save the file as UTF-8."
            ) from error
    return head.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _first_line(head: str, file: DataFile) -> str:
    line, found, _ = head.partition("\n")
    if not found and len(head) >= NUM_HEAD_BYTES // 2:
        raise InputError(
            f"{file.name}: the first line has more than {len(head):,} characters, so it is no header line. "
            "Is this a table with one event a line?"
        )
    line = line.removeprefix("\ufeff")
    if not line.strip():
        raise InputError(f"{file.name}: the first line is empty. It must hold the column names.")
    if re.fullmatch("sep=.{1,2}", line.strip()) or line.startswith("#"):
        raise InputError(
            f"{file.name}: the first line is {line[:60]!r}, which names no columns. Remove what is above their names."
        )
    if line.lstrip().startswith("{") and '":' in line:
        raise InputError(f"{file.name} holds JSON, not fields: set format='jsonl' (--format jsonl).")
    return line


def _first_record(head: str, delimiter: str, options: ReadOptions) -> list[str]:
    """The fields of the first record, which may hold line breaks within quotes."""
    line = head.removeprefix("\ufeff").partition("\n")[0]
    quote = options.quote or '"'
    if options.quoting == "none" or quote not in line:
        return line.split(delimiter)
    escape = options.escape or ("\\" if f"\\{quote}" in line else None)
    return _fields(head.removeprefix("\ufeff"), delimiter, quote, None if escape == quote else escape)


def _ends_empty(file: DataFile, rows: Sequence[list[str]], num_names: int) -> bool:
    """Whether most rows end in a delimiter that the header line lacks.

    Raises InputError where they have one field more that is filled: then the names belong to other fields.
    """
    longer = [row for row in rows if len(row) == num_names + 1]
    if len(longer) <= len(rows) / 2:
        return False
    if any(row[-1].strip() for row in longer):
        raise InputError(
            f"{file.name}: the rows have {num_names + 1} fields and the header line {num_names}. Are there row numbers "
            "without a name? Write the file without them, or name the columns by index: columns=['', 'user_id', ...] "
            "(--columns ,user_id,item_id,timestamp) without the header line."
        )
    return True


def _likely_delimiter(line: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: len(_fields(line, delimiter)))


def _fields(text: str, delimiter: str, quote: str = '"', escape: str | None = None) -> list[str]:
    """The fields of the first record of a text."""
    if len(delimiter) == 1:
        with suppress(csv.Error, StopIteration):
            return next(
                csv.reader(
                    io.StringIO(text), delimiter=delimiter, quotechar=quote, escapechar=escape, doublequote=not escape
                )
            )
    return text.partition("\n")[0].split(delimiter)


def _one_column_message(file: DataFile, line: str, delimiter: str) -> str:
    message = f"{file.name} has only one column, {line[:80]!r}, when fields are separated by {delimiter!r}."
    better = _likely_delimiter(line)
    if better in line:
        return f"{message} It seems to use {better!r}: set delimiter={better!r} (--delimiter)."
    other = re.findall(r"[^\w\s\"'.\-]| {1,4}", line)
    if other:
        return f"{message} It may use {other[0]!r}: set delimiter={other[0]!r} (--delimiter)."
    return f"{message} Columns for user, item and time are needed."
