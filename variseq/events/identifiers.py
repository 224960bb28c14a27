"""Identifier columns and text cells as SQL: blanks, null words and id types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from variseq.errors import InputError
from variseq.events.ingest import Ingested
from variseq.events.session import Evidence, Session, group_of, name_in_sql, text_in_sql
from variseq.events.table import Columns

# Compared in lower case.
NULL_WORDS = ("", "null", "none", "nan", "nat", "n/a", "#n/a", "<na>", "<null>", "(null)", "#null!", "\\n")
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
    """Those of the columns `names` of `raw` that hold text; `types` are those of `raw`.

    A column without blanks and words for nothing is taken as it is, which costs nothing later. Events have few
    different texts, so each text is looked at once.
    """
    cells = {}
    for column, text in _text_columns(types, names).items():
        texts = f"(SELECT {'DISTINCT ' if column == Columns.EVENT else ''}{text} AS t FROM raw)"
        has_blanks = f"regexp_matches(t, '^{_BLANK}|{_BLANK}$')"
        found = session.counts({"blanks": has_blanks, "words": is_word_for_nothing("t")}, texts)
        cells[column] = TextCells(cleaned(text) if found["blanks"].num or found["words"].num else text)
        if found["blanks"].num:
            trimmed_texts = f"{texts} WHERE {has_blanks} AND NOT {is_word_for_nothing(trimmed('t'))}"
            cells[column] = replace(cells[column], num_trimmed=_count(session, trimmed_texts))
    return cells


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


_BEYOND_64_BITS = ("UBIGINT", "HUGEINT", "UHUGEINT")
_TOO_LARGE = "some ids in {!r} do not fit into 64-bit integers, so all of them are text"
_EXACT_UP_TO = {"FLOAT": 2**24, "DOUBLE": 2**53}
_INTEGER = "'0|-?[1-9][0-9]*'"
_WHOLE_DECIMAL = r"'(0|-?[1-9][0-9]{0,14})\.0+'"
_LONE_MARKS = "('-', '?')"  # for a missing id among integers
_MAX_ODD_SHARE = 0.1  # of ids that are no integers among integers
_MANGLED = r"'-?[0-9]([.,][0-9]+)?[eE]\+[0-9]+|-?[0-9]{16,}\.0+'"


@dataclass(frozen=True)
class Ids:
    """SQL over `raw`: the id (NULL for none), and whether there is none."""

    sql: str
    missing: str


def read_ids(
    session: Session, ingested: Ingested, column: str, cells: Mapping[str, TextCells], deciding: str = "true"
) -> Ids:
    """How the ids in `column` of `raw` are read; `deciding` is SQL of the rows whose ids decide the type.

    Raises InputError for mixed types, for numbers that are not whole and for types that are no ids.
    """
    name, quoted = ingested.columns[column], name_in_sql(column)
    kind, group = ingested.types[column].split("(")[0], group_of(ingested.types[column])
    if column in cells:
        text = cells[column].sql
        if kind == "BLOB" and _any(session, f"{quoted} IS NOT NULL AND {text} IS NULL AND {quoted} <> ''::BLOB"):
            raise InputError(f"Ids in {name!r} are bytes (BLOB) that are not UTF-8 text. Allowed: integers and text.")
        ids = _from_text(session, ingested, column, text, deciding)
        _note_blanks(session, column, name, cells[column])
        return ids
    if group == "whole":
        missing = f"({quoted} IS NULL)"
        if kind in _BEYOND_64_BITS and _some_are_beyond_64_bits(session, quoted, name):
            return Ids(f"CAST({quoted} AS VARCHAR)", missing)
        return Ids(f"CAST({quoted} AS BIGINT)", missing)
    if group == "fractional":
        return _from_decimals(session, quoted, name, kind, deciding)
    if group == "nothing":
        return Ids("CAST(NULL AS VARCHAR)", "true")
    raise InputError(f"Ids in {name!r} are of type {kind}. Allowed: integers and text.")


def _some_are_beyond_64_bits(session: Session, quoted: str, name: str) -> bool:
    """Whether some numbers do not fit, with a note."""
    is_beyond = _any(session, f"{quoted} IS NOT NULL AND TRY_CAST({quoted} AS BIGINT) IS NULL")
    if is_beyond:
        session.notes.append(_TOO_LARGE.format(name))
    return is_beyond


def _from_decimals(session: Session, quoted: str, name: str, kind: str, deciding: str) -> Ids:
    missing = f"coalesce(isnan(CAST({quoted} AS DOUBLE)), true)"
    broken = f"{quoted} <> floor({quoted})"
    if kind in _EXACT_UP_TO:
        broken += f" OR abs({quoted}) > {_EXACT_UP_TO[kind]}"
    text = f"SELECT min(CAST({quoted} AS VARCHAR)) FROM raw WHERE NOT {missing} AND ({broken}) AND {deciding}"
    ((example,),) = session.aggregate(text, "min")
    if example is not None:
        raise InputError(
            f"Ids in {name!r} are decimal numbers, e.g. {example}, and not whole or too large to be exact. Give "
            "ids as integers or as text."
        )
    if kind == "DECIMAL" and _some_are_beyond_64_bits(session, quoted, name):
        return Ids(f"CAST(TRY_CAST({quoted} AS HUGEINT) AS VARCHAR)", missing)
    session.notes.append(f"ids in {name!r} came as decimal numbers; all are whole and were read as integers")
    return Ids(f"CASE WHEN NOT {missing} THEN TRY_CAST({quoted} AS BIGINT) END", missing)


def _from_text(session: Session, ingested: Ingested, column: str, text: str, deciding: str) -> Ids:
    name, as_text = ingested.columns[column], Ids(text, f"({text} IS NULL)")
    found = _spellings(session, text, "true", ingested.is_text)
    num_filled, num_whole = found["filled"].num, found["whole"].num
    are_numbers = found["integers"].num + found["decimals"].num
    if deciding != "true" and (0 < are_numbers < num_filled or num_whole not in (0, num_filled)):
        found = _spellings(session, text, deciding, ingested.is_text)
        num_filled, num_whole = found["filled"].num, found["whole"].num
    if found["mangled"].num:
        session.warnings.append(
            f"ids in {name!r} such as {found['mangled'].example!r} look rounded by a spreadsheet or as decimal "
            "numbers: different ids may have become one. Export them again as text"
        )
    if not ingested.is_text or num_filled == 0:
        return as_text
    if ingested.is_json and not _json_ids_are_numbers(session, column, name, text, deciding):
        return as_text
    if num_whole + found["marks"].num == num_filled:
        return _whole(session, name, text, found)
    if found["integers"].num + found["decimals"].num == num_filled:
        session.notes.append(_TOO_LARGE.format(name))
    elif ingested.is_json:
        raise InputError(f"Ids in {name!r} are decimal numbers. Give ids as integers or as text.")
    elif found["truths"].num == num_filled:
        raise InputError(f"Ids in {name!r} are only true and false. Allowed: integers and text.")
    else:
        _warn_of_few_odd_ids(session, name, text, deciding, found)
    return as_text


def _whole(session: Session, name: str, text: str, found: Mapping[str, Evidence]) -> Ids:
    if num_marks := found["marks"].num:
        session.notes.append(f"{num_marks:,} ids in {name!r} are '-' or '?' among integers, and were taken as missing")
        text = f"CASE WHEN {text} NOT IN {_LONE_MARKS} THEN {text} END"
    missing = f"({text} IS NULL)"
    if found["decimals"].num:
        session.notes.append(f"ids in {name!r} came as whole decimal numbers such as 1.0 and were read as integers")
        text = rf"regexp_replace({text}, '\.0+$', '')"
    return Ids(f"TRY_CAST({text} AS BIGINT)", missing)


def _warn_of_few_odd_ids(session: Session, name: str, text: str, deciding: str, found: Mapping[str, Evidence]) -> None:
    """A few ids that are no integers make a column of integers text."""
    num_filled = found["filled"].num
    num_odd = num_filled - found["whole"].num
    if num_odd > _MAX_ODD_SHARE * num_filled:
        return
    ((row,),) = session.aggregate(
        f"SELECT min(input_row) FROM (SELECT input_row, {text} AS id FROM raw WHERE {deciding}) "
        f"WHERE NOT regexp_full_match(id, {_INTEGER}) AND NOT regexp_full_match(id, {_WHOLE_DECIMAL})",
        "min",
    )
    ((example,),) = session.aggregate(f"SELECT min({text}) FROM raw WHERE input_row = {row}", "min")
    session.warnings.append(
        f"all ids in {name!r} are text, because {num_odd:,} of {num_filled:,} are no integers (first: row {row}: "
        f"{example!r}). Are these rows right?"
    )


def _spellings(session: Session, text: str, deciding: str, may_be_numbers: bool) -> dict[str, Evidence]:
    """How many ids are written in each way; whole are integers of 64 bits and whole decimal numbers."""
    integer, decimal = f"regexp_full_match(id, {_INTEGER})", f"regexp_full_match(id, {_WHOLE_DECIMAL})"
    if not may_be_numbers:
        integer = decimal = "false"
    conditions = {
        "filled": "id IS NOT NULL",
        "integers": integer,
        "whole": f"({integer} AND TRY_CAST(id AS BIGINT) IS NOT NULL) OR {decimal}",
        "decimals": decimal,
        "truths": "lower(id) IN ('true', 'false')",
        "marks": f"id IN {_LONE_MARKS}",
        "mangled": f"(contains(id, '+') OR contains(id, '.0')) AND regexp_full_match(id, {_MANGLED})",
    }
    return session.counts(conditions, f"(SELECT {text} AS id FROM raw WHERE {deciding})", {"mangled": "id"})


def _json_ids_are_numbers(session: Session, column: str, name: str, text: str, deciding: str) -> bool:
    """Raises InputError when some ids of JSON lines are numbers and some are text."""
    kinds = {
        str(kind)
        for (kind,) in session.aggregate(
            f"SELECT DISTINCT {name_in_sql(column + '_type')} FROM raw WHERE {text} IS NOT NULL AND {deciding}", "key"
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


def _note_blanks(session: Session, column: str, name: str, cells: TextCells) -> None:
    if not cells.num_trimmed:
        return
    before = f"CASE WHEN {cells.sql} IS NOT NULL THEN CAST({name_in_sql(column)} AS VARCHAR) END"
    num_before, num_after = session.num_distinct(before, cells.sql)
    equal = f"; {num_before - num_after:,} spellings became equal to others by it" if num_before > num_after else ""
    session.notes.append(f"blanks around {cells.num_trimmed:,} ids in {name!r} were cut{equal}")


def _any(session: Session, condition: str) -> bool:
    return bool(_count(session, f"(SELECT 1 FROM raw WHERE {condition} LIMIT 1)"))


def _count(session: Session, source: str) -> int:
    ((number,),) = session.aggregate(f"SELECT count(*) FROM {source}", "sum")
    return int(number)
