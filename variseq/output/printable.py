"""Escapes the characters of a text that would change the state of a terminal."""

from __future__ import annotations

import re

# Control characters, separators of lines and paragraphs, marks that reverse the direction, and halves of characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, keep: str = "") -> str:
    """The text with control characters and direction marks escaped, except those of `keep`.

    >>> print(printable("a:new:1 [bold] \\x1b[31m\\n"))
    a:new:1 [bold] \\x1b[31m\\n
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _code(found[0]), str(text))


def printable_lines(text: object) -> str:
    """`printable` that keeps line ends."""
    return printable(text, keep="\n")


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
