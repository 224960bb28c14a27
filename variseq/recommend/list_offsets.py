"""Offsets of items' scores, learned from lists that were shown: items that were taken against those beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.errors import MissingDependencyError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.shown_lists import ShownLists, list_metrics, scores_in_lists, summarize_lists
from variseq.evaluation.splits import Part
from variseq.evaluation.user_sample import sampled_users
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender
from variseq.sequences.histories import Histories

STRENGTHS, FACTORS = (1.0, 3.0, 10.0, 30.0), (1.0, 2.0, 5.0, 10.0)
MAX_ITERATIONS = 60
MOST_USERS = 2_000
"""So many users are enough to see whether the order of the catalog suffers."""


class OffsetRecommender(ModelRecommender):
    """Ranks as `recommend` does: by log p and what is added to it."""

    def __init__(self, model: MixtureModel, name: str, offset: Float[np.ndarray, " item"] | None) -> None:
        super().__init__(model, name)
        self.gives_probabilities, self.offset = False, offset

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        """log p of all items plus their offsets."""
        found = super().scores(histories)
        return found if self.offset is None else found + torch.from_numpy(self.offset.astype(np.float32))


@dataclass(frozen=True)
class Trial:
    """What offsets are worth on validation.

    Args:
        strength: See `fit_list_offsets`.
        factor: What these offsets are multiplied by.
        ndcg: NDCG@10 of shown lists.
        auc: Their AUC.
        interval: 95 % interval over users of the difference of that NDCG@10 to ranking by log p.
        catalog_ndcg: NDCG@10 over the catalog, where it was computed.
    """

    strength: float
    factor: float
    ndcg: float
    auc: float
    interval: tuple[float, float]
    catalog_ndcg: float | None = None


@dataclass(frozen=True, eq=False)
class ListOffsets:
    """The offsets of items, and how they were chosen.

    Args:
        chosen: What was chosen; None where nothing is better for certain.
        ndcg: NDCG@10 of the validation lists without offsets.
        catalog_ndcg: NDCG@10 over the catalog without offsets.
        trials: All that was tried.
        num_lists: Numbers of lists to learn from and to choose by.
    """

    chosen: Trial | None
    ndcg: float
    catalog_ndcg: float
    trials: tuple[Trial, ...]
    num_lists: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """The record in the manifest of a run."""
        return {name: one for name, one in asdict(self).items() if name != "trials"}

    def __str__(self) -> str:
        fitted, valid = self.num_lists
        of_lists = (
            f"Offsets of items were learned from {fitted:,} lists of the training part. On {valid:,} lists of the"
        )
        if (one := self.chosen) is None:
            return f"{of_lists} validation part none are better for certain, so items are ranked without them."
        return (
            f"{of_lists} validation part ndcg@10 is {one.ndcg:.4f} with them and {self.ndcg:.4f} without (difference "
            f"{one.interval[0]:+.4f} to {one.interval[1]:+.4f}), over the catalog {one.catalog_ndcg:.4f} and "
            f"{self.catalog_ndcg:.4f}. Both figures chose strength {one.strength:g} and factor {one.factor:g}."
        )


def fit_list_offsets(lists: ShownLists, num_items: int, strength: float) -> Float[np.ndarray, " item"]:
    """The offsets c under which what was taken is likeliest: Σ −log softmax(c) of each taken item + strength · Σ c².

    The softmax is over a taken item and those of its list that were not taken: a conditional logit (McFadden 1974,
    "Conditional logit analysis of qualitative choice behavior").

    Args:
        lists: Lists of items of the catalog.
        num_items: Its size.
        strength: How near to 0 offsets stay.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingDependencyError("scipy", "train") from error
    of_row, item, is_taken, num_lists = lists.of_row, lists.item, lists.is_taken, len(lists)

    def loss(offset: Float[np.ndarray, " item"]) -> tuple[float, Float[np.ndarray, " item"]]:
        score = offset[item]
        highest = np.maximum.reduceat(score, lists.offsets[:-1])
        power = np.exp(score - highest[of_row])
        others = np.bincount(of_row, power * ~is_taken, num_lists)[of_row]
        whole = power + others
        value = float((np.log(whole[is_taken]) - (score - highest[of_row])[is_taken]).sum())
        # Each taken item pulls itself up, and pushes down the others of its list.
        pushed = np.bincount(of_row, is_taken / whole, num_lists)[of_row]
        gradient = np.bincount(item, np.where(is_taken, -others / whole, power * pushed), num_items)
        return value + strength * float(offset @ offset), gradient + 2 * strength * offset

    options = {"maxiter": MAX_ITERATIONS}
    found = minimize(loss, np.zeros(num_items), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def of_known_items(lists: ShownLists, known: Histories, num_items: int) -> ShownLists:
    """The lists without items that have no event in what is known.

    Nobody took such an item in these lists, by its very definition. As negatives they would teach that new items are
    never taken.
    """
    has_events = np.append(np.bincount(known.item, minlength=num_items) > 0, False)
    return lists.with_rows(has_events[lists.item])


def choose_list_offsets(
    model: MixtureModel,
    lists: ShownLists,
    valid: tuple[ShownLists, Histories],
    part: Part,
    options: EvaluationOptions,
) -> ListOffsets:
    """Choose offsets by NDCG@10 of validation lists, among those under which that over the catalog does not fall.

    Args:
        model: The calibrated model before a refit.
        lists: Lists of the training part.
        valid: Lists of the validation part, and the histories before them.
        part: The validation part.
        options: How the catalog is ranked.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    of_valid, histories = valid
    sample = sampled_users(part, options.targets, MOST_USERS)

    def over_catalog(offset: Float[np.ndarray, " item"] | None) -> float:
        return float(evaluate(OffsetRecommender(model, "", offset), sample, options).metric("ndcg").mean())

    log_p = scores_in_lists(ModelRecommender(model), of_valid, histories)
    before = over_catalog(None)
    offsets: dict[Trial, Float[np.ndarray, " item"]] = {}
    for strength in STRENGTHS:
        fitted = fit_list_offsets(lists, model.num_items, strength)
        for factor in FACTORS:
            moved = log_p + factor * np.append(fitted, 0.0)[of_valid.item]
            row = summarize_lists(of_valid, {"without": log_p, "with": moved})[1]
            trial = Trial(strength, factor, row["ndcg@10"], row["auc"], row["ndcg@10_difference_interval"])
            offsets[trial] = factor * fitted
    chosen, trials = None, list(offsets)
    for trial in sorted(trials, key=lambda one: -one.ndcg):
        if trial.interval[0] > 0 and chosen is None:
            seen = replace(trial, catalog_ndcg=over_catalog(offsets[trial]))
            trials[trials.index(trial)] = seen
            chosen = seen if (seen.catalog_ndcg or 0.0) >= before else None
    ndcg = float(list_metrics(log_p, of_valid.is_taken, of_valid.offsets)[:, 0].mean())
    return ListOffsets(chosen, ndcg, before, tuple(trials), (len(lists), len(of_valid)))
