"""A text file of fields between delimiters: how its fields are quoted, and its records one by one.

`Splitter` defines what a record is. A faster reader may take a file over only where `survey` has found
that every line is one record, so that lines can be counted without it.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from variseq.events.header import NUMBER_OR_TIME, Header
from variseq.events.options import ReadOptions
from variseq.events.sources import DataFile, open_bytes

MAX_LINE_BYTES = 2_097_152
MAX_JOINED_LINES = 1000  # a quoted field holds at most so many lines
_BLOCK_BYTES = 1 << 23


@dataclass(frozen=True)
class Dialect:
    """How fields are separated and quoted. Without a `quote`, quotes are text; `escape` precedes one in a field."""

    delimiter: str
    quote: str = '"'
    escape: str = '"'

    def __str__(self) -> str:
        if not self.quote:
            return "quotes are part of the text (no quoting)"
        doubled = "doubled" if self.escape == self.quote else f"written {self.escape}{self.quote}"
        return f"fields are quoted with {self.quote}, and a quote within is {doubled}"


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


def survey(file: DataFile, dialect: Dialect | None = None) -> Survey:
    """Count lines, and see whether every line is a record of its own under a dialect."""
    quote = dialect.quote.encode() if dialect else b""
    pattern = _whole_lines(dialect) if dialect and quote else None
    num_lines, num_blank, has_quotes, are_records = 0, 0, False, True
    line_ends: set[str] = set()
    for block in _blocks(file, line_ends):
        blank = block.startswith(b"\n") + (len(re.findall(rb"(?<=\n)\n", block)) if b"\n\n" in block else 0)
        num_lines += block.count(b"\n") - blank
        num_blank += blank
        if pattern is not None and quote in block:
            has_quotes = True
            are_records = are_records and pattern.fullmatch(block) is not None
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
        self.digit_columns = header.digit_columns
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
        fields, index = [], 0
        while True:
            if self._open.match(text, index):
                closed = self._closed.match(text, index)
                if closed is None:
                    return _Open()
                if not self._end.match(text, closed.end()):
                    return None
                fields.append(self._unescaped(closed[1]))
                index = closed.end()
            else:
                end = text.find(self.dialect.delimiter, index)
                fields.append(text[index:] if end < 0 else text[index:end])
                index = len(text) if end < 0 else end
            if index >= len(text):
                return fields
            index += len(self.dialect.delimiter)

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
        has_length = line.count(self.dialect.delimiter) == self.num_fields - 1
        return bool(self.digit_columns) and has_length and self._ends_as_row(line)

    def _ends_as_row(self, line: str) -> bool:
        """Whether a line has no fewer fields than a row, and ends as one: then its open quote belongs to the text."""
        fields = line.split(self.dialect.delimiter)
        return len(fields) >= self.num_fields and all(
            NUMBER_OR_TIME.fullmatch(fields[index - self.num_fields]) for index in self.digit_columns
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
    num_returns, num_newlines = block.count(b"\r"), block.count(b"\n")
    num_pairs = block.count(b"\r\n") if num_returns else 0
    counts = {"\r\n": num_pairs, "\r": num_returns - num_pairs, "\n": num_newlines - num_pairs}
    line_ends.update(end for end, count in counts.items() if count)
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if num_returns else block


def _whole_lines(dialect: Dialect) -> re.Pattern[bytes]:
    """Matches as many lines as are records of their own."""
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
