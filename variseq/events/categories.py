"""The texts of a category column become lists of categories; how they are divided is found over the whole column."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from variseq.events.text_cells import EXACT_NULL_WORDS, NULL_WORDS

_DOUBTFUL = (";", ",")  # also found within the name of one category ("Clothing, Shoes & Jewelry")
_MIN_SHARE = 0.5
_NAMES = ("name", "title", "label")  # the keys of an object that say what it is
_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s+(?=['"]))?""", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_IN_WORDS = {"[": "lists in brackets", "|": "'|'", ">": "'>' between levels", ";": "';'", ",": "commas"}


def split_categories(entries: Sequence[object]) -> tuple[list[list[str]], list[str]]:
    """The categories of each entry, and notes that say how texts were divided.

    Lists, lists in brackets (JSON, Python or numpy) and `A|B` are divided, `A > B` into its levels. Lists within lists
    are made flat, and of objects the name (or title, or label) is taken. `A, B` and `A;B` are divided when in at least
    half of such texts every part is found in another text of the column as well. An entry has each category once.
    Where all categories are numbers, whole ones are written without decimals.

    >>> split_categories(["Action, Drama", "Drama", "Action"])[0]
    [['Action', 'Drama'], ['Drama'], ['Action']]
    >>> split_categories(["Clothing, Shoes & Jewelry", "Garden"])[0]
    [['Clothing, Shoes & Jewelry'], ['Garden']]
    """
    divided: dict[str, list[str]] = {}
    marks: Counter[str] = Counter()
    for entry in entries:
        if entry is not None and not isinstance(entry, list | tuple | dict) and (text := _text(entry)) not in divided:
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
    of_entries = [list(dict.fromkeys(_of_entry(entry, divided))) for entry in entries]
    nameless = next((part for parts in of_entries for part in parts if part[:1] == "{"), None)
    if nameless is not None:
        notes.append(f"categories such as {nameless[:60]!r} have no name, title or label and were taken as one each")
    return _without_decimals(of_entries), notes


def _without_decimals(of_entries: list[list[str]]) -> list[list[str]]:
    """Whole numbers without decimals where all are numbers, so that a float column is as it is by every source."""
    if not all(_NUMBER.fullmatch(part) for parts in of_entries for part in parts):
        return of_entries
    return [list(dict.fromkeys(re.sub(r"\.0+$", "", part) for part in parts)) for parts in of_entries]


def _of_entry(entry: object, divided: dict[str, list[str]]) -> list[str]:
    if entry is None:
        return []
    if isinstance(entry, list | tuple | dict):
        return _named([entry])
    return divided[_text(entry)]


def _text(entry: object) -> str:
    if isinstance(entry, float) and entry.is_integer():
        return str(int(entry))
    return str(entry).strip()


def _plainly_divided(text: str) -> tuple[list[str], str]:
    """The parts at a mark that has no other meaning, and the mark (empty for none)."""
    if text[:1] + text[-1:] in ("[]", "()", "{}") and (listed := _listed(text)) is not None:
        return _named(listed), "["
    if "|" in text:
        return _named(text.split("|")), "|"
    if " > " in text:
        return _named(text.split(" > ")), ">"
    return _named([text]), ""


def _listed(text: str) -> list[object] | None:
    """The list or the object that a text writes out; None for another text."""
    for read in (json.loads, _python_value):
        try:
            value = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | tuple | dict):
            return [value] if isinstance(value, dict) else list(value)
    if text[0] == "[" and '"' not in text and "'" not in text:
        inside = text[1:-1].split()
        is_array = len(inside) > 1 and all(_NUMBER.fullmatch(part) for part in inside)  # [1 2], as numpy writes it
        return list(inside if is_array else text[1:-1].split(","))  # [Action, Drama]
    return None


def _python_value(text: str) -> object:
    """A value as Python writes it; numpy writes no commas between texts, which Python would join."""
    return ast.literal_eval(_QUOTED.sub(lambda match: match[1] + ("," if match[2] else ""), text))


def _pieces(parts: Sequence[str], marks: str) -> list[str]:
    return [piece.strip() for part in parts for piece in re.split(f"[{marks}]", part) if piece.strip()]


def _named(parts: Sequence[object]) -> list[str]:
    texts = [_text(part) for part in _flat(parts) if part is not None]
    return [text for text in texts if text.lower() not in NULL_WORDS and text not in EXACT_NULL_WORDS]


def _flat(parts: Sequence[object]) -> Iterator[object]:
    """The values of lists within lists, and the names of objects."""
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        elif isinstance(part, dict):
            name = next((part[key] for key in _NAMES if part.get(key) is not None), None)
            yield json.dumps(part, default=str, ensure_ascii=False) if name is None else name
        else:
            yield part
