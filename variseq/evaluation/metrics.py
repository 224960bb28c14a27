"""Turns the rank of each target into ranking metrics, one value per query (ranks count from 1; inf is a miss)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def ndcg(rank: Float[np.ndarray, " query"], k: int) -> Float[np.ndarray, " query"]:
    """Normalized discounted cumulative gain of one relevant item: 1 / log2(rank + 1), or 0 when rank > k.

    With one target the ideal gain is 1 (rank 1), so nothing is left to normalize. A miss (inf) gives 0.
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).

    >>> ndcg(np.array([1.0, 3.0, 11.0, np.inf]), k=10)
    array([1. , 0.5, 0. , 0. ])
    """
    return np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)


def recall(rank: Float[np.ndarray, " query"], k: int) -> Float[np.ndarray, " query"]:
    """Share of the relevant items found in the top k: with one target 1 when rank <= k, else 0 (the hit rate).

    >>> recall(np.array([1.0, 3.0, 11.0, np.inf]), k=10)
    array([1., 1., 0., 0.])
    """
    return (rank <= k).astype(np.float64)


def reciprocal_rank(rank: Float[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
    """1 / rank over the whole catalog (no cut at k); a miss (inf) gives 0. Its mean is the MRR.

    >>> reciprocal_rank(np.array([1.0, 4.0, np.inf]))
    array([1.  , 0.25, 0.  ])
    """
    return 1 / rank
