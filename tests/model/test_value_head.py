from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, full_histories, small_network
from variseq.evaluation.metrics import auc
from variseq.model.losses import value_loss
from variseq.model.network import Network, Weights
from variseq.model.posterior import value_estimates
from variseq.model.value_head import VALUE_HEAD_WIDTH, VALUE_HEADS, ValueHead
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories


def counted(histories: Histories) -> Network:
    network = small_network(has_values=True)
    network.embedding.set_value_scale(0.5, 2.0)
    network.set_known(histories)
    return network


def plain_estimate(head: ValueHead, histories: Histories) -> tuple[float, float]:
    """The formula of the head, a kernel and an event at a time, for the last event; values are standardised."""
    bias, last = head.bias.tolist(), histories.num_events - 1
    item = histories.item.tolist()
    vector = head.vector.detach().view(-1, VALUE_HEADS, VALUE_HEAD_WIDTH)
    means, masses = [], []
    for h in range(VALUE_HEADS):
        total = mass = 0.0
        for event in range(last):
            if not math.isnan(histories.value[event]):
                likeness = float(head.sharpness[h] * (vector[item[last], h] @ vector[item[event], h]))
                ago = (histories.timestamp[last] - histories.timestamp[event]) / 1e6
                power = math.log1p(math.exp(head.power[h]))
                decay = (1 + ago / math.exp(head.log_time[h])) ** -power
                weight = math.exp(min(likeness + math.log(decay), 8.0))
                total += weight * (float(histories.value[event]) - bias[item[event]])
                mass += weight
        means.append(total / (math.exp(head.log_prior[h]) + mass))
        masses.append(math.log1p(mass))
    found = torch.tensor([*means, *masses, bias[item[last]], math.log1p(head.count[item[last]])])
    correction, log_variance = head.output(torch.tanh(head.hidden(found))).tolist()
    mean = bias[item[last]] + float(torch.tensor(means) @ head.factor) + correction
    return mean, min(max(log_variance, -6.0), 4.0) + 2 * math.log(head.spread)


@torch.no_grad()
def test_estimate_is_that_of_the_formula_for_one_kernel_and_event_at_a_time() -> None:
    histories = full_histories([7, 1, 4])
    network = counted(histories)
    network.value_head.spread.fill_(1.2)
    mean, deviation = value_estimates(network, histories)
    for row in range(3):
        one = histories.history(row)
        standard = replace(one, value=(one.value - np.float32(0.5)) / np.float32(2.0))
        expected, log_variance = plain_estimate(network.value_head, standard)
        assert mean[row] == pytest.approx(0.5 + 2 * expected, abs=1e-4)
        assert deviation[row] == pytest.approx(2 * math.exp(0.5 * log_variance), rel=1e-4)


def two_valued(histories: Histories) -> tuple[Network, Histories]:
    """A network for two values, and the histories with such values."""
    values = (np.arange(histories.num_events) % 3 > 0).astype(np.float32)
    histories = replace(histories, value=np.where(np.isnan(histories.value), np.nan, values))
    network = small_network(has_values=True, value_loss="logistic")
    network.set_known(histories)
    return network, histories


@torch.no_grad()
@pytest.mark.parametrize("value_loss", ["gaussian", "logistic"])
@pytest.mark.parametrize("place", [0, 4, 8])
def test_estimate_depends_on_no_value_from_its_event_on(place: int, value_loss: str) -> None:
    histories = full_histories([9])
    network = counted(histories) if value_loss == "gaussian" else two_valued(histories)[0]
    windows = training_windows(histories, 50, np.random.default_rng(0))
    changed = replace(histories, value=np.where(np.arange(9) >= place, 7.0, histories.value).astype(np.float32))
    before, after = (
        network.values(make_batch(one, windows, np.arange(1), NUM_ITEMS)).mean for one in (histories, changed)
    )
    assert torch.equal(before[: place + 1], after[: place + 1])
    assert place == 8 or not torch.equal(before, after)


@torch.no_grad()
def test_estimates_in_training_and_of_a_query_are_the_same() -> None:
    histories = full_histories([6, 3])
    network = counted(histories)
    windows = training_windows(histories, 50, np.random.default_rng(0))
    in_training = network.values(make_batch(histories, windows, np.arange(2), NUM_ITEMS)).mean
    np.testing.assert_allclose(value_estimates(network, histories)[0], 0.5 + 2 * in_training[[5, 8]].numpy(), rtol=1e-5)


@torch.no_grad()
def test_probabilities_in_training_and_of_a_query_are_the_same_with_their_deviation() -> None:
    network, histories = two_valued(full_histories([6, 3]))
    windows = training_windows(histories, 50, np.random.default_rng(0))
    log_odds = network.values(make_batch(histories, windows, np.arange(2), NUM_ITEMS)).mean
    mean, deviation = value_estimates(network, histories)
    np.testing.assert_allclose(mean, torch.sigmoid(log_odds[[5, 8]]).numpy(), rtol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(mean * (1 - mean)), rtol=1e-5)


def answers(num_people: int, seed: int) -> tuple[Histories, np.ndarray]:
    """Answers of people who differ in ability and learn each item by trying it, with the true probabilities."""
    generator, length = np.random.default_rng(seed), 20
    item = generator.integers(NUM_ITEMS, size=(num_people, length))
    tried = np.array([[np.sum(row[:n] == row[n]) for n in range(length)] for row in item])
    ability = generator.normal(0, 2, size=(num_people, 1))
    share = 1 / (1 + np.exp(-(ability + 0.5 * tried + np.linspace(-2, 1, NUM_ITEMS)[item])))
    value = (generator.random(share.shape) < share).astype(np.float32)
    return replace(Histories.of_items(item.tolist()), value=value.ravel()), share.ravel()


def test_head_of_two_values_ranks_answers_within_five_percent_of_the_true_probabilities() -> None:
    torch.manual_seed(0)
    train, (valid, share) = answers(2_000, 0)[0], answers(200, 1)
    network = Network(small_network(has_values=True, value_loss="logistic", dropout=0.0).config)
    network.set_known(train)
    windows = training_windows(train, 50, np.random.default_rng(0))
    optimizer = torch.optim.Adam(network.value_head.parameters(), lr=1e-2)
    for epoch in range(3):
        for members in np.random.default_rng(epoch).permutation(2_000).reshape(-1, 100):
            batch = make_batch(train, windows, members, NUM_ITEMS)
            loss = value_loss(network.values(batch), batch.target_value, "logistic")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    late = np.arange(valid.num_events) % 20 >= 10
    with torch.no_grad():
        batch = make_batch(valid, training_windows(valid, 50, np.random.default_rng(0)), np.arange(200), NUM_ITEMS)
        found = torch.sigmoid(network.values(batch).mean).double().numpy()[late]
    share, is_right = share[late], valid.value[late] > 0
    of_found, of_truth = auc(found, is_right), auc(share, is_right)
    assert of_found is not None
    assert of_truth is not None
    assert of_found > 0.95 * of_truth
    assert np.abs(found.mean() - share.mean()) < 0.05


def test_value_head_moves_nothing_that_ranks_items() -> None:
    histories = full_histories([6, 3])
    network = counted(histories)
    batch = make_batch(histories, training_windows(histories, 50, np.random.default_rng(0)), np.arange(2), NUM_ITEMS)
    network.values(batch).mean.sum().backward()
    others = (one for name, one in network.named_parameters() if not name.startswith("value_head"))
    assert all(one.grad is None for one in others)


def test_second_task_of_values_reaches_the_encoder() -> None:
    histories = full_histories([6, 3])
    network = counted(histories)
    batch = make_batch(histories, training_windows(histories, 50, np.random.default_rng(0)), np.arange(2), NUM_ITEMS)
    gradients = []
    for weight in (0.0, 5.0):
        network.zero_grad()
        network.objective(batch, Weights(regression=weight, noise=0.0)).loss.backward()
        gradients.append([one.grad.clone() for one in network.encoder.parameters()])
    assert any(not torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@torch.no_grad()
def test_before_training_the_estimate_is_the_items_bias_and_a_running_bias_of_the_person() -> None:
    histories = full_histories([8])
    network = Network(small_network(has_values=True).config).eval()
    network.set_known(histories)
    head = network.value_head
    head.vector.zero_()
    last = histories.item[-1]
    same = replace(histories, value=np.where(np.arange(8) < 7, head.bias[histories.item].numpy(), 0).astype("f4"))
    higher = replace(same, value=same.value + 1)
    assert value_estimates(network, same)[0] == pytest.approx(float(head.bias[last]), abs=1e-6)
    assert float(head.bias[last]) < value_estimates(network, higher)[0] < float(head.bias[last]) + 1
