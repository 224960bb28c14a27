"""Histories and wishes into ranked items: block by block, with a running top k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from variseq.evaluation.recommender import Recommender
from variseq.evaluation.top_k import TopK
from variseq.sequences.histories import Histories

TILE_HISTORIES = 256
TILE_ITEMS = 32_768


@dataclass(frozen=True)
class Wish:
    """What may be recommended: `k` of the candidates (all items where None), without those already seen (if wanted)."""

    num_items: int
    k: int = 10
    exclude_seen: bool = True
    candidates: Bool[np.ndarray, " item"] | None = None


@dataclass(frozen=True)
class RankedItems:
    """The best items of each history, best first; −1 where there were fewer than k candidates.

    `probability` is softmax(score) over the whole catalogue, NaN for recommenders whose scores are no probabilities.
    """

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]
    probability: Float[np.ndarray, "history k"]


def rank_items(recommender: Recommender, histories: Histories, wish: Wish, tile_items: int = TILE_ITEMS) -> RankedItems:
    """The k best items of each history. Memory is bounded by the tiles: it does not grow with users × items."""
    tiles = []
    for first in range(0, len(histories), TILE_HISTORIES):
        bounds = histories.offsets[first : first + TILE_HISTORIES + 1]
        tiles.append(_rank_tile(recommender, histories.select(bounds[:-1], bounds[1:]), wish, tile_items))
    return RankedItems(
        *(np.concatenate([getattr(t, name) for t in tiles]) for name in ("item", "score", "probability"))
    )


@torch.no_grad()
def _rank_tile(recommender: Recommender, histories: Histories, wish: Wish, tile_items: int) -> RankedItems:
    query = recommender.query(histories)
    row = torch.from_numpy(np.repeat(np.arange(len(histories)), histories.lengths))
    seen = torch.from_numpy(histories.item.astype(np.int64))
    best = TopK(wish.k)
    log_mass = torch.full((len(histories),), -torch.inf)
    for first in range(0, wish.num_items, tile_items):
        last = min(first + tile_items, wish.num_items)
        scores = recommender.scores(query, first, last).float().cpu()
        log_mass = torch.logaddexp(log_mass, torch.logsumexp(scores, dim=1))
        # A recommender may hand out its own memory (popular items): it is not written over.
        scores = scores.clone()
        if wish.candidates is not None:
            scores[:, torch.from_numpy(~wish.candidates[first:last])] = -torch.inf
        if wish.exclude_seen:
            inside = (seen >= first) & (seen < last)
            scores[row[inside], seen[inside] - first] = -torch.inf
        best.add(scores, first)
    item, score = best.result()
    probability = (score.double() - log_mass.double()[:, None]).exp()
    if not recommender.gives_probabilities:
        probability.fill_(torch.nan)
    return RankedItems(item.numpy(), score.numpy(), probability.float().numpy())
