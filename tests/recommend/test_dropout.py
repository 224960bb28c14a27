from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.comparison import DropoutEncoder, with_mc_dropout
from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, leave_one_out
from variseq.model.network import Network
from variseq.ranking.calibration import Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender, NetworkEncoder, count_events, mixture_model
from variseq.sequences.histories import Histories

OPTIONS = EvaluationOptions(k=5, targets="last", exclude_seen=False)


def validation() -> Part:
    generator = np.random.default_rng(0)
    histories = [generator.integers(NUM_ITEMS, size=generator.integers(3, 9)).tolist() for _ in range(200)]
    return leave_one_out(Histories.of_items(histories), NUM_ITEMS)[1]


def model_of(dropout: float, num_samples: int = 4) -> MixtureModel:
    counts = count_events(NUM_ITEMS, validation().history())
    return mixture_model(small_network(dropout=dropout), counts, Calibration(num_samples))


def network_of(model: MixtureModel) -> Network:
    assert isinstance(model.encoder, NetworkEncoder)
    return model.encoder.network


def test_passes_differ_come_again_and_leave_network_and_random_numbers_as_they_were() -> None:
    network = network_of(model_of(dropout=0.3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    encoder, noise = DropoutEncoder(network), np.zeros((4, 1, 1), dtype=np.float32)
    histories = validation().history()
    state = torch.random.get_rng_state()
    preference = encoder.encode(histories, noise).preference
    assert preference.shape == (4, len(histories), network.config.hidden_size)
    assert not np.allclose(preference[0], preference[1])
    assert np.array_equal(encoder.encode(histories, noise).preference, preference)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_passes_of_a_network_that_drops_nothing_are_its_posterior_mean() -> None:
    model = model_of(dropout=0.0, num_samples=0)
    histories = validation().history()
    passes = DropoutEncoder(network_of(model)).encode(histories, model.noise(2))
    mean = model.encode(histories)
    np.testing.assert_allclose(passes.preference, np.repeat(mean.preference, 2, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(passes.log_variance, mean.log_variance, rtol=1e-5)


def test_calibration_of_its_own_makes_validation_no_less_likely_than_none() -> None:
    whole, part = ModelRecommender(model_of(dropout=0.3)), validation()
    tuned = with_mc_dropout(whole, 4, part, OPTIONS)
    untuned = ModelRecommender(MixtureModel(tuned.model.encoder, whole.model.tables, Calibration(4)))
    losses = [float(evaluate(one, part, OPTIONS).metric("nll").mean()) for one in (tuned, untuned)]
    assert losses[0] < losses[1]
    assert tuned.name == f"{whole.name}, dropout"
    assert tuned.model.calibration.num_samples == 4
    assert whole.model.calibration == Calibration(4), "the model that it was made of stays as it was"


def test_network_without_dropout_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.dropout = 0"):
        with_mc_dropout(ModelRecommender(model_of(dropout=0.0)), 4, validation(), OPTIONS)
