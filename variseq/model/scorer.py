"""A trained network as a recommender: histories in, a score for every item out, block by block."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.network import Network
from variseq.sequences.batches import group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 8192


class NetworkScorer:
    """Ranks by the posterior mean; scores are logits, so their softmax is a probability."""

    gives_probabilities = True

    def __init__(self, network: Network, name: str = "variseq") -> None:
        self.network = network
        self.name = name

    @property
    def device(self) -> torch.device:
        return self.network.item_bias.device

    @torch.no_grad()
    def query(self, histories: Histories) -> Float[Tensor, "history width"]:
        """The preference after the latest event of each history; an empty history has the start token alone."""
        self.network.eval()
        config = self.network.config
        windows = query_windows(histories, config.max_length)
        preference = torch.empty(len(histories), config.width, device=self.device)
        for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
            batch = make_batch(histories, windows, members, config.num_items).to(self.device)
            belief = self.network.encode(batch)
            preference[torch.from_numpy(members)] = self.network.decoder.last_at_mean(belief.mean, batch.layout)
        return preference

    @torch.no_grad()
    def scores(self, query: Float[Tensor, "history width"], first: int, last: int) -> Float[Tensor, "history item"]:
        """Logits of the items first:last."""
        return self.network.scores(query, first, last)
