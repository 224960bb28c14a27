"""Schedules of a run: learning rate, noise, the time left, and β, which steers the KL to its target."""

from __future__ import annotations

import math

from variseq.errors import InputError
from variseq.model.network import NetworkConfig
from variseq.training.config import TrainingConfig

FINAL_LEARNING_RATE_SHARE = 0.05
COST_OF_ANOTHER_SAMPLE = 1 / 3
"""What each further sample adds to an epoch with noise: on Amazon Beauty and MIND four samples double the time."""
MIN_LOG_BETA, MAX_LOG_BETA = math.log(1e-7), math.log(1.0)
"""At β = 1 a nat of KL has to save a nat of loss at its own position, and no posterior does (runs settle between 0.0005
and 0.1). A larger β would not reach the target either, and would dominate the gradient."""
GAIN = 0.02
GOOD_KL_OVER_MINIMUM = 1.25
"""40 nats where 64 dimensions with γ = 1 keep the KL above 32; σ is about 0.7 there."""


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine from the full rate to a twentieth of it.

    Where validation chooses between epochs without noise and later ones with it, each of the two has a cosine.

    >>> [round(learning_rate(TrainingConfig(learning_rate=1.0, warmup_steps=2), s, 10), 3) for s in (0, 1, 5, 10)]
    [0.5, 0.977, 0.525, 0.05]
    >>> two = TrainingConfig(learning_rate=1.0, warmup_steps=0, deterministic_fraction=0.8, noise_learning_rate=0.3)
    >>> [round(learning_rate(two, step, 10), 3) for step in (0, 4, 8, 9, 10)]
    [1.0, 0.525, 0.3, 0.158, 0.015]
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    highest, done = config.learning_rate, min(1.0, step / num_steps)
    if config.noise_learning_rate is not None and config.chooses_noise:
        without = config.deterministic_fraction
        is_later = done >= without
        highest = config.noise_learning_rate if is_later else highest
        done = (done - without) / (1 - without) if is_later else done / without
    cosine = 0.5 + 0.5 * math.cos(math.pi * done)
    return highest * warmup * (FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * cosine)


def noise_share(config: TrainingConfig, progress: float) -> float:
    """0 in the deterministic start, then rising to 1 (Bowman et al. 2016 anneal β alone; here the noise rises with it).

    Progress may slightly exceed 1, as epochs differ by a batch or two; a deterministic run has no noise there either.

    >>> config = TrainingConfig(deterministic_fraction=0.4, kl_anneal_fraction=0.2)
    >>> [round(noise_share(config, progress), 3) for progress in (0.0, 0.4, 0.5, 0.6, 1.0)]
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if config.deterministic_fraction >= 1:
        return 0.0
    if config.kl_anneal_fraction == 0:
        return float(progress >= config.deterministic_fraction)
    return min(1.0, max(0.0, (progress - config.deterministic_fraction) / config.kl_anneal_fraction))


def seconds_left(config: TrainingConfig, epoch: int, done: float, seconds: float, epochs_later: int) -> float:
    """Seconds left at the pace of the current epoch, whose fraction `done` took `seconds`; patience is not considered.

    `epochs_later`, those of refits, have noise from the start, except after a deterministic run.

    >>> config = TrainingConfig(max_epochs=4, deterministic_fraction=0.5, num_samples=4)
    >>> [seconds_left(config, epoch, 1.0, seconds, 1) for epoch, seconds in ((0, 10.0), (1, 10.0), (2, 20.0))]
    [70.0, 60.0, 40.0]
    """
    begun, here = epoch / config.max_epochs, (epoch + done) / config.max_epochs
    later = epochs_later / config.max_epochs * _cost(config, 1.0, 2.0)
    return seconds / _cost(config, begun, here) * (_cost(config, here, 1.0) + later)


def _cost(config: TrainingConfig, begun: float, ended: float) -> float:
    """The cost of the part of a run between two fractions of it; 1 is that of a whole run without noise."""
    if config.deterministic_fraction >= 1:
        return ended - begun
    with_noise = ended - max(begun, min(ended, config.deterministic_fraction))
    return ended - begun + with_noise * COST_OF_ANOTHER_SAMPLE * (config.num_samples - 1)


def adapted_beta(beta: float, kl: float, kl_target: float | None) -> float:
    """β after a step with this KL in nats per position; without a target β is fixed.

    Integral control of log β, after ControlVAE (Shao et al. 2020) and GECO (Rezende and Viola 2018): each step moves it
    by at most 0.02 towards the target, and never beyond β = 1.

    >>> round(adapted_beta(0.01, kl=20.0, kl_target=10.0), 5)  # the KL is too high: β rises by 2 %
    0.0102
    """
    if kl_target is None or beta == 0:
        return beta
    error = max(-1.0, min(1.0, kl / kl_target - 1))
    return math.exp(max(MIN_LOG_BETA, min(MAX_LOG_BETA, math.log(beta) + GAIN * error)))


def min_kl(latent_dim: int, mean_scale: float | None, free_nats: float) -> float:
    """The least KL of any β: ½ γ² nats per dimension where μ is normalized, or the free nats if they are more.

    >>> min_kl(latent_dim=64, mean_scale=1.0, free_nats=0.0)
    32.0
    """
    least = 0.0 if mean_scale is None else 0.5 * mean_scale**2
    return latent_dim * max(least, free_nats)


def good_kl(latent_dim: int, mean_scale: float | None, free_nats: float = 0.0) -> float:
    """A target that can be met, in nats per position; where μ is not normalized, that of γ = 1.

    >>> good_kl(latent_dim=64, mean_scale=1.0)
    40.0
    """
    scale = 1.0 if mean_scale is None else mean_scale
    return GOOD_KL_OVER_MINIMUM * min_kl(latent_dim, scale, free_nats)


def refuse_unreachable_kl_target(network: NetworkConfig, training: TrainingConfig) -> None:
    """Raises InputError for a target KL at or below `min_kl`, for which β would grow until nothing is learned.

    >>> refuse_unreachable_kl_target(NetworkConfig(num_items=5, latent_dim=64), TrainingConfig(kl_target=40.0))
    """
    is_adapted = training.kl_target is not None and training.beta > 0 and training.deterministic_fraction < 1
    least = min_kl(network.latent_dim, network.mean_scale, training.free_nats)
    if not is_adapted or training.kl_target is None or training.kl_target > least:
        return
    is_gamma = network.mean_scale is not None and 0.5 * network.mean_scale**2 >= training.free_nats
    holder = f"model.mean_scale={network.mean_scale:g}" if is_gamma else f"training.free_nats={training.free_nats:g}"
    good = good_kl(network.latent_dim, network.mean_scale, training.free_nats)
    raise InputError(
        f"training.kl_target={training.kl_target:g} can never be met: {holder} with "
        f"model.latent_dim={network.latent_dim} keeps the KL at {least:g} nats per position or more, and β would "
        f"grow until nothing is learned. Allowed: more than {least:g}. Set training.kl_target={good:g}, or lower "
        f"{holder.partition('=')[0]} or model.latent_dim."
    )
