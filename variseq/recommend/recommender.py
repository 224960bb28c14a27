"""Histories and wishes into ranked items: block by block, with a running top k."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.evaluation.mass import Pairs, log_weights, seen_pairs
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.top_k import TopK
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

TILE_HISTORIES = 64
TILE_ITEMS = 32_768


@dataclass(frozen=True)
class RankedItems:
    """The best items of each history, best first; −1 where there were fewer than k candidates.

    `probability` is that of the next event; what is not wished for (`candidates`) has its probability all the same. NaN
    for recommenders whose scores are no probabilities.
    """

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]
    probability: Float[np.ndarray, "history k"]


@dataclass(frozen=True, eq=False)
class RankedTile:
    """Some histories, what the recommender knew of them, and what it put first.

    A probability is exp(score + `log_weight`).
    """

    histories: Histories
    query: Any
    item: Int[Tensor, "history k"]
    score: Float[Tensor, "history k"]
    log_weight: Float[Tensor, " history"]


def rank_items(recommender: Recommender, histories: Histories, wish: Wish, tile_items: int = TILE_ITEMS) -> RankedItems:
    """The k best items of each history. Memory is bounded by the tiles: it does not grow with users × items."""
    tiles = list(ranked_tiles(recommender, histories, wish, tile_items))
    score = torch.cat([tile.score for tile in tiles])
    probability = (score.double() + torch.cat([tile.log_weight for tile in tiles])[:, None]).exp()
    if not recommender.gives_probabilities:
        probability.fill_(torch.nan)
    item = torch.cat([tile.item for tile in tiles])
    return RankedItems(item.numpy(), score.numpy(), probability.float().numpy())


def ranked_tiles(
    recommender: Recommender, histories: Histories, wish: Wish, tile_items: int = TILE_ITEMS
) -> Iterator[RankedTile]:
    """The k best items, some histories at a time."""
    for first in range(0, len(histories), TILE_HISTORIES):
        bounds = histories.offsets[first : first + TILE_HISTORIES + 1]
        yield _rank_tile(recommender, histories.select(bounds[:-1], bounds[1:]), wish, tile_items)


@torch.no_grad()
def _rank_tile(recommender: Recommender, histories: Histories, wish: Wish, tile_items: int) -> RankedTile:
    query = recommender.query(histories)
    seen = seen_pairs(histories, wish.num_items) if wish.exclude_seen else None
    best = TopK(wish.k)
    log_mass = torch.full((len(histories),), -torch.inf)
    log_seen = torch.full((len(histories),), -torch.inf)
    for first in range(0, wish.num_items, tile_items):
        last = min(first + tile_items, wish.num_items)
        scores = recommender.scores(query, first, last).float().cpu()
        log_mass = torch.logaddexp(log_mass, torch.logsumexp(scores, dim=1))
        inside = None if seen is None else seen.inside(first, last)
        if inside is not None:
            log_seen = torch.logaddexp(log_seen, _log_mass_of(inside, scores, first))
        # A recommender may hand out its own memory (popular items): it is not written over.
        best.add(only_candidates(scores.clone(), first, wish, inside), first)
    item, score = best.result()
    seen_part = (log_seen - log_mass).double().exp().clamp(max=1)
    log_weight, _ = log_weights(1 - seen_part, seen_part, wish.repeat_share)
    return RankedTile(histories, query, item, score, log_weight - log_mass)


def only_candidates(
    scores: Float[Tensor, "history item"], first: int, wish: Wish, seen: Pairs | None
) -> Float[Tensor, "history item"]:
    """The scores of the items from `first` on as they are ranked, in place: boosted, −inf for what is not wanted."""
    items = slice(first, first + scores.shape[1])
    if seen is not None:
        scores[seen.row, seen.item - first] = -torch.inf
    if wish.candidates is not None:
        scores[:, torch.from_numpy(~wish.candidates[items])] = -torch.inf
    if wish.log_boost is not None:
        scores += torch.from_numpy(wish.log_boost[items])
    return scores


def _log_mass_of(cells: Pairs, scores: Float[Tensor, "history item"], first: int) -> Float[Tensor, " history"]:
    """log of the sum of exp(score) over some cells of each row."""
    highest = scores.amax(dim=1)
    mass = torch.zeros_like(highest)
    mass.index_add_(0, cells.row, (scores[cells.row, cells.item - first] - highest[cells.row]).exp())
    return mass.log() + highest
