from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from variseq.evaluation.splits import leave_one_out
from variseq.evaluation.value_forecasts import ValueBaselines, ValueForecasts
from variseq.sequences.histories import Histories


def forecasts(mean: np.ndarray, deviation: np.ndarray | None, value: np.ndarray) -> ValueForecasts:
    return ValueForecasts(mean, deviation, value, np.arange(len(value)) % 2 == 0, {"mean": np.zeros(len(value))})


def test_intervals_of_the_true_spread_contain_nine_values_of_ten() -> None:
    generator = np.random.default_rng(0)
    mean, deviation = generator.normal(size=20_000), generator.uniform(0.5, 2, size=20_000)
    value = generator.normal(mean, deviation)
    value[::3] = np.nan
    of_true, of_narrow = (forecasts(mean, spread, value).summary() for spread in (deviation, deviation / 3))
    for group in ("", "_warm", "_cold"):
        assert of_true[f"value_interval_coverage_90{group}"] == pytest.approx(0.9, abs=0.02)
    assert of_narrow["value_interval_coverage_90"] < 0.5


def test_targets_without_a_value_are_left_out_and_an_empty_group_has_no_error() -> None:
    found = forecasts(np.array([1.0, 5.0]), None, np.array([2.0, np.nan])).summary()
    assert (found["num_values"], found["num_values_warm"], found["num_values_cold"]) == (1, 1, 0)
    assert (found["value_rmse"], found["value_rmse_cold"]) == (pytest.approx(1.0), None)
    assert found["value_baselines"]["mean"]["value_rmse_warm"] == pytest.approx(2.0)
    assert found["value_interval_coverage_90"] is None


def test_each_baseline_knows_more_than_the_one_before_where_users_and_items_differ_and_tastes_drift() -> None:
    generator = np.random.default_rng(1)
    num_users, length, num_items = 200, 30, 20
    item = generator.integers(num_items, size=(num_users, length))
    mood = np.cumsum(generator.normal(0, 0.5, size=(num_users, length)), axis=1) + generator.normal(
        0, 1, (num_users, 1)
    )
    value = 3 + generator.normal(0, 1, num_items)[item] + mood + generator.normal(0, 0.2, item.shape)
    plain = Histories.of_items(item.tolist())
    histories = replace(plain, value=value.ravel().astype(np.float32), timestamp=plain.timestamp * 60)
    train, _, test = leave_one_out(histories, num_items)
    queried = test.history_with_targets()
    found = ValueBaselines(train.history(), num_items, "last").forecasts(queried)
    errors = [float(np.sqrt(np.mean(np.square(mean - value[:, -1])))) for mean in found.values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[-2]


def test_forecasts_of_two_different_values_have_an_auc_in_each_group() -> None:
    value = np.array([0.0, 1.0, 1.0, 0.0, np.nan, 1.0])
    mean = np.array([0.2, 0.9, 0.4, 0.4, 0.5, 0.1])
    found = forecasts(mean, None, value)
    summary = found.summary()
    assert summary["value_auc"] == pytest.approx((2 + 1.5 + 0) / 6)
    assert summary["value_auc_warm"] == 1.0
    assert summary["value_auc_cold"] == pytest.approx(0.5)
    assert summary["value_baselines"]["mean"]["value_auc"] == 0.5
    assert "AUC of the larger value: 0.583 (mean 0.500)." in str(found)


@pytest.mark.parametrize("value", [[1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [np.nan, np.nan, np.nan]])
def test_values_without_both_classes_or_with_a_third_one_have_no_auc(value: list[float]) -> None:
    found = forecasts(np.array([0.1, 0.2, 0.3]), None, np.array(value))
    assert "value_auc" not in found.summary()
    assert "AUC" not in str(found)


def test_a_group_with_one_class_has_no_auc() -> None:
    found = forecasts(np.array([0.1, 0.2, 0.3]), None, np.array([1.0, 0.0, 1.0])).summary()
    assert found["value_auc"] is not None
    assert found["value_auc_warm"] is None
