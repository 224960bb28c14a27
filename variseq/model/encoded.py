"""Histories into posteriors, some at a time: the loop that everything asked of a trained network begins with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from variseq.model.latent import Posterior
from variseq.model.network import Network
from variseq.sequences.batches import Layout, group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 2048


@torch.no_grad()
def encoded(network: Network, histories: Histories) -> Iterator[tuple[Int[Tensor, " history"], Posterior, Layout]]:
    """Which histories, the posteriors over the latest events of each, and how they are laid out; each history once.

    An empty history has the start token alone. The network is in the mode that it is found in.

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
