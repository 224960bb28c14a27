"""How far the run has come into learning rate, noise and the weight of the KL."""

from __future__ import annotations

import math

from variseq.training.settings import TrainingConfig

FINAL_LEARNING_RATE_SHARE = 0.05
COST_OF_ANOTHER_SAMPLE = 1 / 3
"""What each sample but the first adds to an epoch with noise: on Amazon Beauty and MIND four take twice the time."""


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine from the full rate to a twentieth of it.

    >>> [round(learning_rate(TrainingConfig(learning_rate=1.0, warmup_steps=2), s, 10), 3) for s in (0, 1, 5, 10)]
    [0.5, 0.977, 0.525, 0.05]
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / num_steps))
    return config.learning_rate * warmup * (FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * cosine)


def noise_share(config: TrainingConfig, progress: float) -> float:
    """0 in the deterministic start, then rising to 1 (Bowman et al. 2016 anneal β alone; here the noise rises with it).

    A run that is deterministic throughout has none at its very end either, where progress may pass 1 a little: epochs
    differ by a batch or two.

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
    """At the pace of an epoch whose share `done` took these seconds, if none is saved by patience.

    `epochs_later`, those of the refits, have noise from the start, except after a run that had none.

    >>> config = TrainingConfig(max_epochs=4, deterministic_fraction=0.5, num_samples=4)
    >>> [seconds_left(config, epoch, 1.0, seconds, 1) for epoch, seconds in ((0, 10.0), (1, 10.0), (2, 20.0))]
    [70.0, 60.0, 40.0]
    """
    begun, here = epoch / config.max_epochs, (epoch + done) / config.max_epochs
    later = epochs_later / config.max_epochs * _cost(config, 1.0, 2.0)
    return seconds / _cost(config, begun, here) * (_cost(config, here, 1.0) + later)


def _cost(config: TrainingConfig, begun: float, ended: float) -> float:
    """Of the part of a run between two shares of it; 1 is the whole without noise."""
    if config.deterministic_fraction >= 1:
        return ended - begun
    with_noise = ended - max(begun, min(ended, config.deterministic_fraction))
    return ended - begun + with_noise * COST_OF_ANOTHER_SAMPLE * (config.num_samples - 1)
