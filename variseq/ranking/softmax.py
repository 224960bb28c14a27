"""Softmaxes over a catalog in blocks that fit a core's cache, exact or over a shortlist and a sample of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.ranking.item_codes import ItemCodes, ItemVectors

BLOCK_ITEMS = 8192
SMALLEST = 1e-37
"""No probability is smaller, so that its logarithm is finite in 32 bits."""


@dataclass(frozen=True, eq=False)
class Block:
    """The columns `span`: item vectors with the bias as last row, the same for all histories or one set for each.

    Codes of item vectors, one row a column, are decoded each time: what is smaller in memory stays so.

    `counts` is how many items of the catalog each column stands for; None: one.
    """

    span: slice
    vectors: Float[np.ndarray, "*history hidden_plus_one column"] | ItemCodes
    counts: Float[np.ndarray, "history column"] | None = None

    def logits(
        self,
        preference: Float[np.ndarray, "history sample hidden_plus_one"],
        out: Float[np.ndarray, "history sample column"],
    ) -> Float[np.ndarray, "history sample column"]:
        """The inner product of each preference and each column, written to `out`."""
        # One product of two matrices is much faster than one for each history.
        rows, of_rows = preference.reshape(-1, preference.shape[2]), out.reshape(-1, out.shape[2])
        if isinstance(self.vectors, ItemCodes):
            self.vectors.logits(rows, of_rows)
        elif self.vectors.ndim == 3:
            np.matmul(preference, self.vectors, out=out)
        else:
            np.matmul(rows, self.vectors, out=of_rows)
        return out


class Columns:
    """What preferences are compared with, column by column.

    Either all items, one column each, for every history; or the items `listed` for each history, ascending, followed by
    a sample, the same for all, whose columns stand for all other items and cannot be recommended.
    """

    def __init__(
        self,
        blocks: list[Block],
        num_items: int,
        listed: Int[np.ndarray, "history listed"] | None = None,
        sampled: Int[np.ndarray, " sample"] | None = None,
    ) -> None:
        self.blocks, self.num_items, self.listed, self.sampled = blocks, num_items, listed, sampled
        self.num_columns = blocks[-1].span.stop
        self.starts = np.array([block.span.start for block in blocks])
        self.num_listed = num_items if listed is None else listed.shape[1]
        if listed is not None:
            self._pair = (np.arange(len(listed))[:, None] * num_items + listed).ravel()

    @classmethod
    def whole(cls, vectors: ItemVectors) -> Columns:
        """All items."""
        spans = [slice(first, min(first + BLOCK_ITEMS, len(vectors))) for first in range(0, len(vectors), BLOCK_ITEMS)]
        blocks = [
            Block(
                span, vectors.block(span) if isinstance(vectors, ItemCodes) else np.ascontiguousarray(vectors[span].T)
            )
            for span in spans
        ]
        return cls(blocks, len(vectors))

    def of_items(self, row: Int[np.ndarray, "*#cell"], item: Int[np.ndarray, "*#cell"]) -> Int[np.ndarray, "*cell"]:
        """The columns of items for the histories `row`, −1 for an item without a column of its own."""
        if self.listed is None:
            return np.asarray(item + np.zeros_like(row), dtype=np.int64)
        pair = row * self.num_items + item
        found = np.searchsorted(self._pair, pair).clip(max=len(self._pair) - 1)
        return np.where(self._pair[found] == pair, found - row * self.num_listed, -1)

    def items_at(self, row: Int[np.ndarray, "*#cell"], column: Int[np.ndarray, "*#cell"]) -> Int[np.ndarray, "*cell"]:
        """The items of columns that can be recommended."""
        return column + np.zeros_like(row) if self.listed is None else self.listed[row, column]

    def of_columns(self, numbers: Float[np.ndarray, " item"]) -> Float[np.ndarray, "#history column"]:
        """From numbers of all items those of the columns."""
        if self.listed is None or self.sampled is None:
            return numbers[None]
        of_sample = np.broadcast_to(numbers[self.sampled], (len(self.listed), len(self.sampled)))
        return np.concatenate([numbers[self.listed], of_sample], axis=1)

    def of_listed(self, row: int, numbers: np.ndarray) -> np.ndarray:
        """From numbers of all items those of the columns that can be recommended to one history."""
        return numbers if self.listed is None else numbers[self.listed[row]]


class Softmaxes:
    """The softmax of each preference over the columns, kept as exponentials and a factor for each block.

    Each block is computed relative to its own highest logit, so that nothing overflows. The columns `left_out` have
    numbers like all others, and no part in the mass. The exponentials are kept in `memory` where it is given.
    """

    def __init__(
        self,
        columns: Columns,
        preference: Float[np.ndarray, "history sample hidden_plus_one"],
        left_out: Int[np.ndarray, "#history new"] | None = None,
        memory: Float[np.ndarray, " number"] | None = None,
    ) -> None:
        self.columns = columns
        rows, size = preference.shape[:2], preference.shape[0] * preference.shape[1] * columns.num_columns
        self.num_samples = rows[1]
        memory = np.empty(size, dtype=np.float32) if memory is None else memory[:size]
        self._exponential = memory.reshape(*rows, columns.num_columns)
        highest = np.empty((*rows, len(columns.blocks)), dtype=np.float32)
        mass = np.empty((*rows, len(columns.blocks)))
        for number, block in enumerate(columns.blocks):
            logits = block.logits(preference, self.exponential(number))
            highest[..., number] = logits.max(axis=2)
            logits -= highest[..., number, None]
            inside = np.exp(logits, out=logits)
            counts = np.ones((1, inside.shape[2]), np.float32) if block.counts is None else block.counts
            if left_out is not None:
                counts, cells = counts.copy(), left_out[:, inside_of(left_out, block.span)] - block.span.start
                np.put_along_axis(counts, cells, 0, axis=1)
            mass[..., number] = np.vecdot(inside, counts[:, None])
        # A block whose columns stand for no item at all has no mass.
        with np.errstate(divide="ignore"):
            log_parts = np.log(mass) + highest
        top = log_parts.max(axis=2)
        self.log_mass: Float[np.ndarray, "history sample"] = top + np.log(
            np.exp(log_parts - top[..., None]).sum(axis=2)
        )
        # A block whose highest logit is far below the others has no mass: its factor is zero.
        self.factor = np.exp(highest - self.log_mass[..., None]).astype(np.float32)
        """The exponentials of a row times its factor in a block are probabilities."""

    def exponential(self, number: int) -> Float[np.ndarray, "history sample column"]:
        """The exponentials of a block."""
        return self._exponential[..., self.columns.blocks[number].span]

    def at(
        self, row: Int[np.ndarray, "*#cell"], sample: Int[np.ndarray, "*#cell"], column: Int[np.ndarray, "*#cell"]
    ) -> Float[np.ndarray, "..."]:
        """Probabilities of single cells."""
        number = np.searchsorted(self.columns.starts, column, side="right") - 1
        return self._exponential[row, sample, column] * self.factor[row, sample, number]

    def of_columns(self, column: Int[np.ndarray, "#history new"]) -> Float[np.ndarray, "history sample new"]:
        """Probabilities of some columns of each history, or of the same ones of all."""
        if self.columns.listed is None:
            found = np.empty((*self.factor.shape[:2], column.shape[1]), dtype=np.float32)
            for number, block in enumerate(self.columns.blocks):
                inside = inside_of(column, block.span)
                taken = np.take(self.exponential(number), column[0, inside] - block.span.start, axis=2)
                found[..., inside] = taken * self.factor[..., number, None]
            return found
        row, sample = np.arange(len(self.factor)), np.arange(self.num_samples)
        return self.at(row[:, None, None], sample[:, None], column[:, None])


def inside_of(column: Int[np.ndarray, "#history new"], span: slice) -> slice:
    """Which of some ascending columns are in a block; blocks have the same ones in each row."""
    return slice(*np.searchsorted(column[0], [span.start, span.stop]))
