from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.model.network import Network
from variseq.ranking.calibration import Calibration, CalibrationResult, ConformalThresholds, GatingNetwork, repeat_share
from variseq.recommend.network_model import count_events, mixture_model
from variseq.recommend.transfer import transferred
from variseq.sequences.histories import Histories

HISTORIES = Histories.of_items([np.random.default_rng(n).integers(NUM_ITEMS, size=6).tolist() for n in range(80)])
GATE = GatingNetwork(transitions=(-0.5, 0.4, 0.2), trend=(-2.0, 0.1, 0.2), uniform=(-1.0, -0.3, 0.3))


def learned(num_samples: int = 2) -> CalibrationResult:
    thresholds = ConformalThresholds.fit(np.linspace(0, 1, 50), np.zeros(50, dtype=np.int64))
    return CalibrationResult(Calibration(num_samples, (1.3,) * 10, GATE), thresholds, 0.1, {})


def more_confident(network: Network, factor: float = 1.5) -> Network:
    """The same network with scaled preferences."""
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled.decoder.norm.weight.mul_(factor)
    return scaled


def weights(network: Network, calibration: Calibration) -> np.ndarray:
    model = mixture_model(network, count_events(NUM_ITEMS), calibration)
    return model.distribution(model.encode(HISTORIES), HISTORIES).weights


def test_same_network_and_histories_keep_their_calibration() -> None:
    network = small_network()
    found = transferred(learned(), (network, HISTORIES), (network, HISTORIES)).calibration
    np.testing.assert_allclose(found.temperatures, learned().calibration.temperatures, rtol=0.01)
    np.testing.assert_allclose(weights(network, found), weights(network, learned().calibration), atol=0.01, rtol=0.01)


def test_network_with_larger_preferences_is_cooled_until_its_weights_are_the_same() -> None:
    network = small_network()
    torch.nn.init.zeros_(network.item_bias)
    found = transferred(learned(), (network, HISTORIES), (more_confident(network), HISTORIES)).calibration
    assert found.temperatures[0] == pytest.approx(1.5 * 1.3, rel=0.02)
    np.testing.assert_allclose(
        weights(more_confident(network), found), weights(network, learned().calibration), atol=0.01, rtol=0.02
    )


def test_who_had_no_history_yet_does_not_make_the_second_network_look_more_confident() -> None:
    network = small_network()
    none_yet = [
        np.zeros(0, dtype=int).tolist() if n % 5 == 0 else HISTORIES.history(n).item.tolist() for n in range(80)
    ]
    found = transferred(learned(), (network, Histories.of_items(none_yet)), (network, HISTORIES)).calibration
    np.testing.assert_allclose(found.temperatures, learned().calibration.temperatures, rtol=0.01)
    np.testing.assert_allclose(weights(network, found), weights(network, learned().calibration), atol=0.01, rtol=0.01)


def test_without_any_history_before_the_calibration_stays() -> None:
    network, nobody = small_network(), Histories.of_items([[] for _ in range(80)])
    assert transferred(learned(), (network, nobody), (network, HISTORIES)).calibration == learned().calibration


def test_repeats_are_counted_again_and_the_rest_stays() -> None:
    network, before = small_network(), learned()
    after = transferred(before, (network, HISTORIES), (more_confident(network), HISTORIES))
    assert after.thresholds is before.thresholds
    assert after.repeat_share == repeat_share(HISTORIES) != before.repeat_share
    assert after.calibration.num_samples == before.calibration.num_samples
    shut = replace(before, calibration=Calibration(0))
    second = transferred(shut, (network, HISTORIES), (more_confident(network), HISTORIES))
    assert second.calibration.gate == GatingNetwork(), "a shut gate stays shut"
