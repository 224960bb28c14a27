r"""Text columns of `raw` become SQL that yields the text without blanks around it, or NULL for a word for nothing.

Words for nothing are, in any case of letters: the empty text, `null`, `none`, `nan`, `nat`, `n/a`, `#n/a`, `<na>`,
`<null>`, `(null)`, `#null!` and `\N`; and, written exactly so: `NA`, `nil` and `undefined`. Blanks are white space of
any kind (also tabs and no-break spaces) and characters without width (also a byte order mark).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from variseq.events.workspace import Workspace, name_in_sql, text_in_sql

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


def read_text_cells(workspace: Workspace, columns: Mapping[str, str], source: str = "raw") -> dict[str, TextCells]:
    """The text columns among `columns` (name to SQL of its text), by one pass over all of them.

    A column without blanks and words for nothing is taken as it is, which costs nothing later.
    """
    if not columns:
        return {}
    blanks = f"'^{_BLANK}|{_BLANK}$'"
    counts = ", ".join(
        f"count(*) FILTER (WHERE regexp_matches({text}, {blanks})), "
        f"count(*) FILTER (WHERE {is_word_for_nothing(text)}), "
        f"count(*) FILTER (WHERE regexp_matches({text}, {blanks}) AND NOT {is_word_for_nothing(trimmed(text))})"
        for text in columns.values()
    )
    found = workspace.row(f"SELECT {counts} FROM {source}")
    cells = {}
    for place, (column, text) in enumerate(columns.items()):
        num_blank, num_words, num_trimmed = found[3 * place : 3 * place + 3]
        cells[column] = TextCells(cleaned(text) if num_blank or num_words else text, num_trimmed)
    return cells


def text_columns(workspace: Workspace, names: list[str]) -> dict[str, str]:
    """Those of the columns of `raw` that hold text, with the SQL of it: also bytes that are UTF-8, and categories."""
    types = workspace.column_types("raw")
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
