"""The beginning of an id, as text, into the ranges of whole numbers that begin so."""

from __future__ import annotations

from collections.abc import Iterator

from variseq.serving.stores.admission import LARGEST_ID, SMALLEST_ID

MAX_DIGITS = 19


def whole_number_ranges(prefix: str) -> Iterator[tuple[int, int]]:
    """Ranges (first, last) in ascending order; a sorted index finds each without reading what does not fit.

    >>> list(whole_number_ranges("12"))[:3]
    [(12, 12), (120, 129), (1200, 1299)]
    >>> list(whole_number_ranges("-7"))[-2:]
    [(-79, -70), (-7, -7)]
    >>> list(whole_number_ranges("007")), list(whole_number_ranges("boots"))
    ([], [])
    """
    if not prefix:
        yield SMALLEST_ID, LARGEST_ID
        return
    digits = prefix.removeprefix("-")
    if prefix == "-":
        yield SMALLEST_ID, -1
    elif digits == "0":
        yield from [(0, 0)] if prefix == "0" else []
    elif digits.isascii() and digits.isdigit() and digits[0] != "0" and len(digits) <= MAX_DIGITS:
        found = list(_positive_ranges(int(digits), MAX_DIGITS - len(digits)))
        negative = [(max(-last, SMALLEST_ID), -first) for first, last in reversed(found)]
        yield from negative if prefix[0] == "-" else [(first, min(last, LARGEST_ID)) for first, last in found]


def _positive_ranges(begin: int, num_more_digits: int) -> Iterator[tuple[int, int]]:
    for count in range(num_more_digits + 1):
        first = begin * 10**count
        if first <= LARGEST_ID + 1:
            yield first, first + 10**count - 1
