"""Turns histories and a recommender into ranks, top-k lists and probabilities, one block of the catalogue at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variseq.errors import InputError
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.top_k import TopK
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class Tile:
    """A few queries: the full history and the target of each."""

    histories: Histories
    target: Int[np.ndarray, " query"]


@dataclass(frozen=True)
class Ranking:
    """What a tile is ranked over: the catalogue, in blocks of `tile_items`; `seen` items are no candidates."""

    num_items: int
    k: int
    exclude_seen: bool
    tile_items: int


@dataclass(frozen=True, eq=False)
class Judged:
    """Per query: the target's rank and the top list (-1 where candidates run out), then probabilities.

    Probabilities are softmax(scores) over the whole catalogue, seen items included; NaN when the scores are not
    meant as probabilities.
    """

    rank: Float[np.ndarray, " query"]
    target_was_seen: Bool[np.ndarray, " query"]
    top_item: Int[np.ndarray, "query k"]
    top_probability: Float[np.ndarray, "query k"]
    target_log_probability: Float[np.ndarray, " query"]
    sum_of_squares: Float[np.ndarray, " query"]
    entropy: Float[np.ndarray, " query"]

    @classmethod
    def empty(cls, num_queries: int, k: int) -> Judged:
        """Room for all queries, made once: many small results kept between large blocks would scatter the heap."""
        one = np.zeros(num_queries)
        return cls(
            rank=one,
            target_was_seen=np.zeros(num_queries, dtype=bool),
            top_item=np.zeros((num_queries, k), dtype=np.int64),
            top_probability=np.zeros((num_queries, k)),
            target_log_probability=one.copy(),
            sum_of_squares=one.copy(),
            entropy=one.copy(),
        )

    def put(self, first: int, tile: Judged) -> None:
        """Writes the results of a tile into the places from `first` on."""
        for field in fields(self):
            values = getattr(tile, field.name)
            getattr(self, field.name)[first : first + len(values)] = values


def judge(recommender: Recommender, tile: Tile, ranking: Ranking) -> Judged:
    """Ranks the target of each query among all candidates.

    Ties are broken against the recommender: the rank is 1 + the number of other candidates with a score at least
    the target's. A target in the user's own history is no candidate when seen items are excluded: its rank is inf.
    A catalogue of more than one block is scored twice (once for the targets' scores, once to count), so that
    memory is bounded by the tile and the counts compare equal numbers.

    Raises InputError when the recommender's scores have a wrong shape or are not finite.
    """
    blocks = list(_blocks(recommender, tile, ranking)) if ranking.num_items <= ranking.tile_items else None
    target = torch.from_numpy(tile.target.astype(np.int64))
    target_score, highest = _look(blocks or _blocks(recommender, tile, ranking), target)
    row, item, target_was_seen = _seen_pairs(tile)
    counted = _Counted(target_score, highest, ranking.k, recommender.gives_probabilities)
    for first, scores in blocks or _blocks(recommender, tile, ranking):
        candidates = scores
        if ranking.exclude_seen:
            inside = (item >= first) & (item < first + scores.shape[1])
            candidates = scores.clone()
            candidates[row[inside].to(scores.device), (item[inside] - first).to(scores.device)] = -torch.inf
        counted.add(scores, candidates, first)
    return counted.judged(target_was_seen & ranking.exclude_seen)


def _blocks(
    recommender: Recommender, tile: Tile, ranking: Ranking
) -> Iterator[tuple[int, Float[Tensor, "query item"]]]:
    """The scores of the catalogue, block after block, each with its first item."""
    histories = tile.histories
    query: Any = recommender.query(histories)
    for first in range(0, ranking.num_items, ranking.tile_items):
        last = min(first + ranking.tile_items, ranking.num_items)
        scores = recommender.scores(query, first, last)
        if tuple(scores.shape) != (len(histories), last - first):
            raise InputError(
                f"Recommender {recommender.name!r} gave scores of shape {tuple(scores.shape)} for {len(histories)} "
                f"histories and the items {first}:{last}. Allowed: one row a history, one column an item."
            )
        if not all(torch.isfinite(extreme) for extreme in scores.aminmax()):  # a NaN is handed on by both
            raise InputError(
                f"Recommender {recommender.name!r} gave scores that are NaN or infinite for the items {first}:{last}. "
                "Allowed: finite numbers. If it was trained, training has diverged; fit it again with a lower rate."
            )
        yield first, scores.float().contiguous()


def _look(blocks: Any, target: Int[Tensor, " query"]) -> tuple[Float[Tensor, " query"], Float[Tensor, " query"]]:
    """The score of each target and the highest score of each query."""
    target_score = highest = torch.empty(0)
    for first, scores in blocks:
        if first == 0:
            target = target.to(scores.device)
            target_score = scores.new_zeros(len(target))
            highest = scores.amax(dim=1)
        inside = torch.nonzero((target >= first) & (target < first + scores.shape[1]))[:, 0]
        target_score[inside] = scores[inside, target[inside] - first]
        highest = torch.maximum(highest, scores.amax(dim=1))
    return target_score, highest


def _seen_pairs(tile: Tile) -> tuple[Int[Tensor, " event"], Int[Tensor, " event"], Bool[np.ndarray, " query"]]:
    """Row and item of every event of the histories, and which targets are among their own user's."""
    row = np.repeat(np.arange(len(tile.histories)), tile.histories.lengths)
    item = tile.histories.item.astype(np.int64)
    repeated = row[item == tile.target[row]]
    target_was_seen = np.bincount(repeated, minlength=len(tile.target)) > 0
    return torch.from_numpy(row), torch.from_numpy(item), target_was_seen


class _Counted:
    """Running counts over the blocks of the catalogue."""

    def __init__(
        self, target_score: Float[Tensor, " query"], highest: Float[Tensor, " query"], k: int, gives_probabilities: bool
    ) -> None:
        self.target_score, self.highest = target_score, highest
        self.gives_probabilities = gives_probabilities
        self.num_at_least = torch.zeros_like(target_score, dtype=torch.int64)
        self.top = TopK(k)
        self.mass, self.mass_squared, self.mass_score = torch.zeros(
            (3, len(target_score)), dtype=torch.float64, device=target_score.device
        )

    def add(self, scores: Float[Tensor, "query item"], candidates: Float[Tensor, "query item"], first: int) -> None:
        """`candidates` are `scores` with -inf where the item may not be recommended."""
        self.num_at_least += torch.count_nonzero(candidates >= self.target_score[:, None], dim=1)
        self.top.add(candidates, first)
        if self.gives_probabilities:
            below = scores - self.highest[:, None]
            mass = below.exp()
            self.mass += mass.sum(dim=1)
            self.mass_score += below.mul_(mass).sum(dim=1)
            self.mass_squared += mass.square_().sum(dim=1)

    def judged(self, target_is_miss: Bool[np.ndarray, " query"]) -> Judged:
        top_item, top_score = self.top.result()
        log_mass = self.mass.log() + self.highest
        top_probability = (top_score.double() - log_mass[:, None]).exp()
        target_log_probability = self.target_score.double() - log_mass
        sum_of_squares = self.mass_squared / self.mass.square()
        entropy = self.mass.log() - self.mass_score / self.mass
        if not self.gives_probabilities:
            for values in (top_probability, target_log_probability, sum_of_squares, entropy):
                values.fill_(torch.nan)
        return Judged(
            np.where(target_is_miss, np.inf, self.num_at_least.double().cpu().numpy()),
            target_is_miss,
            top_item.cpu().numpy(),
            top_probability.cpu().numpy(),
            target_log_probability.cpu().numpy(),
            sum_of_squares.cpu().numpy(),
            entropy.cpu().numpy(),
        )
