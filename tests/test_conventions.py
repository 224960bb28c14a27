"""The words of the conventions page are the words of the project."""

from __future__ import annotations

import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRIVATE = tomllib.loads((ROOT / "docs" / "development" / "private_words.toml").read_text(encoding="utf-8"))
# The log is dated: an entry keeps the words of its day. The changelog names what was renamed.
DATED = {ROOT / "docs" / "development" / "log.md"}
BUILT = {"_build", "generated"}


def _texts() -> Iterator[Path]:
    package = (ROOT / "variseq").rglob("*")
    yield from (path for path in package if path.suffix in {".py", ".sql", ".html", ".js", ".css"})
    pages = (path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".ipynb"})
    yield from (page for page in pages if page not in DATED and not BUILT & set(page.parts))
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")


def _identifiers(path: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(path) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.NAME:
                yield token.start[0], token.string


def _parts(identifier: str) -> set[str]:
    """The words of a name in snake case or camel case.

    >>> sorted(_parts("_HistoryStore_of_users"))
    ['history', 'of', 'store', 'users']
    """
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


@pytest.mark.parametrize("word", PRIVATE["words"])
def test_private_word_stands_in_no_text(word: str) -> None:
    pattern = re.compile(rf"\b{word}s?\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_private_words_are_part_of_no_identifier() -> None:
    private = {form for word in PRIVATE["words"] + PRIVATE["identifiers"] for form in (word, word + "s")}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {identifier}"
        for path in (ROOT / "variseq").rglob("*.py")
        for number, identifier in _identifiers(path)
        if identifier not in PRIVATE["allowed"] and private & _parts(identifier)
    ]
    assert found == []
