"""Histories into preferences under several samples of their beliefs: what a forecast is averaged over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.network import Network, NetworkConfig
from variseq.sequences.batches import group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 8192


def belief_noise(config: NetworkConfig, num_samples: int, seed: int = 0) -> Float[Tensor, "sample place latent"]:
    """ε of z = μ + σ ⊙ ε: one row a sample and a place, counted back from the latest event; the same for everybody.

    Fixed noise gives the same answer to the same history whatever else is asked along with it. Samples come in pairs
    of opposite sign, so that their mean is the posterior mean (antithetic variates, Hammersley and Morton 1956); an odd
    one is left without its twin. No sample means the posterior mean alone.

    >>> config = NetworkConfig(num_items=5, width=8, latent_width=4, max_length=3)
    >>> noise = belief_noise(config, num_samples=2)
    >>> noise.shape, torch.equal(noise[0], -noise[1])
    (torch.Size([2, 3, 4]), True)
    """
    if num_samples == 0:
        return torch.zeros(1, config.max_length, config.latent_width)
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn((num_samples + 1) // 2, config.max_length, config.latent_width, generator=generator)
    return torch.cat([half, -half])[:num_samples]


@dataclass(frozen=True)
class SampledPreferences:
    """The preference after the latest event under each sample, and how wide the belief there is.

    `log_variance` is the mean over dimensions of log σ².
    """

    preference: Float[Tensor, "sample history width"]
    log_variance: Float[Tensor, " history"]


@torch.no_grad()
def sample_preferences(
    network: Network, histories: Histories, noise: Float[Tensor, "sample place latent"]
) -> SampledPreferences:
    """Encode once, decode once a sample; an empty history has the start token alone."""
    network.eval()
    config, device = network.config, network.item_bias.device
    windows = query_windows(histories, config.max_length)
    preference = torch.empty(len(noise), len(histories), config.width, device=device)
    log_variance = torch.empty(len(histories), device=device)
    noise = noise.to(device)
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, config.num_items).to(device)
        belief, layout = network.encode(batch), batch.layout
        place = (layout.lengths[layout.slot // layout.longest] - 1) - layout.positions()
        row = torch.from_numpy(members).to(device)
        for sample in range(len(noise)):
            preference[sample, row] = network.decoder.last(belief.sample(noise[sample, place]), layout)
        log_variance[row] = belief.log_variance[layout.last_tokens()].mean(dim=1)
    return SampledPreferences(preference, log_variance)
