from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.contracts.recommender import check_recommender, some_histories
from tests.model.some_networks import NUM_ITEMS, small_network
from tests.ranking.plain import plain_mixture
from variseq.estimator import VariationalAttention
from variseq.model.network import Network
from variseq.model.posterior import NetworkScorer
from variseq.ranking import mixture, softmax
from variseq.ranking.calibration import Calibration, GatingNetwork
from variseq.ranking.content_table import ContentTable
from variseq.ranking.counts import OwnHistory
from variseq.ranking.encoding import antithetic_noise
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.near_items import NearItems
from variseq.ranking.new_items import NewItemForecast
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model

HISTORIES = some_histories(NUM_ITEMS)
OPEN = GatingNetwork(transitions=(-0.5, 0.1, 0.2), trend=(-0.7, 0.2, -0.1), uniform=(-1.0, -0.1, 0.3))
WITH_OWN, OWN = replace(OPEN, own=(0.3, 0.1, -0.2)), OwnHistory(decay=0.7, transitions=2.5)
WITH_NEAR, NEAR = replace(OPEN, near=(0.4, -0.1, 0.2)), NearItems(2.0, 0.6)
DEGREES = np.random.default_rng(1).normal((40.7, -74.0), 0.05, (NUM_ITEMS, 2))
DEGREES[[1, 4]] = np.nan


def model_of(calibration: Calibration, network: Network | None = None) -> MixtureModel:
    return mixture_model(network or small_network(), count_events(NUM_ITEMS, HISTORIES), calibration)


def probabilities(model: MixtureModel) -> np.ndarray:
    return model.distribution(model.encode(HISTORIES), HISTORIES).probabilities()


@pytest.mark.parametrize("num_samples", [0, 1, 4])
@pytest.mark.parametrize("gate", [GatingNetwork(), OPEN])
@pytest.mark.parametrize("is_small", [True, False])
def test_model_keeps_the_recommender_contract(
    num_samples: int, gate: GatingNetwork, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_small:
        monkeypatch.setattr(mixture, "CELLS_AT_ONCE", 0)
        monkeypatch.setattr(softmax, "BLOCK_ITEMS", 5)
    check_recommender(ModelRecommender(model_of(Calibration(num_samples, gate=gate))), NUM_ITEMS)


@pytest.mark.parametrize("num_samples", [0, 1, 4])
@pytest.mark.parametrize("block_items", [3, 100])
@pytest.mark.parametrize(("gate", "own"), [(OPEN, None), (WITH_OWN, OWN), (WITH_NEAR, None)])
@pytest.mark.parametrize("new_items", [[], [2], [0, 3, NUM_ITEMS - 1]])
def test_mixture_is_that_of_the_plain_form(
    num_samples: int,
    block_items: int,
    gate: GatingNetwork,
    own: OwnHistory | None,
    new_items: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(softmax, "BLOCK_ITEMS", block_items)
    temperatures = tuple(1.0 + 0.1 * group for group in range(10))
    model = model_of(Calibration(num_samples, temperatures, gate, own, new=NewItemForecast(0.2, 0.7, 3.0, 0.3)))
    if gate is WITH_NEAR:
        model.calibration = replace(model.calibration, near=NEAR)
    is_new = np.isin(np.arange(NUM_ITEMS), new_items)
    content = ContentTable.of(np.random.default_rng(0).normal(size=(NUM_ITEMS, 3))) if gate is OPEN else None
    tables = replace(model.tables, is_new=is_new, content=content, coordinates=DEGREES)
    model = MixtureModel(model.encoder, tables, model.calibration)
    distribution = model.distribution(model.encode(HISTORIES), HISTORIES)
    p, plain = distribution.probabilities(), plain_mixture(model, HISTORIES)
    np.testing.assert_allclose(p, plain.mean(axis=1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
    items = np.tile(np.arange(NUM_ITEMS), (len(HISTORIES), 1))
    np.testing.assert_allclose(distribution.sampled(items), plain, rtol=1e-4, atol=1e-7)
    total, aleatoric = distribution.entropies(p)
    mean = plain.mean(axis=1)
    np.testing.assert_allclose(total, -(mean * np.log(mean)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(aleatoric, -(plain * np.log(plain)).sum(axis=2).mean(axis=1), rtol=1e-5)


def test_without_samples_and_other_components_it_is_the_softmax_of_the_posterior_mean() -> None:
    network = small_network()
    scorer = NetworkScorer(network)
    plain = torch.softmax(scorer.scores(HISTORIES) / 1.7, dim=1)
    np.testing.assert_allclose(probabilities(model_of(Calibration(0, (1.7,) * 10), network)), plain, rtol=1e-5)


def test_temperature_changes_probabilities_and_not_the_order() -> None:
    cold, warm = (probabilities(model_of(Calibration(0, (t,) * 10))) for t in (1.0, 3.0))
    assert np.array_equal(cold.argsort(axis=1), warm.argsort(axis=1))
    assert (warm.max(axis=1) < cold.max(axis=1)).all()


def test_noise_is_the_same_each_time_and_its_pairs_cancel_out() -> None:
    noise = antithetic_noise(6, 20, 4)
    assert np.array_equal(noise, antithetic_noise(6, 20, 4))
    assert not np.array_equal(noise, antithetic_noise(6, 20, 4, seed=1))
    np.testing.assert_allclose(noise.sum(axis=0), 0.0, atol=1e-6)
    assert len(antithetic_noise(3, 20, 4)) == 3


def test_calibration_comes_back_from_its_record() -> None:
    temperatures = tuple(np.linspace(0.5, 2, 10).tolist())
    new = Calibration(new=NewItemForecast(0.1, 0.5, 3.0, 0.2, 1e-4))
    near = Calibration(3, gate=WITH_NEAR, near=NEAR)
    for calibration in (
        Calibration(),
        new,
        Calibration(3, temperatures, OPEN, OWN),
        Calibration(3, gate=WITH_OWN),
        near,
    ):
        assert Calibration.from_json(calibration.to_json()) == calibration
    assert Calibration().to_json()["gate"]["transitions"][0] is None
    broken = Calibration().to_json() | {"temperatures": [1.0] * 9 + [-1.0]}
    with pytest.raises(ValueError, match="positive temperatures"):
        Calibration.from_json(broken)


def test_fitted_model_counts_its_training_events_and_keeps_its_calibration(fitted: VariationalAttention) -> None:
    checkpoint = fitted.checkpoint
    calibration = checkpoint.manifest["calibration"]
    assert all(0 < value < math.inf for value in calibration["temperatures"])
    # After a refit the validation events are training events too.
    lengths = checkpoint.bounds[1] - checkpoint.histories.offsets[:-1]
    assert float(checkpoint.counts["value"].sum()) == int(lengths.sum()) - int((lengths > 0).sum())


def test_counts_that_are_made_again_hold_nothing_of_before() -> None:
    fresh = count_events(NUM_ITEMS, HISTORIES)
    assert fresh.keys() == count_events(NUM_ITEMS).keys()
    assert all(torch.equal(tensor, count_events(NUM_ITEMS, HISTORIES)[name]) for name, tensor in fresh.items())
