"""Intervals and tests over users: bootstrap, paired comparison, permutation test, and Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.evaluation.evaluation import Evaluation

NUM_RESAMPLES = 2_000
NUM_PERMUTATIONS = 10_000
_CELLS_AT_ONCE = 4_000_000
_SAME = ("split_hash", "part", "num_users_evaluated", "trained_on", "k", "targets", "exclude_seen", "request_time")
_COMPARED_METRICS = ("nll", "ndcg")


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
class UserColumns:
    """Columns of some of the users: row i belongs to the user at `index[i]` among all, in ascending order."""

    index: Int[np.ndarray, " user"]
    columns: Float[np.ndarray, "user column"]


def resampled_sums(
    columns: Float[np.ndarray, "user column"], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "resample column"]:
    """Column sums over users drawn with replacement, `num_resamples` times.

    Sums, not means, so that ratios (a group's mean, a calibration error) can be resampled in the same draw.
    Memory is bounded: a few million weights at a time.
    """
    return resampled_tables([UserColumns(np.arange(len(columns)), columns)], len(columns), num_resamples, seed)[0]


def resampled_tables(
    tables: Sequence[UserColumns], num_users: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Float[np.ndarray, "resample _"]]:
    """`resampled_sums` of several tables in one draw of the users, so that differences between them can be resampled.

    A table of a few users costs only as much as these.
    """
    sums = [np.empty((num_resamples, table.columns.shape[1])) for table in tables]
    first = 0
    for weights in _weights(num_users, num_resamples, seed):
        for table, of_table in zip(tables, sums, strict=True):
            of_users = weights if len(table.index) == num_users else weights[:, table.index]
            of_table[first : first + len(weights)] = of_users @ table.columns
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
    """95 % bootstrap interval of the mean over users of `value`; several queries of a user are averaged first.

    >>> mean_interval(np.array([3, 3, 8]), np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    """
    means = means_by_user(user, value[:, None])
    return percentile_interval(resampled_sums(means, num_resamples, seed)[:, 0] / len(means))


def sign_flip_p_value(
    difference: Float[np.ndarray, " user"], num_permutations: int = NUM_PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided paired permutation test of a mean difference of 0: under it, each sign is as likely as the other.

    (1 + number of random sign patterns with |sum| at least the observed) / (1 + number of patterns), so never 0.
    Source: Phipson and Smyth, "Permutation p-values should never be zero" (2010).

    >>> sign_flip_p_value(np.zeros(5))
    1.0
    """
    moved = difference[difference != 0]  # users without a difference add nothing to either side
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, _CELLS_AT_ONCE // max(1, len(moved)))
    # Sums of the same numbers in another order differ in the last digits; those must count as equal.
    observed = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    num_extreme = 0
    for first in range(0, num_permutations, rows_at_once):
        num_rows = min(rows_at_once, num_permutations - first)
        positive = generator.integers(2, size=(num_rows, len(moved)), dtype=np.int8).astype(np.float64)
        num_extreme += int((np.abs(2 * (positive @ moved) - moved.sum()) >= observed).sum())
    return (1 + num_extreme) / (1 + num_permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the number of comparisons, in the order they came.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Comparison:
    """Two models on the same queries, paired by user.

    Attributes:
        metric: Name of the metric.
        first: Name of the first model.
        second: Name of the second model.
        difference: Mean over users of first minus second.
        interval: Its 95 % bootstrap interval.
        p_value: Two-sided sign-flip permutation test, see `sign_flip_p_value`.
        num_users: Number of users.
    """

    metric: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    num_users: int


def require_same_protocol(evaluations: Sequence[Evaluation]) -> None:
    """Raises InputError when results differ in split, part, users, training events, targets, k, or what is ranked."""
    for other in evaluations[1:]:
        first = evaluations[0]
        different = [key for key in _SAME if first.protocol.get(key) != other.protocol.get(key)]
        if different:
            values = "; ".join(f"{key}: {first.protocol.get(key)} and {other.protocol.get(key)}" for key in different)
            raise InputError(
                f"{first.model!r} and {other.model!r} were not evaluated alike ({values}). "
                "Only results of the same split, part, targets, k and training events can be compared. "
                "Evaluate both again."
            )


def compare(first: Evaluation, second: Evaluation, metric: str = "ndcg", seed: int = 0) -> Comparison:
    """Paired comparison over users: bootstrap interval of the difference, and a sign-flip permutation test.

    The interval holds the noise of the users for two given models. The noise of training seeds comes on top: a claim
    needs several seeds.

    Args:
        first: Evaluation of one model.
        second: Evaluation of another model on the same queries.
        metric: "ndcg", "recall", "mrr", "nll" or "brier".
        seed: Seed of the resamples and permutations.

    Returns:
        The difference first minus second, with interval and p-value.

    Raises:
        InputError: The two were not evaluated alike, or one of them does not have the metric.
    """
    require_same_protocol([first, second])
    per_query = np.stack([first.metric(metric) - second.metric(metric)], axis=1)
    difference = means_by_user(first.user, per_query)
    resampled = resampled_sums(difference, NUM_RESAMPLES, seed)[:, 0] / len(difference)
    return Comparison(
        metric,
        first.model,
        second.model,
        float(difference.mean()),
        percentile_interval(resampled),
        sign_flip_p_value(difference[:, 0], seed=seed),
        len(difference),
    )


def paired_differences(model: Evaluation, others: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One record for each other model and metric: `difference` is the mean over users of model minus other.

    `p_value` is that of the comparison alone, `p_value_holm` is corrected for all that are made here. A metric that one
    of the two does not have, or that is infinite for a query (NLL where repeats never happened in training), is left
    out.
    """
    compared = [
        compare(model, other, name) for other in others for name in _COMPARED_METRICS if _is_finite(name, model, other)
    ]
    corrected = holm([one.p_value for one in compared])
    return [
        {
            "model": one.first,
            "compared_with": one.second,
            "metric": f"ndcg@{model.k}" if one.metric == "ndcg" else one.metric,
            "difference": one.difference,
            "interval": list(one.interval),
            "p_value": one.p_value,
            "p_value_holm": p_value,
            "num_users": one.num_users,
        }
        for one, p_value in zip(compared, corrected, strict=True)
    ]


def _is_finite(name: str, *evaluations: Evaluation) -> bool:
    if name == "nll" and any(one.forecasts is None for one in evaluations):
        return False
    return all(bool(np.isfinite(one.metric(name)).all()) for one in evaluations)
