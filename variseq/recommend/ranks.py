"""Histories into the order of the best items and nothing else: what everybody can be given in a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.evaluation.mass import seen_pairs
from variseq.evaluation.top_k import TopK
from variseq.recommend.forecast import FLOOR, Forecast
from variseq.recommend.recommender import TILE_HISTORIES, TILE_ITEMS, only_candidates
from variseq.recommend.wishes import Wish, allowed_pins, with_pins
from variseq.sequences.histories import Histories

ALMOST_32_MEGABYTES = 31 << 20


@dataclass(frozen=True)
class Ranks:
    """The best items of each history, best first, with log p; −1 and −∞ where there were fewer than k candidates."""

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]


@torch.no_grad()
def ranks(forecast: Forecast, histories: Histories, wish: Wish) -> Ranks:
    """The items and scores of `rank_items`, without what it has to know for probabilities.

    p orders as log p does, so the logarithm is taken of the best alone; a boost, which may be beyond any float of 32
    bits, is added to log p.
    """
    # glibc gives freed memory back beyond twice the largest block that was ever freed, 32 MB at most. Once such a block
    # has been, the tiles take turns in the same pages; otherwise each has them mapped anew.
    torch.empty(ALMOST_32_MEGABYTES, dtype=torch.uint8)
    is_boosted = wish.log_boost is not None
    scores_of = forecast.scores if is_boosted else forecast.probabilities
    preferences = forecast.sample(histories)
    parts = []
    for first in range(0, len(histories), TILE_HISTORIES):
        bounds = histories.offsets[first : first + TILE_HISTORIES + 1]
        tile = histories.select(bounds[:-1], bounds[1:])
        query = forecast.query_of(tile, preferences.of(slice(first, first + len(tile))))
        seen = seen_pairs(tile, wish.num_items) if wish.exclude_seen else None
        best = TopK(wish.k)
        for begin in range(0, wish.num_items, TILE_ITEMS):
            end = min(begin + TILE_ITEMS, wish.num_items)
            inside = None if seen is None else seen.inside(begin, end)
            scores = scores_of(query, begin, end).float().cpu()
            best.add(only_candidates(scores, begin, wish, inside), begin)
        found = best.result()
        parts.append(_with_pins(found, tile, wish, partial(scores_of, query)) if wish.pins else found)
    item, score = (torch.cat(part) for part in zip(*parts, strict=True))
    if not is_boosted:
        score = score.clamp(min=FLOOR).log().masked_fill(item < 0, -torch.inf)
    return Ranks(item.numpy(), score.numpy())


def _with_pins(
    found: tuple[Int[Tensor, "history k"], Float[Tensor, "history k"]],
    tile: Histories,
    wish: Wish,
    scores_of: Callable[[int, int], Float[Tensor, "history item"]],
) -> tuple[Int[Tensor, "history k"], Float[Tensor, "history k"]]:
    """The pinned items that may be recommended at their places, the others around them, all with their scores."""
    pinned = {item: scores_of(item, item + 1).float().cpu()[:, 0] for _, item in wish.pins}
    if wish.log_boost is not None:
        pinned = {item: score + float(wish.log_boost[item]) for item, score in pinned.items()}
    items = torch.full_like(found[0], -1)
    scores = torch.full_like(found[1], -torch.inf)
    for row, (ranked, score) in enumerate(zip(found[0].tolist(), found[1].tolist(), strict=True)):
        order = with_pins(ranked, allowed_pins(wish, tile.history(row).item), wish.k)
        score_of = dict(zip(ranked, score, strict=True)) | {item: float(column[row]) for item, column in pinned.items()}
        items[row, : len(order)] = torch.tensor(order, dtype=items.dtype)
        scores[row, : len(order)] = torch.tensor([score_of[item] for item in order], dtype=scores.dtype)
    return items, scores
