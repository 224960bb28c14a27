"""A model of any size to be served: an untrained network, exported; to answer it costs what a trained one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from variseq.evaluation.conformal import LEVELS, ConformalThresholds
from variseq.evaluation.groups import LENGTH_EDGES
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.export import write_encoder
from variseq.inference.bundle import ENCODER, INDEX, Bundle, Facts, Tables, write_bundle
from variseq.inference.forecast import with_bias
from variseq.inference.index import EXACT_ITEMS, build_index
from variseq.model.network import Network, NetworkConfig
from variseq.recommend.calibration import Calibration, Gate
from variseq.recommend.learned import Learned

FOLLOWERS = 20
"""How many counted followers each item has."""


def untrained_bundle(folder: Path, num_items: int, width: int = 64, seed: int = 0) -> Path:
    """Items called i0, i1, ... with titles; ten categories; a gate that hears all three voices."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    config = NetworkConfig(num_items=num_items, width=width, latent_width=width, max_length=200)
    network = Network(config).eval()
    with torch.no_grad():
        network.embedding.item.normal_(std=1 / np.sqrt(width))
    levels = np.tile(np.array(LEVELS), (len(LENGTH_EDGES), 1))
    gate = Gate(memory=(-1.5, 0.05, 0.0), anything=(-2.0, 0.0, 0.0))
    learned = Learned(Calibration(gate=gate), ConformalThresholds(levels), 0.1, {})
    share = generator.zipf(1.3, num_items).astype(np.float64)
    tables = Tables(
        item_vectors=network.item_vectors.detach().numpy(),
        item_bias=network.item_bias.detach().numpy(),
        log_share=np.log(share / share.sum()).astype(np.float32),
        offsets=np.arange(num_items + 1) * FOLLOWERS,
        follower=np.sort(generator.integers(0, num_items, (num_items, FOLLOWERS)), axis=1).ravel().astype(np.int32),
        count=generator.integers(1, 50, num_items * FOLLOWERS).astype(np.float32),
    )
    ids = sorted(f"i{number}" for number in range(num_items))
    titles = [f"Item number {one[1:]}" for one in ids]
    items = ItemTable(pa.table({"title": titles, "category": [[f"category {int(one[1:]) % 10}"] for one in ids]}))
    facts = Facts(config.max_length, width, 0, True, learned, {"network": config.model_dump()})
    vocabulary = Vocabulary(pa.array([], pa.string()), pa.array(ids), ("event",))
    encoder = folder.with_name(f".{folder.name}.onnx")
    write_encoder(network, encoder)
    files = {ENCODER: encoder}
    if num_items > EXACT_ITEMS:
        files[INDEX] = folder.with_name(f".{folder.name}.faiss")
        build_index(with_bias(tables), files[INDEX])
    write_bundle(Bundle(folder, "", facts, tables, vocabulary, items), files)
    for path in files.values():
        path.unlink()
    return folder
