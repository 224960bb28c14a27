"""Histories and items into the probability that a recommender gives to each: what reasons are judged by."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from variseq.evaluation.recommender import Recommender
from variseq.recommend.recommender import TILE_HISTORIES, TILE_ITEMS
from variseq.sequences.histories import Histories


def log_probabilities(
    recommender: Recommender, num_items: int, histories: Histories, items: Int[np.ndarray, "history k"]
) -> Float[np.ndarray, "history k"]:
    """log p of some items of each history: the log-softmax of the scores over the whole catalog.

    Memory is bounded by tiles, as in ranking.
    """
    found = np.empty(items.shape)
    for begin in range(0, len(histories), TILE_HISTORIES):
        bounds = histories.offsets[begin : begin + TILE_HISTORIES + 1]
        tile = slice(begin, begin + TILE_HISTORIES)
        found[tile] = _of_tile(recommender, num_items, histories.select(bounds[:-1], bounds[1:]), items[tile])
    return found


@torch.no_grad()
def _of_tile(
    recommender: Recommender, num_items: int, histories: Histories, items: Int[np.ndarray, "history k"]
) -> Float[np.ndarray, "history k"]:
    query = recommender.query(histories)
    wanted = torch.from_numpy(items.astype(np.int64))
    score = torch.zeros(wanted.shape, dtype=torch.float64)
    log_mass = torch.full((len(histories),), -torch.inf, dtype=torch.float64)
    for first in range(0, num_items, TILE_ITEMS):
        last = min(first + TILE_ITEMS, num_items)
        block = recommender.scores(query, first, last).float().cpu()
        log_mass = torch.logaddexp(log_mass, torch.logsumexp(block, dim=1).double())
        inside = (wanted >= first) & (wanted < last)
        column = torch.where(inside, wanted - first, 0)
        score = torch.where(inside, block.gather(1, column).double(), score)
    return (score - log_mass[:, None]).numpy()
