"""Ranked lists of several histories as arrays, which can be joined and chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.ranking.reasons import Reasons

FILLS = {"item": -1, "score": -np.inf, "pool_item": -1, "pool_score": -np.inf}
"""What stands after the end of a list; 0 in other columns."""


@dataclass(frozen=True, eq=False)
class RankedLists:
    """Lists of several histories, best first, −1 where a list is shorter; with `ranks_only` the rest is None.

    Lists that were drawn have propensities `at_rank` and `in_list`. With `only_pools` there are the pools that lists
    would be drawn from, with scores and weights, and each list is the beginning of its pool.
    """

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]
    approximate: Bool[np.ndarray, " history"]
    probability: Float[np.ndarray, "history k"] | None = None
    low: Float[np.ndarray, "history k"] | None = None
    high: Float[np.ndarray, "history k"] | None = None
    total: Float[np.ndarray, " history"] | None = None
    aleatoric: Float[np.ndarray, " history"] | None = None
    reasons: Reasons | None = None
    attention: list[np.ndarray] | None = None
    at_rank: Float[np.ndarray, "history k"] | None = None
    in_list: Float[np.ndarray, "history k"] | None = None
    pool_item: Int[np.ndarray, "history pool"] | None = None
    pool_score: Float[np.ndarray, "history pool"] | None = None
    pool_weight: Float[np.ndarray, "history pool"] | None = None

    @classmethod
    def joined(cls, parts: Sequence[RankedLists]) -> RankedLists:
        """The lists of all parts, one part after the other."""
        columns: dict[str, Any] = {}
        for name in (one.name for one in fields(cls) if getattr(parts[0], one.name) is not None):
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], list):
                columns[name] = [one for value in values for one in value]
                continue
            if values[0].ndim == 2:
                width, fill = max(v.shape[1] for v in values), FILLS.get(name, 0)
                values = [np.pad(v, ((0, 0), (0, width - v.shape[1])), constant_values=fill) for v in values]
            columns[name] = np.concatenate(values)
        return cls(**columns)

    def rows(self, chosen: Sequence[int]) -> RankedLists:
        """Some of the lists."""
        columns: dict[str, Any] = {}
        for name in (one.name for one in fields(self) if getattr(self, one.name) is not None):
            column = getattr(self, name)
            columns[name] = [column[row] for row in chosen] if isinstance(column, list) else column[chosen]
        return RankedLists(**columns)
