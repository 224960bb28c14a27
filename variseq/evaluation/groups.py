"""Puts queries into groups, by the length of the history and by the popularity of the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Groups:
    """`place[q]` is the group of query q, a position in `names`."""

    names: tuple[str, ...]
    place: Int[np.ndarray, " query"]


def by_thirds(size: Int[np.ndarray, " query"], name_of_zero: str) -> Groups:
    """Size 0 is a group of its own; the rest is cut into thirds of queries (equal sizes are never parted).

    Names are the ranges of sizes; a group without a query does not exist.

    >>> groups = by_thirds(np.array([0, 1, 2, 3, 3]), "none")
    >>> groups.names, groups.place
    (('none', '1', '2', '3'), array([0, 1, 2, 3, 3]))
    """
    positive = np.sort(size[size > 0])
    edges = positive[[len(positive) // 3, 2 * len(positive) // 3]] if len(positive) else np.zeros(2, dtype=size.dtype)
    third = np.where(size > 0, 1 + np.searchsorted(edges, size, side="right"), 0)
    present, place = np.unique(third, return_inverse=True)
    names = []
    for group in present:
        inside = size[third == group]
        low, high = int(inside.min()), int(inside.max())
        names.append(name_of_zero if group == 0 else str(low) if low == high else f"{low}-{high}")
    return Groups(tuple(names), place)
