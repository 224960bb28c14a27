"""Turns values per query into means over users with percentile intervals; users are resampled, not queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Block:
    """Columns of some of the users: row i belongs to the user at `place[i]` among all, in ascending order."""

    place: Int[np.ndarray, " user"]
    columns: Float[np.ndarray, "user column"]


def resampled_sums(
    columns: Float[np.ndarray, "user column"], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "resample column"]:
    """Column sums over users drawn with replacement, `num_resamples` times.

    Sums, not means, so that ratios (a group's mean, a calibration error) can be resampled in the same draw.
    Memory is bounded: a few million weights at a time.
    """
    block = Block(np.arange(len(columns)), columns)
    return resampled_blocks({"all": block}, len(columns), num_resamples, seed)["all"]


def resampled_blocks(
    blocks: Mapping[str, Block], num_users: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Float[np.ndarray, "resample _"]]:
    """`resampled_sums` of several tables in one draw of the users, so that differences between them can be resampled.

    A table of a few users costs only as much as these.
    """
    sums = {name: np.empty((num_resamples, block.columns.shape[1])) for name, block in blocks.items()}
    first = 0
    for weights in _weights(num_users, num_resamples, seed):
        for name, block in blocks.items():
            of_users = weights if len(block.place) == num_users else weights[:, block.place]
            sums[name][first : first + len(weights)] = of_users @ block.columns
        first += len(weights)
    return sums


def _weights(num_users: int, num_resamples: int, seed: int) -> Iterator[Float[np.ndarray, "resample user"]]:
    """How often each user is drawn, some resamples at a time."""
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, _CELLS_AT_ONCE // max(1, num_users))
    for first in range(0, num_resamples, rows_at_once):
        weights = np.empty((min(rows_at_once, num_resamples - first), num_users))
        for row in range(len(weights)):
            drawn = generator.integers(num_users, size=num_users, dtype=np.int32)
            weights[row] = np.bincount(drawn, minlength=num_users)
        yield weights


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
