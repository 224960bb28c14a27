"""Identifier columns and text cells as SQL: blanks, null words and id types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from variseq.errors import InputError
from variseq.events.ingest import Ingested
from variseq.events.session import Session, name_in_sql, text_in_sql
from variseq.events.table import Columns

NULL_WORDS = (
    "",
    "null",
    "none",
    "nan",
    "nat",
    "n/a",
    "#n/a",
    "<na>",
    "<null>",
    "(null)",
    "#null!",
    "\\n",
)  # compared in lower case
EXACT_NULL_WORDS = ("NA", "nil", "undefined")
_BLANK = (
    r"[\x00-\x20\x{7f}\x{85}\x{a0}\x{1680}\x{180e}\x{2000}-\x{200d}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{2060}\x{3000}\x{feff}]"
)


@dataclass(frozen=True)
class TextCells:
    """SQL of a text column, NULL where a cell is empty; how many filled cells had blanks around them."""

    sql: str
    num_trimmed: int = 0


def trimmed(text: str) -> str:
    """SQL of a text without blanks around it."""
    return f"regexp_replace({text}, '^{_BLANK}+|{_BLANK}+$', '', 'g')"


def is_word_for_nothing(text: str) -> str:
    """SQL: whether a text without blanks around it stands for nothing."""
    any_case = ", ".join(map(text_in_sql, NULL_WORDS))
    exact = ", ".join(map(text_in_sql, EXACT_NULL_WORDS))
    return f"(lower({text}) IN ({any_case}) OR {text} IN ({exact}))"


def cleaned(text: str) -> str:
    """SQL of a text without blanks around it, NULL for a word for nothing."""
    return f"CASE WHEN NOT {is_word_for_nothing(trimmed(text))} THEN {trimmed(text)} END"


def read_text_cells(session: Session, types: Mapping[str, str], names: Sequence[str]) -> dict[str, TextCells]:
    """Those of the columns `names` of `raw` that hold text, by one pass over all of them; `types` are those of `raw`.

    A column without blanks and words for nothing is taken as it is, which costs nothing later. Events have few
    different texts, so each text is looked at once.
    """
    columns = _text_columns(types, names)
    if not columns:
        return {}
    counts = ", ".join(
        f"count(*) FILTER (WHERE {_has_blanks(text)}), count(*) FILTER (WHERE {is_word_for_nothing(text)})"
        if column != Columns.EVENT
        else f"(SELECT count(*) FILTER (WHERE {_has_blanks('t')}) FROM ({_distinct(text)})), "
        f"(SELECT count(*) FILTER (WHERE {is_word_for_nothing('t')}) FROM ({_distinct(text)}))"
        for column, text in columns.items()
    )
    found = session.row(f"SELECT {counts} FROM raw")
    cells = {}
    for index, (column, text) in enumerate(columns.items()):
        num_blank, num_words = found[2 * index : 2 * index + 2]
        cells[column] = TextCells(cleaned(text) if num_blank or num_words else text, 0)
        if num_blank:
            texts = _distinct(text) if column == Columns.EVENT else f"SELECT {text} AS t FROM raw"
            condition = f"{_has_blanks('t')} AND NOT {is_word_for_nothing(trimmed('t'))}"
            num_trimmed = session.number(f"SELECT count(*) FROM ({texts}) WHERE {condition}")
            cells[column] = TextCells(cleaned(text), num_trimmed)
    return cells


def _has_blanks(text: str) -> str:
    return f"regexp_matches({text}, '^{_BLANK}|{_BLANK}$')"


def _distinct(text: str) -> str:
    return f"SELECT DISTINCT {text} AS t FROM raw"


def _text_columns(types: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """SQL of the text of each text column: also bytes that are UTF-8, and categories of a frame."""
    found = {}
    for name in names:
        kind = types[name].split("(")[0]
        if kind == "VARCHAR":
            found[name] = name_in_sql(name)
        elif kind in ("ENUM", "UUID"):
            found[name] = f"CAST({name_in_sql(name)} AS VARCHAR)"
        elif kind == "BLOB":
            found[name] = f"TRY(decode({name_in_sql(name)}))"
    return found


_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "UHUGEINT",
)
_BEYOND_64_BITS = ("UBIGINT", "HUGEINT", "UHUGEINT")
_EXACT_UP_TO = {"FLOAT": 2**24, "DOUBLE": 2**53}
_INTEGER = "'0|-?[1-9][0-9]*'"
_WHOLE_DECIMAL = r"'(0|-?[1-9][0-9]{0,14})\.0+'"
_LONE_MARKS = "('-', '?')"  # for a missing id among integers
_MAX_ODD_SHARE = 0.1  # of ids that are no integers among integers
_MANGLED = r"'-?[0-9]([.,][0-9]+)?[eE]\+[0-9]+|-?[0-9]{16,}\.0+'"


@dataclass(frozen=True)
class Ids:
    """SQL over `raw`: the id (NULL for none), and whether there is none; messages on the column."""

    sql: str
    missing: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_ids(
    session: Session, ingested: Ingested, column: str, cells: Mapping[str, TextCells], deciding: str = "true"
) -> Ids:
    """How the ids in `column` of `raw` are read; `deciding` is SQL of the rows whose ids decide the type.

    Raises InputError for mixed types, for numbers that are not whole and for types that are no ids.
    """
    name = ingested.columns[column]
    kind = ingested.types[column].split("(")[0]
    if column in cells:
        if kind == "BLOB":
            _refuse_unreadable_bytes(session, column, name, cells[column].sql)
        ids = _from_text(session, ingested, column, cells[column].sql, deciding)
        ids.notes.extend(_note_on_blanks(session, column, name, cells[column]))
        return ids
    quoted = name_in_sql(column)
    if kind in _WHOLE:
        return _from_integers(session, quoted, name, kind)
    if kind in ("FLOAT", "DOUBLE", "DECIMAL"):
        return _from_decimals(session, quoted, name, kind, deciding)
    if kind in ('"NULL"', "NULL"):
        return Ids("CAST(NULL AS VARCHAR)", "true")
    raise InputError(f"Ids in {name!r} are of type {kind}. Allowed: integers and text.")


def _from_integers(session: Session, quoted: str, name: str, kind: str) -> Ids:
    missing = f"({quoted} IS NULL)"
    beyond = f"{quoted} IS NOT NULL AND TRY_CAST({quoted} AS BIGINT) IS NULL"
    if kind in _BEYOND_64_BITS and _any(session, beyond):
        return Ids(f"CAST({quoted} AS VARCHAR)", missing, notes=[_beyond_64_bits(name)])
    return Ids(f"CAST({quoted} AS BIGINT)", missing)


def _beyond_64_bits(name: str) -> str:
    return f"some ids in {name!r} do not fit into 64-bit integers, so all of them are text"


def _from_decimals(session: Session, quoted: str, name: str, kind: str, deciding: str) -> Ids:
    missing = f"coalesce(isnan(CAST({quoted} AS DOUBLE)), true)"
    broken = f"{quoted} <> floor({quoted})"
    if kind in _EXACT_UP_TO:
        broken += f" OR abs({quoted}) > {_EXACT_UP_TO[kind]}"
    found = session.rows(
        f"SELECT CAST({quoted} AS VARCHAR) FROM raw WHERE NOT {missing} AND ({broken}) AND {deciding} LIMIT 1"
    )
    if found:
        raise InputError(
            f"Ids in {name!r} are decimal numbers, e.g. {found[0][0]}, and not whole or too large to be exact. Give "
            "ids as integers or as text."
        )
    note = f"ids in {name!r} came as decimal numbers; all are whole and were read as integers"
    if kind == "DECIMAL" and _any(session, f"{quoted} IS NOT NULL AND TRY_CAST({quoted} AS BIGINT) IS NULL"):
        return Ids(f"CAST(TRY_CAST({quoted} AS HUGEINT) AS VARCHAR)", missing, notes=[_beyond_64_bits(name)])
    return Ids(f"CASE WHEN NOT {missing} THEN TRY_CAST({quoted} AS BIGINT) END", missing, notes=[note])


def _refuse_unreadable_bytes(session: Session, column: str, name: str, text: str) -> None:
    if _any(session, f"{name_in_sql(column)} IS NOT NULL AND {text} IS NULL AND {name_in_sql(column)} <> ''::BLOB"):
        raise InputError(f"Ids in {name!r} are bytes (BLOB) that are not UTF-8 text. Allowed: integers and text.")


def _from_text(session: Session, ingested: Ingested, column: str, text: str, deciding: str) -> Ids:
    name = ingested.columns[column]
    counts = _count_spellings(session, text, "true", ingested.is_text)
    if counts.is_mixed and deciding != "true":
        counts = _count_spellings(session, text, deciding, ingested.is_text)
    as_text = Ids(text, f"({text} IS NULL)", warnings=_mangled(name, counts.mangled))
    if not ingested.is_text or counts.num_filled == 0:
        return as_text
    is_json = ingested.kind == "jsonl"
    if is_json and not _json_ids_are_numbers(session, column, name, text, deciding):
        return as_text
    if counts.num_marks and counts.num_whole + counts.num_marks == counts.num_filled:
        note = f"{counts.num_marks:,} ids in {name!r} are '-' or '?' among integers, and were taken as missing"
        return _whole(name, f"CASE WHEN {text} NOT IN {_LONE_MARKS} THEN {text} END", counts, as_text.warnings, note)
    if counts.num_whole == counts.num_filled:
        return _whole(name, text, counts, as_text.warnings)
    if counts.num_digits + counts.num_decimals == counts.num_filled:
        as_text.notes.append(_beyond_64_bits(name))
    elif is_json:
        raise InputError(f"Ids in {name!r} are decimal numbers. Give ids as integers or as text.")
    elif counts.num_truth_values == counts.num_filled:
        raise InputError(f"Ids in {name!r} are only true and false. Allowed: integers and text.")
    else:
        as_text.warnings.extend(_few_odd_ids(session, name, text, counts, deciding))
    return as_text


def _few_odd_ids(session: Session, name: str, text: str, counts: _Spellings, deciding: str) -> list[str]:
    """A warning when few ids that are no integers make a column of integers text."""
    num_odd = counts.num_filled - counts.num_whole
    if num_odd > _MAX_ODD_SHARE * counts.num_filled:
        return []
    row, example = session.row(
        "SELECT min(input_row), arg_min(id, input_row) FROM "
        f"(SELECT input_row, {text} AS id FROM raw WHERE {deciding}) "
        f"WHERE NOT regexp_full_match(id, {_INTEGER}) AND NOT regexp_full_match(id, {_WHOLE_DECIMAL})"
    )
    return [
        f"all ids in {name!r} are text, because {num_odd:,} of {counts.num_filled:,} are no integers (first: row "
        f"{row}: {example!r}). Are these rows right?"
    ]


def _mangled(name: str, example: str | None) -> list[str]:
    if example is None:
        return []
    return [
        f"ids in {name!r} such as {example!r} look rounded by a spreadsheet or as decimal numbers: different ids may "
        "have become one. Export them again as text"
    ]


def _whole(name: str, text: str, counts: _Spellings, warnings: list[str], *notes: str) -> Ids:
    missing = f"({text} IS NULL)"
    if not counts.num_decimals:
        return Ids(f"TRY_CAST({text} AS BIGINT)", missing, list(notes), warnings)
    note = f"ids in {name!r} came as whole decimal numbers such as 1.0 and were read as integers"
    return Ids(rf"TRY_CAST(regexp_replace({text}, '\.0+$', '') AS BIGINT)", missing, [*notes, note], warnings)


@dataclass(frozen=True)
class _Spellings:
    num_filled: int
    num_digits: int  # integers of any length
    num_whole: int  # integers of 64 bits and whole decimal numbers
    num_decimals: int
    num_truth_values: int
    num_marks: int  # of `_LONE_MARKS`
    mangled: str | None

    @property
    def is_mixed(self) -> bool:
        return 0 < self.num_digits + self.num_decimals < self.num_filled or self.num_whole not in (0, self.num_filled)


def _count_spellings(session: Session, text: str, deciding: str, may_be_numbers: bool) -> _Spellings:
    digits, decimal = f"regexp_full_match(id, {_INTEGER})", f"regexp_full_match(id, {_WHOLE_DECIMAL})"
    if not may_be_numbers:
        digits = decimal = "false"
    return _Spellings(
        *session.row(
            f"SELECT count(id), count(*) FILTER (WHERE {digits}), "
            f"count(*) FILTER (WHERE ({digits} AND TRY_CAST(id AS BIGINT) IS NOT NULL) OR {decimal}), "
            f"count(*) FILTER (WHERE {decimal}), count(*) FILTER (WHERE lower(id) IN ('true', 'false')), "
            f"count(*) FILTER (WHERE id IN {_LONE_MARKS}), "
            f"min(id) FILTER (WHERE (contains(id, '+') OR contains(id, '.0')) AND regexp_full_match(id, {_MANGLED})) "
            f"FROM (SELECT {text} AS id FROM raw WHERE {deciding})"
        )
    )


def _json_ids_are_numbers(session: Session, column: str, name: str, text: str, deciding: str) -> bool:
    """Raises InputError when some ids of JSON lines are numbers and some are text."""
    kinds = {
        str(kind)
        for (kind,) in session.rows(
            f"SELECT DISTINCT {name_in_sql(column + '_type')} FROM raw WHERE {text} IS NOT NULL AND {deciding}"
        )
        if kind not in (None, "NULL")
    }
    numbers, texts = kinds & {"BIGINT", "UBIGINT", "DOUBLE", "HUGEINT"}, kinds & {"VARCHAR"}
    other = kinds - numbers - texts
    if other:
        raise InputError(f"Ids in {name!r} are of JSON type {', '.join(sorted(other))}. Allowed: integers and text.")
    if numbers and texts:
        raise InputError(f"Ids in {name!r} have mixed id types: some are numbers, some text. Write all of them alike.")
    return bool(numbers)


def _note_on_blanks(session: Session, column: str, name: str, cells: TextCells) -> list[str]:
    if not cells.num_trimmed:
        return []
    note = f"blanks around {cells.num_trimmed:,} ids in {name!r} were cut"
    before = f"CASE WHEN {cells.sql} IS NOT NULL THEN CAST({name_in_sql(column)} AS VARCHAR) END"
    num_before, num_after = session.row(f"SELECT count(DISTINCT {before}), count(DISTINCT {cells.sql}) FROM raw")
    if num_before > num_after:
        note += f"; {num_before - num_after:,} spellings became equal to others by it"
    return [note]


def _any(session: Session, condition: str) -> bool:
    return bool(session.rows(f"SELECT 1 FROM raw WHERE {condition} LIMIT 1"))
