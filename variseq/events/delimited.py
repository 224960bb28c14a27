"""A text file of fields between delimiters: its header, how its fields are quoted, and its records one by one.

What a record is, is said once, by `Splitter`. A faster reader may take a file over only where `survey` has found
that every line is one record, so that lines can be counted without it.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.events.source import NUM_HEAD_BYTES, DataFile, open_bytes, read_head, suffix_of

DELIMITERS = (",", "\t", ";", "|", "::", "\x01")
MAX_LINE_BYTES = 2_097_152
MAX_JOINED_LINES = 1000  # a quoted field holds at most so many lines
_TAB_SUFFIXES = (".tsv", ".tab", ".inter", ".item")
_BLOCK_BYTES = 1 << 23
_NUMBER_OR_TIME = re.compile(r"[\s\"']*[+-]?\d[\d:.,+\-/ TZ]*[\s\"']*")


@dataclass(frozen=True)
class Dialect:
    """How fields are told apart. Without a `quote`, quotes are text; `escape` stands before one within a field."""

    delimiter: str
    quote: str = '"'
    escape: str = '"'

    def __str__(self) -> str:
        if not self.quote:
            return "quotes are part of the text (no quoting)"
        doubled = "doubled" if self.escape == self.quote else f"written {self.escape}{self.quote}"
        return f"fields are quoted with {self.quote}, and a quote within is {doubled}"


@dataclass(frozen=True)
class Header:
    """The first line of a text file: names of its fields, and whether it holds them or is data."""

    delimiter: str
    names: list[str]
    is_data: bool = False
    has_empty_end: bool = False  # most rows end in one delimiter more
    digit_places: frozenset[int] = frozenset()  # fields that hold numbers or times in all rows of the head

    @property
    def num_fields(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Broken:
    """A record that could not be split into the fields of the header."""

    reason: str
    line: str


@dataclass(frozen=True)
class Survey:
    """What one pass over the bytes of a file found; `num_lines` counts all lines but blank ones."""

    num_lines: int
    num_blank: int
    has_quotes: bool
    lines_are_records: bool
    line_ends: frozenset[str]


def read_header(file: DataFile, options: ReadOptions, places: Sequence[str] = ()) -> Header:
    """Delimiter and names of a text file.

    Args:
        file: The file.
        options: `delimiter` and `format` are looked at.
        places: Names by place for a file whose first line is data; `Header.names` are then these, and the number of
            the place for further fields.

    Raises:
        InputError: When the head is no text, or has no fields.
    """
    head = text_head(file)
    line = _first_line(head, file)
    delimiter = options.delimiter
    if delimiter is None:
        is_tab = options.format == "tsv" or (options.format is None and suffix_of(file.path) in _TAB_SUFFIXES)
        delimiter = "\t" if is_tab else _likely_delimiter(line)
    names = _first_record(head, delimiter, options)
    if len(names) == 1:
        raise InputError(_one_column_message(file, line, delimiter))
    rows = _rows_of_head(head, delimiter)
    digit_places = _digit_places(rows, len(names))
    if not places:
        has_empty_end = _ends_empty(file, rows, len(names))
        named = [name.strip() or f"unnamed {place}" for place, name in enumerate(names, 1)]
        return Header(delimiter, named, False, has_empty_end, digit_places)
    if len(places) > len(names):
        raise InputError(
            f"{file.name} has {len(names)} fields in its first line, and {len(places)} columns are named by place. "
            "Name at most as many."
        )
    by_place = [name or str(place) for place, name in enumerate(places, 1)]
    by_place += [str(place) for place in range(len(places) + 1, len(names) + 1)]
    return Header(delimiter, by_place, is_data=True, digit_places=digit_places)


def survey(file: DataFile, dialect: Dialect | None = None) -> Survey:
    """Count lines, and see whether every line is a record of its own under a dialect."""
    quote = (dialect.quote if dialect else "").encode()
    pattern = _whole_lines(dialect) if dialect and quote else None
    num_lines, num_blank, has_quotes, are_records = 0, 0, False, True
    line_ends: set[str] = set()
    for block in _blocks(file, line_ends):
        blank = _num_blank_lines(block)
        num_lines += block.count(b"\n") - blank
        num_blank += blank
        if pattern is not None and quote in block:
            has_quotes = True
            are_records = are_records and _matches_whole(pattern, block)
    return Survey(num_lines, num_blank, has_quotes, are_records, frozenset(line_ends))


def choose_dialect(file: DataFile, header: Header, options: ReadOptions) -> tuple[Dialect, Survey]:
    """The dialect that the options set, or the one under which the fewest records of the file are broken.

    Quotes are taken for text when that breaks no more records, and nothing shows that the file does quote its fields
    (a quoted delimiter or quote, a quoted name in the header, quotes in most lines).
    """
    plain = Dialect(header.delimiter, "", "")
    if options.quoting == "none":
        return plain, survey(file, plain)
    quote = options.quote or '"'
    doubled = Dialect(header.delimiter, quote, options.escape or quote)
    dialects = [doubled] if options.escape else [doubled, replace(doubled, escape="\\")]
    for dialect in dialects:
        found = survey(file, dialect)
        if found.lines_are_records:
            return dialect, found
    trials = {dialect: _Trial(file, header, dialect) for dialect in (*dialects, plain)}
    best = min(dialects, key=lambda dialect: trials[dialect].num_broken)
    if options.quote or options.escape:
        return best, found
    without, with_quotes = trials[plain], trials[best]
    is_better = (without.num_broken, 0) < (with_quotes.num_broken, with_quotes.num_joined)
    return (plain if is_better and not with_quotes.shows_quoting else best), found


class _Trial:
    """What a file would be under a dialect: broken records, records of several lines, signs of quoting."""

    def __init__(self, file: DataFile, header: Header, dialect: Dialect) -> None:
        splitter = Splitter(dialect, header)
        self.num_broken = 0
        num_quoted = num_records = num_needed = 0
        quote = dialect.quote
        for record in splitter.records(lines_of(file)):
            num_records += 1
            self.num_broken += isinstance(record, Broken)
            if quote and quote in splitter.last_line:
                num_quoted += isinstance(record, list)
                num_needed += isinstance(record, list) and splitter.needed_quotes()
        self.num_joined = splitter.num_joined
        self.shows_quoting = num_needed > 0 or num_quoted > num_records / 2


class Splitter:
    """Lines become records: lists of fields, or `Broken`. Every faster reading must equal this plain one."""

    def __init__(self, dialect: Dialect, header: Header) -> None:
        self.dialect = dialect
        self.num_fields = header.num_fields
        self.digit_places = header.digit_places
        self.num_joined = 0
        self.num_lines = 0  # without blank ones
        self.num_records = 0
        self.last_line = ""
        if dialect.quote:
            quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
            blanks = _blanks(dialect)
            self._open = re.compile(f"{blanks}{quote}")
            self._closed = re.compile(f"{blanks}{quote}({_inside(dialect)}){quote}{blanks}", re.DOTALL)
            self._end = re.compile(f"{delimiter}|$")

    def records(self, lines: Iterator[str]) -> Iterator[list[str] | Broken]:
        """The records of lines; blank lines are none."""
        ahead: deque[str] = deque()
        while True:
            line = ahead.popleft() if ahead else next(lines, None)
            if line is None:
                return
            if not line:
                continue
            self.num_lines += 1
            self.num_records += 1
            self.last_line = line
            yield self._record(line, ahead, lines)

    def needed_quotes(self) -> bool:
        """Whether the last line has a delimiter or a quote within quotes."""
        line, dialect = self.last_line, self.dialect
        return line.count(dialect.delimiter) != self.num_fields - 1 or (
            dialect.escape + dialect.quote in line.strip(dialect.quote)
            and f"{dialect.delimiter}{dialect.quote * 2}{dialect.delimiter}" not in line
        )

    def _record(self, line: str, ahead: deque[str], lines: Iterator[str]) -> list[str] | Broken:
        if len(line) > MAX_LINE_BYTES // 4 and len(line.encode(errors="replace")) > MAX_LINE_BYTES:
            return Broken("line too long", line)
        if _is_invalid(line):
            return Broken("invalid UTF-8", line.encode(errors="replace").decode())
        if not self.dialect.quote or self.dialect.quote not in line:
            fields = line.split(self.dialect.delimiter)
        else:
            split = self._split(line)
            found = self._joined(line, ahead, lines) if isinstance(split, _Open) else split
            if isinstance(found, Broken):
                return found
            if found is None:
                return Broken("unbalanced quote", line)
            fields = found
        if len(fields) > self.num_fields and not any(fields[self.num_fields :]):
            fields = fields[: self.num_fields]  # as the database does
        return fields if len(fields) == self.num_fields else Broken("wrong number of fields", line)

    def _split(self, text: str) -> list[str] | _Open | None:
        """The fields of a text; None where something follows a closed quote, `_Open` where one is not closed."""
        fields, place = [], 0
        dialect = self.dialect
        while True:
            if self._open.match(text, place):
                closed = self._closed.match(text, place)
                if closed is None:
                    return _Open()
                if not self._end.match(text, closed.end()):
                    return None
                fields.append(self._unescaped(closed[1]))
                place = closed.end()
            else:
                end = text.find(dialect.delimiter, place)
                fields.append(text[place:] if end < 0 else text[place:end])
                place = len(text) if end < 0 else end
            if place >= len(text):
                return fields
            place += len(dialect.delimiter)

    def _unescaped(self, field: str) -> str:
        quote, escape = self.dialect.quote, self.dialect.escape
        if escape == quote:
            return field.replace(quote * 2, quote)
        return re.sub(f"{re.escape(escape)}([{re.escape(quote + escape)}])", r"\1", field)

    def _joined(self, line: str, ahead: deque[str], lines: Iterator[str]) -> list[str] | Broken | None:
        """The fields of a record whose quoted field goes on in the lines that follow.

        They are given back when the quote is not closed, and when one of them is a whole row by itself: then the quote
        belongs to the text, and the record would swallow others.
        """
        taken: list[str] = []
        split: list[str] | _Open | None = _Open()
        size = len(line)
        while isinstance(split, _Open) and len(taken) < MAX_JOINED_LINES and size < MAX_LINE_BYTES:
            following = ahead.popleft() if ahead else next(lines, None)
            if following is None:
                break
            taken.append(following)
            size += len(following)
            if self._is_row(following) and (self.dialect.quote not in following or self._ends_as_row(line)):
                break
            if self.dialect.quote in following:
                split = self._split("\n".join([line, *taken]))
        if isinstance(split, _Open) or split is None or len(split) != self.num_fields:
            ahead.extendleft(reversed(taken))
            return None
        self.num_joined += 1
        self.num_lines += sum(map(bool, taken))
        if any(map(_is_invalid, taken)):
            return Broken("invalid UTF-8", "\n".join([line, *taken]).encode(errors="replace").decode())
        return split

    def _is_row(self, line: str) -> bool:
        """Whether a line has as many fields as a row, with numbers and times where all rows of the head have them."""
        fields = line.split(self.dialect.delimiter)
        return (
            bool(self.digit_places)
            and len(fields) == self.num_fields
            and all(_NUMBER_OR_TIME.fullmatch(fields[place]) for place in self.digit_places)
        )

    def _ends_as_row(self, line: str) -> bool:
        """Whether a line has no fewer fields than a row, and ends as one: then its open quote belongs to the text."""
        fields = line.split(self.dialect.delimiter)
        return len(fields) >= self.num_fields and all(
            _NUMBER_OR_TIME.fullmatch(fields[place - self.num_fields]) for place in self.digit_places
        )


class _Open:
    """A quoted field that its text does not close."""


def _is_invalid(text: str) -> bool:
    """Whether some bytes of a text were no UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def lines_of(file: DataFile) -> Iterator[str]:
    """Lines without their ends, whichever they are. Bytes that are no UTF-8 come as lone surrogates."""
    with open_bytes(file.path) as opened:
        text = io.TextIOWrapper(opened, encoding="utf-8", errors="surrogateescape", newline=None)
        for number, line in enumerate(text):
            yield (line.removeprefix("\ufeff") if number == 0 else line).removesuffix("\n")


def _blocks(file: DataFile, line_ends: set[str]) -> Iterator[bytes]:
    """Blocks of whole lines that end in \\n, whatever the line ends of the file are; those are gathered."""
    with open_bytes(file.path) as opened:
        rest = b""
        while read := opened.read(_BLOCK_BYTES):
            if rest.endswith(b"\r"):
                rest, read = rest[:-1], b"\r" + read
            held = read[-1:] if read.endswith(b"\r") else b""  # its \n may come with the next block
            block = rest + _with_plain_ends(read[: len(read) - len(held)], line_ends)
            cut = block.rfind(b"\n") + 1
            rest = block[cut:] + held
            if cut:
                yield block[:cut]
        if rest:
            yield _with_plain_ends(rest, line_ends).removesuffix(b"\n") + b"\n"


def _with_plain_ends(block: bytes, line_ends: set[str]) -> bytes:
    if b"\r" in block:
        num_pairs = block.count(b"\r\n")
        if num_pairs:
            line_ends.add("\r\n")
            if block.count(b"\n") > num_pairs:
                line_ends.add("\n")
            block = block.replace(b"\r\n", b"\n")
        elif b"\n" in block:
            line_ends.add("\n")
        if b"\r" in block:
            line_ends.add("\r")
            block = block.replace(b"\r", b"\n")
    elif b"\n" in block:
        line_ends.add("\n")
    return block


def _num_blank_lines(block: bytes) -> int:
    return block.startswith(b"\n") + (len(re.findall(rb"(?<=\n)\n", block)) if b"\n\n" in block else 0)


def _whole_lines(dialect: Dialect) -> re.Pattern[bytes]:
    """Matches as many lines as are records of their own."""
    if not dialect.quote:
        return re.compile(rb"")
    quote, delimiter = (re.escape(text.encode()) for text in (dialect.quote, dialect.delimiter))
    inside = _inside(dialect, "\n").encode()
    blanks = _blanks(dialect).encode()
    quoted = blanks + quote + b"(?:" + inside + b")" + quote + blanks + b"(?=" + delimiter + b"|\n)"
    letter = b"[^" + delimiter + b"\n]" if len(dialect.delimiter.encode()) == 1 else b"(?!" + delimiter + b")[^\n]"
    plain = b"(?!" + blanks + quote + b")(?:" + letter + b")*+"
    one = b"(?:" + quoted + b"|" + plain + b")"
    return re.compile(b"(?:" + one + b"(?:" + delimiter + one + b")*+\n)*+")


def _blanks(dialect: Dialect) -> str:
    """Blanks that may stand around quotes: none where the delimiter is one."""
    return "" if " " in dialect.delimiter else " *+"


def _inside(dialect: Dialect, excluded: str = "") -> str:
    """What may stand between two quotes. Of one line (`excluded`) an escape stands before a quote or an escape alone.

    Any other is text, which the database would drop.
    """
    quote, escape = re.escape(dialect.quote), re.escape(dialect.escape)
    if dialect.escape == dialect.quote:
        return f"(?:[^{quote}{excluded}]++|{quote}{quote})*+"
    return f"(?:[^{quote}{escape}{excluded}]++|{escape}{'.' if not excluded else f'[{quote}{escape}]'})*+"


def _matches_whole(pattern: re.Pattern[bytes], block: bytes) -> bool:
    found = pattern.match(block)
    return found is not None and found.end() == len(block)


def text_head(file: DataFile) -> str:
    """The decoded head of a text file, with \\n as line end. Raises InputError when it is no UTF-8 text."""
    head = read_head(file)
    if not head:
        raise InputError(f"{file.name} is empty. A header line with column names and one event a line are needed.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{file.name} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in head or head.startswith((b"\x1f\x8b", b"PAR1", b"PK\x03\x04")):
        raise InputError(f"{file.name} is a binary file{_hint(head)}, not text.")
    line = head.split(b"\n", 1)[0]
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < NUM_HEAD_BYTES - 4:  # not merely a letter that the end of the head cut in two
            raise InputError(
                f"{file.name}: the first line is not UTF-8 text ({error.reason}). Save the file as UTF-8."
            ) from error
    return head.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _hint(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return " (gzip: name it .gz)"
    if head.startswith(b"PK\x03\x04"):
        return " (zip: name it .zip)"
    return " (Parquet: name it .parquet)" if head.startswith(b"PAR1") else ""


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
    if options.quoting == "none" or quote not in line or len(delimiter) > 1:
        return line.split(delimiter)
    escape = options.escape or ("\\" if f"\\{quote}" in line else None)
    escape = None if escape == quote else escape
    reader = csv.reader(
        io.StringIO(head.removeprefix("\ufeff")),
        delimiter=delimiter,
        quotechar=quote,
        escapechar=escape,
        doublequote=escape is None,
    )
    try:
        return next(reader)
    except (csv.Error, StopIteration):
        return line.split(delimiter)


def _rows_of_head(head: str, delimiter: str) -> list[list[str]]:
    """The fields of the first lines that follow the first one, each line by itself."""
    lines = head.split("\n")
    whole = lines[1:1001] if len(lines) > 1001 else lines[1:-1] or lines[1:2]
    return [_fields(line, delimiter) for line in whole if line]


def _digit_places(rows: Sequence[list[str]], num_fields: int) -> frozenset[int]:
    whole = [row for row in rows if len(row) == num_fields]
    return frozenset(
        place for place in range(num_fields) if whole and all(_NUMBER_OR_TIME.fullmatch(row[place]) for row in whole)
    )


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
            "without a name? Write the file without them, or name the columns by place: columns=['', 'user_id', ...] "
            "(--columns ,user_id,item_id,timestamp) without the header line."
        )
    return True


def _likely_delimiter(line: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: len(_fields(line, delimiter)))


def _fields(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return line.split(delimiter)


def _one_column_message(file: DataFile, line: str, delimiter: str) -> str:
    message = f"{file.name} has only one column, {line[:80]!r}, when fields are separated by {delimiter!r}."
    better = _likely_delimiter(line)
    if better in line:
        return f"{message} It seems to use {better!r}: set delimiter={better!r} (--delimiter)."
    other = re.findall(r"[^\w\s\"'.\-]| {1,4}", line)
    if other:
        return f"{message} It may use {other[0]!r}: set delimiter={other[0]!r} (--delimiter)."
    return f"{message} Columns for user, item and time are needed."
