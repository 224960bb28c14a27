"""What each query of an evaluation came to, and the numbers it is summed up in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.evaluation.beyond_accuracy import catalogue_coverage, exposure, gini
from variseq.evaluation.bootstrap import (
    NUM_RESAMPLES,
    means_by_user,
    percentile_interval,
    resampled_blocks,
    sums_by_user,
)
from variseq.evaluation.calibration import equal_mass_bins, expected_calibration_error, risk_coverage
from variseq.evaluation.groups import Groups, by_thirds
from variseq.evaluation.metrics import ndcg, recall, reciprocal_rank

Number = float | int | None


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Probabilities over the whole catalogue (seen items included): natural logarithms, entropy in nats.

    `top_probability[q, j]` is the probability of the j-th recommended item, `top_is_target` whether it came next.
    An empty place of a list has probability 0.
    """

    nll: Float[np.ndarray, " query"]
    brier: Float[np.ndarray, " query"]
    entropy: Float[np.ndarray, " query"]
    top_probability: Float[np.ndarray, "query k"]
    top_is_target: Bool[np.ndarray, "query k"]

    @property
    def top_mass(self) -> Float[np.ndarray, " query"]:
        """Probability that the next item is in the list."""
        mass: Float[np.ndarray, " query"] = self.top_probability.sum(axis=1)
        return mass


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Per-query results of one model; `rank` is inf for a miss, `top_item` -1 where candidates ran out.

    `target_count` counts the target in the training part (0: unseen there). `diversity` is None without categories,
    `forecasts` None for a model whose scores are not probabilities.
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

    def summary(self, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> dict[str, Any]:
        """Numbers that can be written as JSON, with 95 % bootstrap intervals over users; None where not defined.

        Ranking metrics, NLL and Brier are means over users (several targets of a user are averaged first);
        calibration and groups pool the queries, with intervals that still resample users.
        """
        groups = {
            "history_length": by_thirds(self.history_length, "empty"),
            "item_popularity": by_thirds(self.target_count, "unseen"),
        }
        blocks = {"metrics": means_by_user(self.user, np.stack(list(self._metrics().values()), axis=1))}
        blocks |= {kind: self._group_sums(group) for kind, group in groups.items()}
        if self.forecasts is not None:
            blocks |= {f"ece_top{depth}": self._calibration_gaps(depth) for depth in {1, self.k}}
        drawn = resampled_blocks(blocks, num_resamples, seed)
        return {
            "model": self.model,
            **self._means(blocks["metrics"], drawn["metrics"]),
            **self._calibration(drawn),
            **self._beyond_accuracy(),
            "num_queries": len(self.rank),
            "num_users": len(np.unique(self.user)),
            "cold_targets": int((self.target_count == 0).sum()),
            "seen_targets": int(self.target_was_seen.sum()),
            "cold_queries": int((self.history_length == 0).sum()),
            **self._by_group("history_length", groups["history_length"], drawn["history_length"]),
            **self._by_group("item_popularity", groups["item_popularity"], drawn["item_popularity"]),
        }

    def _key(self, name: str) -> str:
        return f"{name}@{self.k}" if name in ("ndcg", "recall") else name

    def _means(
        self, means: Float[np.ndarray, "user metric"], drawn: Float[np.ndarray, "resample metric"]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {self._key(name): None for name in ("ndcg", "recall", "mrr", "nll", "brier")}
        for column, name in enumerate(self._metrics()):
            result[self._key(name)] = float(means[:, column].mean())
            result[f"{self._key(name)}_interval"] = list(percentile_interval(drawn[:, column] / len(means)))
        return result

    def _calibration_gaps(self, depth: int) -> Float[np.ndarray, "user column"]:
        """Per user the sum of (probability - hit) in each bin, and last the number of forecasts.

        With the bins fixed, the calibration error is a ratio of sums over users, which resampling needs.
        """
        assert self.forecasts is not None
        probability, hit = self.forecasts.top_probability[:, :depth], self.forecasts.top_is_target[:, :depth]
        filled = self.top_item[:, :depth] >= 0
        place = np.zeros(filled.shape, dtype=np.int64)
        place[filled] = equal_mass_bins(probability[filled])
        gap = np.where(filled, probability - hit, 0.0)
        query = np.repeat(np.arange(len(gap)), gap.shape[1])
        num_bins = int(place.max()) + 1
        sums = np.bincount(query * num_bins + place.ravel(), gap.ravel(), minlength=len(gap) * num_bins)
        columns = np.concatenate([sums.reshape(len(gap), num_bins), filled.sum(axis=1, keepdims=True)], axis=1)
        return sums_by_user(self.user, columns)

    def _calibration(self, drawn: dict[str, Float[np.ndarray, "resample _"]]) -> dict[str, Any]:
        names = {f"ece_top{depth}": depth for depth in (1, self.k)}
        if self.forecasts is None:
            return dict.fromkeys([*names, f"mass_top{self.k}", "entropy", "risk_coverage_area"])
        result: dict[str, Any] = {}
        for name, depth in names.items():
            filled = self.top_item[:, :depth] >= 0
            probability, hit = self.forecasts.top_probability[:, :depth], self.forecasts.top_is_target[:, :depth]
            result[name] = expected_calibration_error(probability[filled], hit[filled]) if filled.any() else None
            # A resample may hold no recommendation: users who have seen the whole catalogue get none.
            present = drawn[name][drawn[name][:, -1] > 0]
            error = np.abs(present[:, :-1]).sum(axis=1) / present[:, -1]
            result[f"{name}_interval"] = list(percentile_interval(error)) if len(error) else None
        confidence = self.forecasts.top_probability[:, 0]
        return result | {
            f"mass_top{self.k}": float(self.forecasts.top_mass.mean()),
            "entropy": float(self.forecasts.entropy.mean()),
            "risk_coverage_area": risk_coverage(confidence, self.metric("ndcg")).area,
        }

    def _beyond_accuracy(self) -> dict[str, Number]:
        count = exposure(self.top_item, int(self.protocol["num_items"]))
        return {
            f"coverage@{self.k}": catalogue_coverage(count),
            f"gini@{self.k}": gini(count),
            f"novelty@{self.k}": _mean_of_known(self.novelty),
            f"diversity@{self.k}": None if self.diversity is None else _mean_of_known(self.diversity),
        }

    def _group_sums(self, groups: Groups) -> Float[np.ndarray, "user column"]:
        """Per user the sum of NDCG in each group, then the number of queries in each group."""
        inside = groups.place[:, None] == np.arange(len(groups.names))
        return sums_by_user(self.user, np.concatenate([inside * self.metric("ndcg")[:, None], inside], axis=1))

    def _by_group(self, kind: str, groups: Groups, drawn: Float[np.ndarray, "resample column"]) -> dict[str, Any]:
        """A row a group, the worst group by NDCG and the gap to the best (unseen targets, misses by rule, apart)."""
        key, num_groups = self._key("ndcg"), len(groups.names)
        rows: list[dict[str, Any]] = []
        for place, name in enumerate(groups.names):
            inside = groups.place == place
            row: dict[str, Any] = {"group": name, "num_queries": int(inside.sum())}
            row |= {self._key(metric): float(values[inside].mean()) for metric, values in self._metrics().items()}
            # A resample may hold no query of a small group.
            present = drawn[:, num_groups + place] > 0
            means = drawn[present, place] / drawn[present, num_groups + place]
            rows.append(row | {f"{key}_interval": list(percentile_interval(means)) if present.any() else None})
        compared = [row for row in rows if row["group"] != "unseen"]
        worst = min(compared, key=lambda row: float(row[key]), default=None)
        return {
            f"by_{kind}": rows,
            f"{kind}_worst_group": None if worst is None else worst["group"],
            f"{kind}_gap": None if worst is None else max(float(row[key]) for row in compared) - float(worst[key]),
        }


def _mean_of_known(values: Float[np.ndarray, " query"]) -> Number:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
