"""A few numbers into a small network with weights that all matter, and into histories for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from variseq.model.network import Network, NetworkConfig
from variseq.sequences.batches import Batch, make_batch, query_windows
from variseq.sequences.histories import Histories

NUM_ITEMS = 12


def small_network(seed: int = 0, **changes: Any) -> Network:
    """A network in evaluation mode; what starts at zero (context, biases of distance) is drawn at random too."""
    torch.manual_seed(seed)
    numbers: dict[str, Any] = {"hidden_size": 8, "latent_dim": 4, "num_layers": 2, "num_heads": 2, "attention_dim": 3}
    config = NetworkConfig(**{"num_items": NUM_ITEMS, "max_seq_len": 50, "dropout": 0.3, **numbers, **changes})
    network = Network(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.eval()


def full_histories(lengths: list[int], seed: int = 0) -> Histories:
    """Histories with behaviors, times and (some) values."""
    generator = np.random.default_rng(seed)
    num_events = sum(lengths)
    value = generator.normal(size=num_events).astype(np.float32)
    value[generator.random(num_events) < 0.3] = np.nan
    return Histories(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item=generator.integers(NUM_ITEMS, size=num_events).astype(np.int32),
        behavior=generator.integers(3, size=num_events).astype(np.uint8),
        timestamp=np.sort(generator.integers(10**12, size=num_events)),
        value=value,
    )


def query_batch(histories: Histories, max_seq_len: int = 50) -> Batch:
    """All histories in one batch, each to its latest event."""
    return make_batch(histories, query_windows(histories, max_seq_len), np.arange(len(histories)), NUM_ITEMS)
