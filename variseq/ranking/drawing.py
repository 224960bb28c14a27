"""Lists that strategy="softmax" draws: from the best items of each history, with pins at their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import draw_lists, softmax_weights
from variseq.ranking.selection import Constraints, Selector


@dataclass(frozen=True, eq=False)
class DrawnItems:
    """Drawn lists in items of the catalog, −1 where a list is shorter.

    Args:
        item: The items by rank.
        score: What they would be ranked by.
        at_rank: Propensity of each at its rank, given those above it; 1 for a pinned item.
        in_list: Propensity of each to be in the list at any rank.
    """

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]
    at_rank: Float[np.ndarray, "history k"]
    in_list: Float[np.ndarray, "history k"]


@dataclass(frozen=True, eq=False)
class Pool:
    """The items that lists are drawn from, best first, −1 where a pool is smaller; pinned items are not among them.

    Args:
        item: The items.
        score: What they are ranked by.
        weight: What they are drawn by; rows sum to 1.
        num_drawn: How many of a list are drawn: its length without pins.
        pins: Of each history the pinned items, by their index in the list, and what they would be ranked by.
    """

    item: Int[np.ndarray, "history pool"]
    score: Float[np.ndarray, "history pool"]
    weight: Float[np.ndarray, "history pool"]
    num_drawn: Int[np.ndarray, " history"]
    pins: list[dict[int, tuple[int, float]]]

    @classmethod
    def of(cls, selector: Selector, p: Float[np.ndarray, "history column"], options: RecommendOptions) -> Pool:
        """The pools of histories with the probabilities p of all columns."""
        ranked, is_log = selector.ranked(p.copy())
        pins: list[dict[int, tuple[int, float]]] = []
        for row, one in enumerate(selector.constraints):
            allowed = one.allowed_pins(selector.histories.history(row).item)
            item = np.array([pinned for _, pinned in allowed], dtype=np.int64)
            scores = selector.scores(ranked, is_log, row, item).tolist()
            pins.append({index: (pinned, score) for (index, pinned), score in zip(allowed, scores, strict=True)})
            ranked[row, selector.columns.of_items(np.array(row), item)] = -np.inf
        item, score = selector.highest(ranked, is_log, [options.pool] * len(p))
        num_drawn = np.array([one.k for one in selector.constraints]) - list(map(len, pins))
        weight = softmax_weights(score.astype(np.float64), options.temperature, options.uniform_share, num_drawn)
        return cls(item, score, weight, num_drawn, pins)


def draw(pool: Pool, constraints: Sequence[Constraints]) -> DrawnItems:
    """A list from each pool, by the random key of its constraints. Pinned items keep their ranks."""
    drawn = draw_lists(pool.item, pool.weight, pool.num_drawn, [one.random_key for one in constraints])
    shape = (len(constraints), max(one.k for one in constraints))
    found = DrawnItems(np.full(shape, -1), np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape))
    for row, pins in enumerate(pool.pins):
        index = drawn.index[row][drawn.index[row] >= 0]
        num_drawn = len(index)
        columns = (pool.item[row, index], pool.score[row, index], drawn.at_rank[row], drawn.in_list[row])
        ranked = list(zip(*(column[:num_drawn].tolist() for column in columns), strict=True))
        for position, (item, score) in pins.items():
            ranked.insert(position, (item, score, 1.0, 1.0))
        for rank, values in enumerate(ranked):
            found.item[row, rank], found.score[row, rank], found.at_rank[row, rank], found.in_list[row, rank] = values
    return found
