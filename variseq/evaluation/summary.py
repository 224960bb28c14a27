"""The numbers of an evaluation with their intervals: over all queries, by group, and the gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.distinct import distinct
from variseq.evaluation.calibration import answered, equal_mass_bins, risk_coverage, wilson_interval
from variseq.evaluation.evaluation import CONFORMAL_LEVEL, Evaluation, Forecasts
from variseq.evaluation.groups import Groups, SizeThirds, by_length
from variseq.evaluation.metrics import catalog_coverage, exposure, gini
from variseq.evaluation.significance import (
    NUM_RESAMPLES,
    UserColumns,
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
"""Targets that never occur in training are new items, on which few models have a say: shown, and not compared."""


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
    k = evaluation.k
    covered = None if thresholds is None else evaluation.is_covered(thresholds)
    popularity = SizeThirds.of(evaluation.target_count, UNSEEN)
    of_target = Groups(popularity.names, popularity.index(evaluation.target_count))
    groups = {
        "history_length": _groups(evaluation, covered, by_length(evaluation.history_length)),
        # A recommended item is known, the target is not: calibration is grouped by the recommended item's count.
        "item_popularity": _groups(evaluation, covered, of_target, popularity.index(evaluation.top_item_count)),
    }
    columns = {
        name: _groups(evaluation, covered, of_users.take(evaluation.user))
        for name, of_users in (user_groups or {}).items()
    }
    overall = _Group(evaluation, covered, np.ones(len(evaluation.user), dtype=bool), by_user=True)
    selection = _Pool(evaluation, _selection_ratios(evaluation))
    visits = _Pool(evaluation, _visit_ratios(evaluation, np.ones(len(evaluation.user), dtype=bool)))
    pools = [overall, selection, visits]
    pools += [pool for some in [*groups.values(), *columns.values()] for pool in some.values()]
    drawn = resampled_tables([pool.table for pool in pools], len(distinct(evaluation.user)), num_resamples, seed)
    for pool, sums in zip(pools, drawn, strict=True):
        pool.resample(sums)
    return {
        "model": evaluation.model,
        **overall.summary(),
        f"{CONFORMAL}_by_chance": _by_chance(evaluation, thresholds),
        **visits.summary(),
        **_summary_of_lists(evaluation),
        **_summary_of_selection(selection, k),
        **_beyond_accuracy(evaluation),
        **_counts(evaluation),
        **{f"by_{kind}": _rows(some) for kind, some in groups.items()},
        "by_user_column": {name: _rows(some) for name, some in columns.items()},
        "group_gaps": {kind: _gaps(some, k) for kind, some in groups.items()}
        | {"user_column": {name: _gaps(some, k) for name, some in columns.items()}},
    }


@dataclass(frozen=True, eq=False)
class Ratio:
    """A number that is a sum over queries divided by another; of several columns above, absolute sums are added.

    `noise_floor` is the value that chance alone explains; None for what is no calibration error.
    """

    above: Float[np.ndarray, "query column"]
    below: Float[np.ndarray, " query"]
    noise_floor: float | None = None


def _mean(value: Float[np.ndarray, " query"], weight: Float[np.ndarray, " query"]) -> Ratio:
    """The mean of the queries whose weight is not 0."""
    return Ratio(np.where(weight > 0, weight * value, 0.0)[:, None], weight)


def _calibration_error(forecasts: Forecasts, filled: Bool[np.ndarray, "query depth"]) -> Ratio:
    """Expected calibration error of the items of lists that are `filled`.

    It is the mean over forecasts of |mean probability − frequency| of their bin, which is a ratio of sums over users
    when the bins are fixed. Sources: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning"
    (2015), with the equal-mass bins of Nguyen and O'Connor, "Posterior calibration and exploratory analysis" (2015).
    """
    depth = filled.shape[1]
    probability, hit = forecasts.top_probability[:, :depth], forecasts.top_is_target[:, :depth]
    forecast = probability[filled]
    bin_index = np.zeros(filled.shape, dtype=np.int64)
    bin_index[filled] = equal_mass_bins(forecast)
    num_bins = int(bin_index.max()) + 1
    cell = np.arange(len(filled))[:, None] * num_bins + bin_index
    gap = np.bincount(cell.ravel(), np.where(filled, probability - hit, 0.0).ravel(), minlength=len(filled) * num_bins)
    # The mean of |noise| is √(2/π) of its deviation, which for a true probability p is √(p (1 − p)).
    noise = np.sqrt(2 / np.pi * np.bincount(bin_index[filled], forecast * (1 - forecast)))
    return Ratio(gap.reshape(-1, num_bins), filled.sum(axis=1).astype(np.float64), noise.sum() / max(1, len(forecast)))


class _Pool:
    """Ratios of some queries, and what resampling users makes of them."""

    def __init__(self, evaluation: Evaluation, ratios: Mapping[str, Ratio | None]) -> None:
        self.ratios = ratios
        parts = [part for one in ratios.values() if one is not None for part in (one.above, one.below[:, None])]
        columns = np.concatenate([np.zeros((len(evaluation.user), 0)), *parts], axis=1)
        is_used = columns.any(axis=1)
        user = evaluation.user[is_used]
        index = np.searchsorted(distinct(evaluation.user), distinct(user))
        self.table = UserColumns(index, sums_by_user(user, columns[is_used]))
        numbers = self._numbers(self.table.columns.sum(axis=0, keepdims=True))
        self.values = {name: float(value) for name, (value,) in numbers.items() if not np.isnan(value)}

    def _numbers(self, sums: Float[np.ndarray, "row column"]) -> dict[str, Float[np.ndarray, " row"]]:
        """Each number for rows of column sums; NaN for a row (a resample) that has nothing of it."""
        numbers, first = {}, 0
        for name, one in self.ratios.items():
            if one is not None:
                last = first + one.above.shape[1]
                numbers[name] = _ratio(np.abs(sums[:, first:last]).sum(axis=1), sums[:, last])
                first = last + 1
        return numbers

    def resample(self, sums: Float[np.ndarray, "resample column"]) -> None:
        """Takes in resampled sums of `table`.

        A resample has the noise of the sample and its own on top, which makes calibration errors larger. They are
        moved back, so that their mean is the error of the sample, and never below 0.
        """
        self.resampled = self._numbers(sums)
        for name, value in self.values.items():
            numbers, one = self.resampled[name], self.ratios[name]
            if one is not None and one.noise_floor is not None and not np.isnan(numbers).all():
                self.resampled[name] = np.maximum(0.0, numbers - np.nanmean(numbers) + value)

    def summary(self) -> dict[str, Any]:
        """Every number with its interval."""
        result: dict[str, Any] = {}
        for name in self.ratios:
            result |= _with_interval(name, self.values.get(name), self.resampled.get(name))
        return result


class _Group(_Pool):
    """Metrics of the queries inside, and calibration errors of their lists, or of the `cells` of all lists.

    With `by_user` a mean, but for that of the entropy, is over users, of whom each counts once.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        covered: Bool[np.ndarray, " query"] | None,
        inside: Bool[np.ndarray, " query"],
        cells: Bool[np.ndarray, "query k"] | None = None,
        by_user: bool = False,
    ) -> None:
        k, forecasts = evaluation.k, evaluation.forecasts
        row = np.unique(evaluation.user, return_inverse=True)[1]

        def mean(value: Float[np.ndarray, " query"], chosen: Bool[np.ndarray, " query"] = inside) -> Ratio:
            return _mean(value, chosen / np.maximum(np.bincount(row, chosen), 1)[row] if by_user else chosen * 1.0)

        ratios: dict[str, Ratio | None] = {
            f"ndcg@{k}": mean(evaluation.metric("ndcg")),
            f"recall@{k}": mean(evaluation.metric("recall")),
            "mrr": mean(evaluation.metric("mrr")),
            **dict.fromkeys(("nll", "brier", "entropy", *_calibration_errors(k))),
        }
        if forecasts is not None:
            filled = (evaluation.top_item >= 0) & (inside[:, None] if cells is None else cells)
            ratios["nll"] = mean(forecasts.nll, inside & (evaluation.target >= 0))
            ratios["brier"] = mean(forecasts.brier)
            ratios["entropy"] = _mean(forecasts.entropy, inside * 1.0)
            ratios |= {name: _calibration_error(forecasts, filled[:, :d]) for name, d in _calibration_errors(k).items()}
        if cells is None and not by_user:
            ratios |= _visit_ratios(evaluation, inside)
        super().__init__(evaluation, ratios)
        self.num_queries, self.num_users = int(inside.sum()), len(distinct(evaluation.user[inside]))
        self.covered = None if covered is None or not inside.any() else float(covered[inside].mean())

    def summary(self) -> dict[str, Any]:
        """The numbers, their noise floors, and the share of targets in their conformal sets.

        Wilson's interval is not empty where all are covered; a user counts once in it, however many queries there are.
        """
        result = super().summary()
        for name, one in self.ratios.items():
            if name.startswith("ece"):
                result[f"{name}_noise_floor"] = None if one is None else one.noise_floor
        result |= {CONFORMAL: self.covered, f"{CONFORMAL}_interval": None}
        if self.covered is not None:
            low, high = wilson_interval(np.array([self.covered]), np.array([self.num_users]))
            result[f"{CONFORMAL}_interval"] = [float(low[0]), float(high[0])]
        return result


def _by_chance(evaluation: Evaluation, thresholds: ConformalThresholds | None) -> list[float] | None:
    """The coverage that is to be expected if test is like validation; targets that are not ranked are in no set."""
    is_new = ~evaluation.target_was_seen
    if thresholds is None or not is_new.any():
        return None
    expected = thresholds.chance_range(CONFORMAL_LEVEL, len(distinct(evaluation.user[is_new])))
    return None if expected is None else [float(is_new.mean() * end) for end in expected]


def _calibration_errors(k: int) -> dict[str, int]:
    """The calibration errors, by how much of the lists they look at."""
    return {f"ece_top{depth}": depth for depth in (1, k)}


def _groups(
    evaluation: Evaluation,
    covered: Bool[np.ndarray, " query"] | None,
    groups: Groups,
    cell_index: Int[np.ndarray, "query k"] | None = None,
) -> dict[str, _Group]:
    """Each group by its name; `cell_index` groups the items of lists where they have other groups than the queries."""
    return {
        name: _Group(evaluation, covered, groups.index == index, None if cell_index is None else cell_index == index)
        for index, name in enumerate(groups.names)
    }


def _is_compared(name: str, group: _Group) -> bool:
    return group.num_users >= MIN_USERS and name != UNSEEN


def _rows(groups: Mapping[str, _Group]) -> list[dict[str, Any]]:
    """A row a group; `is_compared` is true where the group is large enough to be compared with others."""
    return [
        {
            "group": name,
            "num_queries": group.num_queries,
            "num_users": group.num_users,
            "is_compared": _is_compared(name, group),
            **group.summary(),
        }
        for name, group in groups.items()
    ]


def _gaps(groups: Mapping[str, _Group], k: int) -> dict[str, dict[str, Any] | None]:
    """The worst and the best group by NDCG and by each calibration error, with the gap between them.

    The interval of a gap is that of these two groups; that they were picked as the extremes makes the gap itself a
    little too large. None with fewer than two groups of at least `MIN_USERS` users.
    """
    gaps: dict[str, dict[str, Any] | None] = {}
    for metric, sign in {f"ndcg@{k}": 1, **dict.fromkeys(_calibration_errors(k), -1)}.items():
        compared = {n: one for n, one in groups.items() if _is_compared(n, one) and metric in one.values}
        in_order = sorted(compared, key=lambda name: sign * compared[name].values[metric])
        gaps[metric] = None
        if len(in_order) > 1:
            (worst, best) = (compared[name] for name in (in_order[0], in_order[-1]))
            gaps[metric] = {
                "worst_group": in_order[0],
                "worst": worst.values[metric],
                "best_group": in_order[-1],
                "best": best.values[metric],
                "gap": sign * (best.values[metric] - worst.values[metric]),
                "gap_interval": _interval_of_known(sign * (best.resampled[metric] - worst.resampled[metric])),
            }
    return gaps


def _summary_of_lists(evaluation: Evaluation) -> dict[str, Any]:
    """The probability of the whole list, and how well that of its first item selects good lists."""
    mass, area = None, None
    if evaluation.forecasts is not None:
        probability = evaluation.forecasts.top_probability
        mass = float(probability.sum(axis=1).mean())
        area = risk_coverage(probability[:, 0], evaluation.metric("ndcg")).area
    return {f"topk_probability_mass@{evaluation.k}": mass, "risk_coverage_area": area}


def _selection_ratios(evaluation: Evaluation) -> dict[str, Ratio | None]:
    """The mean NDCG of the half of the queries with least entropy, which is kept fixed in the resamples, and of all."""
    if evaluation.forecasts is None:
        return {}
    ndcg = evaluation.metric("ndcg")
    return {"half": _mean(ndcg, answered(evaluation.forecasts.entropy)), "all": _mean(ndcg, np.ones_like(ndcg))}


def _summary_of_selection(selection: _Pool, k: int) -> dict[str, Any]:
    """NDCG of the half of the queries with least entropy, and by what share it is above that of all."""
    half, every, gain, resampled_gain = selection.values.get("half"), selection.values.get("all"), None, None
    if half is not None and every:
        gain = half / every - 1
        resampled_gain = _ratio(selection.resampled["half"], selection.resampled["all"]) - 1
    return _with_interval(f"selective_ndcg@{k}", half, selection.resampled.get("half")) | _with_interval(
        SELECTIVE_GAIN, gain, resampled_gain
    )


def _beyond_accuracy(evaluation: Evaluation) -> dict[str, float | None]:
    count = exposure(evaluation.top_item, int(evaluation.protocol["num_items"]))
    return {
        f"catalog_coverage@{evaluation.k}": catalog_coverage(count),
        f"gini@{evaluation.k}": gini(count),
        f"novelty@{evaluation.k}": _mean_of_known(evaluation.novelty),
        f"diversity@{evaluation.k}": None if evaluation.diversity is None else _mean_of_known(evaluation.diversity),
    }


def _visit_ratios(evaluation: Evaluation, inside: Bool[np.ndarray, " query"]) -> dict[str, Ratio | None]:
    """Means over the visits inside, empty for a log without visits."""
    found = {} if evaluation.visits is None else evaluation.visits.metrics(evaluation.k)
    return {f"visit_{name}@{evaluation.k}": _mean(value, weight * inside) for name, (value, weight) in found.items()}


def _counts(evaluation: Evaluation) -> dict[str, int]:
    return {
        "num_queries": len(evaluation.rank),
        "num_users": len(distinct(evaluation.user)),
        "unseen_targets": int((evaluation.target_count == 0).sum()),
        "unknown_targets": int((evaluation.target < 0).sum()),
        "repeat_targets": int(evaluation.target_was_seen.sum()),
        "cold_queries": int((evaluation.history_length == 0).sum()),
        **({} if evaluation.visits is None else {"num_visits": evaluation.visits.num_counted}),
    }


def _mean_of_known(values: Float[np.ndarray, " query"]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _ratio(above: Float[np.ndarray, " row"], below: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """NaN where there is nothing below."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _with_interval(name: str, value: float | None, resampled: Float[np.ndarray, " resample"] | None) -> dict[str, Any]:
    """A number and its interval under their names; None where they are not defined."""
    interval = None if value is None or resampled is None else _interval_of_known(resampled)
    return {name: value, f"{name}_interval": interval}


def _interval_of_known(resampled: Float[np.ndarray, " resample"]) -> list[float] | None:
    """The 95 % interval of the resamples that have a value; None when none has."""
    known = resampled[~np.isnan(resampled)]
    return list(percentile_interval(known)) if len(known) else None
