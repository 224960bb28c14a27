"""Applies a trained network to histories: posteriors, preferences under samples, and scores for every item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.layers import Posterior
from variseq.model.network import Network
from variseq.sequences.batches import Layout, Windows, group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 2048


@torch.no_grad()
def encoded(network: Network, histories: Histories) -> Iterator[tuple[Int[Tensor, " history"], Posterior, Layout]]:
    """Batches of histories: their rows, the posteriors over their latest events, and the layout of the tokens.

    An empty history has the start token alone. The mode of the network (training or evaluation) is not changed.

    >>> from variseq.model.network import NetworkConfig
    >>> network = Network(NetworkConfig(num_items=5, hidden_size=8, latent_dim=4)).eval()
    >>> [(row, posterior.mean.shape) for row, posterior, _ in encoded(network, Histories.of_items([[3, 1], []]))]
    [(tensor([1, 0]), torch.Size([4, 4]))]
    """
    config, device = network.config, network.item_bias.device
    windows = query_windows(histories, config.max_seq_len)
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, config.num_items).to(device)
        yield torch.from_numpy(members).to(device), network.encode(batch), batch.layout


@torch.no_grad()
def preferences(
    network: Network, histories: Histories, noise: Float[Tensor, "sample position latent"] | None = None
) -> tuple[Float[Tensor, "sample history hidden"], Float[Tensor, " history"]]:
    """The preference after the latest event, and the mean over dimensions of log σ² there.

    Histories are encoded once and decoded under each sample of the noise, or at the mean of each posterior without it.
    An empty history has the start token alone. The mode of the network is not changed.
    """
    device = network.item_bias.device
    noise = None if noise is None else noise.to(device)
    num_samples = 1 if noise is None else len(noise)
    preference = torch.empty(num_samples, len(histories), network.config.hidden_size, device=device)
    log_variance = torch.empty(len(histories), device=device)
    for row, posterior, layout in encoded(network, histories):
        age = (layout.lengths[layout.slot // layout.longest] - 1) - layout.positions()
        samples = posterior.mean.unsqueeze(0) if noise is None else posterior.sample(noise[:, age])
        preference[:, row] = network.decoder.last(posterior.mean, samples, layout)
        log_variance[row] = posterior.log_variance[layout.last_tokens()].mean(dim=1)
    return preference, log_variance


@torch.no_grad()
def value_estimates(
    network: Network, histories: Histories
) -> tuple[Float[np.ndarray, " history"], Float[np.ndarray, " history"]]:
    """The value of the last event of each history, given its item, its time and the events before: mean, deviation.

    With visits the last event is a visit of its own.
    """
    network.eval()
    device, found = network.item_bias.device, np.empty((2, len(histories)))
    start, end = histories.visits.offsets[:-1], histories.visits.offsets[1:]
    windows = Windows(start, np.maximum(start, end - network.config.max_seq_len), end)
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, network.config.num_items).to(device)
        estimate, last = network.values(batch), batch.by_event()[1].last_tokens()
        both = torch.stack([estimate.mean[last], torch.exp(0.5 * estimate.log_variance[last])])
        if network.config.value_loss == "logistic":
            share = both[0].sigmoid()
            both = torch.stack([share, (share * (1 - share)).sqrt()])
        found[:, members] = both.double().cpu().numpy()
    scale, mean = float(network.embedding.value_scale), float(network.embedding.value_mean)
    return mean + scale * found[0], scale * found[1]


class NetworkScorer:
    """Ranks by the posterior mean; scores are logits, so their softmax is a probability."""

    gives_probabilities = True

    def __init__(self, network: Network, name: str = "variseq") -> None:
        self.network = network
        self.name = name

    def preferences(self, histories: Histories) -> Float[Tensor, "history hidden"]:
        """The preference after the latest event of each history; an empty history has the start token alone."""
        self.network.eval()
        return preferences(self.network, histories)[0][0]

    @torch.no_grad()
    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        """Logits of all items."""
        return self.network.scores(self.preferences(histories), 0, self.network.config.num_items)
