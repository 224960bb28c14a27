"""What private releases of one log cost together: a ledger of Gaussian mechanisms, and the noise for a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from variseq.errors import InputError, MissingDependencyError

LARGEST_EPSILON = 50.0
UNIT = "one user with all events, added or removed"
CHOICE = "gains of some weights of content"
NETWORK_CHOICE = "gains of some weights of the network"
"""What the mechanisms release that choose weights."""
PAIR_CHOICE = "votes of groups of users for pairs in a row"
"""What the mechanism releases that chooses the pairs."""
NETWORK_STEPS = "gradients of the network"
Event = tuple[float, float, int]
"""Noise multiplier, sampling rate and number of steps."""
_NOISE_RANGE = (0.05, 2000.0)
"""The noise multipliers that are tried."""
COARSE, FINE = 1e-3, 1e-4
"""Steps of the grid of privacy losses. ε is an upper bound on both, and the coarse one costs a third to a tenth."""
MOST_COARSE_STEPS, LEAST_COARSE_RATE = 200, 0.02
"""With up to so many steps, whose sampling rates are at least so many times their noise multipliers, the coarse grid is
at most 3e-4 of ε above the fine one."""


@dataclass(frozen=True)
class Mechanism:
    """A Gaussian mechanism: a sum over users plus normal noise, once or in several steps.

    Args:
        released: What is released, in words.
        noise_multiplier: Standard deviation of the noise over the largest norm of what one user adds to the sum.
        sampling_rate: The probability of each user to be in a step, drawn for each user and step alone.
        num_steps: How many sums are released.
    """

    released: str
    noise_multiplier: float
    sampling_rate: float = 1.0
    num_steps: int = 1


@dataclass(frozen=True)
class Ledger:
    """Every mechanism that has seen the log. ε is read off it and is never set.

    Args:
        mechanisms: All of them; each was run once.
        delta: The δ that ε belongs to.
    """

    mechanisms: tuple[Mechanism, ...]
    delta: float

    @property
    def has_choice(self) -> bool:
        """Whether something was chosen on validation events, which are then not learned from."""
        return any(one.released in (CHOICE, NETWORK_CHOICE) for one in self.mechanisms)

    def noise_of(self, released: str) -> float:
        """The noise multiplier of the mechanism that releases this."""
        return next(one.noise_multiplier for one in self.mechanisms if one.released == released)

    def epsilon(self) -> float:
        """ε of all mechanisms together at `delta`, where one user with all events is added or removed.

        Privacy loss distributions are composed. Source: Sommer et al. 2019, "Privacy loss classes"; the library is
        dp-accounting, whose ε is an upper bound. Without noise it is infinite.
        """
        if not all(one.noise_multiplier for one in self.mechanisms):
            return math.inf
        return float(_accountant(self._events()).get_epsilon(self.delta))

    def delta_at(self, epsilon: float) -> float:
        """δ of all mechanisms together at another ε."""
        return float(_accountant(self._events()).get_delta(epsilon))

    def _events(self) -> tuple[Event, ...]:
        return tuple((one.noise_multiplier, one.sampling_rate, one.num_steps) for one in self.mechanisms)

    def to_json(self) -> dict[str, Any]:
        """The record for the manifest."""
        mechanisms = [asdict(one) for one in self.mechanisms]
        return {"epsilon": self.epsilon(), "delta": self.delta, "unit": UNIT, "mechanisms": mechanisms}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Ledger:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a record that is not one."""
        mechanisms = tuple(
            Mechanism(
                str(one["released"]),
                float(one["noise_multiplier"]),
                float(one.get("sampling_rate", 1.0)),
                int(one.get("num_steps", 1)),
            )
            for one in record["mechanisms"]
        )
        return cls(mechanisms, float(record["delta"]))


def noise_multipliers(
    epsilon: float, delta: float, shares: Sequence[float], steps: tuple[float, int] | None = None
) -> tuple[float, ...]:
    """The least noise of several mechanisms that cost at most ε together.

    Args:
        epsilon: The budget, above 0 and at most `LARGEST_EPSILON`.
        delta: Above 0 and below 1.
        shares: The share of each mechanism in 1 / noise multiplier², which add up for Gaussian mechanisms.
        steps: Sampling rate and number of steps of the last mechanism, which gets what the others leave; None: all are
            run once on all users.

    Returns:
        The noise multiplier of each mechanism.

    Raises:
        InputError: For a budget that is not possible.
        MissingDependencyError: Without the extra `privacy`.
    """
    if not (math.isfinite(epsilon) and 0 < epsilon <= LARGEST_EPSILON):
        raise InputError(
            f"A privacy budget of ε = {epsilon:g} is not possible. Give a number above 0 and up to "
            f"{LARGEST_EPSILON:g}; 1 protects well, 8 is common in industry."
        )
    if not 0 < delta < 1:
        raise InputError(f"δ = {delta:g} is not possible. Give a number between 0 and 1, far below 1 / users.")

    low, high = _NOISE_RANGE
    while high / low > 1.00001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _exact_delta(middle, epsilon) > delta else (low, middle)
    if steps is not None:
        once = tuple(high / math.sqrt(share) for share in shares[:-1])
        # The limit of many steps (Bu, Dong, Long and Su 2020, "Deep learning with Gaussian differential privacy",
        # corollary 5.4) is near what is left.
        sampling_rate, num_steps = steps
        near = math.log1p(shares[-1] / (high * sampling_rate) ** 2 / num_steps) ** -0.5
        return *once, _noise_of_steps(epsilon, delta, once, steps, near)
    while True:
        multipliers = tuple(high / math.sqrt(share) for share in shares)
        if _spent(delta, multipliers) <= epsilon:
            return multipliers
        high *= 1.0005


@lru_cache(maxsize=16)
def _noise_of_steps(
    epsilon: float, delta: float, once: tuple[float, ...], steps: tuple[float, int], near: float
) -> float:
    """The least noise multiplier of sampled steps beside mechanisms that are run once; the search begins at `near`."""
    from scipy.optimize import brentq

    def excess(log_noise: float) -> float:
        return math.log(_spent(delta, once, (math.exp(log_noise), *steps)) / epsilon)

    low = high = math.log(near)
    while excess(low) < 0:
        low -= 0.1
    while excess(high) > 0:
        high += 0.1
    found = float(brentq(excess, low, high, xtol=2e-4))
    while excess(found) > 0:
        found += 1e-4
    return math.exp(found)


def _spent(delta: float, once: Sequence[float], steps: Event | None = None) -> float:
    """ε of mechanisms that are run once with these noise multipliers, and of steps."""
    events = tuple((one, 1.0, 1) for one in once) + (() if steps is None else (steps,))
    return float(_accountant(events).get_epsilon(delta))


def _interval(events: tuple[Event, ...]) -> float:
    """The step of the grid of privacy losses for these mechanisms."""
    sampled = [one for one in events if one[1] < 1]
    is_coarse = sampled and all(rate >= LEAST_COARSE_RATE * multiplier for multiplier, rate, _ in sampled)
    return COARSE if is_coarse and sum(number for *_, number in sampled) <= MOST_COARSE_STEPS else FINE


def _exact_delta(multiplier: float, epsilon: float) -> float:
    """δ of one Gaussian mechanism at ε. Source: Balle and Wang 2018, theorem 8."""
    normal = NormalDist()
    middle, half = epsilon * multiplier, 0.5 / multiplier
    return normal.cdf(half - middle) - math.exp(epsilon) * normal.cdf(-half - middle)


def default_delta(num_users: int) -> float:
    """δ = N^−1.1 of the number of users, which is rounded up to one digit, so that δ does not give it away.

    >>> round(1 / default_delta(6040))
    16967
    """
    return float(public_users(num_users) ** -1.1)


def public_users(num_users: int) -> int:
    """The number of users that a private run declares: rounded up to one digit.

    >>> public_users(6040)
    7000
    """
    digits = 10 ** (len(str(num_users)) - 1)
    return math.ceil(num_users / digits) * digits


@lru_cache(maxsize=16)
def _accountant(events: tuple[Event, ...]) -> Any:
    try:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise MissingDependencyError("dp-accounting", "privacy") from error
    accountant = PLDAccountant(value_discretization_interval=_interval(events))
    # Gaussian mechanisms on all users are together one of them, exactly.
    of_all = sum(num_steps * multiplier**-2 for multiplier, rate, num_steps in events if rate == 1)
    if of_all:
        accountant.compose(dp_event.GaussianDpEvent(of_all**-0.5))
    for multiplier, rate, num_steps in events:
        if rate < 1:
            accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier)), num_steps)
    return accountant
