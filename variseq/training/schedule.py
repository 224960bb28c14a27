"""How far the run has come into learning rate, noise and the weight of the rate."""

from __future__ import annotations

import math

from variseq.training.settings import TrainingConfig

FINAL_LEARNING_RATE_SHARE = 0.05


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

    >>> config = TrainingConfig(deterministic_share=0.4, anneal_share=0.2)
    >>> [round(noise_share(config, progress), 3) for progress in (0.0, 0.4, 0.5, 0.6, 1.0)]
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if config.deterministic_share >= 1:
        return 0.0
    if config.anneal_share == 0:
        return float(progress >= config.deterministic_share)
    return min(1.0, max(0.0, (progress - config.deterministic_share) / config.anneal_share))
