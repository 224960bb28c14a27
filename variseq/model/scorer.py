"""A trained network as a recommender: histories in, a score for every item out, block by block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.network import Network
from variseq.model.posterior import mean_preferences
from variseq.sequences.histories import Histories


class NetworkScorer:
    """Ranks by the posterior mean; scores are logits, so their softmax is a probability."""

    gives_probabilities = True

    def __init__(self, network: Network, name: str = "variseq") -> None:
        self.network = network
        self.name = name

    def query(self, histories: Histories) -> Float[Tensor, "history hidden"]:
        """The preference after the latest event of each history; an empty history has the start token alone."""
        self.network.eval()
        return mean_preferences(self.network, histories).preference[0]

    @torch.no_grad()
    def scores(self, query: Float[Tensor, "history hidden"], first: int, last: int) -> Float[Tensor, "history item"]:
        """Logits of the items first:last."""
        return self.network.scores(query, first, last)
