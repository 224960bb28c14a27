"""The simulated shop of the benchmark of off-policy estimators has the values that it claims."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.off_policy import LOGGING, Shop, simulated
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.policies import LoggingPolicy


@pytest.mark.parametrize("is_cascade", [False, True])
def test_true_value_of_the_logging_policy_is_the_mean_of_its_log(
    is_cascade: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.off_policy.LISTS_OF_TRUTH", 500)
    shop = Shop.of(1, is_cascade)
    exposures, _ = shop.serve(20_000, seed=2)
    mean = evaluate_policies(exposures, [LoggingPolicy()], num_resamples=10).on_policy.value
    assert mean == pytest.approx(shop.value(LOGGING), abs=5 * np.sqrt(0.25 / 5_000))


def test_a_record_states_bias_and_coverage_of_each_policy_and_estimator() -> None:
    found = list(simulated(400, replications=3))
    assert len(found) == 3 * 7
    assert {"bias_percent", "rmse_percent", "rmse_over_IPS", "refused"} <= set(found[0]["metrics"])
