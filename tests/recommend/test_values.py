from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import small_model
from variseq.evaluation.calibration import ValueForecasts
from variseq.log import LogPart


@pytest.mark.slow
def test_values_are_forecast_better_than_by_the_mean_where_items_have_prices(
    shop_parts: tuple[LogPart, LogPart, LogPart],
) -> None:
    train, valid, test = shop_parts
    model = small_model(value_loss_weight=1.0, max_epochs=10, patience=10).fit(train, valid)
    results = model.evaluate(test)
    assert "root mean squared error" in str(results)
    found = results.row("variseq")
    assert found["num_values"] == len(test.part.queries("last"))
    assert found["value_rmse"] < 0.9 * found["value_rmse_of_train_mean"]
    assert 0.5 < found["value_interval_coverage_90"] <= 1.0


def test_targets_without_a_value_are_left_out() -> None:
    forecasts = ValueForecasts(np.array([1.0, 5.0]), np.array([1.0, 1.0]), np.array([2.0, np.nan]), 0.0)
    assert forecasts.summary() == {
        "num_values": 1,
        "value_rmse": pytest.approx(1.0),
        "value_rmse_of_train_mean": pytest.approx(2.0),
        "value_interval_coverage_90": 1.0,
    }
