"""Histories into preferences under several samples of their posteriors: what a forecast is averaged over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.encoded import encoded
from variseq.model.network import Network, NetworkConfig
from variseq.model.noise import antithetic_noise
from variseq.sequences.histories import Histories


def posterior_noise(config: NetworkConfig, num_samples: int, seed: int = 0) -> Float[Tensor, "sample place latent"]:
    """The noise of `antithetic_noise` for a network.

    >>> posterior_noise(NetworkConfig(num_items=5, hidden_size=8, latent_dim=4, max_seq_len=3), num_samples=2).shape
    torch.Size([2, 3, 4])
    """
    return torch.from_numpy(antithetic_noise(num_samples, config.max_seq_len, config.latent_dim, seed))


@dataclass(frozen=True)
class SampledPreferences:
    """The preference after the latest event under each sample, and how wide the posterior there is.

    `log_variance` is the mean over dimensions of log σ².
    """

    preference: Float[Tensor, "sample history hidden"]
    log_variance: Float[Tensor, " history"]

    def of(self, histories: slice) -> SampledPreferences:
        """Those of some of the histories."""
        return SampledPreferences(self.preference[:, histories], self.log_variance[histories])


@torch.no_grad()
def sample_preferences(
    network: Network, histories: Histories, noise: Float[Tensor, "sample place latent"]
) -> SampledPreferences:
    """Encode once, decode under each sample; an empty history has the start token alone."""
    network.eval()
    device = network.item_bias.device
    preference = torch.empty(len(noise), len(histories), network.config.hidden_size, device=device)
    log_variance = torch.empty(len(histories), device=device)
    noise = noise.to(device)
    for row, posterior, layout in encoded(network, histories):
        place = (layout.lengths[layout.slot // layout.longest] - 1) - layout.positions()
        preference[:, row] = network.decoder.last(posterior.mean, posterior.sample(noise[:, place]), layout)
        log_variance[row] = posterior.log_variance[layout.last_tokens()].mean(dim=1)
    return SampledPreferences(preference, log_variance)


@torch.no_grad()
def mean_preferences(network: Network, histories: Histories) -> SampledPreferences:
    """The same at the mean of each posterior, as one sample, in whatever mode the network is."""
    device = network.item_bias.device
    preference = torch.empty(1, len(histories), network.config.hidden_size, device=device)
    log_variance = torch.empty(len(histories), device=device)
    for row, posterior, layout in encoded(network, histories):
        preference[0, row] = network.decoder.last_at_mean(posterior.mean, layout)
        log_variance[row] = posterior.log_variance[layout.last_tokens()].mean(dim=1)
    return SampledPreferences(preference, log_variance)
