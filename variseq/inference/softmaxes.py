"""Preferences into softmaxes over a catalogue, in blocks that stay in a core's cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK_ITEMS = 8192


class Catalogue:
    """What preferences are compared with: item vectors with the bias as a last column, for all items or some of them.

    `item` are the items that the columns stand for, ascending, or None for all. `multiplicity` is how many items each
    column stands for, and `is_certain` whether it stands for itself alone and can be recommended; None: all do.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "column width_plus_one"],
        item: Int[np.ndarray, " column"] | None = None,
        multiplicity: Float[np.ndarray, " column"] | None = None,
        is_certain: Bool[np.ndarray, " column"] | None = None,
    ) -> None:
        self.num_columns = len(vectors)
        self.columns = [np.ascontiguousarray(vectors[block].T) for block in self.blocks()]
        self.item, self.multiplicity, self.is_certain = item, multiplicity, is_certain

    def blocks(self) -> Iterator[slice]:
        """The columns, some at a time."""
        for first in range(0, self.num_columns, BLOCK_ITEMS):
            yield slice(first, min(first + BLOCK_ITEMS, self.num_columns))

    def counts(self, block: slice) -> Float[np.ndarray, " column"] | None:
        """How many items each column of a block stands for; None where that is one."""
        return None if self.multiplicity is None else self.multiplicity[block]

    def column_of(self, item: Int[np.ndarray, "*cell"]) -> Int[np.ndarray, "*cell"]:
        """The columns of items, −1 for one that has none."""
        if self.item is None:
            return item.astype(np.int64)
        found = np.searchsorted(self.item, item).clip(max=self.num_columns - 1)
        return np.where(self.item[found] == item, found, -1)

    def item_at(self, column: Int[np.ndarray, "*cell"]) -> Int[np.ndarray, "*cell"]:
        """The items that columns stand for."""
        return column if self.item is None else self.item[column]

    def of_items(self, numbers: Float[np.ndarray, " item"] | Bool[np.ndarray, " item"]) -> np.ndarray:
        """Numbers of all items, those of the columns."""
        return numbers if self.item is None else numbers[self.item]


class Softmaxes:
    """The softmax of each preference over a catalogue, kept as exponentials and what they are to be multiplied by.

    Each block is worked out below its own highest logit, so that nothing overflows and every number is touched while
    it is in the cache.
    """

    def __init__(self, catalogue: Catalogue, preference: Float[np.ndarray, "row width_plus_one"]) -> None:
        self.catalogue = catalogue
        self.exponential = np.empty((len(preference), catalogue.num_columns), dtype=np.float32)
        highest = np.empty((len(preference), len(catalogue.columns)), dtype=np.float32)
        mass = np.empty((len(preference), len(catalogue.columns)))
        for number, block in enumerate(catalogue.blocks()):
            logits = preference @ catalogue.columns[number]
            highest[:, number] = logits.max(axis=1)
            logits -= highest[:, number, None]
            inside = np.exp(logits, out=logits)
            counts = catalogue.counts(block)
            mass[:, number] = inside.sum(axis=1) if counts is None else inside @ counts
            self.exponential[:, block] = inside
        log_parts = np.log(mass) + highest
        top = log_parts.max(axis=1)
        self.log_mass = top + np.log(np.exp(log_parts - top[:, None]).sum(axis=1))
        # A block whose highest logit is far below has no mass: its factor is zero.
        self._factor = np.exp(highest - self.log_mass[:, None]).astype(np.float32)

    def factor(self, block: slice) -> Float[np.ndarray, " row"]:
        """What the exponentials of a block are multiplied by to be probabilities."""
        return self._factor[:, block.start // BLOCK_ITEMS]

    def at(self, row: Int[np.ndarray, "*#cell"], column: Int[np.ndarray, "*#cell"]) -> Float[np.ndarray, "..."]:
        """Probabilities of single cells."""
        return self.exponential[row, column] * self._factor[row, column // BLOCK_ITEMS]
