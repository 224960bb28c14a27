"""Scores and seen items into a distribution: how much probability each item of a catalog gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.sequences.histories import Histories

LOWEST = -1000.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Each item of each history once: the row of the tile and the item."""

    row: Int[Tensor, " pair"]
    item: Int[Tensor, " pair"]

    def inside(self, first: int, last: int) -> Pairs:
        """Those with an item of the block first:last."""
        chosen = (self.item >= first) & (self.item < last)
        return Pairs(self.row[chosen], self.item[chosen])


def seen_pairs(histories: Histories, num_items: int) -> Pairs:
    """Each item of each history once."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    pair = torch.from_numpy(np.unique(row * num_items + histories.item))
    return Pairs(pair // num_items, pair % num_items)


def log_weights(
    unseen: Float[Tensor, " query"], seen: Float[Tensor, " query"], repeat_share: float
) -> tuple[Float[Tensor, " query"], Float[Tensor, " query"]]:
    """log of what exp(score) is multiplied by to be a probability: for unseen items, and for seen ones.

    A model that was asked for new items only says nothing of how often people come back, so that is counted: with
    probability `repeat_share` the next event is one of the user's own items, and inside both sets the scores decide (a
    hurdle model, Mullahy 1986). Where one of the sets has no mass the other has it all.

    >>> unseen, seen = log_weights(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0]), 0.1)
    >>> 3 * unseen.exp(), 1 * seen.exp()  # 0.9 and 0.1; all of it
    (tensor([0.9000, 1.0000]), tensor([0.1000, 0.0000]))
    """
    new = torch.log1p(-torch.full_like(unseen, repeat_share)).where(seen > 0, 0.0).where(unseen > 0, -torch.inf)
    repeated = torch.full_like(seen, _log(repeat_share)).where(seen > 0, -torch.inf).where(unseen > 0, 0.0)
    return new - unseen.log().where(unseen > 0, 0.0), repeated - seen.log().where(seen > 0, 0.0)


@dataclass(frozen=True, eq=False)
class Mass:
    """Sums over items of m = exp(score − highest): of m, of m², and of m · (score − highest).

    `highest` is the highest score that will be taken in, 0 where there is none.
    """

    highest: Float[Tensor, " query"]
    total: Float[Tensor, " query"]
    squared: Float[Tensor, " query"]
    scored: Float[Tensor, " query"]

    @classmethod
    def below(cls, highest: Float[Tensor, " query"]) -> Mass:
        """Nothing yet; −inf says that nothing will come."""
        highest = highest.double()
        return cls(highest.where(highest.isfinite(), 0.0), *torch.zeros_like(highest.repeat(3, 1)))

    def add_block(self, scores: Float[Tensor, "query item"]) -> Float[Tensor, "query item"]:
        """Take in the scores of a block, −inf where an item does not count; returns m."""
        # Far below the highest there is no mass, and 0 · −inf would be no number.
        below = (scores - self.highest.to(scores)[:, None]).clamp_(min=LOWEST)
        mass = below.exp()
        self.total.add_(mass.sum(dim=1))
        self.scored.add_(below.mul_(mass).sum(dim=1))
        self.squared.add_(torch.mul(mass, mass, out=below).sum(dim=1))
        return mass

    def add_cells(self, row: Int[Tensor, " cell"], score: Float[Tensor, " cell"]) -> None:
        """Take in the scores of single items."""
        below = score.double() - self.highest[row]
        mass = below.exp()
        self.total.index_add_(0, row, mass)
        self.scored.index_add_(0, row, below * mass)
        self.squared.index_add_(0, row, mass.square())

    def sum_of_squares(self, log_weight: Float[Tensor, " query"]) -> Float[Tensor, " query"]:
        """Sum of p² with p = weight · m."""
        return self.squared * (2 * log_weight).exp()

    def entropy(self, log_weight: Float[Tensor, " query"]) -> Float[Tensor, " query"]:
        """Sum of −p log p in nats."""
        weight = log_weight.exp()
        return -weight * (self.scored + self.total * log_weight.where(weight > 0, 0.0))


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
