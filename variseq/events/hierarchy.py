"""Codes of a tree, such as `cardio|shock|septic`: the path of each item from the root down, as one category a level."""

from __future__ import annotations

from collections.abc import Sequence

from variseq.errors import InputError
from variseq.events.identifiers import NULL_WORDS

LEVEL_MARK = "|"
MAX_LEVELS = 20
_NUM_NAMED = 5


def nodes_of(codes: Sequence[object], ids: Sequence[object]) -> list[list[str]]:
    """The nodes of a tree that each item belongs to, from the root down; none where it has no code.

    A node is named by its whole path, so one name below two parents is two nodes. A level may have the name of its own
    parent, as in `cardiac arrest|cardiac arrest`.

    Args:
        codes: The code of each item, its levels divided by `|`; None or empty for none.
        ids: The id of each item, for messages.

    Raises:
        InputError: A code has an empty level, more than `MAX_LEVELS`, or a circle: a name that comes again further
            down.

    >>> nodes_of(["cardio|shock", None], [1, 2])
    [['cardio', 'cardio|shock'], []]
    """
    faults: dict[str, list[str]] = {}
    found = []
    for code, item_id in zip(codes, ids, strict=True):
        text = "" if code is None else str(code).strip()
        levels = [] if text.lower() in NULL_WORDS else [level.strip() for level in text.split(LEVEL_MARK)]
        if fault := _fault(levels):
            faults.setdefault(fault, []).append(f"item {item_id!r} has {text[:80]!r}")
        found.append([LEVEL_MARK.join(levels[:depth]) for depth in range(1, len(levels) + 1)])
    if faults:
        shown = "; ".join(f"{fault}: {', '.join(of_items[:_NUM_NAMED])}" for fault, of_items in faults.items())
        raise InputError(
            f"{sum(map(len, faults.values())):,} items have a tree code that is no path. {shown}. A code is the names "
            f"from the root down, such as 'cardio|shock|septic', at most {MAX_LEVELS} levels. Correct these codes, or "
            "leave the cells empty."
        )
    return found


def _fault(levels: Sequence[str]) -> str | None:
    if not all(levels):
        return "empty levels"
    if len(levels) > MAX_LEVELS:
        return f"more than {MAX_LEVELS} levels"
    # A level of the name of its own parent is no circle: real trees have them.
    names = [name for name, parent in zip(levels, ["", *levels], strict=False) if name != parent]
    return "circles" if len(set(names)) < len(names) else None
