from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.some_evaluations import calibration_error
from variseq.evaluation.calibration import (
    answered,
    brier,
    equal_mass_bins,
    reliability,
    risk_coverage,
    wilson_interval,
)

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


def forecasts(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probability = generator.beta(2, 5, size=num)
    return probability, generator.random(num) < probability


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    probability, correct = forecasts(40_000)
    assert calibration_error(probability, correct) < 0.01
    too_sure = probability**0.3
    assert calibration_error(too_sure, correct) == pytest.approx((too_sure - probability).mean(), abs=0.02)


@given(probabilities, st.integers(1, 20))
def test_equal_probabilities_share_a_bin_and_bins_ascend(probability: np.ndarray, num_bins: int) -> None:
    place = equal_mass_bins(probability, num_bins)
    order = np.argsort(probability, kind="stable")
    assert np.array_equal(equal_mass_bins(probability[order], num_bins), place[order])
    assert (np.diff(place[order]) >= 0).all()
    assert set(place.tolist()) == set(range(place.max() + 1))
    assert place.max() < num_bins
    for value in set(probability.tolist()):
        assert len(set(place[probability == value].tolist())) == 1


def test_bins_hold_equal_mass() -> None:
    probability, correct = forecasts(3_000)
    assert reliability(probability, correct, num_bins=10).num_forecasts.tolist() == pytest.approx([300] * 10, abs=1)


def test_brier_of_certainty_is_nothing_when_right_and_two_when_wrong() -> None:
    assert brier(np.array([1.0, 0.0]), np.array([1.0, 1.0])).tolist() == [0.0, 2.0]


def test_confidence_that_orders_by_value_beats_one_that_does_not() -> None:
    value = np.random.default_rng(0).random(500)
    knowing, blind = risk_coverage(value, value), risk_coverage(np.zeros(500), value)
    assert knowing.area > blind.area + 0.2
    assert knowing.value[-1] == pytest.approx(value.mean())
    np.testing.assert_allclose(blind.value, value.mean())
    assert knowing.coverage[-1] == 1


@given(probabilities, st.sampled_from([0.25, 0.5, 1.0]))
def test_answered_are_the_least_uncertain_whatever_their_order(uncertainty: np.ndarray, share: float) -> None:
    weight = answered(uncertainty, share)
    assert weight.sum() == pytest.approx(np.ceil(share * len(uncertainty)))
    order = np.argsort(uncertainty, kind="stable")
    assert (np.diff(weight[order]) <= 1e-12).all()
    place = int(np.ceil(share * len(uncertainty))) - 1
    curve = risk_coverage(-uncertainty, uncertainty)
    assert (weight * uncertainty).sum() / weight.sum() == pytest.approx(curve.value[place])


def test_wilson_interval_holds_the_true_share_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    share = generator.binomial(60, 0.9, size=5_000) / 60
    low, high = wilson_interval(share, np.full(5_000, 60))
    assert ((low <= 0.9) & (high >= 0.9)).mean() == pytest.approx(0.95, abs=0.025)
