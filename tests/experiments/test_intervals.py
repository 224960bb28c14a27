"""An always-valid interval may be looked at any number of times; one for a planned look may not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from variseq.errors import InputError
from variseq.experiments.analysis import difference
from variseq.experiments.intervals import always_valid_reach, chi_square_tail, fixed_reach, sample_size

RUNS, LOOKS, NUM_USERS = 60, 200, 2000


def test_looking_all_the_time_errs_in_at_most_5_percent_of_experiments_without_a_difference() -> None:
    random = np.random.default_rng(0)
    looks = np.linspace(NUM_USERS / LOOKS, NUM_USERS, LOOKS).astype(int)
    wrong = {"always": 0, "fixed": 0}
    for _ in range(RUNS):
        reward = (random.random(NUM_USERS) < 0.3) * random.exponential(1, NUM_USERS)
        is_treated, nothing = random.random(NUM_USERS) < 0.5, np.zeros((NUM_USERS, 0))
        found = [difference(reward[:end], is_treated[:end], nothing[:end]) for end in looks]
        given = [one for one in found if one is not None]
        assert len(given) > LOOKS / 2
        for kind, intervals in (
            ("always", [one.always_valid(float(NUM_USERS)) for one in given]),
            ("fixed", [one.fixed() for one in given]),
        ):
            wrong[kind] += any(low > 0 or high < 0 for low, high in intervals)
    assert wrong["always"] / RUNS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
    assert wrong["fixed"] / RUNS > 0.15


def test_interval_is_tightest_at_the_planned_number_of_users() -> None:
    planned = np.geomspace(100, 1e6, 400)
    reaches = [always_valid_reach(10_000.0, float(one)) for one in planned]
    assert planned[int(np.argmin(reaches))] == pytest.approx(10_000, rel=0.03)
    assert min(reaches) > fixed_reach()


@pytest.mark.parametrize("effect", [0.3, -0.3])
def test_planned_users_find_the_difference_as_often_as_was_wanted(effect: float) -> None:
    random, rate, runs = np.random.default_rng(1), 0.2, 4000
    found = sample_size(rate, effect, power=0.8)
    assert found.fixed < found.always_valid
    at_any_time = always_valid_reach(1.0, 1.0)
    for number, reach in ((found.fixed, fixed_reach()), (found.always_valid, at_any_time)):
        control, treated = (random.binomial(number, one, runs) / number for one in (rate, rate * (1 + effect)))
        error = np.sqrt((control * (1 - control) + treated * (1 - treated)) / number)
        power = np.mean(abs(treated - control) > reach * error)
        assert power == pytest.approx(0.8, abs=0.01 + 5 * 0.4 / np.sqrt(runs))


@pytest.mark.parametrize(
    ("rate", "effect", "power"), [(0.0, 0.1, 0.8), (0.5, 1.5, 0.8), (0.5, 0.0, 0.8), (0.5, 0.1, 1.0)]
)
def test_size_of_what_cannot_be_is_refused(rate: float, effect: float, power: float) -> None:
    with pytest.raises(InputError, match="not possible"):
        sample_size(rate, effect, power)


@pytest.mark.parametrize("degrees", range(1, 20))
def test_chi_square_tail_is_that_of_scipy(degrees: int) -> None:
    for statistic in (0.0, 0.1, 1.0, 5.0, 20.0, 60.0):
        assert chi_square_tail(statistic, degrees) == pytest.approx(chi2.sf(statistic, degrees), rel=1e-9)
