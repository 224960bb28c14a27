"""Plain forms of the kernels, and the attention weights of whole histories: what the tests compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.losses import Negatives, Targets
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


def future_loss_plain(
    preference: Tensor,
    item_vectors: Tensor,
    item_bias: Tensor,
    targets: Targets,
    unranked: Sequence[tuple[int, int]],
    negatives: Negatives | None = None,
) -> Tensor:
    """Token by token: several targets, items that are left out of the softmax, and all items or some negatives."""
    total = preference.new_zeros(())
    for token, (items, weights) in enumerate(zip(targets.item.tolist(), targets.weight.tolist(), strict=True)):
        wanted = {item for item, weight in zip(items, weights, strict=True) if weight}
        scores = preference[:, token] @ item_vectors.T + item_bias
        if negatives is None:
            others = [item for item in range(len(item_bias)) if item not in wanted and (token, item) not in unranked]
            terms = scores[:, others]
        else:
            others = [item for item in negatives.items.tolist() if item not in wanted and (token, item) not in unranked]
            terms = scores[:, others] - math.log(len(negatives.items)) - negatives.log_probability[others]
        log_mass = torch.logsumexp(torch.cat([scores[:, sorted(wanted)], terms], dim=1), dim=1)
        joint = sum(weight * (scores[:, item] - log_mass) for item, weight in zip(items, weights, strict=True))
        total = total + math.log(len(preference)) - torch.logsumexp(torch.as_tensor(joint), dim=0)
    return total / targets.weight.sum()


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
