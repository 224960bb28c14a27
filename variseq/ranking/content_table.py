"""The content vectors of items in one byte a number: how like one item is to another, or to a history."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int8

from variseq.ranking.selection import SHORTEST
from variseq.sequences.histories import Histories

LEVELS = 127
DECAY, NUM_EVENTS = 0.8, 64
"""An event counts `DECAY` times as much as the next one; before the latest `NUM_EVENTS` events none counts."""


@dataclass(frozen=True, eq=False)
class ContentTable:
    """Directions of content vectors; a row of zeros is an item of which nothing is known.

    >>> table = ContentTable.of(np.array([[3.0, 4.0], [0.0, 0.0], [4.0, -3.0]]))
    >>> table.likeness(table.directions(np.array([0])), np.array([0, 1, 2])).round(2).tolist()
    [[1.0, 0.0, 0.0]]
    """

    codes: Int8[np.ndarray, "item content"]

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "item content"]) -> ContentTable:
        """The table of content vectors, whose lengths are forgotten."""
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), SHORTEST)
        return cls(np.round(LEVELS * vectors / largest).astype(np.int8))

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def _inverse_lengths(self) -> Float[np.ndarray, " item"]:
        square = np.einsum("ij,ij->i", self.codes, self.codes, dtype=np.int64)
        return np.divide(1, np.sqrt(square), where=square > 0, out=np.zeros(len(square))).astype(np.float32)

    def directions(self, item: Int[np.ndarray, " row"] | slice) -> Float[np.ndarray, "row content"]:
        """Vectors of length 1; zero where nothing is known."""
        return self.codes[item].astype(np.float32) * self._inverse_lengths[item, None]

    def of_histories(self, histories: Histories) -> Float[np.ndarray, "history content"]:
        """The weighted mean of the directions of each history, the latest event weighing most."""
        latest = histories.latest(NUM_EVENTS)
        row = np.repeat(np.arange(len(latest)), latest.lengths)
        weight = DECAY ** (latest.offsets[1:][row] - 1 - np.arange(latest.num_events))
        weight = (weight / np.bincount(row, weights=weight)[row]).astype(np.float32)
        found, filled = np.zeros((len(latest), self.codes.shape[1]), dtype=np.float32), latest.lengths > 0
        if filled.any():
            weighted = weight[:, None] * self.directions(latest.item)
            found[filled] = np.add.reduceat(weighted, latest.offsets[:-1][filled], axis=0)
        return found

    def likeness(
        self, wanted: Float[np.ndarray, "row content"], item: Int[np.ndarray, " column"] | slice
    ) -> Float[np.ndarray, "row column"]:
        """The inner product of vectors and the directions of items: a cosine where the vectors have length 1."""
        likeness: Float[np.ndarray, "row column"] = wanted @ self.directions(item).T
        return likeness
