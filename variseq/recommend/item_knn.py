"""Counts which items share users, and recommends the neighbors of a history's latest items."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.errors import InputError
from variseq.recommend.baselines import item_counts
from variseq.recommend.item_matrix import DenseRows, SparseRows, WeightedRows
from variseq.sequences.histories import Histories

_CELLS_AT_ONCE = 16_000_000


class ItemKNN:
    """Items whose users are the users of the items of the history; each step back in the history counts half.

    score(item) = sum over events of decay ** age * cosine(item, event's item), where the cosine is between the binary
    columns of the user-item matrix, an item is no neighbor of itself, and all neighbors are kept. Events whose
    weight has fallen below one millionth are skipped. Scores are not probabilities.
    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), with decay.
    """

    name = "item-knn"
    gives_probabilities = False
    SMALLEST_WEIGHT = 1e-6

    def __init__(self, num_items: int, decay: float = 0.5) -> None:
        if not 0 < decay <= 1:
            raise InputError(f"decay={decay} is not allowed. Give a number above 0 and at most 1, such as 0.5.")
        self.decay = decay
        self.neighbors: SparseRows | DenseRows = SparseRows.empty(num_items)

    def fit(self, histories: Histories) -> ItemKNN:
        num_items = self.neighbors.num_rows
        user, item = _pairs(histories, num_items)
        neighbors = SparseRows.joined(list(_cosines(user, item, len(histories), num_items)))
        # A sparse cell takes twice the memory of a dense one.
        mostly_filled = 2 * len(neighbors.item) > num_items**2
        self.neighbors = DenseRows.from_sparse(neighbors) if mostly_filled else neighbors
        return self

    def query(self, histories: Histories) -> WeightedRows:
        if self.decay < 1:
            histories = histories.latest(max(1, math.ceil(math.log(self.SMALLEST_WEIGHT) / math.log(self.decay))))
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        age = histories.offsets[1:][row] - 1 - np.arange(histories.num_events)
        return WeightedRows(
            torch.from_numpy(histories.offsets),
            torch.from_numpy(histories.item.astype(np.int64)),
            torch.from_numpy(self.decay ** age.astype(np.float32)).float(),
        )

    def scores(self, query: WeightedRows, first: int, last: int) -> Float[Tensor, "history item"]:
        return self.neighbors.weighted_sum(query, first, last)


def _pairs(histories: Histories, num_items: int) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Which user has which item, each pair once."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    item_counts(histories.item, num_items)  # refuses an item outside the catalog
    key = np.unique(user * num_items + histories.item)
    return key // num_items, key % num_items


def _cosines(
    user: Int[np.ndarray, " pair"], item: Int[np.ndarray, " pair"], num_users: int, num_items: int
) -> Iterator[SparseRows]:
    """Neighbors of a block of items at a time: a sparse matrix times a few dense columns of itself."""
    scale = 1 / np.sqrt(np.maximum(item_counts(item, num_items), 1))
    value = torch.from_numpy(scale[item]).float()
    by_item = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([item, user])), value, (num_items, num_users), check_invariants=True
    ).coalesce()
    order = np.argsort(item, kind="stable")
    ordered_item = item[order]
    width = max(1, _CELLS_AT_ONCE // max(num_users, num_items, 1))
    for first in range(0, num_items, width):
        last = min(first + width, num_items)
        begin, end = np.searchsorted(ordered_item, [first, last])
        pairs = order[begin:end]
        columns = torch.zeros(num_users, last - first)
        columns[torch.from_numpy(user[pairs]), torch.from_numpy(item[pairs] - first)] = value[torch.from_numpy(pairs)]
        cosine = torch.sparse.mm(by_item, columns).T.contiguous()
        block = torch.arange(last - first)
        cosine[block, first + block] = 0
        yield SparseRows.from_dense(cosine)
