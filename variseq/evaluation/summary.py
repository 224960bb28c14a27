"""The numbers of an evaluation with their intervals: over all queries, by group, and the gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.evaluation.calibration import answered, equal_mass_bins, risk_coverage, wilson_interval
from variseq.evaluation.evaluation import Evaluation, Forecasts
from variseq.evaluation.groups import Groups, SizeThirds, by_length
from variseq.evaluation.metrics import catalog_coverage, exposure, gini
from variseq.evaluation.significance import (
    NUM_RESAMPLES,
    UserColumns,
    mean_interval,
    means_by_user,
    percentile_interval,
    resampled_tables,
    sums_by_user,
)
from variseq.ranking.calibration import ConformalThresholds

CONFORMAL = "conformal_coverage_90"
SELECTIVE_GAIN = "selective_ndcg_gain"
MIN_USERS = 20
"""Groups of fewer users are shown, but not compared: chance alone would make one of them the worst."""
UNSEEN = "unseen"
"""Targets that never occur in training are misses by rule, so they are shown and not compared."""

Resampled = dict[str, Float[np.ndarray, "resample _"]]


def summarize(
    evaluation: Evaluation,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    user_groups: Mapping[str, Groups] | None = None,
    thresholds: ConformalThresholds | None = None,
) -> dict[str, Any]:
    """Numbers that can be written as JSON, with 95 % bootstrap intervals over users; None where not defined.

    Ranking metrics, NLL and Brier score are means over users: several targets of a user are averaged first. Calibration
    and groups pool the queries; their intervals resample users, too.

    Args:
        evaluation: The results of one model.
        num_resamples: Number of bootstrap resamples.
        seed: Their seed.
        user_groups: By the name of a column the group of each user of the log.
        thresholds: Those of this model's conformal sets.
    """
    outcomes = _Outcomes.of(evaluation, thresholds)
    popularity = SizeThirds.of(evaluation.target_count, UNSEEN)
    groups = [
        _GroupRows("history_length", outcomes, by_length(evaluation.history_length)),
        # A recommended item is known, the target is not: calibration is grouped by the recommended item's count.
        _GroupRows(
            "item_popularity",
            outcomes,
            Groups(popularity.names, popularity.index(evaluation.target_count)),
            popularity.index(evaluation.top_item_count),
        ),
    ]
    columns = {
        name: _GroupRows(f"user column {name}", outcomes, of_users.take(evaluation.user))
        for name, of_users in (user_groups or {}).items()
    }
    overall = _Pool(outcomes, np.ones(len(outcomes.user), dtype=bool))
    means, selective = _means(outcomes), _selective_columns(outcomes)
    everyone = np.arange(len(outcomes.users))
    tables = {"means": UserColumns(everyone, means), "overall": overall.table}
    if selective is not None:
        tables["selective"] = UserColumns(everyone, selective)
    for one in [*groups, *columns.values()]:
        tables |= one.tables()
    drawn = resampled_tables(tables, len(everyone), num_resamples, seed)
    return {
        "model": evaluation.model,
        **overall.summary(drawn["overall"]),
        **_summary_of_means(outcomes, means, drawn["means"]),
        **_summary_of_lists(outcomes),
        **_summary_of_selection(outcomes.k, selective, drawn.get("selective")),
        **_nll_of_known_targets(evaluation, num_resamples, seed),
        **_beyond_accuracy(evaluation),
        **_counts(evaluation),
        **{f"by_{one.kind}": one.rows(drawn) for one in groups},
        "by_user_column": {name: one.rows(drawn) for name, one in columns.items()},
        "group_gaps": {one.kind: one.gaps(drawn) for one in groups}
        | {"user_column": {name: one.gaps(drawn) for name, one in columns.items()}},
    }


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """The values per query that are pooled; a metric that the model does not have is None."""

    user: Int[np.ndarray, " query"]
    k: int
    metrics: dict[str, Float[np.ndarray, " query"] | None]
    forecasts: Forecasts | None
    is_filled: Bool[np.ndarray, "query k"]
    is_covered: Bool[np.ndarray, " query"] | None

    @classmethod
    def of(cls, evaluation: Evaluation, thresholds: ConformalThresholds | None) -> _Outcomes:
        forecasts, k = evaluation.forecasts, evaluation.k
        metrics: dict[str, Float[np.ndarray, " query"] | None] = {
            f"ndcg@{k}": evaluation.metric("ndcg"),
            f"recall@{k}": evaluation.metric("recall"),
            "mrr": evaluation.metric("mrr"),
            **dict.fromkeys(("nll", "brier", "entropy")),
        }
        if forecasts is not None:
            nll = forecasts.nll if (evaluation.target >= 0).all() else None
            metrics |= {"nll": nll, "brier": forecasts.brier, "entropy": forecasts.entropy}
        covered = None if thresholds is None else evaluation.is_covered(thresholds)
        return cls(evaluation.user, k, metrics, forecasts, evaluation.top_item >= 0, covered)

    @cached_property
    def users(self) -> Int[np.ndarray, " user"]:
        """The users that occur, in ascending order."""
        return np.unique(self.user)

    @property
    def depths(self) -> dict[str, int]:
        """The calibration errors, by how much of the lists they look at."""
        return {f"ece_top{depth}": depth for depth in (1, self.k)}

    @property
    def means(self) -> dict[str, Float[np.ndarray, " query"]]:
        """The metrics that are means over users; the entropy is a mean over queries."""
        return {name: value for name, value in self.metrics.items() if value is not None and name != "entropy"}


class _Pool:
    """Numbers of the queries that are `inside`: means over queries, and calibration errors of the lists' `cells`.

    Without `cells` they are those of the same queries. Its intervals resample users.
    """

    def __init__(
        self, outcomes: _Outcomes, inside: Bool[np.ndarray, " query"], cells: Bool[np.ndarray, "query k"] | None = None
    ) -> None:
        self.outcomes = outcomes
        self.inside = inside
        self.num_users = len(np.unique(outcomes.user[inside]))
        parts = {name: self._mean(value) for name, value in outcomes.metrics.items() if value is not None}
        self.noise_floor: dict[str, float] = {}
        if outcomes.forecasts is not None:
            filled = outcomes.is_filled & (inside[:, None] if cells is None else cells)
            for name, depth in outcomes.depths.items():
                parts[name] = self._gaps(name, outcomes.forecasts, filled[:, :depth])
        columns = np.concatenate(list(parts.values()), axis=1)
        is_used = columns.any(axis=1)
        index = np.searchsorted(outcomes.users, np.unique(outcomes.user[is_used]))
        self.table = UserColumns(index, sums_by_user(outcomes.user[is_used], columns[is_used]))
        self.ends = dict(zip(parts, np.cumsum([part.shape[1] for part in parts.values()]), strict=True))

    def _mean(self, value: Float[np.ndarray, " query"]) -> Float[np.ndarray, "query column"]:
        """Columns whose sums give the mean over the queries inside: value and one."""
        return np.stack([np.where(self.inside, value, 0.0), self.inside.astype(np.float64)], axis=1)

    def _gaps(
        self, name: str, forecasts: Forecasts, filled: Bool[np.ndarray, "query depth"]
    ) -> Float[np.ndarray, "query column"]:
        """Columns whose sums give the calibration error: probability − hit in each bin, and the number of forecasts.

        With the bins fixed, the error is a ratio of sums over users, which resampling needs.
        """
        depth = filled.shape[1]
        probability, hit = forecasts.top_probability[:, :depth], forecasts.top_is_target[:, :depth]
        bin_index = np.zeros(filled.shape, dtype=np.int64)
        bin_index[filled] = equal_mass_bins(probability[filled])
        num_bins = int(bin_index.max()) + 1
        query = np.repeat(np.arange(len(filled)), depth)
        gap = np.where(filled, probability - hit, 0.0)
        sums = np.bincount(query * num_bins + bin_index.ravel(), gap.ravel(), minlength=len(gap) * num_bins)
        forecast = probability[filled]
        # The mean of |noise| is √(2/π) of its deviation, which for a true probability p is √(p (1 − p)).
        noise = np.sqrt(2 / np.pi * np.bincount(bin_index[filled], forecast * (1 - forecast)))
        self.noise_floor[name] = float(noise.sum() / max(1, len(forecast)))
        return np.concatenate([sums.reshape(len(gap), num_bins), filled.sum(axis=1, keepdims=True)], axis=1)

    def numbers(self, sums: Float[np.ndarray, "row column"]) -> dict[str, Float[np.ndarray, " row"]]:
        """Each number for rows of column sums; NaN for a row (a resample) that has nothing of it."""
        numbers, first = {}, 0
        for name, end in self.ends.items():
            *above, below = sums[:, first:end].T
            total = np.abs(above).sum(axis=0) if name in self.outcomes.depths else above[0]
            numbers[name] = _ratio(total, below)
            first = end
        return numbers

    def values(self) -> dict[str, float]:
        """Each number that is defined."""
        numbers = self.numbers(self.table.columns.sum(axis=0, keepdims=True))
        return {name: float(value) for name, (value,) in numbers.items() if not np.isnan(value)}

    def resampled(self, drawn: Float[np.ndarray, "resample column"]) -> dict[str, Float[np.ndarray, " resample"]]:
        """Each number that is defined for resampled sums of `table`.

        A resample has the noise of the sample and its own on top, which makes calibration errors larger. They are
        moved back, so that their mean is the error of the sample, and never below 0.
        """
        numbers, values = self.numbers(drawn), self.values()
        for name in values.keys() & self.outcomes.depths.keys():
            known = numbers[name][~np.isnan(numbers[name])]
            if len(known):
                numbers[name] = np.maximum(0.0, numbers[name] - known.mean() + values[name])
        return {name: numbers[name] for name in values}

    def summary(self, drawn: Float[np.ndarray, "resample column"]) -> dict[str, Any]:
        """Every number with its 95 % interval; None where it is not defined. `drawn` are resampled sums of `table`."""
        names = [*self.outcomes.metrics, *self.outcomes.depths]
        result: dict[str, Any] = {key: None for name in names for key in (name, f"{name}_interval")}
        resampled = self.resampled(drawn)
        for name, value in self.values().items():
            result |= {name: value, f"{name}_interval": _interval_of_known(resampled[name])}
        result |= {f"{name}_noise_floor": self.noise_floor.get(name) for name in self.outcomes.depths}
        return result | self._conformal_coverage()

    def _conformal_coverage(self) -> dict[str, Any]:
        """The share of targets in their conformal sets.

        Wilson's interval is not empty where all are covered; a user counts once in it, however many queries there are.
        """
        if self.outcomes.is_covered is None or not self.inside.any():
            return {CONFORMAL: None, f"{CONFORMAL}_interval": None}
        share = self.outcomes.is_covered[self.inside].mean()
        low, high = wilson_interval(np.array([share]), np.array([self.num_users]))
        return {CONFORMAL: float(share), f"{CONFORMAL}_interval": [float(low[0]), float(high[0])]}


class _GroupRows:
    """A way to group the queries, and the numbers of each group.

    `cell_index` is the group of each recommended item, where the lists are grouped by another thing than the queries.
    """

    def __init__(
        self, kind: str, outcomes: _Outcomes, groups: Groups, cell_index: Int[np.ndarray, "query k"] | None = None
    ) -> None:
        self.kind, self.outcomes = kind, outcomes
        self.pools = {
            name: _Pool(outcomes, groups.index == index, None if cell_index is None else cell_index == index)
            for index, name in enumerate(groups.names)
        }
        self.compared = [name for name, pool in self.pools.items() if pool.num_users >= MIN_USERS and name != UNSEEN]

    def tables(self) -> dict[str, UserColumns]:
        """What has to be resampled for the intervals."""
        return {f"{self.kind} {name}": pool.table for name, pool in self.pools.items()}

    def rows(self, drawn: Resampled) -> list[dict[str, Any]]:
        """A row a group; `is_compared` is true where the group is large enough to be compared with others."""
        return [
            {
                "group": name,
                "num_queries": int(pool.inside.sum()),
                "num_users": pool.num_users,
                "is_compared": name in self.compared,
                **pool.summary(drawn[f"{self.kind} {name}"]),
            }
            for name, pool in self.pools.items()
        ]

    def gaps(self, drawn: Resampled) -> dict[str, Any]:
        """The worst and the best group by NDCG and by each calibration error, with the gap between them.

        The interval of a gap is that of these two groups; that they were picked as the extremes makes the gap itself a
        little too large. None with fewer than two groups of at least `MIN_USERS` users.
        """
        signs = {f"ndcg@{self.outcomes.k}": 1, **dict.fromkeys(self.outcomes.depths, -1)}
        return {name: self._gap(name, sign, drawn) for name, sign in signs.items()}

    def _gap(self, metric: str, sign: int, drawn: Resampled) -> dict[str, Any] | None:
        values = {}
        for name in self.compared:
            numbers = self.pools[name].values()
            if metric in numbers:
                values[name] = numbers[metric]
        if len(values) < 2:
            return None
        worst, *_, best = sorted(values, key=lambda name: sign * values[name])
        of_best, of_worst = (self.pools[name].resampled(drawn[f"{self.kind} {name}"])[metric] for name in (best, worst))
        return {
            "worst_group": worst,
            "worst": values[worst],
            "best_group": best,
            "best": values[best],
            "gap": sign * (values[best] - values[worst]),
            "gap_interval": _interval_of_known(sign * (of_best - of_worst)),
        }


def _means(outcomes: _Outcomes) -> Float[np.ndarray, "user metric"]:
    return means_by_user(outcomes.user, np.stack(list(outcomes.means.values()), axis=1))


def _summary_of_means(
    outcomes: _Outcomes, means: Float[np.ndarray, "user metric"], drawn: Float[np.ndarray, "resample metric"]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for column, name in enumerate(outcomes.means):
        result[name] = float(means[:, column].mean())
        result[f"{name}_interval"] = list(percentile_interval(drawn[:, column] / len(means)))
    return result


def _summary_of_lists(outcomes: _Outcomes) -> dict[str, Any]:
    """The probability of the whole list, and how well that of its first item selects good lists."""
    mass, area = None, None
    if outcomes.forecasts is not None:
        probability = outcomes.forecasts.top_probability
        mass = float(probability.sum(axis=1).mean())
        area = risk_coverage(probability[:, 0], outcomes.means[f"ndcg@{outcomes.k}"]).area
    return {f"topk_probability_mass@{outcomes.k}": mass, "risk_coverage_area": area}


def _selective_columns(outcomes: _Outcomes) -> Float[np.ndarray, "user column"] | None:
    """Per user the NDCG and the number of queries, of those in the half with least entropy, then of all."""
    entropy, value = outcomes.metrics["entropy"], outcomes.means[f"ndcg@{outcomes.k}"]
    if entropy is None:
        return None
    is_answered = answered(entropy)
    return sums_by_user(outcomes.user, np.stack([is_answered * value, is_answered, value, np.ones_like(value)], axis=1))


def _summary_of_selection(
    k: int, columns: Float[np.ndarray, "user column"] | None, drawn: Float[np.ndarray, "resample column"] | None
) -> dict[str, Any]:
    """NDCG of the half of the queries with least entropy, and by what share it is above that of all.

    Which queries are in that half is kept fixed in the resamples.
    """
    names = (f"selective_ndcg@{k}", SELECTIVE_GAIN)
    result: dict[str, Any] = {key: None for name in names for key in (name, f"{name}_interval")}
    if columns is None or drawn is None:
        return result
    of_half, gain = _half_and_gain(columns.sum(axis=0, keepdims=True))
    for name, value, resampled in zip(names, (of_half, gain), _half_and_gain(drawn), strict=True):
        if not np.isnan(value[0]):
            result |= {name: float(value[0]), f"{name}_interval": _interval_of_known(resampled)}
    return result


def _half_and_gain(
    sums: Float[np.ndarray, "row column"],
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """NaN where no query is answered; the gain also where the NDCG of all is 0."""
    half, num_half, every, num_every = sums.T
    of_half = _ratio(half, num_half)
    return of_half, _ratio(of_half, every / num_every) - 1


def _nll_of_known_targets(evaluation: Evaluation, num_resamples: int, seed: int) -> dict[str, Any]:
    """The NLL of the targets that have one, where some have none."""
    is_known = evaluation.target >= 0
    if evaluation.forecasts is None or is_known.all() or not is_known.any():
        return {}
    user, nll = evaluation.user[is_known], evaluation.forecasts.nll[is_known]
    interval = mean_interval(user, nll, num_resamples, seed)
    return {"nll": float(means_by_user(user, nll[:, None]).mean()), "nll_interval": list(interval)}


def _beyond_accuracy(evaluation: Evaluation) -> dict[str, float | None]:
    count = exposure(evaluation.top_item, int(evaluation.protocol["num_items"]))
    return {
        f"catalog_coverage@{evaluation.k}": catalog_coverage(count),
        f"gini@{evaluation.k}": gini(count),
        f"novelty@{evaluation.k}": _mean_of_known(evaluation.novelty),
        f"diversity@{evaluation.k}": None if evaluation.diversity is None else _mean_of_known(evaluation.diversity),
    }


def _counts(evaluation: Evaluation) -> dict[str, int]:
    return {
        "num_queries": len(evaluation.rank),
        "num_users": len(np.unique(evaluation.user)),
        "unseen_targets": int((evaluation.target_count == 0).sum()),
        "unknown_targets": int((evaluation.target < 0).sum()),
        "repeat_targets": int(evaluation.target_was_seen.sum()),
        "cold_queries": int((evaluation.history_length == 0).sum()),
    }


def _mean_of_known(values: Float[np.ndarray, " query"]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _ratio(above: Float[np.ndarray, " row"], below: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """NaN where there is nothing below."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _interval_of_known(resampled: Float[np.ndarray, " resample"]) -> list[float] | None:
    """The 95 % interval of the resamples that have a value; None when none has."""
    known = resampled[~np.isnan(resampled)]
    return list(percentile_interval(known)) if len(known) else None
