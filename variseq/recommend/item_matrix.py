"""Holds an item-by-item matrix (followers, neighbors) as few cells or whole, and adds up its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """For each history the rows `item[offsets[h]:offsets[h + 1]]` to be added up, each times its weight."""

    offsets: Int[Tensor, " history_plus_one"]
    item: Int[Tensor, " event"]
    weight: Float[Tensor, " event"]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Row r holds `value` at the columns `item`, both at `offsets[r]:offsets[r + 1]`; columns ascend in a row.

    >>> rows = SparseRows.from_cells(np.array([0, 2, 2]), np.array([1, 0, 1]), np.array([5, 6, 7]), num_rows=3)
    >>> rows.take(torch.tensor([2, 1, 0]))
    (tensor([0, 0, 2]), tensor([0, 1, 1]), tensor([6., 7., 5.]))
    """

    offsets: Int[Tensor, " row_plus_one"]
    item: Int[Tensor, " cell"]
    value: Float[Tensor, " cell"]

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def empty(cls, num_rows: int) -> SparseRows:
        return cls(torch.zeros(num_rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), torch.zeros(0))

    @classmethod
    def from_cells(
        cls,
        row: Int[np.ndarray, " cell"],
        item: Int[np.ndarray, " cell"],
        value: Int[np.ndarray, " cell"],
        num_rows: int,
    ) -> SparseRows:
        """Cells in ascending order of (row, item)."""
        offsets = np.searchsorted(row, np.arange(num_rows + 1))
        return cls(
            torch.from_numpy(offsets.astype(np.int64)),
            torch.from_numpy(item.astype(np.int32)),
            torch.from_numpy(value.astype(np.float32)),
        )

    @classmethod
    def joined(cls, parts: list[SparseRows]) -> SparseRows:
        """The rows of all parts, one part below the other."""
        lengths = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return cls(offsets, torch.cat([part.item for part in parts]), torch.cat([part.value for part in parts]))

    @classmethod
    def from_dense(cls, matrix: Float[Tensor, "row item"]) -> SparseRows:
        """The cells of a dense matrix that are not zero."""
        row, item = matrix.nonzero(as_tuple=True)
        offsets = torch.zeros(len(matrix) + 1, dtype=torch.int64)
        offsets[1:] = torch.bincount(row, minlength=len(matrix)).cumsum(0)
        return cls(offsets, item.int(), matrix[row, item])

    def take(
        self, rows: Int[Tensor, " taken"]
    ) -> tuple[Int[Tensor, " cell"], Int[Tensor, " cell"], Float[Tensor, " cell"]]:
        """All cells of some rows: the place in `rows`, the item, the value."""
        start = self.offsets[rows]
        length = self.offsets[rows + 1] - start
        place = torch.repeat_interleave(torch.arange(len(rows)), length)
        index = torch.arange(len(place)) + (start - length.cumsum(0) + length)[place]
        return place, self.item[index].long(), self.value[index]

    def weighted_sum(self, rows: WeightedRows, first: int, last: int) -> Float[Tensor, "history item"]:
        """The weighted sums of rows, at the columns `first:last`."""
        place, item, value = self.take(rows.item)
        history = torch.repeat_interleave(torch.arange(len(rows.offsets) - 1), rows.offsets.diff())
        value = value * rows.weight[place]
        history = history[place]
        if last - first < self.num_rows:
            inside = (item >= first) & (item < last)
            history, item, value = history[inside], item[inside] - first, value[inside]
        shape = (len(rows.offsets) - 1, last - first)
        return torch.zeros(shape[0] * shape[1]).index_add_(0, history * shape[1] + item, value).view(shape)

    def state(self) -> dict[str, Tensor]:
        return {"offsets": self.offsets, "item": self.item, "value": self.value}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> SparseRows:
        return cls(state["offsets"], state["item"], state["value"])


@dataclass(frozen=True, eq=False)
class DenseRows:
    """The whole matrix: smaller and faster than `SparseRows` when most cells are not zero."""

    matrix: Float[Tensor, "row item"]

    @property
    def num_rows(self) -> int:
        return len(self.matrix)

    @classmethod
    def from_sparse(cls, sparse: SparseRows) -> DenseRows:
        matrix = torch.zeros(sparse.num_rows, sparse.num_rows)
        row = torch.repeat_interleave(torch.arange(sparse.num_rows), sparse.offsets.diff())
        matrix[row, sparse.item.long()] = sparse.value
        return cls(matrix)

    def weighted_sum(self, rows: WeightedRows, first: int, last: int) -> Float[Tensor, "history item"]:
        """The weighted sums of rows, at the columns `first:last`."""
        columns = self.matrix[:, first:last].contiguous()
        return F.embedding_bag(rows.item, columns, rows.offsets[:-1], mode="sum", per_sample_weights=rows.weight)
