"""Groups of queries: by the length of the history, by the popularity of items, by a column of a table of users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.ranking.attributes import range_ends
from variseq.ranking.calibration import LENGTH_EDGES, length_group

MAX_GROUPS = 20
UNKNOWN = "unknown"

Column = Sequence[float | str | None]


@dataclass(frozen=True, eq=False)
class Groups:
    """`index[q]` is the group of query q, an index of `names`."""

    names: tuple[str, ...]
    index: Int[np.ndarray, " query"]

    def take(self, rows: Int[np.ndarray, " row"]) -> Groups:
        """The groups of some rows, which may come more than once; a group that none of them is in is left out.

        >>> groups = Groups(("a", "b", "c"), np.array([2, 0, 1])).take(np.array([0, 0, 1]))
        >>> groups.names, groups.index
        (('a', 'c'), array([1, 1, 0]))
        """
        present, index = np.unique(self.index[rows], return_inverse=True)
        return Groups(tuple(self.names[group] for group in present), index)


def by_length(length: Int[np.ndarray, " query"]) -> Groups:
    """Queries by the length of their history, in the groups that begin at `LENGTH_EDGES`.

    >>> by_length(np.array([0, 4, 4, 300])).names
    ('0', '3-5', '201+')
    """
    return Groups(length_names(), length_group(length)).take(np.arange(len(length)))


def length_names() -> tuple[str, ...]:
    """The names of the groups that begin at `LENGTH_EDGES`.

    >>> [length_names()[index] for index in (0, 3, 9)]
    ['0', '3-5', '201+']
    """
    *firsts, last = LENGTH_EDGES
    return (*(_range_name(low, above - 1) for low, above in zip(firsts, LENGTH_EDGES[1:], strict=True)), f"{last}+")


@dataclass(frozen=True, eq=False)
class SizeThirds:
    """Size 0 is a group of its own; the other sizes are cut into thirds of the queries, named by their ranges.

    >>> sizes = np.array([0, 1, 2, 3, 3])
    >>> thirds = SizeThirds.of(sizes, "none")
    >>> thirds.names, thirds.index(sizes)
    (('none', '1', '2', '3'), array([0, 1, 2, 3, 3]))
    """

    names: tuple[str, ...]
    ends: Float[np.ndarray, " cut"]
    num_zero: int

    @classmethod
    def of(cls, size: Int[np.ndarray, " query"], name_of_zero: str) -> SizeThirds:
        positive = size[size > 0].astype(np.float64)
        ends = range_ends(positive, 3)
        has_zero = len(positive) < len(size)
        return cls(((name_of_zero,) if has_zero else ()) + _third_names(positive, ends, "-"), ends, int(has_zero))

    def index(self, size: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The group of each size, an index of `names`; −1 for a size 0 where no query had it."""
        return np.where(size > 0, self.num_zero + np.searchsorted(self.ends, size, side="left"), self.num_zero - 1)


def group_users(columns: Mapping[str, Column]) -> dict[str, Groups]:
    """The group of each user (the index in a column) by each column, None and NaN in the group "unknown".

    A column of numbers is cut into thirds of the users, and three numbers or fewer are groups of their own, however
    many users each has. A column of text has a group for each value.

    Raises InputError for a column with more than 20 different texts.

    >>> group_users({"country": ["DE", None, "FR"], "age": [31.0, 17.0, None]})["country"].names
    ('DE', 'FR', 'unknown')
    """
    return {
        name: _of_numbers(values) if _is_number(values) else _of_texts(name, values) for name, values in columns.items()
    }


def _is_number(values: Column) -> bool:
    return all(isinstance(value, float) for value in values if value is not None)


def _of_numbers(values: Column) -> Groups:
    number = np.array([math.nan if value is None else float(value) for value in values])
    known = np.isfinite(number)
    ends = range_ends(number[known], 3) if known.any() else np.zeros(0)
    names = _third_names(number[known], ends, " to ")
    index = np.where(known, np.searchsorted(ends, number, side="left"), len(names))
    return Groups((*names, UNKNOWN), index).take(np.arange(len(number)))


def _of_texts(name: str, values: Column) -> Groups:
    texts = [UNKNOWN if value is None else str(value) for value in values]
    distinct = sorted(set(texts) - {UNKNOWN})
    if len(distinct) > MAX_GROUPS:
        shown = ", ".join(repr(text[:40]) for text in distinct[:3])
        raise InputError(
            f"The column {name!r} of the table of users has {len(distinct)} different values ({shown}, ...). At most "
            f"{MAX_GROUPS} groups are compared. Join values (cities into countries), or leave the column out."
        )
    names = (*distinct, UNKNOWN)
    number = {text: index for index, text in enumerate(names)}
    return Groups(names, np.array([number[text] for text in texts], dtype=np.int64)).take(np.arange(len(texts)))


def _third_names(number: Float[np.ndarray, " row"], ends: Float[np.ndarray, " cut"], between: str) -> tuple[str, ...]:
    """The ranges of the thirds, with as many digits as tell them apart; none without a number."""
    third = np.searchsorted(ends, number, side="left")
    inside = [number[third == index] for index in range(len(ends) + 1)] if len(number) else []
    short, full = (
        tuple(_range_name(values.min(), values.max(), between, digits) for values in inside) for digits in (6, 17)
    )
    return short if len(set(short)) == len(short) else full


def _range_name(low: float | int, high: float | int, between: str = "-", digits: int = 6) -> str:
    """Whole numbers are written in full.

    >>> _range_name(3, 5), _range_name(2.0, 2.0), _range_name(0.25, 1.0, " to ")
    ('3-5', '2', '0.25 to 1')
    """
    first, last = (f"{int(bound)}" if bound == int(bound) else f"{bound:.{digits}g}" for bound in (low, high))
    return first if first == last else f"{first}{between}{last}"
