"""A run of any size to be served: an untrained network; to answer it costs what a trained one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.model.checkpoint import Checkpoint, save_checkpoint
from variseq.model.network import Network, NetworkConfig
from variseq.ranking.calibration import LENGTH_EDGES, LEVELS, Calibration, ConformalThresholds, GatingNetwork
from variseq.recommend.item_matrix import SparseRows
from variseq.recommend.learned import Learned
from variseq.recommend.memory import Memory

FOLLOWERS = 20
"""How many counted followers each item has, at most."""


def untrained_run(folder: Path, num_items: int, width: int = 64, seed: int = 0) -> Path:
    """Items called i0, i1, ... with titles; ten categories; a gate that hears all four voices; no histories."""
    torch.manual_seed(seed)
    network = Network(NetworkConfig(num_items=num_items, width=width, latent_dim=width, max_seq_len=200)).eval()
    with torch.no_grad():
        network.embedding.item.normal_(std=1 / np.sqrt(width))
    levels = np.tile(np.array(LEVELS), (len(LENGTH_EDGES), 1))
    gate = GatingNetwork(transitions=(-1.5, 0.05, 0.0), trend=(-2.0, 0.0, 0.0), uniform=(-2.0, 0.0, 0.0))
    learned = Learned(Calibration(gate=gate), ConformalThresholds(levels), 0.1, {})
    ids = sorted(f"i{number}" for number in range(num_items))
    titles = [f"Item number {one[1:]}" for one in ids]
    items = ItemTable(pa.table({"title": titles, "category": [[f"category {int(one[1:]) % 10}"] for one in ids]}))
    log = {"behaviors": {"event": 1}, "first_faults": {}}
    checkpoint = Checkpoint(
        network=network,
        vocabulary=Vocabulary(pa.array([], pa.string()), pa.array(ids), ("event",)),
        items=items,
        histories=None,
        bounds=None,
        memory=counted(num_items, np.random.default_rng(seed)).state(),
        manifest={"log": log, "protocol": {}, "split_method": {}, "forecast": learned.to_json()},
        config={"size": "small", "seed": seed, "model": {}, "training": {"exclude_seen": True}},
        metrics=[],
    )
    save_checkpoint(checkpoint, folder)
    return folder


def counted(num_items: int, generator: np.random.Generator) -> Memory:
    """Counts as a long log leaves them."""
    share = generator.zipf(1.3, num_items).astype(np.float64)
    follower = generator.integers(0, num_items, (num_items, FOLLOWERS))
    key = np.unique(np.arange(num_items)[:, None] * num_items + follower)
    count = generator.integers(1, 50, len(key))
    memory = Memory(num_items)
    memory.transitions.log_share = torch.from_numpy(np.log(share / share.sum())).float()
    memory.transitions.followers = SparseRows.from_cells(key // num_items, key % num_items, count, num_items)
    memory.trend.log_share = memory.transitions.log_share.flip(0)
    return memory
