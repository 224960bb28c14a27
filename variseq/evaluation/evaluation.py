"""The results of one model for each query of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.evaluation.metrics import ndcg, recall, reciprocal_rank
from variseq.evaluation.visits import VisitRanks
from variseq.ranking.calibration import ConformalThresholds, length_group

CONFORMAL_LEVEL = 0.9
"""The level at which the coverage of conformal sets is measured."""


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Probabilities over the whole catalog.

    Where seen items are not ranked they share the counted probability of a repeat (a hurdle model).

    Attributes:
        nll: Negative log-likelihood of each target in nats.
        brier: Brier score, see `variseq.evaluation.calibration.brier`.
        entropy: Entropy in nats.
        top_probability: Probability of the j-th recommended item; 0 at an empty position.
        top_is_target: Whether the j-th recommended item came next.
        mass_before: Probability of all that precedes the target in the full list, 1 for a target that is no candidate.
            Conformal sets are made with it.
    """

    nll: Float[np.ndarray, " query"]
    brier: Float[np.ndarray, " query"]
    entropy: Float[np.ndarray, " query"]
    top_probability: Float[np.ndarray, "query k"]
    top_is_target: Bool[np.ndarray, "query k"]
    mass_before: Float[np.ndarray, " query"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of one model, a value for each query.

    Attributes:
        model: Name of the model.
        protocol: What must be equal for two results to be compared: split, part, k, targets and so on.
        user: User of each query.
        target: Item that came next; -1 for an item outside the catalog, which has no NLL (NaN).
        history_length: Events before the target.
        target_count: Training events of the target; 0 for an unseen item.
        target_was_seen: Whether the target is in the user's own history and therefore not ranked.
        rank: Rank of the target, from 1; inf is a miss.
        top_item: The recommended items; -1 where candidates ran out.
        top_item_count: Training events of each recommended item.
        novelty: Mean self-information of the list in bits.
        diversity: Intra-list diversity; None without categories.
        forecasts: None for a model whose scores are not probabilities.
        visits: The queries as items of visits; None for a log without visits.
    """

    model: str
    protocol: dict[str, Any]
    user: Int[np.ndarray, " query"]
    target: Int[np.ndarray, " query"]
    history_length: Int[np.ndarray, " query"]
    target_count: Int[np.ndarray, " query"]
    target_was_seen: Bool[np.ndarray, " query"]
    rank: Float[np.ndarray, " query"]
    top_item: Int[np.ndarray, "query k"]
    top_item_count: Int[np.ndarray, "query k"]
    novelty: Float[np.ndarray, " query"]
    diversity: Float[np.ndarray, " query"] | None
    forecasts: Forecasts | None
    visits: VisitRanks | None = None

    @property
    def k(self) -> int:
        return int(self.protocol["k"])

    def metric(self, name: str) -> Float[np.ndarray, " query"]:
        """The values of one metric.

        Args:
            name: "ndcg", "recall", "mrr", "nll" or "brier"; the last two need `forecasts`.

        Raises:
            InputError: This evaluation does not have the metric.
        """
        if name not in self._metrics:
            known = ", ".join(self._metrics)
            raise InputError(f"The evaluation of {self.model!r} has no metric {name!r}. It has: {known}.")
        return self._metrics[name]

    @cached_property
    def _metrics(self) -> dict[str, Float[np.ndarray, " query"]]:
        forecasts, found = self.forecasts, {"ndcg": ndcg(self.rank, self.k), "recall": recall(self.rank, self.k)}
        found["mrr"] = reciprocal_rank(self.rank)
        return found if forecasts is None else found | {"nll": forecasts.nll, "brier": forecasts.brier}

    def is_covered(self, thresholds: ConformalThresholds, level: float = CONFORMAL_LEVEL) -> Bool[np.ndarray, " query"]:
        """Whether the conformal set of each query holds the target; a set never holds what may not be recommended.

        Args:
            thresholds: Those of this model.
            level: The probability with which a set should hold the target.

        Raises:
            InputError: The model gives no probabilities, or the level is none of the thresholds' levels.
        """
        if self.forecasts is None:
            raise InputError(f"{self.model!r} gives no probabilities, so it has no conformal sets.")
        limit = thresholds.at(level)[length_group(self.history_length)]
        return (self.forecasts.mass_before <= limit) & ~self.target_was_seen
