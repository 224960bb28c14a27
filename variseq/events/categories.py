"""The texts of a category column become lists of categories; how they are divided is found over the whole column."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence

from variseq.events.text_cells import EXACT_NULL_WORDS, NULL_WORDS

_DOUBTFUL = (";", ",")  # also found within the name of one category ("Clothing, Shoes & Jewelry")
_MIN_SHARE = 0.5
_IN_WORDS = {"[": "lists in brackets", "|": "'|'", ">": "'>' between levels", ";": "';'", ",": "commas"}


def split_categories(entries: Sequence[object]) -> tuple[list[list[str]], list[str]]:
    """The categories of each entry, and notes that say how texts were divided.

    Lists, lists in brackets (JSON or Python) and `A|B` are divided, `A > B` into its levels. `A, B` and `A;B` are
    divided when in at least half of such texts every part is found in another text of the column as well.

    >>> split_categories(["Action, Drama", "Drama", "Action"])[0]
    [['Action', 'Drama'], ['Drama'], ['Action']]
    >>> split_categories(["Clothing, Shoes & Jewelry", "Garden"])[0]
    [['Clothing, Shoes & Jewelry'], ['Garden']]
    """
    divided: dict[str, list[str]] = {}
    marks: Counter[str] = Counter()
    for entry in entries:
        if entry is not None and not isinstance(entry, list) and (text := _text(entry)) not in divided:
            divided[text], mark = _plainly_divided(text)
            marks[mark] += 1
    notes = []
    everywhere = {text: _pieces(parts, "".join(_DOUBTFUL)) for text, parts in divided.items()}
    count = Counter(part for parts in everywhere.values() for part in set(parts))
    for mark in _DOUBTFUL:
        containing = [text for text, parts in divided.items() if any(mark in part for part in parts)]
        num_known = sum(all(count[part] > 1 for part in everywhere[text]) for text in containing)
        if containing and num_known >= _MIN_SHARE * len(containing):
            divided |= {text: _pieces(divided[text], mark) for text in containing}
            marks[mark] += len(containing)
        elif containing:
            notes.append(
                f"categories such as {containing[0]!r} were taken as one each; write 'A|B' if they are several"
            )
    found = [words for mark, words in _IN_WORDS.items() if marks[mark]]
    if found and found != ["'|'"]:
        notes.insert(0, f"categories were divided at {' and '.join(found)}")
    return [_of_entry(entry, divided) for entry in entries], notes


def _of_entry(entry: object, divided: dict[str, list[str]]) -> list[str]:
    if entry is None:
        return []
    if isinstance(entry, list):
        return _named(entry)
    return divided[_text(entry)]


def _text(entry: object) -> str:
    if isinstance(entry, float) and entry.is_integer():
        return str(int(entry))
    return str(entry).strip()


def _plainly_divided(text: str) -> tuple[list[str], str]:
    """The parts at a mark that has no other meaning, and the mark (empty for none)."""
    if text[:1] in ("[", "(") and text[-1:] in ("]", ")") and (listed := _listed(text)) is not None:
        return _named(listed), "["
    if "|" in text:
        return _named(text.split("|")), "|"
    if " > " in text:
        return _named(text.split(" > ")), ">"
    return _named([text]), ""


def _listed(text: str) -> list[object] | None:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | tuple):
            return list(value)
    if text[0] == "[" and text[-1] == "]" and '"' not in text and "'" not in text:
        return list(text[1:-1].split(","))  # [Action, Drama]
    return None


def _pieces(parts: Sequence[str], marks: str) -> list[str]:
    return [piece.strip() for part in parts for piece in re.split(f"[{marks}]", part) if piece.strip()]


def _named(parts: Sequence[object]) -> list[str]:
    texts = [_text(part) for part in parts if part is not None]
    return [text for text in texts if text.lower() not in NULL_WORDS and text not in EXACT_NULL_WORDS]
