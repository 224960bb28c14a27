"""The pools that logged lists were drawn from, as the engine of a run ranks them, with what was logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.off_policy.list_gradient import DrawnPools
from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.run_policy import RunPolicy
from variseq.off_policy.score_offsets import MAX_WEIGHT, RankedPools
from variseq.ranking.plackett_luce import at_rank, softmax_weights

SAME_PROBABILITY = 1e-2
"""Propensities at ranks that differ by less, as a share, are of one policy."""
NO_CHOICE = "their pool has no more items than the list"
OTHER_POLICY = "the run draws with other probabilities than those that were logged"


def pools_of(
    policy: RunPolicy, lists: LoggedLists, left_out: Counter[str]
) -> tuple[RankedPools, Int[np.ndarray, " list"]]:
    """The pools of all lists whose history is proved, with what was logged at each item; and their numbers.

    Raises:
        InputError: No list can be used.
    """
    log = lists.exposures
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in _batches(policy, lists, left_out):
        reward, propensity = np.zeros(batch.item.shape), np.zeros(batch.item.shape)
        for row, (cells, column) in enumerate(zip(batch.cells, batch.column, strict=True)):
            in_pool = column >= 0
            reward[row, column[in_pool]] = log.reward[cells[in_pool]]
            propensity[row, column[in_pool]] = log.propensity_in_list[cells[in_pool]]
        parts.append((batch.item, batch.score, batch.num_drawn, reward, propensity, batch.number))
    item, score, num_drawn, reward, propensity, number = _joined(parts, (-1, -np.inf, 0, 0, 0, 0), left_out)
    shown = propensity > 0
    weight = np.minimum(np.divide(1.0, propensity, out=np.zeros_like(propensity), where=shown), MAX_WEIGHT)
    # A reward of the usual size counts as one, so that seconds and purchases are evidence alike.
    earned = reward / usual_size(reward)
    has_choice = _has_choice(item, num_drawn, left_out)
    pools = RankedPools(item, score, num_drawn, shown.astype(np.int64), earned, reward * weight)
    return pools.lists(has_choice), number[has_choice]


def drawn_pools_of(policy: RunPolicy, lists: LoggedLists, left_out: Counter[str]) -> DrawnPools:
    """The pools of all lists that the policy draws with the logged probabilities, with what each list was and earned.

    Raises:
        InputError: No list can be used.
    """
    log, options = lists.exposures, policy.options
    of_list = lists.per_exposure(log.reward)
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in _batches(policy, lists, left_out):
        index = np.full((len(batch.number), max(len(one) for one in batch.column)), -1)
        logged = np.zeros(index.shape)
        for row, (cells, column) in enumerate(zip(batch.cells, batch.column, strict=True)):
            index[row, : len(column)], logged[row, : len(column)] = column, log.propensity_at_rank[cells]
        weight = softmax_weights(batch.score, options.temperature, options.uniform_share, batch.num_drawn)
        is_same = np.isclose(at_rank(weight, index), logged, rtol=SAME_PROBABILITY, atol=0.0).all(axis=1)
        if num_others := int((~is_same).sum()):
            left_out[OTHER_POLICY] += num_others
        columns = (batch.item, batch.score, batch.num_drawn, index, of_list[batch.number])
        parts.append(tuple(one[is_same] for one in columns))
    item, score, num_drawn, index, reward = _joined(parts, (-1, -np.inf, 0, -1, 0), left_out)
    return DrawnPools(item, score, num_drawn, index, reward).lists(_has_choice(item, num_drawn, left_out))


def usual_size(reward: np.ndarray) -> float:
    """Σ r² / Σ |r|. So many times the mean is the variance of a sum of rewards that come at random (compound Poisson).

    >>> usual_size(np.array([0.0, 60.0, 60.0])), usual_size(np.zeros(3))
    (60.0, 1.0)
    """
    total = np.abs(reward).sum()
    return float((reward**2).sum() / total) if total > 0 else 1.0


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some lists.

    Args:
        number: Of each list in the log.
        item: The items of each pool, −1 where a pool is smaller.
        score: What they are ranked by.
        num_drawn: Length of each list without pinned items, before it was cut where not all of it was shown.
        cells: The rows of the log that each list has drawn.
        column: Where each of these stands in the pool, −1 where it does not.
    """

    number: Int[np.ndarray, " list"]
    item: Int[np.ndarray, "list pool"]
    score: Float[np.ndarray, "list pool"]
    num_drawn: Int[np.ndarray, " list"]
    cells: Sequence[np.ndarray]
    column: Sequence[np.ndarray]


def _batches(policy: RunPolicy, lists: LoggedLists, left_out: Counter[str]) -> Iterator[_Batch]:
    """What the run ranks at all lists whose history is proved; the rest is counted by its reason."""
    log = lists.exposures
    position = policy.positions(lists)[log.item]
    for batch, ranked in policy.ranked(lists, left_out):
        assert ranked.pool_item is not None
        assert ranked.pool_score is not None
        num_drawn, cells, columns = [], [], []
        for one, pool in zip(batch, ranked.pool_item.tolist(), strict=True):
            rows = np.arange(log.offsets[one.number], log.offsets[one.number + 1])
            drawn = rows[~log.is_pinned[rows]]
            index = {item: column for column, item in enumerate(pool) if item >= 0}
            columns.append(np.array([index.get(item, -1) for item in position[drawn].tolist()], dtype=np.int64))
            cells.append(drawn)
            num_drawn.append(one.constraints.k - (len(rows) - len(drawn)))
        score = ranked.pool_score.astype(np.float64)
        number = np.array([one.number for one in batch])
        yield _Batch(number, ranked.pool_item, score, np.array(num_drawn), cells, columns)


def _has_choice(
    item: Int[np.ndarray, "list pool"], num_drawn: Int[np.ndarray, " list"], left_out: Counter[str]
) -> Bool[np.ndarray, " list"]:
    """Whether a list takes some of its pool and not all. Raises InputError where no list does."""
    found = (num_drawn > 0) & (num_drawn < (item >= 0).sum(axis=1))
    if num_certain := int((~found).sum()):
        left_out[NO_CHOICE] += num_certain
    _refuse_none(int(found.sum()), left_out)
    return found


def _refuse_none(number: int, left_out: Counter[str]) -> None:
    if not number:
        raise InputError(f"No list can be used: {'; '.join(left_out)}.")


def _joined(
    parts: Sequence[tuple[np.ndarray, ...]], fills: Sequence[int | float], left_out: Counter[str]
) -> Sequence[np.ndarray]:
    """The columns of all parts, those of two dimensions at one width. Raises InputError where there is no part."""
    _refuse_none(len(parts), left_out)
    return [_stacked([part[column] for part in parts], fill) for column, fill in enumerate(fills)]


def _stacked(parts: Sequence[np.ndarray], fill: int | float) -> np.ndarray:
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill) for part in parts]
    return np.concatenate(padded)
