"""The fixed noise of posterior samples, in NumPy, so that a server needs no torch for it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def antithetic_noise(
    num_samples: int, max_seq_len: int, latent_dim: int, seed: int = 0
) -> Float[np.ndarray, "sample position latent"]:
    """ε of z = μ + σ ⊙ ε for each sample and position, counted back from the latest event; the same for all histories.

    With fixed noise a history gets the same answer in every batch. Samples come in pairs of opposite sign, so that
    their mean is the posterior mean (antithetic variates, Hammersley and Morton 1956); of an odd number the last has no
    pair. No sample means the posterior mean alone.

    >>> noise = antithetic_noise(2, max_seq_len=3, latent_dim=4)
    >>> noise.shape, np.array_equal(noise[0], -noise[1])
    ((2, 3, 4), True)
    """
    if num_samples == 0:
        return np.zeros((1, max_seq_len, latent_dim), dtype=np.float32)
    generator = np.random.default_rng(seed)
    half = generator.standard_normal(((num_samples + 1) // 2, max_seq_len, latent_dim), dtype=np.float32)
    return np.concatenate([half, -half])[:num_samples]
