"""Gradients of each user against `Network.objective` of one user at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.model.some_networks import NUM_ITEMS, full_histories
from variseq.events.items import CategoryLinks
from variseq.model.losses import ItemFrequency, Negatives
from variseq.model.network import Network, NetworkConfig, Weights
from variseq.privacy.noise import GRID
from variseq.privacy.user_gradients import user_gradients
from variseq.sequences.batches import Batch, Windows, make_batch

LENGTHS = [5, 1, 9, 2, 5]
WEIGHTS = Weights(beta=0.05, regression=0.3, noise=0.0)


def private_network(**changes: Any) -> Network:
    """A network in float64 whose parameters all matter."""
    torch.manual_seed(3)
    parts = {"num_behaviors": 3, "has_gaps": True, "has_values": True, "hidden_size": 8, "latent_dim": 4}
    of_private = {"dropout": 0.0, "attention_dim": 3, "max_seq_len": 50}
    network = Network(NetworkConfig(**{"num_items": NUM_ITEMS, **parts, **of_private, **changes}))
    links = CategoryLinks(np.arange(NUM_ITEMS + 1) * 2, np.arange(2 * NUM_ITEMS) % 5, ("a", "b", "c", "d", "e"))
    network.embedding.use_categories(links)
    network.embedding.use_content(np.random.default_rng(1).normal(size=(NUM_ITEMS, 3)).astype(np.float32))
    network.set_known(full_histories([40]))
    network.double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def windows_of(lengths: list[int]) -> tuple[Any, Windows]:
    histories = full_histories(lengths)
    histories = replace(histories, is_target=np.random.default_rng(2).random(histories.num_events) < 0.8)
    histories.is_target[0] = True
    offsets = histories.offsets
    return histories, Windows(offsets[:-1], offsets[:-1], offsets[1:])


def double(batch: Batch) -> Batch:
    return replace(batch, value=batch.value.double(), target_value=batch.target_value.double())


def alone(network: Network, batch: Batch, weights: Weights, negatives: Negatives | None) -> dict[str, Tensor]:
    """The gradient of one user by the ordinary way."""
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    if not batch.num_targets:
        return {name: torch.zeros_like(one) for name, one in trained.items()}
    loss = network.objective(batch, weights, negatives).loss
    grads = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
    return dict(zip(trained, grads, strict=True))


def assert_equal_to_one_at_a_time(network: Network, weights: Weights, negatives: Negatives | None = None) -> None:
    histories, windows = windows_of(LENGTHS)
    found = user_gradients(network, double(make_batch(histories, windows, np.arange(5), NUM_ITEMS)), weights, negatives)
    like = {name: one for name, one in network.named_parameters() if one.requires_grad}
    for user in range(len(LENGTHS)):
        batch = double(make_batch(histories, windows, np.array([user]), NUM_ITEMS))
        expected = alone(network, batch, weights, negatives)
        assert found.of_users.keys() == expected.keys()
        for name, gradient in expected.items():
            own = found.of_users[name][user]
            if own.shape != gradient.shape:
                assert found.rows is not None
                rows = found.rows[: len(own)]
                own = torch.zeros_like(like[name]).index_copy(0, rows, own)
            torch.testing.assert_close(
                own, gradient, atol=1e-9, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("mask_seen", [False, True])
def test_gradients_are_those_of_one_user_at_a_time(attention: str, mask_seen: bool) -> None:
    network = private_network(attention=attention)
    assert_equal_to_one_at_a_time(network, replace(WEIGHTS, mask_seen=mask_seen))


def negatives() -> Negatives:
    frequency = ItemFrequency.of(torch.full((NUM_ITEMS,), -float(np.log(NUM_ITEMS))).double())
    return frequency.draw(6, seed=1)


def test_gradients_with_shared_negatives_are_those_of_one_user_at_a_time() -> None:
    assert_equal_to_one_at_a_time(private_network(), WEIGHTS, negatives())


@pytest.mark.parametrize("sampled", [False, True])
def test_frozen_item_vectors_leave_the_other_gradients_as_they_are(sampled: bool) -> None:
    network = private_network()
    for name in ("item", "category", "content_map"):
        getattr(network.embedding, name).requires_grad_(False)
    network.item_bias.requires_grad_(False)
    assert_equal_to_one_at_a_time(network, replace(WEIGHTS, mask_seen=True), negatives() if sampled else None)


def test_frozen_body_leaves_the_gradients_of_items_as_they_are() -> None:
    network = private_network()
    network.requires_grad_(False)
    network.embedding.item.requires_grad_(True)
    assert_equal_to_one_at_a_time(network, WEIGHTS)


def test_every_parameter_has_a_gradient() -> None:
    histories, windows = windows_of(LENGTHS)
    found = user_gradients(private_network(), double(make_batch(histories, windows, np.arange(5), NUM_ITEMS)), WEIGHTS)
    assert all(one.abs().sum() > 0 for one in found.of_users.values())


def test_user_without_a_target_adds_nothing() -> None:
    histories, windows = windows_of(LENGTHS)
    histories.is_target[:5] = False
    found = user_gradients(private_network(), double(make_batch(histories, windows, np.arange(5), NUM_ITEMS)), WEIGHTS)
    assert found.norms()[0] == 0
    assert (found.norms()[[2, 4]] > 0).all()


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clipped_steps_of_a_user_have_a_norm_of_at_most_one(max_norm: float) -> None:
    network = private_network()
    histories, windows = windows_of(LENGTHS)
    like = dict(network.named_parameters())
    total = {name: torch.zeros_like(one, dtype=torch.int64) for name, one in like.items()}
    for user in range(len(LENGTHS)):
        batch = double(make_batch(histories, windows, np.array([user]), NUM_ITEMS))
        gradients = user_gradients(network, batch, WEIGHTS, negatives())
        steps = gradients.clipped_steps(max_norm, like)
        squares = sum(int((one**2).sum()) for one in steps.values())
        assert squares <= GRID**-2
        norm = float(gradients.norms()[0])
        assert squares**0.5 * GRID == pytest.approx(min(norm / max_norm, 1.0), abs=0.01)
        total = {name: total[name] + steps[name] for name in total}
    batch = double(make_batch(histories, windows, np.arange(5), NUM_ITEMS))
    together = user_gradients(network, batch, WEIGHTS, negatives()).clipped_steps(max_norm, like)
    # A number that falls on a step may be rounded to either side.
    assert all((together[name] - total[name]).abs().max() <= len(LENGTHS) for name in total)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"has_values": True, "value_loss": "logistic"}])
def test_dropout_and_a_recurrent_head_are_refused(changes: dict[str, Any]) -> None:
    histories, windows = windows_of(LENGTHS)
    batch = make_batch(histories, windows, np.arange(5), NUM_ITEMS)
    with pytest.raises(ValueError, match="gradients of users"):
        user_gradients(Network(NetworkConfig(num_items=NUM_ITEMS, **{"dropout": 0.0, **changes})), batch, WEIGHTS)
