"""Preferences into softmaxes over a catalogue, in blocks that stay in a core's cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

BLOCK_ITEMS = 8192


class Catalogue:
    """What preferences are compared with: item vectors with the bias as a last column, for all items or some of them.

    `item` are the items that the columns stand for, all where None; `multiplicity` is how many items each column
    stands for, one where None.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "item width_plus_one"],
        item: Int[np.ndarray, " item"] | None = None,
        multiplicity: Float[np.ndarray, " item"] | None = None,
    ) -> None:
        self.columns = np.ascontiguousarray(vectors.T)
        self.item, self.multiplicity = item, multiplicity

    def __len__(self) -> int:
        return self.columns.shape[1]

    def blocks(self) -> Iterator[slice]:
        """The columns, some at a time."""
        for first in range(0, len(self), BLOCK_ITEMS):
            yield slice(first, min(first + BLOCK_ITEMS, len(self)))

    def counts(self, block: slice) -> Float[np.ndarray, " item"] | None:
        """How many items each column of a block stands for; None where that is one."""
        return None if self.multiplicity is None else self.multiplicity[block]


class Softmaxes:
    """The softmax of each preference over a catalogue, kept as exponentials and what they are to be multiplied by.

    Each block is worked out below its own highest logit, so that nothing overflows and every number is touched while
    it is in the cache.
    """

    def __init__(self, catalogue: Catalogue, preference: Float[np.ndarray, "row width_plus_one"]) -> None:
        self.catalogue = catalogue
        blocks = list(catalogue.blocks())
        self.exponential = np.empty((len(preference), len(catalogue)), dtype=np.float32)
        highest = np.empty((len(preference), len(blocks)), dtype=np.float32)
        mass = np.empty((len(preference), len(blocks)))
        for number, block in enumerate(blocks):
            logits = preference @ catalogue.columns[:, block]
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
