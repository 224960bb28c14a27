"""Steers β so that the rate (KL per position) meets a target, and refuses a target that no β can meet."""

from __future__ import annotations

import math

from variseq.errors import InputError
from variseq.model.network import NetworkConfig
from variseq.training.settings import TrainingConfig

MIN_LOG_BETA, MAX_LOG_BETA = math.log(1e-7), math.log(1.0)
"""At β = 1 a nat of rate has to save a nat of loss at its own position, and no belief pays that (runs settle between
0.0005 and 0.1): a β that wants more will not find its target, and would only drown the gradient of everything else."""
GAIN = 0.02
GOOD_RATE_OVER_FLOOR = 1.25
"""A rate that is well met: 40 nats where 64 dimensions of scale 1 hold it above 32. There σ is about 0.7."""


class RateController:
    """An integral controller on log β, after ControlVAE (Shao et al. 2020) and GECO (Rezende and Viola 2018).

    Each step moves log β by at most 0.02 towards what brings the rate to its target, and never beyond β = 1; without a
    target β stays fixed.

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


def rate_floor(latent_width: int, mean_scale: float | None, free_nats: float) -> float:
    """The rate below which no β can push: ½ γ² nats a dimension with batch-norm on μ, and what is free in any case.

    >>> rate_floor(latent_width=64, mean_scale=1.0, free_nats=0.0)
    32.0
    """
    held = 0.0 if mean_scale is None else 0.5 * mean_scale**2
    return latent_width * max(held, free_nats)


def good_rate(latent_width: int, mean_scale: float | None, free_nats: float = 0.0) -> float:
    """A target that can be met, in nats per position; without batch-norm that which a scale of 1 would have.

    >>> good_rate(latent_width=64, mean_scale=1.0)
    40.0
    """
    scale = 1.0 if mean_scale is None else mean_scale
    return GOOD_RATE_OVER_FLOOR * rate_floor(latent_width, scale, free_nats)


def refuse_unreachable_rate(network: NetworkConfig, training: TrainingConfig) -> None:
    """Raises InputError for a target rate at or below its floor: β would grow without end, and end the training.

    >>> refuse_unreachable_rate(NetworkConfig(num_items=5, latent_width=64), TrainingConfig(target_rate=40.0))
    """
    is_steered = training.target_rate is not None and training.beta > 0 and training.deterministic_share < 1
    floor = rate_floor(network.latent_width, network.mean_scale, training.free_nats)
    if not is_steered or training.target_rate is None or training.target_rate > floor:
        return
    held_by_scale = network.mean_scale is not None and 0.5 * network.mean_scale**2 >= training.free_nats
    holder = (
        f"model.mean_scale={network.mean_scale:g}" if held_by_scale else f"training.free_nats={training.free_nats:g}"
    )
    good = good_rate(network.latent_width, network.mean_scale, training.free_nats)
    raise InputError(
        f"training.target_rate={training.target_rate:g} can never be met: {holder} with "
        f"model.latent_width={network.latent_width} keeps the rate at {floor:g} nats per position or more, and β would "
        f"grow until nothing is learned. Allowed: more than {floor:g}. Set training.target_rate={good:g}, or lower "
        f"{holder.partition('=')[0]} or model.latent_width."
    )
