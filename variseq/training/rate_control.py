"""Steers β so that the rate (KL per position) meets a target."""

from __future__ import annotations

import math

MIN_LOG_BETA, MAX_LOG_BETA = math.log(1e-7), math.log(100.0)
GAIN = 0.02


class RateController:
    """An integral controller on log β, after ControlVAE (Shao et al. 2020) and GECO (Rezende and Viola 2018).

    Each step moves log β by at most 0.02 towards what brings the rate to its target; without a target β stays fixed.

    >>> controller = RateController(beta=0.01, target_rate=10.0)
    >>> controller.observe(20.0)
    >>> round(controller.beta, 5)  # the rate is too high: β rises by 2 %
    0.0102
    """

    def __init__(self, beta: float, target_rate: float | None) -> None:
        self.beta = beta
        self.target_rate = target_rate

    def observe(self, rate: float) -> None:
        """Move β after a step whose rate was `rate` nats per position."""
        if self.target_rate is None or self.beta == 0:
            return
        error = max(-1.0, min(1.0, rate / self.target_rate - 1))
        self.beta = math.exp(max(MIN_LOG_BETA, min(MAX_LOG_BETA, math.log(self.beta) + GAIN * error)))
