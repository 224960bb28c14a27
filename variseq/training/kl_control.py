"""Steers β so that the KL (KL per position) meets a target, and refuses a target that no β can meet."""

from __future__ import annotations

import math

from variseq.errors import InputError
from variseq.model.network import NetworkConfig
from variseq.training.settings import TrainingConfig

MIN_LOG_BETA, MAX_LOG_BETA = math.log(1e-7), math.log(1.0)
"""At β = 1 a nat of KL has to save a nat of loss at its own position, and no posterior pays that (runs settle between
0.0005 and 0.1): a β that wants more will not find its target, and would only drown the gradient of everything else."""
GAIN = 0.02
GOOD_RATE_OVER_FLOOR = 1.25
"""A KL that is well met: 40 nats where 64 dimensions of scale 1 hold it above 32. There σ is about 0.7."""


class KlController:
    """An integral controller on log β, after ControlVAE (Shao et al. 2020) and GECO (Rezende and Viola 2018).

    Each step moves log β by at most 0.02 towards what brings the KL to its target, and never beyond β = 1; without a
    target β stays fixed.

    >>> controller = KlController(beta=0.01, kl_target=10.0)
    >>> controller.observe(20.0)
    >>> round(controller.beta, 5)  # the KL is too high: β rises by 2 %
    0.0102
    """

    def __init__(self, beta: float, kl_target: float | None) -> None:
        self.beta = beta
        self.kl_target = kl_target

    def observe(self, kl: float) -> None:
        """Move β after a step whose KL was `kl` nats per position."""
        if self.kl_target is None or self.beta == 0:
            return
        error = max(-1.0, min(1.0, kl / self.kl_target - 1))
        self.beta = math.exp(max(MIN_LOG_BETA, min(MAX_LOG_BETA, math.log(self.beta) + GAIN * error)))


def rate_floor(latent_dim: int, bn_gamma: float | None, free_nats: float) -> float:
    """The KL below which no β can push: ½ γ² nats a dimension with batch-norm on μ, and what is free in any case.

    >>> rate_floor(latent_dim=64, bn_gamma=1.0, free_nats=0.0)
    32.0
    """
    held = 0.0 if bn_gamma is None else 0.5 * bn_gamma**2
    return latent_dim * max(held, free_nats)


def good_kl(latent_dim: int, bn_gamma: float | None, free_nats: float = 0.0) -> float:
    """A target that can be met, in nats per position; without batch-norm that which a scale of 1 would have.

    >>> good_kl(latent_dim=64, bn_gamma=1.0)
    40.0
    """
    scale = 1.0 if bn_gamma is None else bn_gamma
    return GOOD_RATE_OVER_FLOOR * rate_floor(latent_dim, scale, free_nats)


def refuse_unreachable_kl_target(network: NetworkConfig, training: TrainingConfig) -> None:
    """Raises InputError for a target KL at or below its floor: β would grow without end, and end the training.

    >>> refuse_unreachable_kl_target(NetworkConfig(num_items=5, latent_dim=64), TrainingConfig(kl_target=40.0))
    """
    is_steered = training.kl_target is not None and training.beta > 0 and training.deterministic_fraction < 1
    floor = rate_floor(network.latent_dim, network.bn_gamma, training.free_nats)
    if not is_steered or training.kl_target is None or training.kl_target > floor:
        return
    held_by_scale = network.bn_gamma is not None and 0.5 * network.bn_gamma**2 >= training.free_nats
    holder = f"model.bn_gamma={network.bn_gamma:g}" if held_by_scale else f"training.free_nats={training.free_nats:g}"
    good = good_kl(network.latent_dim, network.bn_gamma, training.free_nats)
    raise InputError(
        f"training.kl_target={training.kl_target:g} can never be met: {holder} with "
        f"model.latent_dim={network.latent_dim} keeps the KL at {floor:g} nats per position or more, and β would "
        f"grow until nothing is learned. Allowed: more than {floor:g}. Set training.kl_target={good:g}, or lower "
        f"{holder.partition('=')[0]} or model.latent_dim."
    )
