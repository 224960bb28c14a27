"""The doubly robust estimator where the reward of an item depends on it and on the items above it.

With r the reward at rank l, w(l) the weight of the list down to it and Q(l) a predicted sum of rewards from rank l on:

    Σ over lists and ranks of [w(l) (r(l) − Q(l)) + w(l − 1) · expected Q(l) by the target, given the items above] / n

(Kiyohara et al., 2022, "Doubly robust off-policy evaluation for ranking policies under the cascade behavior model"). It
is unbiased whatever Q is, and RIPS where Q is 0. But a bad Q makes its error several times that of RIPS. So Q counts
only as far as it lowers the variance, as in Kallus and Uehara (2019), "Intrinsically efficient, stable, and bounded
off-policy evaluation for reinforcement learning".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import ExpectedNext
from variseq.off_policy.reward_model import RewardModel, folds, mean_rewards


def fit_rewards_to_go(lists: LoggedLists, expected_next: ExpectedNext) -> list[RewardModel]:
    """A model for each rank: the sum of rewards from there on of an item at the rank, if the target draws the rest.

    The last rank is fitted first. The reward of a rank above is its own and what the model below it expects (fitted Q
    evaluation). All models of a fold are learned from people of the others. Lists count equally: with their weights,
    or the squares of these, errors were larger for most policies.

    Args:
        lists: Exposures with rewards.
        expected_next: Of the target.
    """
    log, fold = lists.exposures, folds(lists)
    below = np.zeros((log.num_exposures, int(fold.max()) + 1))
    found: list[RewardModel] = []
    for index in reversed(range(int(lists.lengths.max(initial=0)))):
        number = np.flatnonzero(lists.lengths > index)
        row = log.offsets[number] + index
        predicted = mean_rewards(lists, row, np.ones(len(row)), log.reward[row, None] + below[number])
        below = _expected(lists, expected_next, predicted, index)
        found.append(RewardModel(fold, predicted))
    return found[::-1]


def cascade_doubly_robust(
    lists: LoggedLists,
    expected_next: ExpectedNext,
    weight: Float[np.ndarray, " row"],
    to_go: Sequence[RewardModel],
) -> Float[np.ndarray, " exposure"]:
    """What each list adds to the estimator.

    Args:
        lists: Exposures with rewards.
        expected_next: Of the target.
        weight: Of each list down to the row.
        to_go: For each rank a model of the rewards from there on.
    """
    log = lists.exposures
    found = np.zeros(log.num_exposures)
    for index, model in enumerate(to_go):
        number = np.flatnonzero(lists.lengths > index)
        row, fold = log.offsets[number] + index, model.fold[number]
        before = weight[row - 1] if index else 1.0
        expected = _expected(lists, expected_next, model.predicted, index)[number, fold]
        found[number] += weight[row] * (log.reward[row] - model.predicted[fold, log.item[row]]) + before * expected
    return found


def with_least_variance(
    lists: LoggedLists, plain: Float[np.ndarray, " exposure"], doubly_robust: Float[np.ndarray, " exposure"]
) -> Float[np.ndarray, " exposure"]:
    """plain + c (doubly robust − plain), with the c from 0 to 1 of the smallest variance over people.

    What is added has the mean 0 whatever c is: it is a control variate. As c is fitted to the same lists, the bias is
    of the order of 1 / the number of people.

    Args:
        lists: Exposures.
        plain: What each list adds to an unbiased estimator.
        doubly_robust: The same for another one.
    """
    added = doubly_robust - plain
    num, of_plain, of_added = (
        np.bincount(lists.user, weights=one, minlength=lists.num_users) for one in (np.ones_like(plain), plain, added)
    )
    # The deviations of people from the mean of all lists.
    of_plain, of_added = (one - num * one.sum() / num.sum() for one in (of_plain, of_added))
    spread = float(of_added @ of_added)
    share = min(max(-float(of_plain @ of_added) / spread, 0.0), 1.0) if spread > 0 else 0.0
    return plain + share * added


def _expected(
    lists: LoggedLists, expected_next: ExpectedNext, predicted: Float[np.ndarray, "fold item"], index: int
) -> Float[np.ndarray, "exposure fold"]:
    """What the target expects at a rank: of a pinned item its own, and 0 where the list has ended."""
    log, found = lists.exposures, expected_next(predicted, index)
    row = np.minimum(log.offsets[:-1] + index, len(log.item) - 1)
    found = np.where(log.is_pinned[row, None], predicted[:, log.item[row]].T, found)
    return np.where(lists.lengths[:, None] > index, found, 0.0)
