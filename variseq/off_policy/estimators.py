"""Estimators of what a policy is worth, all as ratios of two sums over people, so that people can be resampled.

Value is the expected sum of rewards of a list. With y the reward of a row, w its weight, q its predicted reward and n
the number of lists:

    IPS                Σ w y / n; unbiased where the reward of an item does not depend on the rest of its list
    SNIPS              Σ w y / Σ (mean w of a list): the mean weight cancels
    doubly robust      Σ [expected q under the target + Σ w (y − q)] / n (Dudík, Langford and Li, 2011)
    direct method      Σ expected q under the target / n: has the bias of q, so it has no interval
    RIPS               Σ w y / n with the weight of the list down to the row: a reward may depend on what stands above
                       it (McInerney et al., 2020)
    cascade doubly     RIPS for what a model of the rewards from each rank on does not explain, as far as this lowers
    robust             the variance; see `cascade`
    whole-list IPS     Σ w y / n with the weight of the whole list: a reward may depend on all of it
    whole-list SNIPS   Σ w y / Σ w, the same over the sum of weights; for rewards of whole lists

The first four have the weight of an item to be in the list (the item-position model of Li et al., 2018, without ranks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from variseq.off_policy.cascade import cascade_doubly_robust, fit_rewards_to_go, with_least_variance
from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import ExpectedRewards, TargetProbabilities
from variseq.off_policy.reward_model import RewardModel, fit_reward_model
from variseq.off_policy.weights import Kind, Weights


@dataclass(frozen=True)
class Estimator:
    """A ratio of sums over people.

    Args:
        name: Names it in tables.
        kind: The weights that it rests on; None: none, so it has no interval.
        numerator: A column of `sums_of`.
        denominator: Another one.
    """

    name: str
    kind: Kind | None
    numerator: str
    denominator: str = "num_lists"


ON_POLICY = Estimator("on-policy mean", None, "reward")
IPS = Estimator("IPS", "item", "ips")
RIPS = Estimator("RIPS", "cascade", "rips")
WHOLE_LIST = Estimator("whole-list IPS", "whole list", "whole_list")
WHOLE_LIST_SNIPS = Estimator("whole-list SNIPS", "whole list", "whole_list", "list_weight")
ESTIMATORS = (
    IPS,
    Estimator("SNIPS", "item", "ips", "mean_weight"),
    Estimator("doubly robust", "item", "doubly_robust"),
    Estimator("direct method", None, "expected"),
    RIPS,
    Estimator("cascade doubly robust", "cascade", "cascade_doubly_robust"),
    WHOLE_LIST,
)
Columns = dict[str, Float[np.ndarray, " user"]]


def sums_of(lists: LoggedLists, target: TargetProbabilities, weights: Sequence[Weights]) -> Columns:
    """Sums over the lists of each person, by name; those that cannot be known are not there.

    The reward model of the doubly robust estimator is fitted with squared weights, which makes its variance small
    ("more robust doubly robust", Farajtabar, Chow and Ghavamzadeh, 2018). With equal weights its error was 1.2 times
    that of IPS for a policy of another model, where it is 1.0 times with these. That of the direct method has equal
    weights, so that it does not rest on propensities.
    """
    log = lists.exposures
    found = {"num_lists": np.ones(log.num_exposures), "reward": lists.per_exposure(log.reward)}
    names = {"item": "ips", "cascade": "rips", "whole list": "whole_list"}
    for one in weights:
        found[names[one.kind]] = lists.per_exposure(one.row * log.reward)
        if one.kind == "whole list":
            found["list_weight"] = lists.per_exposure(one.row) / np.maximum(lists.lengths, 1) + (lists.lengths == 0)
    item = weights[0].row
    # A list without items has the weight 1.
    has_items, sums = lists.lengths > 0, lists.per_exposure(item)
    found["mean_weight"] = np.where(has_items, sums / np.maximum(lists.lengths, 1), 1.0)
    if target.expected is not None:
        rewards = fit_reward_model(lists, np.ones_like(item))
        found["expected"] = target.expected(rewards.predicted, rewards.fold)
        found["doubly_robust"] = doubly_robust(lists, target.expected, item, fit_reward_model(lists, item**2))
    if target.expected_next is not None and (cascade := [one.row for one in weights if one.kind == "cascade"]):
        to_go = fit_rewards_to_go(lists, target.expected_next)
        whole = cascade_doubly_robust(lists, target.expected_next, cascade[0], to_go)
        found["cascade_doubly_robust"] = with_least_variance(lists, found["rips"], whole)
    return {name: np.bincount(lists.user, weights=one, minlength=lists.num_users) for name, one in found.items()}


def doubly_robust(
    lists: LoggedLists, expected: ExpectedRewards, weight: Float[np.ndarray, " row"], rewards: RewardModel
) -> Float[np.ndarray, " exposure"]:
    """What each list adds to the doubly robust estimator with this reward model."""
    residual = lists.per_exposure(weight * (lists.exposures.reward - rewards.of_rows(lists)))
    return expected(rewards.predicted, rewards.fold) + residual
