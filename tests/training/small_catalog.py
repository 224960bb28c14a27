"""A network with everything that an item can have, and batches for it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from variseq.events.items import CategoryLinks
from variseq.model.network import ITEM_TABLES, Network, NetworkConfig
from variseq.sequences.batches import Batch, make_batch, training_windows
from variseq.sequences.histories import Histories
from variseq.training.lazy_adamw import LazyAdamW


def catalog_of(num_items: int, skip_gram: int) -> tuple[Network, Histories]:
    """The network and the histories that it is trained on, which hold half of the items."""
    random = np.random.default_rng(0)
    shape = {"hidden_size": 8, "latent_dim": 4, "num_layers": 1, "dropout": 0.0, "skip_gram_window": skip_gram}
    torch.manual_seed(0)
    network = Network(NetworkConfig(num_items=num_items, has_values=True, **shape))
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, 3, num_items))])
    names = ("a", "b", "c", "d")
    network.embedding.use_categories(CategoryLinks(offsets, random.integers(0, 4, offsets[-1]), names))
    network.embedding.use_content(random.normal(size=(num_items, 5)).astype(np.float32))
    histories = Histories.of_items([random.integers(0, num_items // 2, size).tolist() for size in (6, 3, 4, 2, 5)])
    histories = replace(histories, value=random.normal(size=histories.num_events).astype(np.float32))
    network.set_known(histories)
    return network.train(), histories


def batch_of(histories: Histories, num_items: int, index: int = 0, number: int = 1) -> Batch:
    """Every `number`-th history from `index` on as a batch."""
    windows = training_windows(histories, 20, np.random.default_rng(0))
    return make_batch(histories, windows, np.arange(len(histories))[index::number], num_items)


def tables_of(network: Network, rows: Tensor) -> dict[str, Tensor]:
    """The rows of all tables of items, as a step takes them."""
    items = LazyAdamW(network, copy.deepcopy(network), dict.fromkeys(ITEM_TABLES, 0.0))
    items.plan(0, 1, lambda step: 0.1, lambda step: 0.9)
    return items.take(rows, 0)
