"""Preferences into softmaxes over a catalogue, in blocks that stay in a core's cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

BLOCK_ITEMS = 8192


@dataclass(frozen=True, eq=False)
class Block:
    """The columns `span` of a catalogue: item vectors with the bias below them, one column an item.

    `counts` is how many items of the catalogue each column stands for; None: one, itself.
    """

    span: slice
    vectors: Float[np.ndarray, "width_plus_one column"]
    counts: Float[np.ndarray, " column"] | None = None


class Catalogue:
    """What preferences are compared with: all items, or a few (`listed`, ascending) and a sample of all others.

    The columns of the few come first and can be recommended; those of the sample stand for others too.
    """

    def __init__(
        self,
        blocks: list[Block],
        listed: Int[np.ndarray, " item"] | None = None,
        sampled: Int[np.ndarray, " sample"] | None = None,
    ) -> None:
        self.blocks, self.listed = blocks, listed
        self.num_columns = blocks[-1].span.stop
        self.num_listed = self.num_columns if listed is None else len(listed)
        self.item = None if listed is None or sampled is None else np.concatenate([listed, sampled])
        self.starts = np.array([block.span.start for block in blocks])

    @classmethod
    def whole(cls, vectors: Float[np.ndarray, "item width_plus_one"]) -> Catalogue:
        """All items."""
        spans = [slice(first, min(first + BLOCK_ITEMS, len(vectors))) for first in range(0, len(vectors), BLOCK_ITEMS)]
        return cls([Block(span, np.ascontiguousarray(vectors[span].T)) for span in spans])

    def column_of(self, item: Int[np.ndarray, "*cell"]) -> Int[np.ndarray, "*cell"]:
        """The columns of items, −1 for one that has none of its own."""
        if self.listed is None:
            return item.astype(np.int64)
        found = np.searchsorted(self.listed, item).clip(max=len(self.listed) - 1)
        return np.where(self.listed[found] == item, found, -1)

    def item_at(self, column: Int[np.ndarray, "*cell"]) -> Int[np.ndarray, "*cell"]:
        """The items of columns."""
        return column if self.item is None else self.item[column]

    def of_columns(self, numbers: np.ndarray) -> np.ndarray:
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
        highest = np.empty((len(preference), len(catalogue.blocks)), dtype=np.float32)
        mass = np.empty((len(preference), len(catalogue.blocks)))
        for number, block in enumerate(catalogue.blocks):
            logits = preference @ block.vectors
            highest[:, number] = logits.max(axis=1)
            logits -= highest[:, number, None]
            inside = np.exp(logits, out=self.exponential[:, block.span])
            mass[:, number] = inside.sum(axis=1) if block.counts is None else inside @ block.counts
        log_parts = np.log(mass) + highest
        top = log_parts.max(axis=1)
        self.log_mass = top + np.log(np.exp(log_parts - top[:, None]).sum(axis=1))
        # A block whose highest logit is far below has no mass: its factor is zero.
        self.factor = np.exp(highest - self.log_mass[:, None]).astype(np.float32)
        """What the exponentials of a row are multiplied by in each block to be probabilities."""

    def at(self, row: Int[np.ndarray, "*#cell"], column: Int[np.ndarray, "*#cell"]) -> Float[np.ndarray, "..."]:
        """Probabilities of single cells."""
        number = np.searchsorted(self.catalogue.starts, column, side="right") - 1
        return self.exponential[row, column] * self.factor[row, number]
