"""What each query of an evaluation came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.evaluation.beyond_accuracy import catalog_coverage, exposure, gini
from variseq.evaluation.bootstrap import NUM_RESAMPLES, mean_interval, means_by_user
from variseq.evaluation.group_rows import GroupRows
from variseq.evaluation.groups import Groups, SizeThirds, by_length
from variseq.evaluation.metrics import ndcg, recall, reciprocal_rank
from variseq.evaluation.pooled import Listed, Outcomes
from variseq.evaluation.summary import summarize
from variseq.ranking.calibration import ConformalThresholds, length_group

COVERAGE = 0.9


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Probabilities over the whole catalog: natural logarithms, entropy in nats.

    Where seen items are not ranked they share the counted probability of a repeat (`log_weights`).
    `top_probability[q, j]` is the probability of the j-th recommended item, `top_is_target` whether it came next.
    An empty place of a list has probability 0. `mass_before` is the probability of all that stands before the target in
    the full list, 1 for a target that is no candidate: what conformal sets are made with.
    """

    nll: Float[np.ndarray, " query"]
    brier: Float[np.ndarray, " query"]
    entropy: Float[np.ndarray, " query"]
    top_probability: Float[np.ndarray, "query k"]
    top_is_target: Bool[np.ndarray, "query k"]
    mass_before: Float[np.ndarray, " query"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Per-query results of one model; `rank` is inf for a miss, `top_item` -1 where candidates ran out.

    `target` is -1 for an item outside the catalog, which has no NLL (NaN). `target_count` counts the target in the
    training part (0: unseen there), `top_item_count` each recommended item.
    `diversity` is None without categories, `forecasts` None for a model whose scores are not probabilities.
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

    @property
    def k(self) -> int:
        return int(self.protocol["k"])

    def metric(self, name: str) -> Float[np.ndarray, " query"]:
        """Per-query values of "ndcg", "recall", "mrr", "nll" or "brier" (the last two need `forecasts`).

        Raises InputError for a metric that this evaluation does not have.
        """
        metrics = self._metrics()
        if name not in metrics:
            raise InputError(f"The evaluation of {self.model!r} has no metric {name!r}. It has: {', '.join(metrics)}.")
        return metrics[name]

    def _metrics(self) -> dict[str, Float[np.ndarray, " query"]]:
        values = {
            "ndcg": ndcg(self.rank, self.k),
            "recall": recall(self.rank, self.k),
            "mrr": reciprocal_rank(self.rank),
        }
        if self.forecasts is not None:
            values |= {"nll": self.forecasts.nll, "brier": self.forecasts.brier}
        return values

    def summary(
        self,
        num_resamples: int = NUM_RESAMPLES,
        seed: int = 0,
        user_groups: Mapping[str, Groups] | None = None,
        thresholds: ConformalThresholds | None = None,
    ) -> dict[str, Any]:
        """Numbers that can be written as JSON, with 95 % bootstrap intervals over users; None where not defined.

        Ranking metrics, NLL and Brier are means over users (several targets of a user are averaged first);
        calibration and groups pool the queries, with intervals that still resample users. `user_groups` has by the name
        of a column the group of each user of the log, `thresholds` are those of this model's conformal sets.
        """
        outcomes = self._outcomes(thresholds)
        popularity = SizeThirds.of(self.target_count, "unseen")
        groups = [
            GroupRows("history_length", outcomes, by_length(self.history_length)),
            # Of a forecast only the recommended item is known, not the target: calibration goes by that one's count.
            GroupRows(
                "item_popularity",
                outcomes,
                Groups(popularity.names, popularity.place(self.target_count)),
                popularity.place(self.top_item_count),
            ),
        ]
        columns = {
            name: GroupRows(f"user column {name}", outcomes, of_users.of(self.user))
            for name, of_users in (user_groups or {}).items()
        }
        drawn, numbers = summarize(outcomes, [*groups, *columns.values()], num_resamples, seed)
        return {
            "model": self.model,
            **numbers,
            **self._nll_of_known_targets(num_resamples, seed),
            **self._beyond_accuracy(),
            **self._counts(),
            **{f"by_{one.kind}": one.rows(drawn) for one in groups},
            **{f"compared_by_{one.kind}": one.compared(drawn) for one in groups},
            "by_user_column": {name: one.rows(drawn) for name, one in columns.items()},
            "compared_by_user_column": {name: one.compared(drawn) for name, one in columns.items()},
        }

    def is_covered(self, thresholds: ConformalThresholds, coverage: float = COVERAGE) -> Bool[np.ndarray, " query"]:
        """Whether the conformal set of each query holds the target; a set never holds what may not be recommended.

        Raises InputError for a model that gives no probabilities, or a coverage that is not a level.
        """
        if self.forecasts is None:
            raise InputError(f"{self.model!r} gives no probabilities, so there are no conformal sets to look at.")
        limit = thresholds.at(coverage)[length_group(self.history_length)]
        return (self.forecasts.mass_before <= limit) & ~self.target_was_seen

    def _nll_of_known_targets(self, num_resamples: int, seed: int) -> dict[str, Any]:
        """The NLL of the targets that have one, where some have none."""
        is_known = self.target >= 0
        if self.forecasts is None or is_known.all() or not is_known.any():
            return {}
        user, nll = self.user[is_known], self.forecasts.nll[is_known]
        interval = mean_interval(user, nll, num_resamples, seed)
        return {"nll": float(means_by_user(user, nll[:, None]).mean()), "nll_interval": list(interval)}

    def _outcomes(self, thresholds: ConformalThresholds | None) -> Outcomes:
        forecasts = self.forecasts
        metrics: dict[str, Float[np.ndarray, " query"] | None] = dict.fromkeys(("nll", "brier", "entropy"))
        listed = None
        if forecasts is not None:
            nll = forecasts.nll if (self.target >= 0).all() else None
            metrics = {"nll": nll, "brier": forecasts.brier, "entropy": forecasts.entropy}
            listed = Listed(forecasts.top_probability, forecasts.top_is_target, self.top_item >= 0)
        ranked: dict[str, Float[np.ndarray, " query"] | None] = {
            f"ndcg@{self.k}": ndcg(self.rank, self.k),
            f"recall@{self.k}": recall(self.rank, self.k),
            "mrr": reciprocal_rank(self.rank),
        }
        covered = None if thresholds is None else self.is_covered(thresholds)
        return Outcomes(self.user, self.k, ranked | metrics, listed, covered)

    def _counts(self) -> dict[str, int]:
        return {
            "num_queries": len(self.rank),
            "num_users": len(np.unique(self.user)),
            "cold_targets": int((self.target_count == 0).sum()),
            "unknown_targets": int((self.target < 0).sum()),
            "seen_targets": int(self.target_was_seen.sum()),
            "cold_queries": int((self.history_length == 0).sum()),
        }

    def _beyond_accuracy(self) -> dict[str, float | None]:
        count = exposure(self.top_item, int(self.protocol["num_items"]))
        return {
            f"coverage@{self.k}": catalog_coverage(count),
            f"gini@{self.k}": gini(count),
            f"novelty@{self.k}": _mean_of_known(self.novelty),
            f"diversity@{self.k}": None if self.diversity is None else _mean_of_known(self.diversity),
        }


def _mean_of_known(values: Float[np.ndarray, " query"]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
