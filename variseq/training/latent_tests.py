"""The numbers of a run into tests of its latent: each beside what is healthy, with a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from variseq.training.collapse_watch import MIN_ACTIVE_SHARE, MIN_SWAP_GAP_NATS
from variseq.training.symptoms import Symptoms

LOW_KL_NATS = 1.0
"""A posterior of one nat tells three kinds of histories apart (e¹ = 2.7): too little for any catalog."""
RUNAWAY_BETA = 1.0
"""At β = 1 a nat of KL has to save a nat of loss; runs that learn settle between 0.0005 and 0.1."""
HEAVY_BETA = 0.1
"""Five times what healthy runs settle at (0.0007 to 0.017 on shops, Beauty and MovieLens); below it, β is no cause."""
FAR_BELOW_TARGET = 0.5
"""The controller holds a KL within a few per cent; half of it is a KL that it could not raise."""
MAX_DROWNED_SHARE = 1 / 3
"""Noise takes 1 % to 11 % of what the posterior is worth in healthy runs; at a third a sample says less than μ."""
MAX_CLAMPED_SHARE = 0.05
"""No log-variance of a healthy run stands at its upper bound, where no gradient brings it back."""
MAX_RISE_NATS = 0.25
"""Training losses of neighboring epochs differ by some hundredths of a nat."""


@dataclass(frozen=True)
class Test:
    """One number of the kept epoch beside what is healthy; None where it was not measured or cannot be judged."""

    __test__ = False  # Not one for pytest.

    name: str
    value: float | None
    unit: str
    healthy: str
    is_healthy: bool | None


def latent_tests(seen: Symptoms) -> list[Test]:
    """All tests; those of the noise are not judged where there was none."""
    drowned, clamped = (seen.drowned_share, seen.clamped_share) if seen.noise > 0 else (None, None)
    spread = "compare with μ" if seen.mean_spread is None else f"μ spreads by {seen.mean_spread:.2f}"
    is_beta_well = seen.highest_beta < RUNAWAY_BETA
    return [
        _at_least("active dimensions", seen.active_share, "share", MIN_ACTIVE_SHARE),
        _rate_test(seen),
        _at_least("mutual information", seen.mutual_information, "nats", LOW_KL_NATS),
        _at_least("swap gap: loss with another user's posteriors", seen.swap_gap, "nats more", MIN_SWAP_GAP_NATS),
        _at_least("the same at the means", seen.swap_gap_at_mean, "nats more", MIN_SWAP_GAP_NATS),
        _at_least("prior gap: loss with posteriors of the prior", seen.prior_gap, "nats more", MIN_SWAP_GAP_NATS),
        _at_most("taken by the noise, of a posterior's worth", drowned, "share", MAX_DROWNED_SHARE),
        Test("σ, mean over dimensions", seen.mean_sigma, "", spread, None),
        _at_most("log-variances at their upper bound", clamped, "share", MAX_CLAMPED_SHARE),
        Test(
            "highest β of the run", seen.highest_beta, "", f"below {HEAVY_BETA:g}, never {RUNAWAY_BETA:g}", is_beta_well
        ),
        _at_most("rise of the training loss at the end", seen.rise, "nats", MAX_RISE_NATS),
    ]


def is_far_below_target(seen: Symptoms) -> bool:
    """Whether the KL is less than half of what was asked for."""
    return seen.target is not None and seen.kl < FAR_BELOW_TARGET * seen.target


def _rate_test(seen: Symptoms) -> Test:
    if seen.target is None or seen.noise == 0:
        return _at_least("kl", seen.kl, "nats per position", LOW_KL_NATS)
    is_reachable = seen.target > seen.floor
    healthy = f"about {seen.target:g}, as asked for" if is_reachable else f"above {seen.floor:g}, the least possible"
    is_healthy = seen.kl >= LOW_KL_NATS and is_reachable and not is_far_below_target(seen)
    return Test("kl", seen.kl, "nats per position", healthy, is_healthy)


def _at_least(name: str, value: float | None, unit: str, bound: float) -> Test:
    return Test(name, value, unit, f"at least {_bound(bound, unit)}", None if value is None else value >= bound)


def _at_most(name: str, value: float | None, unit: str, bound: float) -> Test:
    return Test(name, value, unit, f"at most {_bound(bound, unit)}", None if value is None else value <= bound)


def _bound(bound: float, unit: str) -> str:
    return f"{bound:.0%}" if unit == "share" else f"{bound:g}"
