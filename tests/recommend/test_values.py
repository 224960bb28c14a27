from __future__ import annotations

import pytest

from tests.conftest import small_model
from variseq.log import LogPart


@pytest.mark.slow
def test_values_are_forecast_better_than_by_the_mean_where_items_have_prices(
    shop_parts: tuple[LogPart, LogPart, LogPart],
) -> None:
    train, valid, test = shop_parts
    model = small_model(value_loss_weight=1.0, max_epochs=10, patience=10).fit(train, valid)
    results = model.evaluate(test)
    assert "item and running user bias" in str(results)
    found = results.row("variseq")
    assert found["num_values"] == len(test.part.queries("last"))
    assert found["value_rmse"] < 0.9 * found["value_baselines"]["mean"]["value_rmse"]
    assert 0.5 < found["value_interval_coverage_90"] <= 1.0
