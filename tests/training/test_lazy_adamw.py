"""A step that touches a few rows, against dense AdamW and a network of the whole catalog."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.training.small_catalog import batch_of, catalog_of, tables_of
from variseq.model.losses import ItemFrequency
from variseq.model.network import ITEM_TABLES, Weights, objective_with
from variseq.training.lazy_adamw import BETAS, EPSILON, LazyAdamW

NUM_ROWS, NUM_STEPS = 12, 200


class Tables(nn.Module):
    """Parameters with the names of those that have a row for each item."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Module()
        self.embedding.item = nn.Parameter(torch.randn(NUM_ROWS + 1, 3))
        self.item_bias = nn.Parameter(torch.randn(NUM_ROWS))


def rate(step: int) -> float:
    return 0.02 * (0.1 + math.cos(1.5 * step / NUM_STEPS))


def average(step: int) -> float:
    return min(0.95, (1 + step) / (10 + step))


@settings(max_examples=9)
@given(seed=st.integers(0, 1000), chance=st.sampled_from([0.006, 0.05, 0.5]), decay=st.sampled_from([0.0, 0.5]))
def test_rows_that_wait_end_where_dense_adamw_ends(seed: int, chance: float, decay: float) -> None:
    torch.manual_seed(seed)
    dense = Tables()
    lazy, dense_average = copy.deepcopy(dense), copy.deepcopy(dense)
    lazy_average = copy.deepcopy(dense)
    groups = [{"params": [dense.embedding.item], "weight_decay": decay}, {"params": [dense.item_bias]}]
    plain = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    items = LazyAdamW(lazy, lazy_average, {"embedding.item": decay, "item_bias": 0.0})
    for step in range(NUM_STEPS):
        if step in (0, 50, 150):
            items.plan(step, {0: 50, 50: 100, 150: 50}[step], rate, average)
        rows = torch.cat([torch.nonzero(torch.rand(NUM_ROWS) < chance)[:, 0], torch.tensor([NUM_ROWS])])
        taken = items.take(rows, step)
        gradients = {"embedding.item": torch.randn(len(rows), 3), "item_bias": torch.randn(len(rows) - 1)}
        assert {name: one.shape for name, one in taken.items()} == {n: g.shape for n, g in gradients.items()}
        items.step(rows, gradients, step)
        dense.embedding.item.grad = torch.zeros(NUM_ROWS + 1, 3).index_copy(0, rows, gradients["embedding.item"])
        dense.item_bias.grad = torch.zeros(NUM_ROWS).index_copy(0, rows[:-1], gradients["item_bias"])
        for group in plain.param_groups:
            group["lr"] = rate(step)
        plain.step()
        for mean, current in zip(dense_average.parameters(), dense.parameters(), strict=True):
            mean.data.lerp_(current.data, 1 - average(step))
        if step + 1 in (50, 150, NUM_STEPS):
            items.finish(step + 1)
    for one, other in zip(lazy.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for one, other in zip(lazy_average.parameters(), dense_average.parameters(), strict=True):
        # A row that waits counts as if it had moved at once.
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(("skip_gram", "mask_seen"), [(0, True), (2, False)])
def test_network_of_some_rows_has_the_loss_and_gradients_of_the_whole(skip_gram: int, mask_seen: bool) -> None:
    network, histories = catalog_of(40, skip_gram)
    batch = batch_of(histories, 40)
    weights = Weights(beta=0.1, regression=0.5, noise=0.0, skip_gram=0.3, mask_seen=mask_seen)
    negatives = ItemFrequency.of(torch.full((40,), -math.log(40))).draw(15, 0)
    whole = copy.deepcopy(network)
    expected = whole.objective(batch, weights, negatives)
    expected.loss.backward()
    rows = batch.rows(negatives.items, start=40)
    assert len(rows) < 40
    taken = tables_of(network, rows)
    found = objective_with(network, network.of_rows(rows) | taken, batch.among(rows), weights, negatives.among(rows))
    found.loss.backward()
    torch.testing.assert_close(found.loss, expected.loss)
    for name, parameter in whole.named_parameters():
        gradient = dict(network.named_parameters())[name].grad
        if name in ITEM_TABLES:
            index = rows[: len(taken[name])]
            gradient = torch.zeros_like(parameter).index_copy(0, index, taken[name].grad)
        torch.testing.assert_close(gradient, parameter.grad, msg=name)
