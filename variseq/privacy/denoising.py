"""The mean of each true count given its noisy one, when the noise is known and most counts are nearly zero."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

NUM_STRATA = 24
TOP_STRATA = (0.97, 0.98, 0.99, 0.995, 0.998, 0.9995)
"""Quantiles of the expected count where strata begin, besides equal shares: large counts are rare."""
LOWEST, HIGHEST, STEP = -6.0, 12.0, 0.02
"""Noisy counts, in standard deviations, fall into bins; above `HIGHEST` the noise changes little and they stay."""
_SAMPLED = 400_000
_ITERATIONS = 60


def posterior_means(
    noisy: Float[np.ndarray, " cell"], expected: Float[np.ndarray, " cell"]
) -> Float[np.ndarray, " cell"]:
    """Estimates of counts that were released with normal noise.

    Cells with about the same expected count form a stratum. The distribution of the true counts of a stratum is the one
    that makes its noisy counts most likely, on a grid of non-negative values (nonparametric maximum likelihood by EM);
    the estimate is the posterior mean. It uses noisy counts alone, so it costs no privacy.
    Source: Efron 2014, "Two modeling strategies for empirical Bayes estimation"; Laird 1978 for the EM steps.

    Args:
        noisy: Noisy counts over the standard deviation of their noise.
        expected: What each count is expected to be about, in any unit; it decides the strata only.

    Returns:
        Estimates in the unit of `noisy`, none negative.
    """
    edges = _edges(expected)
    num_bins = round((HIGHEST - LOWEST) / STEP)
    stratum = np.searchsorted(edges, expected)
    index = np.clip((noisy - LOWEST) / STEP, 0, num_bins - 1).astype(np.int64)
    cell = stratum * num_bins + index
    histogram = np.bincount(cell, minlength=(len(edges) + 1) * num_bins).reshape(-1, num_bins)
    means = np.stack([_means_of_bins(counts) for counts in histogram])
    estimates: Float[np.ndarray, " cell"] = np.where(noisy > HIGHEST, noisy, means.ravel()[cell])
    return estimates


def _edges(expected: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " edge"]:
    """Where strata begin: quantiles of the expected counts, or of a sample of them."""
    chosen = expected
    if len(expected) > _SAMPLED:
        chosen = expected[np.random.default_rng(0).integers(0, len(expected), _SAMPLED)]
    shares = [*np.linspace(0, 1, NUM_STRATA + 1)[1:-1], *TOP_STRATA]
    return np.unique(np.quantile(chosen, sorted(shares))) if len(chosen) else np.zeros(0)


def _means_of_bins(counts: Int[np.ndarray, " bin"]) -> Float[np.ndarray, " bin"]:
    """The posterior mean of the true count for each bin of noisy counts; 0 where no cell is."""
    means, filled = np.zeros(len(counts)), np.flatnonzero(counts)
    if not len(filled):
        return means
    middle = LOWEST + STEP * (filled + 0.5)
    values = np.concatenate([[0.0], np.geomspace(0.02, HIGHEST + 2, 60)])
    likelihood = np.exp(-0.5 * (middle[:, None] - values) ** 2)
    prior = np.full(len(values), 1 / len(values))
    share = counts[filled] / counts.sum()
    for _ in range(_ITERATIONS):
        prior *= share @ (likelihood / np.maximum(likelihood @ prior, 1e-300)[:, None])
    weight = likelihood * prior
    means[filled] = (weight @ values) / np.maximum(weight.sum(axis=1), 1e-300)
    return means
