"""The loss of a taken item among those shown beside it, against its plain form, and as a term of the objective."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.model.some_networks import NUM_ITEMS, full_histories, small_network
from tests.training.small_catalog import catalog_of
from variseq.model.losses import ItemFrequency, Pairs, list_loss
from variseq.model.network import Counts, Weights, objective_with
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.shown_lists import ShownLists


def plain(preference: Tensor, vectors: Tensor, bias: Tensor, target: Tensor, shown: list[list[int]]) -> Tensor:
    """Token by token, and sample by sample."""
    total = preference.sum() * 0
    for token, others in enumerate(shown):
        if others:
            items = torch.tensor([int(target[token]), *others])
            scores = preference[:, token] @ vectors[items].T + bias[items]
            total = total - (torch.softmax(scores, dim=1)[:, 0].mean()).log()
    return total / len(target)


@given(st.lists(st.lists(st.integers(0, 6), max_size=4), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 99))
def test_list_loss_equals_the_plain_form_in_values_and_gradients(
    shown: list[list[int]], num_samples: int, seed: int
) -> None:
    pairs = [(token, item) for token, others in enumerate(shown) for item in others]
    if not pairs:
        return
    found = []
    for form in (list_loss, plain):
        generator = torch.Generator().manual_seed(seed)
        shapes = [(num_samples, len(shown), 3), (7, 3), (7,)]
        inputs = [torch.randn(*one, generator=generator, dtype=torch.float64).requires_grad_() for one in shapes]
        target = torch.randint(7, (len(shown),), generator=generator)
        beside = Pairs(*torch.tensor(pairs).unbind(1)) if form is list_loss else shown
        loss = form(*inputs, target, beside)
        loss.backward()
        found.append([loss, *(one.grad for one in inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_list_loss_is_finite_where_scores_are_far_apart() -> None:
    vectors, shown = torch.tensor([[1.0], [-1.0]]), Pairs(torch.tensor([0]), torch.tensor([1]))
    for score in (-500.0, 500.0):
        preference = torch.full((1, 1, 1), score, requires_grad=True)
        loss = list_loss(preference, vectors, torch.zeros(2), torch.tensor([0]), shown)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(max(0.0, -2 * score))
        assert preference.grad is not None
        assert bool(preference.grad.isfinite().all())


def lists_of(num_events: int, num_items: int) -> ShownLists:
    random = np.random.default_rng(1)
    return ShownLists(random.integers(-1, 4, num_events), np.array([0, 2, 3, 3, 7]), random.integers(num_items, size=7))


def test_objective_has_the_lists_with_their_weight_and_nothing_else_changes() -> None:
    histories, network = full_histories([5, 1, 9]), small_network()
    windows = training_windows(histories, 50, np.random.default_rng(0))
    lists = lists_of(histories.num_events, NUM_ITEMS)
    ordinary, batch = (make_batch(histories, windows, np.arange(3), NUM_ITEMS, one) for one in (None, lists))
    without, unused, once, twice = (
        network.objective(one, Weights(noise=0.0, shown=weight))
        for one, weight in ((ordinary, 3.0), (batch, 0.0), (batch, 1.0), (batch, 2.0))
    )
    assert torch.equal(without.loss, unused.loss)
    assert torch.equal(without.nll, twice.nll)
    assert float(once.loss.detach()) > float(unused.loss.detach())
    torch.testing.assert_close(twice.loss - once.loss, once.loss - unused.loss)


def test_lists_have_the_same_gradient_where_a_step_has_few_rows() -> None:
    network, histories = catalog_of(30, skip_gram=0)
    windows = training_windows(histories, 50, np.random.default_rng(0))
    batch = make_batch(histories, windows, np.arange(5), 30, lists_of(histories.num_events, 30))
    drawn = ItemFrequency.of(torch.full((30,), -math.log(30))).draw(8, 0)
    weights = Weights(noise=0.0, shown=2.0)
    network.objective(batch, weights, drawn).loss.backward()
    assert network.item_bias.grad is not None
    whole = network.item_bias.grad.clone()
    rows = batch.rows(drawn.items, start=30)
    bias = network.item_bias.detach()[rows[:-1]].requires_grad_()
    tensors = network.of_rows(rows) | {"item_bias": bias, "embedding.item": network.embedding.item.detach()[rows]}
    tensors["value_head.vector"] = network.value_head.vector.detach()[rows]
    objective_with(network, tensors, batch.among(rows), weights, drawn.among(rows), None).loss.backward()
    torch.testing.assert_close(bias.grad, whole[rows[:-1]])


def test_losses_and_gradients_of_the_parts_of_a_batch_add_up() -> None:
    histories, network = full_histories([5, 1, 9, 4]), small_network()
    windows = training_windows(histories, 50, np.random.default_rng(0))
    lists, weights = lists_of(histories.num_events, NUM_ITEMS), Weights(noise=0.0, shown=2.0)
    batch = make_batch(histories, windows, np.arange(4), NUM_ITEMS, lists)
    whole = network.objective(batch, weights).loss
    parts = [make_batch(histories, windows, np.arange(4)[one::2], NUM_ITEMS, lists) for one in range(2)]
    total = sum(network.objective(one, weights, None, Counts.of(batch)).loss for one in parts)
    torch.testing.assert_close(total, whole)
