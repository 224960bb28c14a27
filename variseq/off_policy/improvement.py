"""A better policy from exposures of another: offsets of scores are fitted, chosen and compared on different people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.exposures.table import Exposures
from variseq.off_policy.evaluation import Estimate, evaluate_policies
from variseq.off_policy.list_gradient import gradient_step
from variseq.off_policy.logged import logged_lists
from variseq.off_policy.logged_pools import drawn_pools_of, pools_of
from variseq.off_policy.run_policy import RunPolicy
from variseq.off_policy.score_offsets import RankedPools, fit_offsets, log_reward_rates
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import in_list, softmax_weights

STRENGTHS = (8.0, 2.0)
CENTERS = (0.0, 0.5)
"""Shares of the logarithm of an item's own reward rate that offsets are drawn to. In two simulated shops the share 1
earned no more purchases, and lost three times as many taken items."""
CHOOSING, HELD_OUT = 0.2, 0.2
"""Shares of people on which strength and center are chosen, and on which the result is compared. For rewards of whole
lists nothing is chosen, and both shares are held out."""
MIN_REWARDS = 50
BEST = ("doubly robust", "SNIPS", "IPS", "whole-list SNIPS", "whole-list IPS")


@dataclass(frozen=True)
class Trial:
    """One strength and center, with the estimated reward of a list of those people on whom it is chosen."""

    strength: float
    center: float
    value: float


@dataclass(frozen=True, eq=False)
class Improvement:
    """What was learned, and what it is worth to people from whom nothing was learned.

    Args:
        offset: What is added to the score of each item of the catalog.
        trials: What was tried; the chosen one has the largest value. Empty for rewards of whole lists.
        base_value: The value without offsets, estimated like those of the trials; the mean reward without trials.
        num_lists: Lists to fit, to choose, and held out.
        estimate: The difference of rewards a list, with offsets minus without, on the people held out.
        base: The same people's reward a list without offsets.
        left_out: Lists that could not be used, by reason.
    """

    offset: Float[np.ndarray, " item"]
    trials: list[Trial]
    base_value: float
    num_lists: tuple[int, int, int]
    estimate: Estimate
    base: Estimate
    left_out: dict[str, int]

    @property
    def best(self) -> Trial | None:
        """The chosen trial."""
        return max(self.trials, key=lambda one: one.value, default=None)

    @property
    def is_certain(self) -> bool:
        """Whether the interval of the difference is above 0, and the diagnostics do not refuse it."""
        interval = self.estimate.interval
        return interval is not None and interval[0] > 0 and self.estimate.refusal is None


def improve(
    exposures: Exposures,
    policy: RunPolicy,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Improvement:
    """Learn offsets of scores from rewards: of items by trials, of whole lists by a step along the gradient.

    Args:
        exposures: Lists with propensities and rewards, as a server logged them.
        policy: The policy of the run that is to become better.
        seed: Divides the people.
        report: Called with how much is done and how much there is: fits, or lists where whole lists have rewards.

    Returns:
        The offsets, and their value on people who were held out.

    Raises:
        InputError: There are too few rewards, or no list can be used.
        MissingDependencyError: scipy is not installed.
    """
    lists = logged_lists(exposures)
    if (num_rewards := int((lists.exposures.reward != 0).sum())) < MIN_REWARDS:
        raise InputError(
            f"The exposures have {num_rewards:,} rewards, too few to learn from. Log more lists; thousands of rewards "
            f"are better, and {MIN_REWARDS} are the least."
        )
    left_out: Counter[str] = Counter()
    part = np.random.default_rng(seed).random(lists.num_users)[lists.user]
    num_items = policy.engine.vocabulary.num_items
    # In lists of one item the reward of the list is that of the item.
    if lists.exposures.rewards_lists and int(lists.lengths.max()) > 1:
        is_held_out = part < HELD_OUT + CHOOSING
        drawn = drawn_pools_of(policy, lists.only(~is_held_out), left_out)
        offset = gradient_step(drawn, num_items, policy.options, report)
        trials, base_value, num_lists = list[Trial](), float(drawn.reward.mean()), (len(drawn), 0)
    else:
        is_held_out, is_choosing = part < HELD_OUT, part < HELD_OUT + CHOOSING
        pools, number = pools_of(policy, lists, left_out)
        fitted, choosing = pools.lists(~is_choosing[number]), pools.lists((is_choosing & ~is_held_out)[number])
        offset, trials, base_value = offsets_by_trials(fitted, choosing, num_items, policy.options, report)
        num_lists = len(fitted), len(choosing)
    if policy.engine.model.tables.score_offset is not None:
        offset = offset + policy.engine.model.tables.score_offset
    held_out = lists.exposures.exposures(np.flatnonzero(is_held_out))
    better = replace(policy, name=f"{policy.name}, improved", engine=policy.engine.with_score_offset(offset))
    found = evaluate_policies(held_out, [better, policy], show_refused=True)
    differences = {one.estimator: one for one in found.differences[0].estimates}
    name = next(one for one in BEST if one in differences)
    base = found.policies[1].estimate(name)
    every = (*num_lists, found.num_exposures)
    return Improvement(offset, trials, base_value, every, differences[name], base, dict(left_out))


def offsets_by_trials(
    fitted: RankedPools,
    choosing: RankedPools,
    num_items: int,
    options: RecommendOptions,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Float[np.ndarray, " item"], list[Trial], float]:
    """Fit offsets with each strength and center, choose one by other lists, and fit again on all.

    Args:
        fitted: Lists to fit.
        choosing: Lists to choose by.
        num_items: Size of the catalog.
        options: Temperature and uniform_share of the softmax that lists will be drawn by.
        report: Called with the number of fits that are done and that of all.

    Returns:
        The offsets, the trials, and the value without offsets.
    """
    trials: list[Trial] = []
    rates, grid = log_reward_rates(fitted, num_items), [(one, other) for other in CENTERS for one in STRENGTHS]
    for strength, center in grid:
        report(len(trials), len(grid) + 1)
        offset = fit_offsets(fitted, num_items, options.temperature, strength, center * rates)
        trials.append(Trial(strength, center, value_of(choosing, offset, options)))
    report(len(grid), len(grid) + 1)
    best, every = max(trials, key=lambda one: one.value), fitted.joined(choosing)
    rates = log_reward_rates(every, num_items)
    offset = fit_offsets(every, num_items, options.temperature, best.strength, best.center * rates)
    report(len(grid) + 1, len(grid) + 1)
    return offset, trials, value_of(choosing, np.zeros(num_items), options)


def value_of(pools: RankedPools, offset: Float[np.ndarray, " item"], options: RecommendOptions) -> float:
    """The estimated reward of a list under offsets, by exact probabilities and the same bounded weights."""
    score = pools.moved(offset)
    order = np.argsort(-score, axis=1, kind="stable")
    total = 0.0
    # Only lists with a reward add something.
    for row in np.array_split(np.flatnonzero(pools.gain.any(axis=1)), max(1, len(pools) // 200)):
        if len(row):
            ranked = np.take_along_axis(score[row], order[row], axis=1)
            weight = softmax_weights(ranked, options.temperature, options.uniform_share, pools.num_drawn[row])
            gain = np.take_along_axis(pools.gain[row], order[row], axis=1)
            rewarded = _first_columns(gain != 0)
            found = in_list(weight, rewarded, pools.num_drawn[row])
            total += float((np.take_along_axis(gain, np.maximum(rewarded, 0), axis=1) * found).sum())
    return total / len(pools)


def _first_columns(chosen: Bool[np.ndarray, "row column"]) -> Int[np.ndarray, "row chosen"]:
    """The columns that are chosen in each row, −1 behind them."""
    count = chosen.sum(axis=1)
    order = np.argsort(~chosen, axis=1, kind="stable")[:, : int(count.max())]
    return np.where(np.arange(order.shape[1]) < count[:, None], order, -1)
