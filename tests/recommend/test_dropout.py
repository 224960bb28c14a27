from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.comparison import DropoutForecast, with_mc_dropout
from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, leave_one_out
from variseq.ranking.calibration import Calibration
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory
from variseq.sequences.histories import Histories

OPTIONS = EvaluationOptions(k=5, targets="last", exclude_seen=False)


def validation() -> Part:
    generator = np.random.default_rng(0)
    histories = [generator.integers(NUM_ITEMS, size=generator.integers(3, 9)).tolist() for _ in range(200)]
    return leave_one_out(Histories.of_items(histories), NUM_ITEMS)[1]


def forecast_of(dropout: float, num_samples: int = 4) -> Forecast:
    memory = Memory(NUM_ITEMS).fit(validation().history())
    return Forecast(small_network(dropout=dropout), memory, Calibration(num_samples))


def test_passes_differ_come_again_and_leave_network_and_random_numbers_as_they_were() -> None:
    whole = forecast_of(dropout=0.3)
    before = {name: value.clone() for name, value in whole.network.state_dict().items()}
    forecast = DropoutForecast(whole.network, whole.memory, Calibration(num_samples=4))
    histories = validation().history()
    state = torch.random.get_rng_state()
    preference = forecast.sample(histories).preference
    assert preference.shape == (4, len(histories), whole.network.config.hidden_size)
    assert not torch.allclose(preference[0], preference[1])
    torch.testing.assert_close(forecast.sample(histories).preference, preference, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in whole.network.modules())
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_passes_of_a_network_that_drops_nothing_are_its_posterior_mean() -> None:
    whole = forecast_of(dropout=0.0, num_samples=0)
    histories = validation().history()
    passes = DropoutForecast(whole.network, whole.memory, Calibration(num_samples=2)).sample(histories)
    mean = whole.sample(histories)
    torch.testing.assert_close(passes.preference, mean.preference.expand_as(passes.preference))
    torch.testing.assert_close(passes.log_variance, mean.log_variance)


def test_calibration_of_its_own_makes_validation_no_less_likely_than_none() -> None:
    whole, part = forecast_of(dropout=0.3), validation()
    tuned = with_mc_dropout(whole, 4, part, OPTIONS)
    untuned = DropoutForecast(whole.network, whole.memory, Calibration(4))
    losses = [float(evaluate(one, part, OPTIONS).metric("nll").mean()) for one in (tuned, untuned)]
    assert losses[0] < losses[1]
    assert tuned.name == f"{whole.name}, dropout"
    assert tuned.calibration.num_samples == 4
    assert whole.calibration == Calibration(4), "the forecast that it was made of stays as it was"


def test_network_without_dropout_is_refused() -> None:
    with pytest.raises(InputError, match=r"trained without dropout \(model\.dropout = 0\)"):
        with_mc_dropout(forecast_of(dropout=0.0), 4, validation(), OPTIONS)
