"""Validation queries and a network into the temperature that makes its probabilities most likely."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.network import Network
from variseq.model.scorer import NetworkScorer
from variseq.training.validation import Validation

QUERIES = 2048
CANDIDATES = torch.logspace(-0.35, 0.6, 39, base=10)
"""Temperatures that are tried: 0.45 to 4, six per cent apart."""


@torch.no_grad()
def best_temperature(network: Network, validation: Validation) -> float:
    """The temperature with the lowest −log p on validation queries (Guo et al. 2017, section 4.2); 1 is as trained."""
    queries = validation.queries()
    stride = max(1, len(queries) // QUERIES)
    position, user = queries.position[::stride], queries.user[::stride]
    log = validation.part.histories
    histories = log.select(log.offsets[user], position)
    preference = NetworkScorer(network).query(histories)
    target = torch.from_numpy(log.item[position].astype("int64")).to(preference.device)
    total = torch.zeros(len(CANDIDATES))
    for first in range(0, len(target), 128):
        scores = network.scores(preference[first : first + 128], 0, network.config.num_items)
        total += _losses(scores, target[first : first + 128])
    return float(CANDIDATES[int(total.argmin())])


def _losses(scores: Float[Tensor, "query item"], target: Int[Tensor, " query"]) -> Float[Tensor, " temperature"]:
    at_target = scores.gather(1, target.unsqueeze(1)).squeeze(1)
    return torch.stack([(torch.logsumexp(scores / t, dim=1) - at_target / t).sum().cpu() for t in CANDIDATES])
