"""A simple model of rewards: what an item earns when it is shown, learned from other people than it predicts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.off_policy.logged import LoggedLists

NUM_FOLDS = 5


@dataclass(frozen=True, eq=False)
class RewardModel:
    """Predicted rewards of items.

    Args:
        fold: The part of the people that each exposure belongs to.
        predicted: Reward of each item in a list, learned from all people but those of the fold.
    """

    fold: Int[np.ndarray, " exposure"]
    predicted: Float[np.ndarray, "fold item"]

    def of_rows(self, lists: LoggedLists) -> Float[np.ndarray, " row"]:
        """The predicted reward of each row."""
        return self.predicted[self.fold[lists.exposures.row_exposure], lists.exposures.item]


def fit_reward_model(lists: LoggedLists, weight: Float[np.ndarray, " row"]) -> RewardModel:
    """Weighted mean rewards of items, drawn to the mean of all items the more, the fewer rows an item has.

    The strength of this is the ratio of the variance within items to that between them (empirical Bayes). People are
    dealt to five folds in the order of the log. Who is predicted for has not been learned from (cross-fitting).

    Args:
        lists: Exposures with rewards.
        weight: How much each row counts; not negative.
    """
    log, fold = lists.exposures, folds(lists)
    reward = np.broadcast_to(log.reward[:, None], (len(log.item), int(fold.max()) + 1))
    return RewardModel(fold, mean_rewards(lists, np.arange(len(log.item)), weight, reward))


def folds(lists: LoggedLists) -> Int[np.ndarray, " exposure"]:
    """The part of the people that each exposure belongs to."""
    return lists.user % min(NUM_FOLDS, lists.num_users)


def mean_rewards(
    lists: LoggedLists,
    rows: Int[np.ndarray, " chosen"],
    weight: Float[np.ndarray, " chosen"],
    reward: Float[np.ndarray, "chosen fold"],
) -> Float[np.ndarray, "fold item"]:
    """For each fold the shrunk mean rewards of items in some rows of all people but those of the fold.

    Args:
        lists: Where the rows are.
        rows: Their numbers.
        weight: How much each of them counts; not negative.
        reward: Of each of them, as it is for the model of each fold.
    """
    item, fold = lists.exposures.item[rows], folds(lists)[lists.exposures.row_exposure[rows]]
    num_items, num_folds = len(lists.exposures.item_ids), reward.shape[1]
    scaled = weight / max(weight.max(initial=0.0), np.finfo(float).tiny)
    found = np.zeros((num_folds, num_items))
    for part in range(num_folds if num_folds > 1 else 0):
        of_part = reward[:, part]
        columns = (scaled, scaled**2, scaled * of_part, scaled * of_part**2)
        sums = [np.bincount(item, weights=one * (fold != part), minlength=num_items) for one in columns]
        found[part] = _shrunk(*sums)
    return found


def _shrunk(
    weight: Float[np.ndarray, " item"],
    squared_weight: Float[np.ndarray, " item"],
    reward: Float[np.ndarray, " item"],
    squared_reward: Float[np.ndarray, " item"],
) -> Float[np.ndarray, " item"]:
    """Mean rewards of items from weighted sums over their rows."""
    num, mean = _ratio(weight**2, squared_weight, 0.0), float(_ratio(reward.sum(), weight.sum(), 0.0))
    of_item = _ratio(reward, weight, mean)
    num_rows, num_items = num.sum(), np.count_nonzero(num)
    variance = np.maximum(_ratio(squared_reward, weight, 0.0) - of_item**2, 0.0)
    within = (num * variance).sum() / max(num_rows - num_items, 1.0)
    # Moments of a one-way layout with unequal numbers (Searle, Casella and McCulloch, 1992, section 3.6).
    spread = (num * (of_item - mean) ** 2).sum() - (num_items - 1) * within
    between = float(_ratio(spread, num_rows - _ratio((num**2).sum(), num_rows, 0.0), 0.0))
    if between <= 0:
        return np.full_like(of_item, mean)
    return _ratio(num * of_item + within / between * mean, num + within / between, mean)


def _ratio(above: Any, below: Any, otherwise: float) -> np.ndarray:
    """One over the other, where that is not 0."""
    is_there = below > 1e-12
    return np.where(is_there, above / np.where(is_there, below, 1.0), otherwise)
