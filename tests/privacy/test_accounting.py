"""The ledger of privacy, and the noise for a budget."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from variseq.errors import InputError
from variseq.privacy.accounting import Ledger, Mechanism, default_delta, noise_multipliers
from variseq.privacy.best_attack import BestAttack
from variseq.privacy.noise import GRID, secure_noise
from variseq.privacy.release import PrivacyOptions, exact_ledger


def exact_delta(mean: float, epsilon: float) -> float:
    """δ of a Gaussian mechanism whose two outcomes are `mean` standard deviations apart, by integration."""
    x = np.linspace(-30, 30, 400_001)
    present, absent = (np.exp(-0.5 * (x - shift) ** 2) / math.sqrt(2 * math.pi) for shift in (mean, 0.0))
    return float(np.trapezoid(np.maximum(present - math.exp(epsilon) * absent, 0), x))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_noise_spends_the_budget_and_no_more(epsilon: float) -> None:
    delta = 1e-5
    multipliers = noise_multipliers(epsilon, delta, (0.1, 0.9))
    ledger = Ledger(tuple(Mechanism("counts", one) for one in multipliers), delta)
    assert 0.995 * epsilon < ledger.epsilon() <= epsilon
    mean = math.sqrt(sum(one**-2 for one in multipliers))
    assert exact_delta(mean, epsilon) == pytest.approx(delta, rel=0.02)
    assert exact_delta(mean, epsilon) <= delta


def test_shares_divide_the_budget() -> None:
    first, second = noise_multipliers(1.0, 1e-5, (0.2, 0.8))
    assert (second / first) ** 2 == pytest.approx(0.25)


def test_steps_on_all_users_cost_as_one_mechanism_and_steps_on_a_part_cost_less() -> None:
    """Composition of Gaussian mechanisms is exact: T steps of noise σ√T are one of noise σ."""
    once = Ledger((Mechanism("sums", 1.5),), 1e-5).epsilon()
    assert Ledger((Mechanism("steps", 1.5 * 4, 1.0, 16),), 1e-5).epsilon() == pytest.approx(once, rel=1e-3)
    assert Ledger((Mechanism("steps", 1.5 * 4, 0.2, 16),), 1e-5).epsilon() < 0.3 * once


@pytest.mark.parametrize(
    ("epsilon", "rate", "num_steps"),
    [(2.0, 0.1, 40), (0.5, 0.01, 100), (8.0, 0.2, 100)],
)
def test_noise_for_sampled_steps_spends_the_budget_and_no_more(epsilon: float, rate: float, num_steps: int) -> None:
    shares = (0.1, 0.7, 0.2)
    multipliers = noise_multipliers(epsilon, 1e-5, shares, (rate, num_steps))
    once = [Mechanism("counts", one) for one in multipliers[:2]]
    ledger = Ledger((*once, Mechanism("steps", multipliers[2], rate, num_steps)), 1e-5)
    assert 0.995 * epsilon < ledger.epsilon() <= epsilon
    assert multipliers[0] / multipliers[1] == pytest.approx(math.sqrt(7))
    assert Ledger.from_json(ledger.to_json()) == ledger


@pytest.mark.parametrize(
    ("steps", "is_equal"), [((5.0, 0.1, 200), False), ((10.0, 0.2, 100), False), ((3.0, 0.01, 200), True)]
)
def test_coarse_grid_of_losses_is_taken_where_it_costs_next_to_nothing(
    steps: tuple[float, float, int], is_equal: bool
) -> None:
    """The fine grid is the default of the library. With steps of 1 % the coarse one would be .4 % above it."""
    event = pytest.importorskip("dp_accounting").dp_event
    accountant = pytest.importorskip("dp_accounting.pld").PLDAccountant()
    noise, rate, number = steps
    accountant.compose(event.GaussianDpEvent(30.0))
    accountant.compose(event.PoissonSampledDpEvent(rate, event.GaussianDpEvent(noise)), number)
    fine = accountant.get_epsilon(1e-5)
    found = Ledger((Mechanism("counts", 30.0), Mechanism("steps", noise, rate, number)), 1e-5).epsilon()
    assert fine <= found <= (1 if is_equal else 1 + 3e-4) * fine


def test_attack_on_sampled_steps_finds_at_most_what_delta_allows() -> None:
    steps = Ledger((Mechanism("steps", 1.0, 0.1, 40),), 1e-5)
    found = float(BestAttack.of(steps).true_positive_rate(0.01))
    assert 0.01 < found <= min(math.exp(one) * 0.01 + steps.delta_at(one) for one in (0.5, 1.0, 2.0)) + 1e-3


def test_every_further_mechanism_costs() -> None:
    one, two = (Ledger((Mechanism("counts", 2.0),) * number, 1e-5) for number in (1, 2))
    assert two.epsilon() > one.epsilon()
    assert Ledger.from_json(two.to_json()) == two


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 51.0])
def test_budget_that_is_not_possible_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match="ε"):
        noise_multipliers(epsilon, 1e-5, (1.0,))


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_delta_that_is_not_possible_is_refused(delta: float) -> None:
    with pytest.raises(InputError, match="δ"):
        noise_multipliers(1.0, delta, (1.0,))


def test_delta_is_the_same_for_logs_that_differ_by_a_user() -> None:
    assert default_delta(6_040) == default_delta(6_041) < 6_040**-1.1


def test_noise_is_normal_and_whole_and_never_the_same() -> None:
    first, second = (secure_noise(3.0, 200_000) for _ in range(2))
    values = first * GRID
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(3.0, rel=0.01)
    below = np.mean(values < 3.0)
    assert below == pytest.approx(NormalDist().cdf(1.0), abs=0.005)
    assert (first != second).any()


def test_attack_finds_nobody_where_the_noise_is_large() -> None:
    ledger = Ledger((Mechanism("counts", 1000.0),), 1e-5)
    assert BestAttack.of(ledger).true_positive_rate(0.01) == pytest.approx(0.01, rel=0.01)


def test_sums_without_noise_have_no_epsilon() -> None:
    assert exact_ledger(PrivacyOptions(8.0)).epsilon() == math.inf
