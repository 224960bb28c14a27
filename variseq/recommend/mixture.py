"""A network's forecast and counted transitions into one forecast: one generalises, the other remembers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part
from variseq.model.scorer import NetworkScorer
from variseq.recommend.baselines import FollowersOfLast, LastItemTransitions
from variseq.recommend.recommender import TILE_ITEMS
from variseq.sequences.histories import Histories

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Shares of the memory that are tried on validation."""


@dataclass(frozen=True)
class MixtureQuery:
    """What both sides know of the histories, and log of the network's partition function.

    `block` holds the network's scores where the catalogue is one block, so that they are worked out once.
    """

    preference: Float[Tensor, "history width"]
    log_mass: Float[Tensor, " history"]
    followers: FollowersOfLast
    block: Float[Tensor, "history item"] | None


class Mixture:
    """p(i) = (1 − share) · softmax(network)(i) + share · p(i | last item, by counts); scores are its logarithm.

    On sparse logs counts of what followed the last item rank nearly as well as a deep model and know other things; in a
    mixture of probabilities each is heard where it is sure.
    """

    gives_probabilities = True

    def __init__(self, network: NetworkScorer, memory: LastItemTransitions, share: float) -> None:
        self.name = network.name
        self.network = network
        self.memory = memory
        self.share = share

    def query(self, histories: Histories) -> MixtureQuery:
        preference = self.network.query(histories)
        num_items = self.network.network.config.num_items
        log_mass = torch.full((len(histories),), -torch.inf, device=preference.device)
        block = None
        for first in range(0, num_items, TILE_ITEMS):
            block = self.network.scores(preference, first, min(first + TILE_ITEMS, num_items))
            log_mass = torch.logaddexp(log_mass, torch.logsumexp(block, dim=1))
        followers = self.memory.query(histories)
        return MixtureQuery(preference, log_mass, followers, block if num_items <= TILE_ITEMS else None)

    def scores(self, query: MixtureQuery, first: int, last: int) -> Float[Tensor, "history item"]:
        """log p of the items first:last."""
        if query.block is None:
            neural = self.network.scores(query.preference, first, last)
        else:
            neural = query.block[:, first:last]
        neural = neural - query.log_mass[:, None]
        if self.share == 0:
            return neural
        # In place, as the passes over this block are what a recommendation to everybody costs.
        mixed = neural.exp_().mul_(1 - self.share)
        return self.memory.add_probabilities(query.followers, first, last, self.share, mixed).log_()


def best_share(
    network: NetworkScorer, memory: LastItemTransitions, validation: Part, options: EvaluationOptions
) -> float:
    """The share of the memory with the highest validation NDCG; of equal ones the smallest."""
    ndcg = {
        share: float(evaluate(Mixture(network, memory, share), validation, options).metric("ndcg").mean())
        for share in SHARES
    }
    return max(SHARES, key=lambda share: (ndcg[share], -share))
