"""A network beside private counts: it starts from vectors of the release, and its body is trained by noisy steps."""

from __future__ import annotations

import numpy as np
import torch

from variseq.model.losses import ItemFrequency
from variseq.model.network import Network, NetworkConfig, seeded
from variseq.privacy.private_steps import PrivateTraining
from variseq.privacy.release import VECTOR_SIZE, PairCounts
from variseq.privacy.schedule import StepSchedule

MAX_SEQ_LEN, NUM_LAYERS, ATTENTION_DIM = 50, 1, 16
FULL_SOFTMAX_MAX_ITEMS = 4096
"""Of larger catalogs items are drawn as negatives, by their released popularity."""


def network_of_release(counts: PairCounts) -> Network:
    """A network whose item vectors and biases are made of a release, and frozen; it has not seen the log.

    The vectors have a norm of 1, or 0 for items without pairs. The biases are the log popularity. The body starts from
    a public seed, close to the map that scores what is like the last item.
    """
    num_items = len(counts.share)
    vectors = counts.vectors[:, :-1]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    with seeded(0):
        network = Network(
            NetworkConfig(
                num_items=num_items,
                hidden_size=VECTOR_SIZE,
                latent_dim=VECTOR_SIZE,
                num_layers=NUM_LAYERS,
                max_seq_len=MAX_SEQ_LEN,
                attention_dim=ATTENTION_DIM,
                dropout=0.0,
            )
        )
    with torch.no_grad():
        network.embedding.item[:-1] = torch.from_numpy(vectors)
        network.embedding.item[-1] = 0.0
        network.item_bias.copy_(torch.from_numpy(np.log(counts.share)))
    network.embedding.item.requires_grad_(False)
    network.item_bias.requires_grad_(False)
    return network


def private_training(counts: PairCounts, schedule: StepSchedule, noise_multiplier: float) -> PrivateTraining:
    """The training of the network of a release.

    Args:
        counts: What was released.
        schedule: Of the steps.
        noise_multiplier: Of each step.
    """
    network = network_of_release(counts)
    is_large = len(counts.share) > FULL_SOFTMAX_MAX_ITEMS
    frequency = ItemFrequency.of(network.item_bias.detach()) if is_large else None
    return PrivateTraining(network, schedule, noise_multiplier, frequency)
