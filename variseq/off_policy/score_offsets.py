"""Offsets of items' scores that raise the expected reward of drawn lists, learned from exposures with propensities.

The estimate of what offsets θ are worth is that of inverse propensity scores, with the probability of an item to be in
the list as in the top-K correction of Chen et al. (2019), "Top-K off-policy correction for a REINFORCE recommender
system": Σ r · min(1/ρ, c) · P_θ(item in list) over what was listed, with rewards r and propensities ρ. A ridge term
keeps the policy near the one that has been learned from events.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import MissingDependencyError

MAX_WEIGHT = 10.0
"""The largest inverse propensity, which bounds what one reward can change."""
NEWTON_STEPS = 10
LISTS_AT_ONCE = 10_000
MAX_ITERATIONS = 40
RATE_STRENGTHS = (0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 1e9)
"""Numbers of expected rewards that the mean rate counts for; the last one makes all items equal."""


SomePools = TypeVar("SomePools", bound="Pools")


@dataclass(frozen=True, eq=False)
class Pools:
    """The items that lists were drawn from, with their scores.

    Args:
        item: The items of each pool, −1 where a pool is smaller.
        score: What they are ranked by, without offsets; −inf where there is none.
        num_drawn: Length of each list without pinned items.
    """

    item: Int[np.ndarray, "list pool"]
    score: Float[np.ndarray, "list pool"]
    num_drawn: Int[np.ndarray, " list"]

    def __len__(self) -> int:
        return len(self.item)

    def lists(self: SomePools, chosen: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " list"] | slice) -> SomePools:
        """Some of the lists."""
        return type(self)(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def moved(self, offset: Float[np.ndarray, " item"]) -> Float[np.ndarray, "list pool"]:
        """The scores with the offsets of their items."""
        return np.where(self.item >= 0, self.score + offset[np.maximum(self.item, 0)], -np.inf)


@dataclass(frozen=True, eq=False)
class RankedPools(Pools):
    """Pools, and what was logged at each of their items.

    Args:
        num_shown: How often each item was in the logged list: 0 or 1, or more for lists of one pool that are summed.
        reward: What it earned there, in numbers of rewards of the usual size.
        gain: Σ reward · min(1/ρ, c).
    """

    num_shown: Int[np.ndarray, "list pool"]
    reward: Float[np.ndarray, "list pool"]
    gain: Float[np.ndarray, "list pool"]

    def joined(self, other: RankedPools) -> RankedPools:
        """These lists and others, with pools of one size."""
        return RankedPools(
            *(np.concatenate([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self))
        )


def smooth_inclusion(
    score: Float[np.ndarray, "list pool"], temperature: float, num_drawn: Int[np.ndarray, " list"]
) -> tuple[Float[np.ndarray, "list pool"], Float[np.ndarray, "list pool"]]:
    """The probability of each item to be in a drawn list, nearly, and its slope.

    Items come at exponential times with rates exp(score / temperature). A list holds about what has come by the time at
    which k items are expected: 1 − exp(−rate · time). That is off by a few hundredths, and has a simple derivative.

    Args:
        score: What items are ranked by; −inf where there is none.
        temperature: Of the softmax.
        num_drawn: Lengths of the lists, less than the number of items.

    Returns:
        The probabilities, which sum to the length of the list; and exp(−rate · time) · rate · time, by which a change
        of the score of one item moves them.
    """
    rate = np.exp((score - score.max(axis=1, keepdims=True)) / temperature)
    wanted = num_drawn[:, None].astype(np.float64)
    # At about the time of the k-th item the sum rises.
    ordered = -np.partition(-rate, np.unique(num_drawn) - 1, axis=1)
    log_time = -np.log(np.take_along_axis(ordered, num_drawn[:, None] - 1, axis=1))
    for _ in range(NEWTON_STEPS):
        come = rate * np.exp(log_time)
        left = np.exp(-come)
        missing = wanted - (1 - left).sum(axis=1, keepdims=True)
        log_time += np.clip(missing / np.maximum((come * left).sum(axis=1, keepdims=True), 1e-9), -1.0, 1.0)
    come = rate * np.exp(log_time)
    left = np.exp(-come)
    return 1 - left, come * left


def expected_gain(
    pools: RankedPools, offset: Float[np.ndarray, " item"], temperature: float
) -> tuple[float, Float[np.ndarray, " item"]]:
    """The mean estimated reward of a list under some offsets, and its gradient."""
    value, gradient = 0.0, np.zeros(len(offset))
    for first in range(0, len(pools), LISTS_AT_ONCE):
        part = pools.lists(slice(first, first + LISTS_AT_ONCE))
        is_there = part.item >= 0
        included, slope = smooth_inclusion(part.moved(offset), temperature, part.num_drawn)
        value += float((part.gain * included).sum())
        # What one item gains in probability the others lose, in proportion to their slopes.
        mean = (part.gain * slope).sum(axis=1, keepdims=True) / np.maximum(slope.sum(axis=1, keepdims=True), 1e-12)
        of_cells = (slope * (part.gain - mean) / temperature)[is_there]
        gradient += np.bincount(part.item[is_there], of_cells, len(offset))
    return value / len(pools), gradient / len(pools)


def fit_offsets(
    pools: RankedPools,
    num_items: int,
    temperature: float,
    strength: float,
    center: Float[np.ndarray, " item"],
) -> Float[np.ndarray, " item"]:
    """The offsets with the largest estimated reward minus a ridge term.

    Args:
        pools: Exposures to learn from.
        num_items: Size of the catalog.
        temperature: Of the softmax that lists will be drawn by.
        strength: Of the ridge term strength · reward · Σ (θ − center)² / (2 · num_items), with the estimated reward of
            a list without offsets as its unit, whatever its sign.
        center: Where offsets are without evidence.

    Returns:
        An offset for each item of the catalog, their center for items that no pool has.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingDependencyError("scipy", "train") from error
    unit = abs(expected_gain(pools, np.zeros(num_items), temperature)[0])
    if unit == 0:
        return center
    ridge = strength / num_items

    def loss(offset: Float[np.ndarray, " item"]) -> tuple[float, Float[np.ndarray, " item"]]:
        value, gradient = expected_gain(pools, offset, temperature)
        away = offset - center
        return ridge / 2 * float(away @ away) - value / unit, ridge * away - gradient / unit

    found = minimize(
        loss,
        center,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS},
    )
    return np.asarray(found.x, dtype=np.float64)


def log_reward_rates(pools: RankedPools, num_items: int) -> Float[np.ndarray, " item"]:
    """The logarithm of the reward of each item over that expected of its probability, around a mean of 0.

    Rates have a gamma distribution over items, whose strength makes the rewards most likely (empirical Bayes; Robbins,
    1956). An item that was shown little has nearly the mean rate.

    Args:
        pools: Their scores are log p, and boosts. An item whose rewards sum to less than 0 counts as one without.
        num_items: Size of the catalog.
    """
    try:
        from scipy.special import gammaln
    except ImportError as error:
        raise MissingDependencyError("scipy", "train") from error
    shown = pools.num_shown > 0
    item = pools.item[shown]
    expected = np.bincount(item, pools.num_shown[shown] * np.exp(pools.score[shown]), num_items)
    rewarded = np.maximum(np.bincount(item, pools.reward[shown], num_items), 0.0)
    mean = rewarded.sum() / max(expected.sum(), np.finfo(np.float64).tiny)
    if mean <= 0:
        return np.zeros(num_items)
    # In units of the mean, so that rewards may have any unit.
    expected = expected * mean

    def likelihood(strength: float) -> float:
        shape = rewarded + strength
        terms = gammaln(shape) - gammaln(strength) + strength * np.log(strength) - shape * np.log(strength + expected)
        return float(terms.sum())

    strength = max(RATE_STRENGTHS, key=likelihood)
    rate = np.log((rewarded + strength) / (expected + strength))
    return np.asarray(rate - np.average(rate, weights=expected))
