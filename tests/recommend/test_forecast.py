from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.contracts.recommender import check_recommender, some_histories
from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.estimator import VariationalAttention
from variseq.model.network import Network
from variseq.model.posterior import NetworkScorer, posterior_noise, sample_preferences
from variseq.ranking.calibration import Calibration, GatingNetwork
from variseq.recommend import forecast as room
from variseq.recommend.forecast import Forecast, voice_shares
from variseq.recommend.memory import Memory

HISTORIES = some_histories(NUM_ITEMS)
OPEN = GatingNetwork(transitions=(-0.5, 0.1, 0.2), trend=(-0.7, 0.2, -0.1), uniform=(-1.0, -0.1, 0.3))


def memory() -> Memory:
    return Memory(NUM_ITEMS).fit(HISTORIES)


def forecast(calibration: Calibration, network: Network | None = None) -> Forecast:
    return Forecast(network or small_network(), memory(), calibration)


def probabilities(one: Forecast) -> torch.Tensor:
    return one.scores(one.query(HISTORIES), 0, NUM_ITEMS).exp()


@pytest.mark.parametrize("num_samples", [0, 1, 4])
@pytest.mark.parametrize("gate", [GatingNetwork(), OPEN])
def test_forecast_keeps_the_recommender_contract(num_samples: int, gate: GatingNetwork) -> None:
    check_recommender(forecast(Calibration(num_samples, gate=gate)), NUM_ITEMS)


def test_probabilities_of_all_items_sum_to_one() -> None:
    total = probabilities(forecast(Calibration(4, (0.7,) * 10, OPEN))).sum(dim=1)
    torch.testing.assert_close(total, torch.ones(len(HISTORIES)))


def test_without_samples_and_with_a_shut_gate_it_is_the_softmax_of_the_posterior_mean() -> None:
    network = small_network()
    scorer = NetworkScorer(network)
    plain = torch.softmax(scorer.scores(scorer.query(HISTORIES), 0, NUM_ITEMS) / 1.7, dim=1)
    torch.testing.assert_close(probabilities(forecast(Calibration(0, (1.7,) * 10), network)), plain)


def test_forecast_is_the_mixture_of_samples_counts_trend_and_anything_worked_out_by_hand() -> None:
    network = small_network()
    calibration = Calibration(4, tuple(1.0 + 0.1 * place for place in range(10)), OPEN)
    sampled = sample_preferences(network, HISTORIES, posterior_noise(network.config, 4))
    temperature = torch.from_numpy(calibration.temperature(HISTORIES.lengths))[:, None]
    logits = torch.stack([network.scores(one, 0, NUM_ITEMS) for one in sampled.preference]) / temperature
    log_mass = torch.logsumexp(logits, dim=2).mean(dim=0)
    shares = voice_shares(OPEN, log_mass, sampled.log_variance)
    transitions, trend = memory().transitions, memory().trend
    counted = transitions.scores(transitions.query(HISTORIES), 0, NUM_ITEMS).exp()
    expected = (
        shares[0, :, None] * torch.softmax(logits, dim=2).mean(dim=0)
        + shares[1, :, None] * counted
        + shares[2, :, None] * trend.log_share.exp()
        + shares[3, :, None] / NUM_ITEMS
    )
    torch.testing.assert_close(probabilities(forecast(calibration, network)), expected)


def test_catalog_of_many_blocks_gives_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = forecast(Calibration(4, gate=OPEN))
    whole, entropy = probabilities(one), one.sampled_entropy(one.query(HISTORIES))
    monkeypatch.setattr(room, "TILE_ITEMS", 3)
    query = one.query(HISTORIES)
    assert query.softmaxes is None
    parts = [one.scores(query, first, min(first + 3, NUM_ITEMS)) for first in range(0, NUM_ITEMS, 3)]
    torch.testing.assert_close(torch.cat(parts, dim=1).exp(), whole)
    torch.testing.assert_close(one.sampled_entropy(query), entropy)


def test_mean_of_what_each_sample_says_of_an_item_is_its_probability() -> None:
    one = forecast(Calibration(4, gate=OPEN))
    query = one.query(HISTORIES)
    items = torch.arange(NUM_ITEMS).expand(len(HISTORIES), -1)
    sampled = one.sampled_probabilities(query, items)
    torch.testing.assert_close(sampled.mean(dim=0), probabilities(one))
    by_hand = -(sampled * sampled.log()).sum(dim=2)
    torch.testing.assert_close(one.sampled_entropy(query), by_hand)


def test_noise_is_the_same_each_time_and_its_pairs_cancel_out() -> None:
    config = small_network().config
    noise = posterior_noise(config, 6)
    assert torch.equal(noise, posterior_noise(config, 6))
    assert not torch.equal(noise, posterior_noise(config, 6, seed=1))
    torch.testing.assert_close(noise.sum(dim=0), torch.zeros_like(noise[0]))
    assert posterior_noise(config, 3).shape[0] == 3


def test_no_voice_is_heard_but_the_network_where_the_gate_is_shut() -> None:
    shares = voice_shares(GatingNetwork(), torch.randn(5), torch.randn(5))
    assert shares[0].tolist() == [1.0] * 5


def test_calibration_comes_back_from_its_record() -> None:
    for calibration in (Calibration(), Calibration(3, tuple(np.linspace(0.5, 2, 10).tolist()), OPEN)):
        assert Calibration.from_json(calibration.to_json()) == calibration
    assert Calibration().to_json()["gate"]["transitions"][0] is None
    broken = Calibration().to_json() | {"temperatures": [1.0] * 9 + [-1.0]}
    with pytest.raises(ValueError, match="positive temperatures"):
        Calibration.from_json(broken)


def test_fitted_model_counts_what_it_learned_from_and_keeps_its_calibration(fitted: VariationalAttention) -> None:
    checkpoint = fitted.checkpoint
    assert checkpoint is not None
    assert checkpoint.histories is not None
    assert checkpoint.bounds is not None
    learned = checkpoint.manifest["calibration"]
    assert all(0 < value < math.inf for value in learned["calibration"]["temperatures"])
    counted = Memory.from_state(checkpoint.counts).transitions.followers.value.sum()
    # After a refit the validation events have been learned from too.
    lengths = checkpoint.bounds[1] - checkpoint.histories.offsets[:-1]
    assert float(counted) == int(lengths.sum()) - int((lengths > 0).sum())
