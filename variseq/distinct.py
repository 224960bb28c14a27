"""Distinct numbers by sorting."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped


def distinct(values: Shaped[np.ndarray, " value"]) -> Shaped[np.ndarray, " distinct"]:
    """The distinct values in ascending order, as `np.unique` gives them for numbers without NaN.

    numpy 2.3 and later find them by hashing. That takes 7 to 70 times as long for whole numbers: 735 and 5,911 in
    place of 88 and 80 CPU ms for five million values, of which 100,000 or nearly all are distinct (numpy 2.4).

    >>> distinct(np.array([3, 1, 3, 2]))
    array([1, 2, 3])
    """
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]
