"""Item vectors into the columns that preferences are compared with: all items, or a few and a sample of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK_ITEMS = 8192


@dataclass(frozen=True, eq=False)
class Block:
    """The columns `span`: item vectors with the bias below them, alike for all histories or of each its own.

    `counts` is how many items of the catalog each column stands for; None: one, itself.
    """

    span: slice
    vectors: Float[np.ndarray, "*history hidden_plus_one column"]
    counts: Float[np.ndarray, "history column"] | None = None

    def logits(
        self, preference: Float[np.ndarray, "history sample hidden_plus_one"]
    ) -> Float[np.ndarray, "history sample column"]:
        """Those of each preference for each column."""
        if self.vectors.ndim == 3:
            return np.matmul(preference, self.vectors)
        # One product of two matrices is much faster than one for each history.
        flat = preference.reshape(-1, preference.shape[2]) @ self.vectors
        return flat.reshape(*preference.shape[:2], -1)


@dataclass(frozen=True, eq=False)
class Shortlists:
    """For each history the few items that are looked at themselves, ascending; a shorter row repeats its last item.

    `sampled` are the items that stand for all others, the same for everybody.
    """

    listed: Int[np.ndarray, "history listed"]
    is_own: Bool[np.ndarray, "history listed"]
    sampled: Int[np.ndarray, " sample"]

    @classmethod
    def of_cells(
        cls,
        row: Int[np.ndarray, " cell"],
        item: Int[np.ndarray, " cell"],
        num_histories: int,
        sampled: Int[np.ndarray, " sample"],
    ) -> Shortlists:
        """Of pairs of a history and an item in any order, also twice; each history has at least one.

        >>> short = Shortlists.of_cells(np.array([1, 0, 1, 1]), np.array([7, 4, 2, 7]), 2, np.array([0]))
        >>> short.listed, short.is_own
        (array([[4, 4],
               [2, 7]]), array([[ True, False],
               [ True,  True]]))
        """
        num_items = int(item.max()) + 1
        pair = np.sort(row * num_items + item)
        pair = pair[np.append(True, pair[1:] != pair[:-1])]
        row, item = np.divmod(pair, num_items)
        lengths = np.bincount(row, minlength=num_histories)
        place = np.arange(lengths.max())
        end = np.cumsum(lengths)
        source = np.minimum((end - lengths)[:, None] + place, end[:, None] - 1)
        return cls(item[source], place < lengths[:, None], sampled)


class Columns:
    """What preferences are compared with, column by column.

    Either all items, one column each, for every history; or the short list of each history, and after it a sample whose
    columns stand for all others too and cannot be recommended.
    """

    def __init__(self, blocks: list[Block], num_items: int, short: Shortlists | None = None) -> None:
        self.blocks, self.num_items, self.short = blocks, num_items, short
        self.num_columns = blocks[-1].span.stop
        self.starts = np.array([block.span.start for block in blocks])
        self.num_listed = num_items if short is None else short.listed.shape[1]
        if short is not None:
            self._pair = (np.arange(len(short.listed))[:, None] * num_items + short.listed).ravel()

    @classmethod
    def whole(cls, vectors: Float[np.ndarray, "item hidden_plus_one"]) -> Columns:
        """All items."""
        spans = [slice(first, min(first + BLOCK_ITEMS, len(vectors))) for first in range(0, len(vectors), BLOCK_ITEMS)]
        return cls([Block(span, np.ascontiguousarray(vectors[span].T)) for span in spans], len(vectors))

    def of_items(self, row: Int[np.ndarray, "*#cell"], item: Int[np.ndarray, "*#cell"]) -> Int[np.ndarray, "*cell"]:
        """The columns of items for the histories `row`, −1 for an item that has none of its own."""
        if self.short is None:
            return np.asarray(item + np.zeros_like(row), dtype=np.int64)
        pair = row * self.num_items + item
        found = np.searchsorted(self._pair, pair).clip(max=len(self._pair) - 1)
        return np.where(self._pair[found] == pair, found - row * self.num_listed, -1)

    def items_at(self, row: Int[np.ndarray, "*#cell"], column: Int[np.ndarray, "*#cell"]) -> Int[np.ndarray, "*cell"]:
        """The items of columns that can be recommended."""
        return column + np.zeros_like(row) if self.short is None else self.short.listed[row, column]

    def of_columns(self, numbers: Float[np.ndarray, " item"]) -> Float[np.ndarray, "#history column"]:
        """Numbers of all items, those of the columns."""
        if self.short is None:
            return numbers[None]
        of_sample = np.broadcast_to(numbers[self.short.sampled], (len(self.short.listed), len(self.short.sampled)))
        return np.concatenate([numbers[self.short.listed], of_sample], axis=1)

    def of_listed(self, row: int, numbers: np.ndarray) -> np.ndarray:
        """Numbers of all items, those of the columns that can be recommended to one history."""
        return numbers if self.short is None else numbers[self.short.listed[row]]
