"""What each user adds to a released sum: scaled to a norm of at most 1, in whole steps, so that sums are exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from variseq.privacy.noise import GRID
from variseq.sequences.histories import Histories

WINDOW, DECAY = 8, 0.8
"""Two events of a user are a pair if they are at most so many events apart; pairs farther apart count less."""
PAIRS_AT_ONCE = 4_000_000
Pairs = Literal["near", "next"]


def popularity_sums(histories: Histories, num_items: int) -> Int[np.ndarray, " item"]:
    """How often users had each item; the counts of one user have a norm of at most 1. In steps of `GRID`."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    return _sums_of_users(user, histories.item.astype(np.int64), np.ones(len(user)), num_items)


def pair_sums(
    histories: Histories, chosen: Int[np.ndarray, " chosen"], num_items: int, pairs: Pairs = "near"
) -> Int[np.ndarray, " pair"]:
    """How often users had two chosen items near each other; the counts of one user have a norm of at most 1.

    Args:
        histories: All events that count.
        chosen: The items whose pairs are counted, ascending.
        num_items: Size of the catalog.
        pairs: "near": two events that lie k ≤ `WINDOW` events apart count `DECAY`^(k − 1), whichever came first.
            "next": an event and the one right after it, in this order.

    Returns:
        One number for each pair of chosen items, in the order of `pair_index`, in steps of `GRID`.
    """
    position = np.full(num_items, -1)
    position[chosen] = np.arange(len(chosen))
    num_pairs = number_of_pairs(len(chosen), pairs)
    sums = np.zeros(num_pairs, dtype=np.int64)
    for part in _parts(histories):
        owner = np.repeat(np.arange(len(part)), part.lengths)
        user, first, second, weight = listed_pairs(owner, position[part.item], pairs)
        sums += _sums_of_users(user, pair_index(first, second, len(chosen), pairs), weight, num_pairs)
    return sums


def listed_pairs(
    user: Int[np.ndarray, " event"], item: Int[np.ndarray, " event"], pairs: Pairs
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """The pairs of each user as they occur: the user, the earlier item, the later one, and the weight.

    Args:
        user: The user of each event, ascending.
        item: Its item; pairs with a negative number do not count.
        pairs: Which pairs, see `pair_sums`.
    """
    users, firsts, seconds, weights = [], [], [], []
    for lag in range(1, WINDOW + 1 if pairs == "near" else 2):
        first, second = item[:-lag], item[lag:]
        counts = (user[:-lag] == user[lag:]) & (first >= 0) & (second >= 0) & (first != second)
        users.append(user[lag:][counts])
        firsts.append(first[counts])
        seconds.append(second[counts])
        weights.append(np.full(int(counts.sum()), DECAY ** (lag - 1)))
    return np.concatenate(users), np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def number_of_pairs(num_chosen: int, pairs: Pairs) -> int:
    """How many pairs of chosen items there are."""
    return num_chosen * (num_chosen - 1) // 2 if pairs == "near" else num_chosen**2


def pair_index(
    first: Int[np.ndarray, " pair"], second: Int[np.ndarray, " pair"], num_chosen: int, pairs: Pairs = "near"
) -> Int[np.ndarray, " pair"]:
    """The number of each pair of chosen items. Pairs of near items are the rows of a triangle, one after the other.

    >>> pair_index(np.array([0, 2, 1]), np.array([1, 0, 2]), 3)
    array([0, 1, 2])
    >>> pair_index(np.array([0, 2, 1]), np.array([1, 0, 2]), 3, "next")
    array([1, 6, 5])
    """
    if pairs == "next":
        return first * num_chosen + second
    low, high = np.minimum(first, second), np.maximum(first, second)
    return low * (2 * num_chosen - low - 1) // 2 + high - low - 1


def _parts(histories: Histories) -> Iterator[Histories]:
    """Some users at a time, so that memory does not grow with the log."""
    block = histories.offsets[1:] * WINDOW // PAIRS_AT_ONCE
    for rows in np.split(np.arange(len(histories)), np.flatnonzero(np.diff(block)) + 1):
        yield histories.rows(rows)


def bounded_steps(vectors: Float[np.ndarray, "user number"]) -> Int[np.ndarray, "user number"]:
    """The vector of each user, scaled down to a norm of 1 where it is larger, in whole steps of `GRID`.

    >>> bounded_steps(np.array([[3.0, 4.0], [0.0, 0.5]])) * GRID
    array([[0.59997559, 0.79998779],
           [0.        , 0.49993896]])
    """
    norm = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    # Toward zero, so that no norm is above 1.
    return np.trunc(vectors / norm * ((1 - 1e-9) / GRID)).astype(np.int64)


def _sums_of_users(
    user: Int[np.ndarray, " event"],
    cell: Int[np.ndarray, " event"],
    weight: Float[np.ndarray, " event"],
    num_cells: int,
) -> Int[np.ndarray, " cell"]:
    """Add up the weights of each user and cell, divide them by their norm over the user's cells, and sum over users."""
    pair, index = np.unique(user * num_cells + cell, return_inverse=True)
    count = np.bincount(index, weights=weight, minlength=len(pair))
    owner = pair // max(1, num_cells)
    norm = np.sqrt(np.bincount(owner, weights=count**2))[owner]
    # Rounded down, so that no norm is above 1.
    steps = np.floor(count / norm * ((1 - 1e-9) / GRID)).astype(np.int64)
    sums = np.zeros(num_cells, dtype=np.int64)
    np.add.at(sums, pair % max(1, num_cells), steps)
    return sums
