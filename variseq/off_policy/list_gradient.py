"""Offsets of scores for rewards of whole lists: a step along the gradient of what drawn lists earn.

No single item has earned such a reward, so the fit of `score_offsets` has nothing to rest on. Let lists be tilted: the
list L gets a probability in proportion to P(L) · exp(sum of θ over its items). At θ = 0 the gradient of its expected
reward is exactly the mean over logged lists of (reward − baseline) · (1 if the item is listed − its propensity). That
holds for any reward of a list, and needs no inverse propensities (REINFORCE; Williams, 1992, "Simple statistical
gradient-following algorithms"). As in the top-K correction of Chen et al. (2019), it is the place in the list that
counts, not the rank: the gradient of ordered lists has the noise of their order.

How far to go is bounded by what can be judged. Whole lists have extreme weights, and the step is the largest one at
which their effective sample is half of the lists: a trust region (Schulman et al., 2015, "Trust region policy
optimization").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.off_policy.score_offsets import Pools
from variseq.off_policy.weights import effective_sample
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import at_rank, in_list, softmax_weights

EFFECTIVE_SHARE = 0.5
"""Effective sample of whole lists over their number at the end of the step. In two simulated shops, a share of 0.8
earned half as much, and the comparison on other people was a little more certain."""
LISTS_AT_ONCE, WEIGHTS_AT_ONCE = 16, 5_000
"""Lists whose probabilities are computed together; those to be in a list take a few megabytes each."""
FIRST_STEP, LARGEST_STEP, NUM_HALVINGS = 0.01, 10.0, 8
"""Root mean squares of offsets: the first that is tried, and where the search ends; then how often it is halved."""
Report = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class DrawnPools(Pools):
    """The pools that lists were drawn from, best first, and what each list was and earned.

    Args:
        index: Where the drawn items of each list stand in its pool, in the order of their ranks; −1 behind them.
        reward: Of each list.
    """

    index: Int[np.ndarray, "list k"]
    reward: Float[np.ndarray, " list"]

    def weights(
        self, options: RecommendOptions, offset: Float[np.ndarray, " item"] | None = None
    ) -> Float[np.ndarray, "list pool"]:
        """What lists are drawn by under offsets, in the order of the pools."""
        if offset is None:
            return softmax_weights(self.score, options.temperature, options.uniform_share, self.num_drawn)
        moved = self.moved(offset)
        order = np.argsort(-moved, axis=1, kind="stable")
        ranked = np.take_along_axis(moved, order, axis=1)
        found = np.empty_like(ranked)
        weight = softmax_weights(ranked, options.temperature, options.uniform_share, self.num_drawn)
        np.put_along_axis(found, order, weight, axis=1)
        return found

    def log_probability(
        self, options: RecommendOptions, offset: Float[np.ndarray, " item"] | None = None
    ) -> Float[np.ndarray, " list"]:
        """The log probability of each list under offsets."""
        found = []
        for first in range(0, len(self), WEIGHTS_AT_ONCE):
            part = self.lists(slice(first, first + WEIGHTS_AT_ONCE))
            chance = np.where(part.index >= 0, at_rank(part.weights(options, offset), part.index), 1.0)
            found.append(np.log(np.maximum(chance, np.finfo(float).tiny)).sum(axis=1))
        return np.concatenate(found)


def inclusion(
    pools: DrawnPools, options: RecommendOptions, report: Report = lambda done, total: None
) -> Float[np.ndarray, "list pool"]:
    """The probability of each item of the pools to be in the list, up to the rank where the list ends."""
    found, length = np.zeros(pools.item.shape), (pools.index >= 0).sum(axis=1)
    everything = np.where(pools.item >= 0, np.arange(pools.item.shape[1]), -1)
    for first in range(0, len(pools), LISTS_AT_ONCE):
        rows = slice(first, first + LISTS_AT_ONCE)
        found[rows] = in_list(pools.lists(rows).weights(options), everything[rows], np.maximum(length[rows], 1))
        report(min(first + LISTS_AT_ONCE, len(pools)), len(pools))
    return found


def reward_gradient(
    pools: DrawnPools, included: Float[np.ndarray, "list pool"], num_items: int
) -> Float[np.ndarray, " item"]:
    """The gradient of the expected reward of a list in tilts of its items. The baseline is the mean reward.

    Args:
        pools: Lists that were drawn.
        included: Their `inclusion`.
        num_items: Size of the catalog.

    Returns:
        In units of rewards, 0 for items that no pool has.
    """
    away, is_there = -included, pools.item >= 0
    row, rank = np.nonzero(pools.index >= 0)
    away[row, pools.index[row, rank]] += 1.0
    away *= (pools.reward - pools.reward.mean())[:, None]
    return np.bincount(pools.item[is_there], away[is_there], num_items) / len(pools)


def effective_share(
    pools: DrawnPools,
    before: Float[np.ndarray, " list"],
    offset: Float[np.ndarray, " item"],
    options: RecommendOptions,
) -> float:
    """The effective sample of whole lists under offsets over their number; `before` has log probabilities without."""
    return effective_sample(np.exp(pools.log_probability(options, offset) - before)) / len(pools)


def largest_step(
    pools: DrawnPools, direction: Float[np.ndarray, " item"], options: RecommendOptions
) -> Float[np.ndarray, " item"]:
    """Offsets in a direction, about as far as the effective share is `EFFECTIVE_SHARE` or more."""
    size = float(np.sqrt((direction**2).sum() / max(np.count_nonzero(direction), 1)))
    if size == 0:
        return np.zeros_like(direction)
    unit, before = direction / size, pools.log_probability(options)

    def is_allowed(step: float) -> bool:
        return effective_share(pools, before, step * unit, options) >= EFFECTIVE_SHARE

    low, high = 0.0, FIRST_STEP
    while high < LARGEST_STEP and is_allowed(high):
        low, high = high, 2 * high
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_allowed(middle) else (low, middle)
    return low * unit


def gradient_step(
    pools: DrawnPools, num_items: int, options: RecommendOptions, report: Report = lambda done, total: None
) -> Float[np.ndarray, " item"]:
    """Offsets along the gradient of the reward, as far as the trust region allows.

    Args:
        pools: Lists that were drawn by these scores and options.
        num_items: Size of the catalog.
        options: Temperature and uniform_share of the softmax.
        report: Called with the number of lists that are done and that of all.

    Returns:
        An offset for each item, 0 for those that no pool has.
    """
    return largest_step(pools, reward_gradient(pools, inclusion(pools, options, report), num_items), options)
