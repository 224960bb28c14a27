"""The exported encoder gives what the network gives, whatever the parts of the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model.some_networks import NUM_ITEMS, full_histories, small_network
from variseq.events.items import CategoryLinks
from variseq.inference.encoder import OnnxEncoder
from variseq.model.exportable import encoder_tables, write_encoder
from variseq.model.network import Network
from variseq.ranking.encoding import antithetic_noise
from variseq.recommend.network_model import NetworkEncoder

EVERYTHING = {"num_behaviors": 3, "has_gaps": True, "has_values": True}
PARTS: dict[str, dict[str, Any]] = {
    "items alone": {},
    "behaviors, times and values": EVERYTHING,
    "visits": EVERYTHING | {"visit_gap": 10**10},
    "visits of items alone": {"visit_gap": 10**10},
    "scaled dot products": {"attention": "dot", "latent_dim": 5},
    "another scale of the means": {"mean_scale": 0.7, "num_layers": 1, "num_heads": 4},
    "means as they are": {"mean_scale": None},
    "a latent of the size of the hidden state": {"latent_dim": 8, "mean_scale": 0.7},
    "categories of items": {},
    "three networks side by side": EVERYTHING | {"hidden_size": 12, "latent_dim": 12, "num_heads": 6, "num_members": 3},
}


def exported(network: Network, folder: Path) -> OnnxEncoder:
    write_encoder(network, folder / "encoder.onnx")
    tables, latent = encoder_tables(network), network.config.latent_dim
    vectors = network.item_vectors.detach().numpy()
    return OnnxEncoder(folder / "encoder.onnx", vectors, tables["start_vector"], tables["distance_biases"], latent)


@pytest.mark.parametrize("name", PARTS)
def test_exported_encoder_gives_what_the_network_gives(name: str, tmp_path: Path) -> None:
    network = small_network(max_seq_len=30, **PARTS[name])
    network.embedding.set_value_scale(0.3, 1.7)
    if name == "categories of items":
        network.embedding.use_categories(
            CategoryLinks(np.arange(NUM_ITEMS + 1), np.arange(NUM_ITEMS) % 3, ("a", "b", "c"))
        )
    histories = replace(full_histories([0, 1, 7, 29, 30, 80]), visit_gap=network.config.visit_gap)
    for noise in (
        antithetic_noise(0, 30, network.config.latent_dim),
        antithetic_noise(4, 30, network.config.latent_dim),
    ):
        expected = NetworkEncoder(network).encode(histories, noise)
        found = exported(network, tmp_path).encode(histories, noise)
        np.testing.assert_allclose(found.preference, expected.preference, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.log_variance, expected.log_variance, rtol=1e-4, atol=1e-5)
