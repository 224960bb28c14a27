"""Puts queries into groups: by the length of the history, by the popularity of items, by a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.ranking.calibration import LENGTH_EDGES, length_group


@dataclass(frozen=True, eq=False)
class Groups:
    """`place[q]` is the group of query q, a position in `names`."""

    names: tuple[str, ...]
    place: Int[np.ndarray, " query"]

    def of(self, rows: Int[np.ndarray, " row"]) -> Groups:
        """The groups of some rows, which may come more than once; a group that none of them is in is left out.

        >>> groups = Groups(("a", "b", "c"), np.array([2, 0, 1])).of(np.array([0, 0, 1]))
        >>> groups.names, groups.place
        (('a', 'c'), array([1, 1, 0]))
        """
        present, place = np.unique(self.place[rows], return_inverse=True)
        return Groups(tuple(self.names[group] for group in present), place)


def by_length(length: Int[np.ndarray, " query"]) -> Groups:
    """Queries by the length of their history, in the groups that begin at `LENGTH_EDGES`.

    >>> by_length(np.array([0, 4, 4, 300])).names
    ('0', '3-5', '201+')
    """
    names = [
        "201+" if low == LENGTH_EDGES[-1] else str(low) if low + 1 == above else f"{low}-{above - 1}"
        for low, above in zip(LENGTH_EDGES, (*LENGTH_EDGES[1:], 0), strict=True)
    ]
    present, place = np.unique(length_group(length), return_inverse=True)
    return Groups(tuple(names[group] for group in present), place)


def third_ends(number: Float[np.ndarray, " row"]) -> Float[np.ndarray, " cut"]:
    """The largest number of each third but the last; equal numbers are never parted, so there may be fewer thirds.

    Three numbers or fewer are groups of their own, however many rows each has.

    >>> third_ends(np.array([1.0, 2, 3, 4, 5, 6])), third_ends(np.array([0.0, 0, 0, 0, 1]))
    (array([2., 4.]), array([0.]))
    """
    distinct, count = np.unique(number, return_counts=True)
    if len(distinct) <= 3:
        return distinct[:-1]
    below = np.cumsum(count)[:-1]
    nearest = {int(np.abs(below - len(number) * part / 3).argmin()) for part in (1, 2)}
    return distinct[sorted(nearest)]


@dataclass(frozen=True, eq=False)
class SizeThirds:
    """Size 0 is a group of its own; the other sizes are cut into thirds of the queries, called by their ranges."""

    names: tuple[str, ...]
    ends: Float[np.ndarray, " cut"]
    num_zero: int

    @classmethod
    def of(cls, size: Int[np.ndarray, " query"], name_of_zero: str) -> SizeThirds:
        positive = size[size > 0].astype(np.float64)
        ends = third_ends(positive)
        third = np.searchsorted(ends, positive, side="left")
        names = [name_of_zero] if len(positive) < len(size) else []
        for place in range(len(ends) + 1) if len(positive) else ():
            inside = positive[third == place]
            low, high = int(inside.min()), int(inside.max())
            names.append(str(low) if low == high else f"{low}-{high}")
        return cls(tuple(names), ends, int(len(positive) < len(size)))

    def place(self, size: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The group of each size, a position in `names`; −1 for a size 0 where no query had it."""
        return np.where(size > 0, self.num_zero + np.searchsorted(self.ends, size, side="left"), self.num_zero - 1)


def by_thirds(size: Int[np.ndarray, " query"], name_of_zero: str) -> Groups:
    """Queries by a size, in the groups of `SizeThirds`.

    >>> groups = by_thirds(np.array([0, 1, 2, 3, 3]), "none")
    >>> groups.names, groups.place
    (('none', '1', '2', '3'), array([0, 1, 2, 3, 3]))
    """
    thirds = SizeThirds.of(size, name_of_zero)
    return Groups(thirds.names, thirds.place(size))
