"""What private releases of one log cost together: a ledger of Gaussian mechanisms, and the noise for a given budget."""

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
"""What the mechanism releases that chooses the weight of content."""
PAIR_CHOICE = "votes of groups of users for pairs in a row"
"""What the mechanism releases that chooses the pairs."""
_NOISE_RANGE = (0.05, 2000.0)
"""The noise multipliers that are tried."""


@dataclass(frozen=True)
class Mechanism:
    """A Gaussian mechanism: a sum over users plus normal noise.

    Args:
        released: What is released, in words.
        noise_multiplier: Standard deviation of the noise over the largest norm of what one user adds to the sum.
    """

    released: str
    noise_multiplier: float


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
        """Whether content was chosen on validation events, which are then not learned from."""
        return any(one.released == CHOICE for one in self.mechanisms)

    def epsilon(self) -> float:
        """ε of all mechanisms together at `delta`, where one user with all events is added or removed.

        Privacy loss distributions are composed. Source: Sommer et al. 2019, "Privacy loss classes"; the library is
        dp-accounting, whose ε is an upper bound.
        """
        return _epsilon(tuple(one.noise_multiplier for one in self.mechanisms), self.delta)

    def to_json(self) -> dict[str, Any]:
        """The record for the manifest."""
        mechanisms = [asdict(one) for one in self.mechanisms]
        return {"epsilon": self.epsilon(), "delta": self.delta, "unit": UNIT, "mechanisms": mechanisms}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Ledger:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a record that is not one."""
        mechanisms = tuple(
            Mechanism(str(one["released"]), float(one["noise_multiplier"])) for one in record["mechanisms"]
        )
        return cls(mechanisms, float(record["delta"]))


def noise_multipliers(epsilon: float, delta: float, shares: Sequence[float]) -> tuple[float, ...]:
    """The least noise of several mechanisms that cost at most ε together.

    Args:
        epsilon: The budget, above 0 and at most `LARGEST_EPSILON`.
        delta: Above 0 and below 1.
        shares: The share of each mechanism in 1 / noise multiplier², which add up for Gaussian mechanisms.

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
    while True:
        multipliers = tuple(high / math.sqrt(share) for share in shares)
        if _epsilon(multipliers, delta) <= epsilon:
            return multipliers
        high *= 1.0005


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


@lru_cache
def _epsilon(multipliers: tuple[float, ...], delta: float) -> float:
    try:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise MissingDependencyError("dp-accounting", "privacy") from error
    accountant = PLDAccountant()
    for multiplier in multipliers:
        accountant.compose(dp_event.GaussianDpEvent(multiplier))
    return float(accountant.get_epsilon(delta))
