"""Intervals of a difference of two means, for one look or for any number of them, and the users that they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from variseq.errors import InputError

ALPHA = 0.05
"""Probability that an interval is wrong."""
ITERATIONS = 60


def fixed_reach(alpha: float = ALPHA) -> float:
    """Half the width of an interval in standard errors, for one look at a number of users that was fixed before.

    >>> round(fixed_reach(), 3)
    1.96
    """
    return NormalDist().inv_cdf(1 - alpha / 2)


def always_valid_reach(num_users: float, planned_users: float, alpha: float = ALPHA) -> float:
    """Half the width of an always-valid interval in standard errors.

    With probability 1 - alpha the intervals hold the true difference at all numbers of users at once, so one may look
    at any time and stop. This is the asymptotic confidence sequence of Waudby-Smith et al. (2024, theorem 2.2,
    arXiv:2103.06476), whose free number ρ² = x / planned_users is such that the interval is tightest there: the
    derivative is 0 where x = log(1 + x) - 2 log alpha.

    >>> [round(always_valid_reach(num_users, 1e4), 2) for num_users in (1e3, 1e4, 1e5)]
    [3.82, 3.04, 3.25]
    """
    tightest = 0.0
    for _ in range(ITERATIONS):
        tightest = math.log1p(tightest) - 2 * math.log(alpha)
    x = tightest * num_users / planned_users
    return math.sqrt((1 + x) / x * (math.log1p(x) - 2 * math.log(alpha)))


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means.

    Args:
        value: Treatment minus control.
        standard_error: Of the value.
        num_users: In both arms.
    """

    value: float
    standard_error: float
    num_users: int

    def fixed(self, alpha: float = ALPHA) -> tuple[float, float]:
        """The interval for one look, at a number of users that was fixed before."""
        return self._around(fixed_reach(alpha))

    def always_valid(self, planned_users: float, alpha: float = ALPHA) -> tuple[float, float]:
        """The interval for any number of looks."""
        return self._around(always_valid_reach(float(self.num_users), planned_users, alpha))

    def _around(self, reach: float) -> tuple[float, float]:
        return self.value - reach * self.standard_error, self.value + reach * self.standard_error


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Users of each of two arms: with one look at the end, and with looks at any time (the most of them)."""

    fixed: int
    always_valid: int


def sample_size(rate: float, effect: float, power: float = 0.8, alpha: float = ALPHA) -> SampleSize:
    """Users that a difference of two rates needs to be found.

    The always-valid interval is tuned to its own end. It finds the difference there with at least this probability, and
    usually earlier.

    Args:
        rate: Share of the users of the control who do what is rewarded.
        effect: The smallest change to be found, as a share of the rate: 0.1 is 10 % more.
        power: Probability that it is found.
        alpha: Probability that one is found where there is none.

    Raises:
        InputError: A number is not possible.

    >>> sample_size(rate=0.05, effect=0.1)
    SampleSize(fixed=31231, always_valid=59801)
    """
    treated = rate * (1 + effect)
    if not (0 < rate < 1 and 0 < treated < 1 and effect):
        raise InputError(
            f"rate={rate:g} with effect={effect:g} is not possible. Allowed: rates between 0 and 1, and effects such "
            "as 0.1, which lead to another rate between 0 and 1."
        )
    if not 0.5 <= power < 1:
        raise InputError(f"power={power:g} is not possible. Allowed: 0.5 to less than 1, for example 0.8.")
    variance = (rate * (1 - rate) + treated * (1 - treated)) / (treated - rate) ** 2
    of_power = NormalDist().inv_cdf(power)
    reaches = fixed_reach(alpha), always_valid_reach(1.0, 1.0, alpha)
    return SampleSize(*(math.ceil((reach + of_power) ** 2 * variance) for reach in reaches))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """The probability of a larger chi-square statistic, by its finite sums (Abramowitz and Stegun, 26.4.4 and 26.4.5).

    >>> [round(chi_square_tail(statistic, degrees), 4) for statistic, degrees in ((3.841, 1), (5.991, 2), (7.815, 3))]
    [0.05, 0.05, 0.05]
    """
    half = statistic / 2
    if degrees % 2 == 0:
        total, term, first = 0.0, 1.0, 0.0
    else:
        total, term, first = math.erfc(math.sqrt(half)), 2 * math.sqrt(half / math.pi), 0.5
    for number in range(degrees // 2):
        if number:
            term *= half / (number + first)
        total += math.exp(-half) * term
    return total
