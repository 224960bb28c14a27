"""A table of users into the group of every user, by each of its columns: numbers in thirds, texts as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from variseq.errors import InputError
from variseq.evaluation.groups import Groups, third_ends
from variseq.events.users import read_users
from variseq.events.vocabulary import Vocabulary

MAX_GROUPS = 20
UNKNOWN = "unknown"

Column = Sequence[float | str | None]


def read_user_groups(source: object | None, vocabulary: Vocabulary) -> dict[str, Groups]:
    """The groups of the users of a log by the columns of a table: a file, or a pandas, Polars or Arrow table.

    Without a table there are none. The table has a column user_id; users without a row are in the group "unknown".
    Raises InputError for a table without users of the log, and see `group_users`.
    """
    return {} if source is None else group_users(read_users(source, vocabulary))


def group_users(columns: Mapping[str, Column]) -> dict[str, Groups]:
    """The group of each user (the place in a column) by each column, None and NaN in the group "unknown".

    A column of numbers is cut into thirds of the users, a column of text has a group for each value.

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
    ends = third_ends(number[known]) if known.any() else np.zeros(0)
    place = np.where(known, np.searchsorted(ends, number, side="left"), len(ends) + 1)
    names = []
    for third in range(len(ends) + 1):
        inside = number[known & (place == third)]
        low, high = (f"{bound:g}" for bound in (inside.min(), inside.max())) if len(inside) else ("", "")
        names.append(low if low == high else f"{low} to {high}")
    return Groups((*names, UNKNOWN), place).of(np.arange(len(number)))


def _of_texts(name: str, values: Column) -> Groups:
    texts = [UNKNOWN if value is None else str(value) for value in values]
    distinct = sorted(set(texts) - {UNKNOWN})
    if len(distinct) > MAX_GROUPS:
        shown = ", ".join(repr(text[:40]) for text in distinct[:3])
        raise InputError(
            f"The column {name!r} of the table of users has {len(distinct)} different values ({shown}, ...). At most "
            f"{MAX_GROUPS} groups are compared: join values (cities into countries), or leave the column out."
        )
    names = (*distinct, UNKNOWN)
    number = {text: place for place, text in enumerate(names)}
    return Groups(names, np.array([number[text] for text in texts], dtype=np.int64)).of(np.arange(len(texts)))
