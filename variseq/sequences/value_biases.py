"""What is counted of values: the bias of each item, and the running bias of a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.histories import Histories

SWEEPS = 5
SMALLEST_PRIOR, LARGEST_PRIOR = 1e-3, 1e6
HALF_LIVES = (60.0, 300.0, 3_600.0, 86_400.0, 2_592_000.0, float("inf"))
PRIORS = (1.0, 3.0, 10.0)
QUERIES_IN_TRAINING = 5_000


def two_values(values: Float[np.ndarray, " value"]) -> tuple[float, float] | None:
    """The smaller and the larger value where there are exactly two different ones; NaN is none.

    >>> two_values(np.array([1.0, 0.0, np.nan, 1.0])), two_values(np.array([1.0, 2.0, 3.0]))
    ((0.0, 1.0), None)
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    least, largest = values.min(), values.max()
    is_either = least < largest and bool(((values == least) | (values == largest)).all())
    return (float(least), float(largest)) if is_either else None


@dataclass(frozen=True, eq=False)
class ValueBiases:
    """value ≈ mean + the item's bias + the user's bias, each shrunk toward 0 as some events with bias 0 would do it.

    Attributes:
        mean: Mean of all values.
        item_mean: What the mean value of each item is above the mean.
        item: The same of what the users' biases leave; 0 where none of its events has a value.
        count: How many events with a value each item has.
        user_prior: For how many events the prior of a user counts.
    """

    mean: float
    item_mean: Float[np.ndarray, " item"]
    item: Float[np.ndarray, " item"]
    count: Int[np.ndarray, " item"]
    user_prior: float

    @classmethod
    def of(cls, histories: Histories, num_items: int) -> ValueBiases:
        """Count the biases of items and of users by turns, each in what the other leaves of the values.

        The prior of items (users) is the variance inside them over that between them, estimated by moments (empirical
        Bayes; Efron and Morris 1975).
        """
        known = np.isfinite(histories.value)
        user = np.repeat(np.arange(len(histories)), histories.lengths)[known]
        item, value = histories.item[known].astype(np.int64), histories.value[known].astype(np.float64)
        mean = float(value.mean()) if len(value) else 0.0
        of_item, _ = item_mean, _ = _shrunk_means(value - mean, item, num_items)
        for _ in range(SWEEPS):
            of_user, user_prior = _shrunk_means(value - mean - of_item[item], user, len(histories))
            of_item, _ = _shrunk_means(value - mean - of_user[user], item, num_items)
        return cls(mean, item_mean, of_item, np.bincount(item, minlength=num_items), user_prior)

    def residual(self, histories: Histories) -> Float[np.ndarray, " event"]:
        """What mean and item bias leave of the value of each event; NaN where it has none."""
        left: Float[np.ndarray, " event"] = histories.value - self.mean - self.item[histories.item]
        return left


def _shrunk_means(
    value: Float[np.ndarray, " event"], group: Int[np.ndarray, " event"], num_groups: int
) -> tuple[Float[np.ndarray, " group"], float]:
    """The shrunk mean of each group, and the prior in events (one-way random effects)."""
    count, total = np.bincount(group, minlength=num_groups), np.bincount(group, value, minlength=num_groups)
    mean, num_used = total / np.maximum(count, 1), int(np.count_nonzero(count))
    inside = float(np.square(value - mean[group]).sum()) / max(1, len(value) - num_used)
    spread = float((count * np.square(mean)).sum()) - inside * num_used
    between = spread / max(1.0, len(value) - float(np.square(count).sum()) / max(1, len(value)))
    prior = float(np.clip(inside / between, SMALLEST_PRIOR, LARGEST_PRIOR)) if between > 0 else LARGEST_PRIOR
    return total / (count + prior), prior


def running_bias(
    histories: Histories, residual: Float[np.ndarray, " event"], half_life: float, prior: float
) -> Float[np.ndarray, " history"]:
    """Mean of the residuals before the last event of each history, each halved per `half_life` seconds until then.

    It is shrunk as `prior` events with residual 0 would do it. The last event itself has no part in it.

    >>> histories = Histories.of_items([[4, 7, 1]])  # a second apart
    >>> running_bias(histories, np.array([2.0, 4.0, 9.0]), half_life=1.0, prior=0.25)
    array([2.5])
    """
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    last = histories.offsets[1:] - 1
    ago = (histories.timestamp[last][row] - histories.timestamp) / MICROSECONDS_PER_SECOND
    weight = np.exp2(-ago / half_life) * np.isfinite(residual)
    weight[last[histories.lengths > 0]] = 0.0
    total, mass = (
        np.bincount(row, weights=column, minlength=len(histories))
        for column in (weight * np.nan_to_num(residual), weight)
    )
    bias: Float[np.ndarray, " history"] = total / (mass + prior)
    return bias


def best_half_life(histories: Histories, biases: ValueBiases, of_last: bool) -> tuple[float, float]:
    """The half-life and prior whose forecasts of events, each from those before it, have the least squared error.

    The events are the last ones of the histories, or any; a random sample of them.
    """
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    is_queried = np.isfinite(histories.value)
    if of_last:
        is_queried &= np.arange(histories.num_events) + 1 == histories.offsets[1:][row]
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(is_queried))[:QUERIES_IN_TRAINING]
    queried = histories.select(histories.offsets[:-1][row[chosen]], chosen + 1)
    residual, wanted = biases.residual(queried), biases.residual(histories)[chosen]

    def error(pair: tuple[float, float]) -> float:
        return float(np.square(wanted - running_bias(queried, residual, *pair)).sum())

    return min(((half_life, prior) for half_life in HALF_LIVES for prior in PRIORS), key=error)
