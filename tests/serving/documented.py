"""docs/serving.md into the configurations that stand in it, so that what is tested is what users copy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def block(language: str, changes: Mapping[str, str]) -> str:
    """The one block of a language, with some of its words (ports, paths) changed; each has to be there once."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for word, other in changes.items():
        assert text.count(word) == 1, (word, text)
        text = text.replace(word, other)
    return str(text)
