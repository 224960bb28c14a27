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
MAX_PASSES = 30


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

    def clusters(
        self, item: Int[np.ndarray, " row"], num_clusters: int
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " cluster"]]:
        """The cluster of each item, −1 where nothing is known of it, and the most central item of each cluster.

        There are `num_clusters` or fewer. Spherical k-means (Dhillon and Modha 2001, "Concept decompositions") from
        starts that k-means++ draws (Arthur and Vassilvitskii 2007); the same each time.
        """
        directions, random = self.directions(item), np.random.default_rng(0)
        known = np.flatnonzero(directions.any(axis=1))
        rows, cluster = directions[known], np.full(len(item), -1)
        if not len(rows):
            return cluster, np.zeros(0, np.int64)
        centers = rows[[random.integers(len(rows))]]
        while len(centers) < num_clusters:
            distance = np.maximum(1 - (rows @ centers.T).max(axis=1), 0).astype(np.float64)
            if distance.sum() <= SHORTEST:
                break
            centers = np.concatenate([centers, rows[[random.choice(len(rows), p=distance / distance.sum())]]])
        nearest = np.full(len(rows), -1)
        for _ in range(MAX_PASSES):
            # A cluster that has lost all its items is dropped.
            before, (_, nearest) = nearest, np.unique((rows @ centers.T).argmax(axis=1), return_inverse=True)
            if np.array_equal(before, nearest):
                break
            members = nearest == np.arange(nearest.max() + 1)[:, None]
            centers = members.astype(np.float32) @ rows
            centers /= np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), SHORTEST)
        cluster[known] = nearest
        central = np.where(members, centers @ rows.T, -np.inf).argmax(axis=1)
        return cluster, item[known[central]]
