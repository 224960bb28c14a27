"""The proximal term of FedProx: its gradient, its rows, and what it does to training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from tests.model.some_networks import NUM_ITEMS, full_histories, small_network
from variseq.model.network import Network, NetworkConfig, seeded
from variseq.training.config import TrainingConfig
from variseq.training.proximal import ProximalTerm
from variseq.training.trainer import Trainer

LENGTHS = [9, 4, 7, 12, 3]


def test_gradient_is_the_weight_times_the_distance() -> None:
    start, moved = small_network(seed=0), small_network(seed=1)
    ProximalTerm(start, 0.7).penalty(moved).backward()
    for (name, parameter), before in zip(moved.named_parameters(), start.parameters(), strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, 0.7 * (parameter - before).detach())


def test_rows_stand_for_their_tables_with_and_without_a_start_token() -> None:
    network = small_network()
    term, rows = ProximalTerm(network, 2.0), torch.tensor([1, 4, NUM_ITEMS])
    taken = {
        "embedding.item": (network.embedding.item.detach()[rows] + 1).requires_grad_(),
        "item_bias": (network.item_bias.detach()[rows[:-1]] + 3).requires_grad_(),
    }
    penalty = term.penalty(network, taken, rows)
    assert penalty.item() == pytest.approx(taken["embedding.item"].numel() + 9 * 2)


@pytest.mark.parametrize("full_softmax_max_items", [NUM_ITEMS, 1], ids=["whole catalog", "sampled negatives"])
def test_weight_of_zero_is_plain_training_and_a_large_one_holds_the_network(full_softmax_max_items: int) -> None:
    histories = full_histories(LENGTHS)
    config = TrainingConfig(
        batch_tokens=16, max_epochs=3, learning_rate=0.01, full_softmax_max_items=full_softmax_max_items
    )

    def start_and_end(weight: float | None) -> tuple[Tensor, Tensor]:
        with seeded(1):
            network = Network(NetworkConfig(num_items=NUM_ITEMS, hidden_size=8, latent_dim=8, num_layers=1))
            start = parameters_to_vector(network.parameters()).detach().clone()
            trainer = Trainer(network, histories, None, config)
            trainer.proximal = None if weight is None else ProximalTerm(network, weight)
            for epoch in range(3):
                trainer.run_epoch(epoch)
        return start, parameters_to_vector(network.parameters()).detach()

    start, plain = start_and_end(None)
    assert torch.equal(start_and_end(0.0)[1], plain)
    assert (start_and_end(100.0)[1] - start).norm() < 0.7 * (plain - start).norm()
