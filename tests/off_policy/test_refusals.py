"""What cannot be evaluated is refused: by an error where the input is wrong, by a sentence where it says too little."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.off_policy.lists import TablePolicy, exposures_of, random_log
from variseq.errors import InputError
from variseq.exposures.table import Exposures
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.logged import logged_lists
from variseq.off_policy.policies import GivenProbabilities, LoggingPolicy, TargetProbabilities, UniformPolicy


def single(propensity: list[float], num_items: int = 4) -> Exposures:
    """Exposures of one item each."""
    each = [[one] for one in propensity]
    items = [[number % num_items] for number in range(len(propensity))]
    return exposures_of(
        items, each, each, [[float(number % 3 == 0)] for number in range(len(each))], num_items=num_items
    )


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5, math.inf])
def test_impossible_propensity_is_an_error_that_names_the_row(propensity: float) -> None:
    with pytest.raises(InputError, match=r"'e1', item 'i1'.*above 0 and at most 1"):
        logged_lists(single([0.5, propensity, 0.5]))


def test_exposures_without_propensities_are_left_out_and_counted() -> None:
    found = evaluate_policies(single([0.5, math.nan] * 10), [LoggingPolicy()], num_resamples=20)
    assert (found.num_exposures, found.num_without_propensity) == (10, 10)


def test_log_without_propensities_is_an_error() -> None:
    with pytest.raises(InputError, match="no propensities"):
        evaluate_policies(single([math.nan] * 3), [LoggingPolicy()])


def test_exposure_with_some_propensities_is_an_error() -> None:
    half = exposures_of([[0, 1]], [[0.5, 0.5]], [[0.5, math.nan]], [[0, 0]])
    with pytest.raises(InputError, match="some rows only"):
        logged_lists(half)


def test_empty_log_is_an_error() -> None:
    with pytest.raises(InputError, match="no exposures"):
        logged_lists(exposures_of([], [], [], []))


def test_policy_that_knows_no_list_is_an_error_with_the_reasons() -> None:
    unknown = np.full(3, math.nan)
    policy = TablePolicy(TargetProbabilities(unknown, unknown, left_out={"of no known user": 3}))
    with pytest.raises(InputError, match="3 of no known user"):
        evaluate_policies(single([0.25] * 3), [policy])


def test_policy_that_shows_nothing_that_was_logged_is_an_error() -> None:
    exposures = single([0.25] * 200)
    nothing = TablePolicy(TargetProbabilities(np.zeros(200), np.zeros(200)))
    with pytest.raises(InputError, match="none of the items"):
        evaluate_policies(exposures, [nothing])


def test_given_probability_above_1_is_an_error() -> None:
    given = GivenProbabilities("new", {"e0": np.array([0.5]), "e1": np.array([1.2])})
    with pytest.raises(InputError, match="from 0 to 1"):
        evaluate_policies(single([0.5, 0.5]), [given])


def test_policy_given_twice_is_an_error() -> None:
    with pytest.raises(InputError, match="each once"):
        evaluate_policies(single([0.5]), [UniformPolicy(), UniformPolicy()])


def refusal(exposures: Exposures, in_list: np.ndarray) -> str:
    """The sentence of a refused policy, which has no number but that of the direct method."""
    policy = TablePolicy(TargetProbabilities(in_list, in_list))
    found = evaluate_policies(exposures, [policy], num_resamples=20).policies[0]
    assert found.is_refused
    for one in found.estimates:
        assert (one.value, one.interval, one.difference, one.difference_interval) == (None,) * 4
    shown = evaluate_policies(exposures, [policy], show_refused=True, num_resamples=20).policies[0]
    assert all(one.value is not None and one.refusal is not None for one in shown.estimates)
    sentence = found.estimates[0].refusal
    assert sentence is not None
    return sentence


def test_mean_weight_away_from_1_is_refused() -> None:
    exposures = single([0.25] * 2000)
    assert "mean weight" in refusal(exposures, np.full(2000, 0.2))


def test_small_effective_sample_is_refused() -> None:
    is_rare = np.arange(400) % 10 == 0
    assert "effective sample is 40 of 400 lists" in refusal(single([0.1] * 400), np.where(is_rare, 1.0, 0.0))


def test_weight_that_is_a_large_part_of_all_is_refused() -> None:
    propensity = np.full(20_000, 0.5)
    propensity[0] = 0.00025
    assert "One weight" in refusal(single(propensity.tolist()), np.where(propensity < 0.1, 0.7, 0.45))


def test_random_policy_with_support_is_not_refused() -> None:
    random = np.random.default_rng(1)
    propensity = np.array([0.4, 0.3, 0.2, 0.1])
    item = random.choice(4, size=5000, p=propensity)
    each = [[one] for one in propensity[item].tolist()]
    exposures = exposures_of([[one] for one in item.tolist()], each, each, [[1.0]] * 5000, num_items=4)
    found = evaluate_policies(exposures, [UniformPolicy()], num_resamples=200).policies[0]
    assert not found.is_refused
    estimate = found.estimate("SNIPS")
    assert estimate.value == pytest.approx(1.0)
    assert estimate.num_exposures_for(0.05, 5000) is not None


def test_number_of_exposures_grows_with_the_square_of_the_precision() -> None:
    exposures, _ = random_log(6, 300)
    one = evaluate_policies(exposures, [LoggingPolicy()], num_resamples=200).on_policy
    rough, fine = one.num_exposures_for(0.1, 300), one.num_exposures_for(0.01, 300)
    assert rough is not None
    assert fine == pytest.approx(100 * rough, rel=0.05)
