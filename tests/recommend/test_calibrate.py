from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from tests.contracts.recommender import with_times
from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.evaluation.baselines import State
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, leave_one_out
from variseq.model.network import Network
from variseq.ranking.calibration import Calibration, GatingNetwork
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.calibrate import TEMPERATURES, Calibrator, calibrate
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model
from variseq.sequences.histories import Histories

pytestmark = pytest.mark.slow

OPTIONS = EvaluationOptions(k=5, targets="last", exclude_seen=False)


def random_part(num_users: int = 300, seed: int = 0) -> Part:
    generator = np.random.default_rng(seed)
    histories = [generator.integers(NUM_ITEMS, size=generator.integers(3, 9)).tolist() for _ in range(num_users)]
    return leave_one_out(Histories.of_items(histories), NUM_ITEMS)[1]


def cycle_part() -> Part:
    """Item i is always followed by i + 1."""
    starts = [start for start in range(NUM_ITEMS) for _ in range(20)]
    return leave_one_out(Histories.of_items([[(s + step) % NUM_ITEMS for step in range(6)] for s in starts]))[1]


def too_confident(network: Network) -> Network:
    """The same network, far too confident."""
    with torch.no_grad():
        network.embedding.item.mul_(60)
    return network


def weights_after_fit(counts: State, part: Part) -> np.ndarray:
    """The mixture weights of the validation histories, fitted with an untrained network."""
    network = small_network()
    calibration = Calibrator(mixture_model(network, counts, Calibration(0)), part, OPTIONS).fit()
    model = mixture_model(network, counts, calibration)
    return model.distribution(model.encode(part.history()), part.history()).weights


def mean_loss(model: MixtureModel, part: Part, options: EvaluationOptions = OPTIONS) -> float:
    return float(evaluate(ModelRecommender(model), part, options).metric("nll").mean())


def test_calibrated_forecast_is_no_less_likely_than_the_untuned_one() -> None:
    part = random_part()
    counts = count_events(NUM_ITEMS, part.history())
    for network in (small_network(), too_confident(small_network())):
        untuned = mixture_model(network, counts, Calibration(2))
        tuned = mixture_model(network, counts, Calibrator(untuned, part, OPTIONS).fit())
        assert mean_loss(tuned, part) <= mean_loss(untuned, part) + 1e-3


def test_network_that_is_too_confident_is_cooled_or_has_little_weight() -> None:
    part = random_part()
    counts = count_events(NUM_ITEMS, part.history())
    network = too_confident(small_network())
    tuned = mixture_model(network, counts, Calibration(0))
    calibrated = mixture_model(network, counts, Calibrator(tuned, part, OPTIONS).fit())
    # What comes is random, so nothing beats one chance in NUM_ITEMS by much.
    assert mean_loss(calibrated, part) < np.log(NUM_ITEMS) + 0.05 < mean_loss(tuned, part)


def test_transitions_have_weight_where_only_they_know_what_comes_next() -> None:
    part = cycle_part()
    known = Histories.of_items([part.history().history(user).item.tolist() for user in range(len(part.histories))] * 20)
    assert weights_after_fit(count_events(NUM_ITEMS, known), part)[1].mean() > 0.8


def test_new_items_have_no_part_in_what_the_weights_are_fitted_to() -> None:
    """An item without any event is forecast apart, however large its vector is."""
    generator = np.random.default_rng(0)
    histories = [generator.integers(NUM_ITEMS - 1, size=6).tolist() for _ in range(100)]
    part = leave_one_out(Histories.of_items(histories), NUM_ITEMS)[1]
    found = []
    for scale in (0.0, 100.0):
        network = small_network()
        with torch.no_grad():
            network.embedding.item[NUM_ITEMS - 1] = scale
        untuned = mixture_model(network, count_events(NUM_ITEMS, part.history()), Calibration(2))
        found.append(Calibrator(untuned, part, OPTIONS).fit())
    assert found[0] == found[1]


def test_near_items_have_no_weight_where_no_item_has_coordinates() -> None:
    part = random_part()
    calibration = Calibrator(
        mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(0)), part, OPTIONS
    ).fit()
    assert calibration.near is None
    assert calibration.gate.near == GatingNetwork().near


def test_own_history_has_weight_where_everybody_returns_to_places_of_their_own() -> None:
    generator = np.random.default_rng(0)
    histories = [generator.choice(generator.choice(NUM_ITEMS, 2), size=20).tolist() for _ in range(300)]
    part = leave_one_out(Histories.of_items(histories), NUM_ITEMS)[1]
    counts = count_events(NUM_ITEMS, part.history())
    untuned = mixture_model(small_network(), counts, Calibration(0))
    calibration = Calibrator(untuned, part, OPTIONS).fit()
    assert calibration.own is not None
    assert calibration.own.decay >= 0.95, "order says nothing here, so all events count"
    assert weights_after_fit(counts, part)[4].mean() > 0.8
    assert mean_loss(mixture_model(small_network(), counts, calibration), part) < 1.0 < mean_loss(untuned, part)
    new_only = replace(OPTIONS, exclude_seen=True)
    assert Calibrator(untuned, part, new_only).fit().own is None, "no seen item is ranked"


def test_trend_has_weight_where_everybody_takes_what_is_popular_of_late() -> None:
    generator = np.random.default_rng(0)
    old = [generator.integers(NUM_ITEMS, size=5).tolist() for _ in range(300)]
    part = leave_one_out(Histories.of_items([[*items, 3, 3] for items in old]), NUM_ITEMS)[1]
    # Who was asked above has not yet met the item; in the log it comes up at last, after whatever came before.
    log = Histories.of_items([[*generator.integers(NUM_ITEMS, size=200).tolist(), 3, 3, 3, 3] for _ in range(20)])
    assert weights_after_fit(count_events(NUM_ITEMS, with_times(log)), part)[2].mean() > 0.8


def test_losses_of_the_table_are_those_of_the_model() -> None:
    """The fast path that tries temperatures and gates against evaluating the model itself."""
    part = random_part(60)
    counts = count_events(NUM_ITEMS, part.history())
    network = small_network()
    untuned = mixture_model(network, counts, Calibration(2))
    for exclude_seen in (False, True):
        options = replace(OPTIONS, exclude_seen=exclude_seen, repeat_share=0.0)
        calibrator = Calibrator(untuned, part, options)
        calibration = calibrator.fit()
        with torch.no_grad():
            table = calibrator._table()
        weights = torch.tensor(astuple(calibration.gate)[: len(calibrator.first_weights)])
        place = int((TEMPERATURES - calibration.temperatures[0]).abs().argmin())
        found = table.losses(place, weights)
        judged = evaluate(ModelRecommender(mixture_model(network, counts, calibration)), part, options)
        expected = judged.metric("nll")[~judged.target_was_seen] if exclude_seen else judged.metric("nll")
        assert len(set(calibration.temperatures)) == 1, "few queries: one temperature for all"
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_calibrate_returns_thresholds_that_cover_what_they_were_fitted_on() -> None:
    part = random_part()
    counts = count_events(NUM_ITEMS, part.history())
    learned = calibrate(mixture_model(small_network(), counts, Calibration(2)), part, OPTIONS)
    judged = evaluate(ModelRecommender(mixture_model(small_network(), counts, learned.calibration)), part, OPTIONS)
    for level in (0.5, 0.8, 0.9):
        inside = judged.forecasts.mass_before <= learned.thresholds.at(level)[3] + 1e-6
        assert inside.mean() == pytest.approx(level, abs=0.05)
        assert inside.mean() >= level - 1e-9


def test_without_a_query_that_can_be_asked_nothing_is_changed() -> None:
    histories = Histories.of_items([[1, 2, 1, 2]] * 3)
    part = leave_one_out(histories, NUM_ITEMS)[1]
    untuned = mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(2))
    options = replace(OPTIONS, exclude_seen=True)
    assert Calibrator(untuned, part, options).fit() == Calibration(2)
    assert Calibration(2).gate == GatingNetwork()
