"""Applies a trained network to histories: posteriors, preferences under samples, and scores for every item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.layers import Posterior
from variseq.model.network import Network, NetworkConfig
from variseq.ranking.encoding import antithetic_noise
from variseq.sequences.batches import Layout, group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 2048


@torch.no_grad()
def encoded(network: Network, histories: Histories) -> Iterator[tuple[Int[Tensor, " history"], Posterior, Layout]]:
    """Batches of histories: their rows, the posteriors over their latest events, and the layout of the tokens.

    An empty history has the start token alone. The mode of the network (training or evaluation) is not changed.

    >>> network = Network(NetworkConfig(num_items=5, hidden_size=8, latent_dim=4)).eval()
    >>> [(row, posterior.mean.shape) for row, posterior, _ in encoded(network, Histories.of_items([[3, 1], []]))]
    [(tensor([1, 0]), torch.Size([4, 4]))]
    """
    config, device = network.config, network.item_bias.device
    windows = query_windows(histories, config.max_seq_len)
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, config.num_items).to(device)
        yield torch.from_numpy(members).to(device), network.encode(batch), batch.layout


def posterior_noise(config: NetworkConfig, num_samples: int, seed: int = 0) -> Float[Tensor, "sample position latent"]:
    """`antithetic_noise` in the shape that a network needs.

    >>> posterior_noise(NetworkConfig(num_items=5, hidden_size=8, latent_dim=4, max_seq_len=3), num_samples=2).shape
    torch.Size([2, 3, 4])
    """
    return torch.from_numpy(antithetic_noise(num_samples, config.max_seq_len, config.latent_dim, seed))


@dataclass(frozen=True)
class SampledPreferences:
    """The preference after the latest event under each sample, and the mean over dimensions of log σ²."""

    preference: Float[Tensor, "sample history hidden"]
    log_variance: Float[Tensor, " history"]

    def of(self, histories: slice) -> SampledPreferences:
        """A slice of the histories."""
        return SampledPreferences(self.preference[:, histories], self.log_variance[histories])


@torch.no_grad()
def sample_preferences(
    network: Network, histories: Histories, noise: Float[Tensor, "sample position latent"]
) -> SampledPreferences:
    """Encode once, decode under each sample; an empty history has the start token alone."""
    network.eval()
    device = network.item_bias.device
    preference = torch.empty(len(noise), len(histories), network.config.hidden_size, device=device)
    log_variance = torch.empty(len(histories), device=device)
    noise = noise.to(device)
    for row, posterior, layout in encoded(network, histories):
        age = (layout.lengths[layout.slot // layout.longest] - 1) - layout.positions()
        preference[:, row] = network.decoder.last(posterior.mean, posterior.sample(noise[:, age]), layout)
        log_variance[row] = posterior.log_variance[layout.last_tokens()].mean(dim=1)
    return SampledPreferences(preference, log_variance)


@torch.no_grad()
def mean_preferences(network: Network, histories: Histories) -> SampledPreferences:
    """`sample_preferences` at the mean of each posterior; the mode of the network is not changed."""
    device = network.item_bias.device
    preference = torch.empty(1, len(histories), network.config.hidden_size, device=device)
    log_variance = torch.empty(len(histories), device=device)
    for row, posterior, layout in encoded(network, histories):
        preference[:, row] = network.decoder.last(posterior.mean, posterior.mean.unsqueeze(0), layout)
        log_variance[row] = posterior.log_variance[layout.last_tokens()].mean(dim=1)
    return SampledPreferences(preference, log_variance)


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
