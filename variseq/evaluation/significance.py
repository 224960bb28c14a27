"""Compares two evaluations of the same queries: difference, interval and p-value over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from variseq.errors import InputError
from variseq.evaluation.bootstrap import NUM_RESAMPLES, means_by_user, percentile_interval, resampled_sums
from variseq.evaluation.evaluation import Evaluation

NUM_PERMUTATIONS = 10_000
_CELLS_AT_ONCE = 4_000_000
_SAME = ("split_hash", "part", "learned_from", "k", "targets", "exclude_seen")


@dataclass(frozen=True)
class Comparison:
    """`difference` is the mean over users of first minus second; `interval` its 95 % bootstrap interval."""

    metric: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    num_users: int


def require_same_protocol(evaluations: Sequence[Evaluation]) -> None:
    """Raises InputError when results differ in split, part, what was learned from, targets, k or candidates."""
    for other in evaluations[1:]:
        first = evaluations[0]
        different = [key for key in _SAME if first.protocol.get(key) != other.protocol.get(key)]
        if different:
            values = "; ".join(f"{key}: {first.protocol.get(key)} and {other.protocol.get(key)}" for key in different)
            raise InputError(
                f"{first.model!r} and {other.model!r} were not measured alike ({values}). "
                "Only results of the same split, part, targets and k, learned from the same events, can be compared: "
                "evaluate both again."
            )


def compare(
    first: Evaluation,
    second: Evaluation,
    metric: str = "ndcg",
    seed: int = 0,
) -> Comparison:
    """Paired comparison over users: bootstrap interval of the difference, and a sign-flip permutation test.

    This is the noise of the users for two given models. The noise of training seeds comes on top: a claim needs
    several seeds.

    Raises InputError when the two were not measured alike, or `metric` is unknown or needs probabilities that one
    of the two does not give.
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
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        corrected[place] = largest
    return corrected
