"""Rectangles of tokens into trees: histories that begin alike stand in one row, which holds what they share once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int

from variseq.inference.rectangle import Rectangle


@dataclass(frozen=True, eq=False)
class Tree:
    """One row a tree: `cells` of its tokens, which of them see each other, and where its branches end.

    `distance` is how many places the key (last axis) stands before the query, −1 where the query does not see it. The
    last token of history j is `query[row[j], place[j]]`. Tokens beyond the end of a row see each other only.
    """

    cells: dict[str, np.ndarray]
    distance: Int[np.ndarray, "tree token token"]
    query: Int[np.ndarray, "tree branch"]
    row: Int[np.ndarray, " history"]
    place: Int[np.ndarray, " history"]


def as_tree(tokens: Rectangle, row: Int[np.ndarray, " history"]) -> Tree:
    """Histories with the same `row` share that row and the tokens with which they begin as its first history does.

    >>> from variseq.inference.rectangle import rectangle
    >>> from variseq.sequences.histories import Histories
    >>> tokens = rectangle(Histories.of_items([[3, 1, 4], [3, 4], [2]]), 4, num_items=9)
    >>> tree = as_tree(tokens, np.array([0, 0, 1]))
    >>> tree.cells["item"]
    array([[9, 3, 1, 4, 4],
           [9, 2, 0, 0, 0]])
    >>> tree.distance[0, 4].tolist(), tree.query.tolist()
    ([2, 1, -1, -1, 0], [[3, 4], [1, 0]])
    """
    first, place = _first_and_place(row)
    shared = np.minimum(_num_equal(tokens, first), tokens.length)
    added = tokens.length - shared
    is_first = first == np.arange(len(row))
    added[is_first], shared[is_first] = tokens.length[is_first], 0
    num_rows = int(row.max()) + 1
    start = _sum_before(added, row, place)
    # Token by token: its history, its place there, and its column in the tree.
    history = np.repeat(np.arange(len(row)), added)
    step = np.arange(len(history)) - np.repeat(np.cumsum(added) - added, added)
    position, column = shared[history] + step, start[history] + step
    cell = (row[history], column)
    widest = int(column.max()) + 1
    cells = {}
    for name in (field.name for field in fields(tokens) if field.name != "length"):
        source = getattr(tokens, name)
        cells[name] = np.zeros((num_rows, widest), dtype=source.dtype)
        cells[name][cell] = source[history, position]
    query = np.zeros((num_rows, int(place.max()) + 1), dtype=np.int64)
    end = np.where(added > 0, start + added, tokens.length) - 1
    query[row, place] = end
    return Tree(
        cells, _distance(cell, position, place[history], shared[history], (num_rows, widest)), query, row, place
    )


def _distance(
    cell: tuple[np.ndarray, np.ndarray],
    position: Int[np.ndarray, " cell"],
    branch: Int[np.ndarray, " cell"],
    shared: Int[np.ndarray, " cell"],
    shape: tuple[int, int],
) -> Int[np.ndarray, "tree token token"]:
    """A token sees those of its own branch up to itself, and those of the first branch that its own shares."""
    of_position, of_branch, of_shared = (np.full(shape, fill, dtype=np.int32) for fill in (0, -1, 0))
    of_position[cell], of_branch[cell], of_shared[cell] = position, branch, shared
    distance = of_position[:, :, None] - of_position[:, None, :]
    sees: Bool[np.ndarray, "tree token token"] = of_branch[:, :, None] == of_branch[:, None, :]
    if shared.any():
        sees |= (of_branch[:, None, :] == 0) & (of_position[:, None, :] < of_shared[:, :, None])
    return np.where(sees & (distance >= 0), distance, np.int32(-1))


def _first_and_place(
    row: Int[np.ndarray, " history"],
) -> tuple[Int[np.ndarray, " history"], Int[np.ndarray, " history"]]:
    """The first history of the row of each, and how many stand before it there."""
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    begin = np.searchsorted(ordered, ordered)
    first, place = np.empty(len(row), dtype=np.int64), np.empty(len(row), dtype=np.int64)
    first[order], place[order] = order[begin], np.arange(len(row)) - begin
    return first, place


def _num_equal(tokens: Rectangle, first: Int[np.ndarray, " history"]) -> Int[np.ndarray, " history"]:
    """With how many tokens each history begins as another one does."""
    widest = tokens.item.shape[1]
    equal = np.arange(widest) < np.minimum(tokens.length, tokens.length[first])[:, None]
    for name in (field.name for field in fields(tokens) if field.name != "length"):
        column = getattr(tokens, name)
        equal &= column == column[first]
    return np.where(equal.all(axis=1), widest, equal.argmin(axis=1))


def _sum_before(
    number: Int[np.ndarray, " history"], row: Int[np.ndarray, " history"], place: Int[np.ndarray, " history"]
) -> Int[np.ndarray, " history"]:
    """The sum of the numbers of those that stand before each in its row."""
    table = np.zeros((int(row.max()) + 1, int(place.max()) + 2), dtype=np.int64)
    table[row, place + 1] = number
    return np.cumsum(table, axis=1)[row, place]
