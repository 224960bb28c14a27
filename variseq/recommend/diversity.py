"""A pool of candidates and item vectors into a list that trades relevance for spread."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError

POOL_LISTS = 5
MIN_POOL = 50
SHORTEST = 1e-12
"""A vector shorter than this has no direction."""


def pool_size(k: int, num_items: int) -> int:
    """How many of the best items to choose a list of k from: 50 or five lists, whichever is more.

    >>> pool_size(10, 1000), pool_size(20, 1000), pool_size(10, 30)
    (50, 100, 30)
    """
    return min(max(MIN_POOL, POOL_LISTS * k), num_items)


def spread_out(
    item: Int[np.ndarray, "history pool"],
    probability: Float[np.ndarray, "history pool"],
    vectors: Float[np.ndarray, "item hidden"],
    k: int,
    diversity: float,
) -> Int[np.ndarray, "history k"]:
    """The places in the pool of the k items to show, in order; pools come best first, with −1 where they ran out.

    Maximal marginal relevance (Carbonell and Goldstein 1998): one after the other takes the candidate with the highest
    (1 − diversity) · relevance − diversity · (largest cosine to an item taken before). Relevance is the probability
    over that of the best candidate, so the first item is the best one at any diversity below 1. At 0 the result is the
    plain top k, at 1 only spread counts. −1 stands where a pool holds fewer than k items, always at the end.

    A determinantal point process (Chen et al. 2018) costs about the same, but its dial has no meaning at the ends: it
    needs a scale for relevance, and past as many items as the vectors have numbers its gain is nil.

    Cost: one product of a vector with the pool per item taken, for all histories at once.

    Raises InputError for a diversity outside 0 to 1.

    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> pool, probability = np.array([[0, 1, 2]]), np.array([[0.5, 0.4, 0.3]])
    >>> spread_out(pool, probability, vectors, k=2, diversity=0.0)
    array([[0, 1]])
    >>> spread_out(pool, probability, vectors, k=2, diversity=0.5)
    array([[0, 2]])
    """
    check_diversity(diversity)
    is_there = item >= 0
    # The order of a pool is kept where there is nothing to trade: equal scores stay in the order in which they came.
    if diversity == 0:
        return np.where(is_there, np.arange(item.shape[1]), -1)[:, :k]
    best = np.maximum(probability[:, :1], np.finfo(probability.dtype).tiny)
    relevance = np.where(is_there, probability / best, 0.0)
    chosen_vectors = vectors[np.maximum(item, 0)]
    length = np.linalg.norm(chosen_vectors, axis=2, keepdims=True)
    direction = chosen_vectors / np.maximum(length, SHORTEST)
    nearest = np.full_like(relevance, -1.0)
    is_free = is_there.copy()
    row, chosen = np.arange(len(item)), []
    for _ in range(min(k, item.shape[1])):
        gain = np.where(is_free, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        # Of equal gains the first, which is the more relevant one.
        place = gain.argmax(axis=1)
        chosen.append(np.where(is_free.any(axis=1), place, -1))
        is_free[row, place] = False
        nearest = np.maximum(nearest, np.einsum("hpw,hw->hp", direction, direction[row, place]))
    return np.stack(chosen, axis=1)


def check_diversity(diversity: float) -> None:
    """Raises InputError for what is no number from 0 to 1."""
    if isinstance(diversity, bool) or not isinstance(diversity, int | float) or not 0 <= diversity <= 1:
        raise InputError(
            f"diversity={diversity!r} is not possible. Allowed: numbers from 0 (the most relevant items) to 1 (only "
            "spread counts), for example 0.3."
        )
