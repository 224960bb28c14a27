from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, full_histories, query_batch, small_network
from variseq.evaluation.splits import leave_one_out
from variseq.model.layers import Posterior
from variseq.model.network import Network, Weights
from variseq.sequences.histories import Histories
from variseq.training import posterior_health
from variseq.training.config import TrainingConfig
from variseq.training.posterior_health import (
    MIN_SWAP_GAP_NATS,
    _losses,
    diagnostic_batch,
    examine,
    mutual_information,
    neighbor_tokens,
)
from variseq.training.trainer import Validation

LENGTHS = [6, 9, 3, 12, 7, 7, 2]


def test_swap_gap_is_nothing_for_a_decoder_that_ignores_the_posterior() -> None:
    network = small_network()
    torch.nn.init.zeros_(network.decoder.posterior.weight)
    torch.nn.init.zeros_(network.decoder.context.weight)
    health = examine(network, full_histories(LENGTHS))
    assert health.swap_gap == pytest.approx(0.0, abs=1e-6)
    assert health.prior_gap == pytest.approx(0.0, abs=1e-6)
    assert any("hardly reads them" in alarm for alarm in health.alarms)
    # The posterior itself is lively: the KL alone would not have shown it.
    assert health.active_share == 1.0
    assert health.kl > 1.0


def repetitive_histories(num_histories: int = 40, length: int = 6) -> Histories:
    """Each history repeats one item, so that the posterior has something to say."""
    return Histories.of_items([[place % NUM_ITEMS] * length for place in range(num_histories)])


def network_that_repeats() -> Network:
    """Trained for a moment on `repetitive_histories`: it has learned that the last item comes again."""
    network = small_network(dropout=0.0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    batch = diagnostic_batch(repetitive_histories(), 50, NUM_ITEMS, seed=0)
    for _ in range(40):
        optimizer.zero_grad()
        network.objective(batch, Weights(beta=1e-3)).loss.backward()
        optimizer.step()
    return network.eval()


def test_network_that_uses_its_posteriors_raises_no_alarm() -> None:
    health = examine(network_that_repeats(), repetitive_histories())
    assert health.swap_gap > 10 * MIN_SWAP_GAP_NATS
    assert health.prior_gap > 10 * MIN_SWAP_GAP_NATS
    assert health.mutual_information > 1.0
    assert health.alarms == []


@pytest.mark.parametrize("mask_seen", [False, True])
def test_losses_of_a_large_catalog_are_those_of_fewer_targets(monkeypatch: pytest.MonkeyPatch, mask_seen: bool) -> None:
    network, histories = network_that_repeats(), repetitive_histories()
    batch = diagnostic_batch(histories, 50, NUM_ITEMS, seed=0)
    mean = network.encode(batch).mean
    whole, third = (_losses(network, batch, mask_seen, every, mean, mean) for every in (1, 3))
    torch.testing.assert_close(third, whole[::3])
    health = examine(network, histories, mask_seen=mask_seen)
    monkeypatch.setattr(posterior_health, "MOST_SCORES", 1)
    monkeypatch.setattr(posterior_health, "FEWEST_TARGETS", 60)
    of_fewer = examine(network, histories, mask_seen=mask_seen)
    assert (of_fewer.kl, of_fewer.active_share) == (health.kl, health.active_share)
    assert of_fewer.swap_gap != health.swap_gap
    assert of_fewer.alarms == []


def test_inactive_dimensions_are_counted() -> None:
    network = small_network(latent_dim=20)
    with torch.no_grad():
        network.latent.mean.weight[1:] = 0.0
    health = examine(network, full_histories(LENGTHS))
    assert health.active_share == pytest.approx(1 / 20)
    assert any("only 5% of the latent dimensions" in alarm for alarm in health.alarms)


def test_examining_leaves_the_network_and_the_random_numbers_alone() -> None:
    network = small_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    first, second = examine(network, full_histories(LENGTHS)), examine(network, full_histories(LENGTHS))
    assert first == second
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("scores_at_once", [1, 3 * NUM_ITEMS, 1 << 22])
def test_health_does_not_depend_on_how_many_scores_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch, scores_at_once: int
) -> None:
    network, histories = small_network(), full_histories(LENGTHS)
    whole = examine(network, histories)
    monkeypatch.setattr("variseq.training.posterior_health.SCORES_AT_ONCE", scores_at_once)
    cut = examine(network, histories)
    assert cut.loss == pytest.approx(whole.loss)
    assert cut.swap_gap == pytest.approx(whole.swap_gap, abs=1e-5)
    assert cut.swap_gap_per_position == pytest.approx(whole.swap_gap_per_position, abs=1e-5)


def test_neighbor_is_the_same_position_of_another_history() -> None:
    histories = full_histories(LENGTHS)
    layout = query_batch(histories).layout
    other = neighbor_tokens(layout)
    row, position = layout.slot // layout.longest, layout.positions()
    assert bool((row[other] != row).all())
    assert bool((row[other] == (row - 1) % len(LENGTHS)).all())
    reaches = position < layout.lengths[row[other]]
    assert torch.equal(position[other][reaches], position[reaches])
    assert torch.equal(position[other][~reaches], (layout.lengths[row[other]] - 1)[~reaches])


@pytest.mark.parametrize(
    ("mean", "expected"),
    # The prior for every history says nothing; posteriors far apart say which of the 100 it is.
    [(torch.zeros(100, 2), 0.0), (1000.0 * torch.arange(100).float().unsqueeze(1).repeat(1, 2), math.log(100))],
)
def test_mutual_information_at_its_ends(mean: torch.Tensor, expected: float) -> None:
    generator = torch.Generator().manual_seed(0)
    posterior = Posterior(mean, torch.zeros(100, 2))
    latent = posterior.sample(torch.randn(100, 2, generator=generator))
    assert mutual_information(posterior, latent, generator) == pytest.approx(expected, abs=1e-3)


def test_mutual_information_of_a_gaussian_channel_is_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    # z = x + noise, all Gaussian with variance 1: ½ log(1 + 1) nats a dimension.
    mean = torch.randn(512, 2, generator=generator)
    posterior = Posterior(mean, torch.zeros(512, 2))
    estimates = []
    for _ in range(20):
        latent = posterior.sample(torch.randn(512, 2, generator=generator))
        estimates.append(mutual_information(posterior, latent, generator))
    assert float(np.mean(estimates)) == pytest.approx(math.log(2), abs=0.06)


def test_kl_is_given_per_dimension_and_per_position() -> None:
    network = small_network()
    health = examine(network, full_histories(LENGTHS))
    assert sum(health.kl_per_dimension) == pytest.approx(health.kl, rel=1e-4)
    assert len(health.kl_per_dimension) == 4
    # Positions 0, 1, 2, 3–5, 6–10 and 11–20 occur, those from 21 on do not.
    assert [mean is not None for mean in health.kl_per_position] == [True] * 6 + [False] * 4


def test_diagnostic_batch_is_of_bounded_size_and_of_the_latest_events() -> None:
    histories = full_histories([100] * 200)
    batch = diagnostic_batch(histories, 50, NUM_ITEMS, seed=1)
    assert 3000 < batch.num_tokens <= 4096
    assert NUM_ITEMS not in batch.item.tolist(), "windows end at the latest event, so these have no start token"


@pytest.mark.parametrize("lengths", [[1, 1, 1], [1], [5], [1, 4, 0]])
def test_histories_of_one_event_can_be_examined(lengths: list[int]) -> None:
    assert math.isfinite(examine(small_network(), full_histories(lengths)).kl)


def test_only_users_with_a_query_are_examined() -> None:
    histories = Histories.of_items([[0, 1, 2, 3], [1, 2], [2, 3, 4]])
    part = leave_one_out(histories, NUM_ITEMS)[1]
    examined = Validation(part, TrainingConfig()).diagnostic_histories()
    # The user of two events is in training only; the others' test events are not looked at.
    assert [examined.history(n).item.tolist() for n in range(len(examined))] == [[0, 1, 2], [2, 3]]


def test_losses_of_a_network_that_was_trained_with_a_mask_leave_out_seen_items() -> None:
    network, histories = small_network(), full_histories(LENGTHS)
    batch = diagnostic_batch(histories, network.config.max_seq_len, NUM_ITEMS, seed=0)
    scores = network.scores(network(batch).preference, 0, NUM_ITEMS).detach()
    at_target = scores.gather(1, batch.target_item[:, None])
    row, item = batch.seen(NUM_ITEMS)
    scores[row, item] = -math.inf
    scores.scatter_(1, batch.target_item[:, None], at_target)
    expected = float(torch.nn.functional.cross_entropy(scores, batch.target_item))
    assert examine(network, histories, mask_seen=True).loss_at_mean == pytest.approx(expected, rel=1e-5)
    assert examine(network, histories).loss_at_mean > expected
