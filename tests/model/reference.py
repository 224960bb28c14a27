"""Plain forms of the kernels, and the attention weights of whole histories: what the tests compare with."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.losses import Negatives
from variseq.model.network import Network
from variseq.model.posterior import encoded
from variseq.sequences.batches import Layout
from variseq.sequences.histories import Histories


def additive_context_plain(query: Tensor, key: Tensor, value: Tensor, score: Tensor, position: Tensor) -> Tensor:
    energy = torch.tanh(query.unsqueeze(2) + key.unsqueeze(1)) @ score
    future = torch.arange(key.shape[1]) > position.unsqueeze(2)
    return torch.softmax(energy.masked_fill(future, float("-inf")), dim=2) @ value


def softmax_loss_plain(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
) -> Float[Tensor, ""]:
    log_probability = torch.log_softmax(preference @ item_vectors.T + item_bias, dim=2)
    at_target = log_probability.gather(2, target.expand(len(preference), -1).unsqueeze(2)).squeeze(2)
    return (math.log(len(preference)) - torch.logsumexp(at_target, dim=0)).mean()


def sampled_loss_plain(
    negatives: Negatives, preference: Tensor, item_vectors: Tensor, item_bias: Tensor, target: Tensor
) -> Tensor:
    items = negatives.items
    bias = item_bias[items] - math.log(len(items)) - negatives.log_probability[items]
    at_target = (preference * item_vectors[target]).sum(dim=2) + item_bias[target]
    scores = (preference @ item_vectors[items].T + bias).masked_fill(items == target.unsqueeze(1), float("-inf"))
    log_mass = torch.logsumexp(torch.cat([at_target.unsqueeze(2), scores], dim=2), dim=2)
    return (math.log(len(preference)) - torch.logsumexp(at_target - log_mass, dim=0)).mean()


def last_weights(network: Network, mean: Tensor, layout: Layout) -> Tensor:
    """The attention weights of the last position of each history."""
    query, position = mean[layout.last_tokens()].unsqueeze(1), (layout.lengths - 1).unsqueeze(1)
    return network.decoder.attention.weights(query, layout.unpack(mean), position).squeeze(1)


@torch.no_grad()
def attention_over_events(network: Network, histories: Histories) -> list[np.ndarray]:
    """For each history the weights of its events at the last position; those before the window have none."""
    network.eval()
    weights = [np.zeros(length, dtype=np.float32) for length in histories.lengths]
    for row, posterior, layout in encoded(network, histories):
        of_tokens = last_weights(network, posterior.mean, layout).cpu().numpy()
        for index, (member, num_tokens) in enumerate(zip(row.tolist(), layout.lengths.tolist(), strict=True)):
            # The token before target p is event p − 1; the start token, where the window has it, comes first.
            num_events = min(num_tokens, len(weights[member]))
            if num_events:
                weights[member][-num_events:] = of_tokens[index, num_tokens - num_events : num_tokens]
    return weights
