"""An id that nobody knows into the known one that was probably meant, for messages."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from unicodedata import normalize

from variseq.events.vocabulary import Id

MAX_COMPARED = 20_000
"""Comparing letters takes about half a second for so many ids; of more only the spelling is compared."""


def nearest_hint(wanted: Id, known: Sequence[Id]) -> str:
    """A hint to put behind an unknown id; empty for a number and where no known id is like it.

    >>> nearest_hint("Drama ", ["Comedy", "drama"])
    " (did you mean 'drama'?)"
    """
    found = _nearest(wanted, known) if isinstance(wanted, str) else None
    return "" if found is None else f" (did you mean {found!r}?)"


def _nearest(wanted: str, known: Sequence[Id]) -> str | None:
    spelling = _spelling(wanted)
    for one in known:
        if isinstance(one, str) and _spelling(one) == spelling:
            return one
    texts = [str(one) for one in known] if len(known) <= MAX_COMPARED else []
    return next(iter(get_close_matches(wanted, texts, n=1)), None)


def _spelling(text: str) -> str:
    """What is left of an id without blanks around it, capitals, and differences in how accents are stored."""
    return normalize("NFKC", text).strip().casefold()
