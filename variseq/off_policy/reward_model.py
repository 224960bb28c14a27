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
    log = lists.exposures
    num_folds = min(NUM_FOLDS, lists.num_users)
    fold = lists.user % num_folds
    shape = (num_folds, len(log.item_ids))
    if num_folds == 1:
        return RewardModel(fold, np.zeros(shape))
    cell = fold[log.row_exposure] * shape[1] + log.item
    scaled = weight / max(weight.max(initial=0.0), np.finfo(float).tiny)
    columns = (scaled, scaled**2, scaled * log.reward, scaled * log.reward**2)
    of_fold = [np.bincount(cell, weights=one, minlength=shape[0] * shape[1]).reshape(shape) for one in columns]
    # Of all folds but each.
    others = [one.sum(axis=0) - one for one in of_fold]
    return RewardModel(fold, np.stack([_shrunk(*(one[part] for one in others)) for part in range(num_folds)]))


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
    # The sum of all folds minus one of them may be a rounding error.
    is_there = below > 1e-12
    return np.where(is_there, above / np.where(is_there, below, 1.0), otherwise)
