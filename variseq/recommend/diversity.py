"""A pool of candidates and item vectors into a list that trades relevance for spread."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.errors import InputError

POOL_LISTS = 5
MIN_POOL = 50


def pool_size(k: int, num_items: int) -> int:
    """How many of the best items to choose a list of k from: 50 or five lists, whichever is more.

    >>> pool_size(10, 1000), pool_size(20, 1000), pool_size(10, 30)
    (50, 100, 30)
    """
    return min(max(MIN_POOL, POOL_LISTS * k), num_items)


def spread_out(
    item: Int[Tensor, "history pool"],
    probability: Float[Tensor, "history pool"],
    vectors: Float[Tensor, "item width"],
    k: int,
    diversity: float,
) -> Int[Tensor, "history k"]:
    """The places in the pool of the k items to show, in order; pools come best first, with −1 where they ran out.

    Maximal marginal relevance (Carbonell and Goldstein 1998): one after the other takes the candidate with the highest
    (1 − diversity) · relevance − diversity · (largest cosine to an item taken before). Relevance is the probability
    over that of the best candidate, so the first item is the best one at any diversity below 1. At 0 the result is the
    plain top k, at 1 only spread counts. −1 stands where a pool holds fewer than k items, always at the end.

    A determinantal point process (Chen et al. 2018) costs about the same, but its dial has no meaning at the ends: it
    needs a scale for relevance, and past as many items as the vectors have numbers its gain is nil.

    Cost: one product of a vector with the pool per item taken, for all histories at once.

    Raises InputError for a diversity outside 0 to 1.

    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> pool, probability = torch.tensor([[0, 1, 2]]), torch.tensor([[0.5, 0.4, 0.3]])
    >>> spread_out(pool, probability, vectors, k=2, diversity=0.0)
    tensor([[0, 1]])
    >>> spread_out(pool, probability, vectors, k=2, diversity=0.5)
    tensor([[0, 2]])
    """
    check_diversity(diversity)
    is_there = item >= 0
    # The order of a pool is kept where there is nothing to trade: equal scores stay in the order in which they came.
    if diversity == 0:
        place = torch.arange(min(k, item.shape[1]), device=item.device).expand(len(item), -1)
        return place.masked_fill(~is_there[:, :k], -1)
    relevance = (probability / probability[:, :1].clamp_min(torch.finfo(probability.dtype).tiny)).masked_fill(
        ~is_there, 0.0
    )
    direction = functional.normalize(vectors, dim=1)[item.clamp_min(0)]
    nearest = torch.full_like(relevance, -1.0)
    is_free = is_there.clone()
    row, chosen = torch.arange(len(item), device=item.device), []
    for _ in range(min(k, item.shape[1])):
        gain = (1 - diversity) * relevance - diversity * nearest
        gain = gain.masked_fill(~is_free, -torch.inf)
        # Of equal gains the first, which is the more relevant one.
        place = gain.argmax(dim=1)
        chosen.append(place.masked_fill(~is_free.any(dim=1), -1))
        is_free[row, place] = False
        cosine = torch.einsum("hpw,hw->hp", direction, direction[row, place])
        nearest = torch.maximum(nearest, cosine)
    return torch.stack(chosen, dim=1)


def check_diversity(diversity: float) -> None:
    """Raises InputError for what is no number from 0 to 1."""
    if isinstance(diversity, bool) or not isinstance(diversity, int | float) or not 0 <= diversity <= 1:
        raise InputError(
            f"diversity={diversity!r} is not possible. Allowed: numbers from 0 (the most relevant items) to 1 (only "
            "spread counts), for example 0.3."
        )
