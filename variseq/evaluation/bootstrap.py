"""Turns values per query into means over users with percentile intervals; users are resampled, not queries."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

NUM_RESAMPLES = 2_000
_CELLS_AT_ONCE = 4_000_000


def sums_by_user(
    user: Int[np.ndarray, " query"], columns: Float[np.ndarray, "query column"]
) -> Float[np.ndarray, "user column"]:
    """Sum of each column over the queries of each user (users that occur, in ascending order)."""
    users, row = np.unique(user, return_inverse=True)
    sums = [np.bincount(row, weights=column, minlength=len(users)) for column in columns.T]
    return np.stack(sums, axis=1) if sums else np.zeros((len(users), 0))


def means_by_user(
    user: Int[np.ndarray, " query"], columns: Float[np.ndarray, "query column"]
) -> Float[np.ndarray, "user column"]:
    """Mean of each column over the queries of each user: one value per user, however many targets a user has."""
    return sums_by_user(user, columns) / np.unique(user, return_counts=True)[1][:, None]


def resampled_sums(
    columns: Float[np.ndarray, "user column"], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "resample column"]:
    """Column sums over users drawn with replacement, `num_resamples` times.

    Sums, not means, so that ratios (a group's mean, a calibration error) can be resampled in the same draw.
    Memory is bounded: a few million weights at a time.
    """
    num_users = len(columns)
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, _CELLS_AT_ONCE // max(1, num_users))
    sums = np.empty((num_resamples, columns.shape[1]))
    for first in range(0, num_resamples, rows_at_once):
        rows = range(first, min(first + rows_at_once, num_resamples))
        weights = np.empty((len(rows), num_users))
        for row in range(len(rows)):
            drawn = generator.integers(num_users, size=num_users, dtype=np.int32)
            weights[row] = np.bincount(drawn, minlength=num_users)
        sums[rows.start : rows.stop] = weights @ columns
    return sums


def resampled_blocks(
    blocks: dict[str, Float[np.ndarray, "user _"]], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Float[np.ndarray, "resample _"]]:
    """`resampled_sums` of several tables over the same users in one draw, which is what costs time."""
    sums = resampled_sums(np.concatenate(list(blocks.values()), axis=1), num_resamples, seed)
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    return dict(zip(blocks, np.split(sums, ends[:-1], axis=1), strict=True))


def percentile_interval(samples: Float[np.ndarray, " resample"], level: float = 0.95) -> tuple[float, float]:
    """The central `level` of resampled values: (low, high).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(
    user: Int[np.ndarray, " query"],
    value: Float[np.ndarray, " query"],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over users of `value` (several queries of a user are averaged first).

    >>> mean_interval(np.array([3, 3, 8]), np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    """
    means = means_by_user(user, value[:, None])
    return percentile_interval(resampled_sums(means, num_resamples, seed)[:, 0] / len(means))
