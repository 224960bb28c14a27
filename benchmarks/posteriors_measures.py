"""Evaluations of several seeds into what is claimed of posteriors: differences, calibration, sets, selective answers.

Over seeds means: the mean over seeds for each user, then everything over users. What has to be decided for each seed
apart (bins, selections) is decided so, and the results are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.evaluation.bootstrap import mean_interval, percentile_interval, resampled_sums
from variseq.evaluation.calibration import reliability, risk_coverage
from variseq.evaluation.evaluation import Evaluation, Forecasts
from variseq.evaluation.groups import by_length
from variseq.evaluation.significance import require_same_protocol, sign_flip_p_value
from variseq.ranking.calibration import ConformalThresholds

COVERAGE = 0.9
SHARES = (0.2, 0.5, 0.8)
CURVE_SHARES = tuple(round(0.05 * step, 2) for step in range(1, 21))
Record = dict[str, Any]
Evaluations = Sequence[Evaluation]


def forecasts_of(evaluation: Evaluation) -> Forecasts:
    assert evaluation.forecasts is not None
    return evaluation.forecasts


def over_seeds(evaluations: Evaluations, value: Callable[[Evaluation], np.ndarray]) -> Float[np.ndarray, " query"]:
    """The mean over seeds of a value of each query; queries are users here, as each user has one."""
    return np.mean([value(evaluation) for evaluation in evaluations], axis=0)


def comparison(first: Evaluations, second: Evaluations, metric: str) -> Record:
    """First minus second, paired by user: difference and relative difference with 95 % intervals, and a p-value."""
    require_same_protocol([*first, *second])
    sides = [over_seeds(side, lambda one: one.metric(metric)) for side in (first, second)]
    drawn = resampled_sums(np.stack(sides, axis=1)) / len(sides[0])
    ours, theirs = (float(side.mean()) for side in sides)
    # Where no user of a sample was given what came next, there is no relative difference.
    relative = drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], np.nan) - 1
    return {
        "metric": metric,
        "num_seeds": len(first),
        "first": ours,
        "second": theirs,
        "difference": ours - theirs,
        "interval": percentile_interval(drawn[:, 0] - drawn[:, 1]),
        "relative": ours / theirs - 1 if theirs > 0 else None,
        "relative_interval": None if np.isnan(relative).any() else percentile_interval(relative),
        "p_value": sign_flip_p_value(sides[0] - sides[1]),
    }


def scores(summaries: Sequence[Record], k: int) -> Record:
    """Metrics and calibration errors with their intervals for each seed, and the means over seeds."""
    metrics = (f"ndcg@{k}", f"recall@{k}", "mrr", "nll", "brier", "ece_top1", f"ece_top{k}")
    names = [*metrics, f"mass_top{k}", "entropy", "ece_top1_by_chance", f"ece_top{k}_by_chance"]
    kept = [*names, *(f"{name}_interval" for name in metrics)]
    return {
        "mean": {name: float(np.mean([summary[name] for summary in summaries])) for name in names},
        "by_seed": [{name: summary[name] for name in kept} for summary in summaries],
    }


def mean_rows(tables: Sequence[list[Record]]) -> list[Record]:
    """The means over seeds of tables with the same rows; the ends of intervals are averaged as well."""
    return [{name: _mean([row[name] for row in rows]) for name in rows[0]} for rows in zip(*tables, strict=True)]


def _mean(values: list[Any]) -> Any:
    """Of numbers or of intervals; what is no number, or the same in all rows, stays as it is."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], str | bool | int):
        return values[0]
    return np.mean(values, axis=0).tolist()


def conformal(evaluations: Evaluations, thresholds: Sequence[ConformalThresholds]) -> Record:
    """How often the sets of 90 % hold the item that came next: overall, by seed and by history length."""
    of_seeds = [one.is_covered(of_run, COVERAGE) for one, of_run in zip(evaluations, thresholds, strict=True)]
    held = np.mean(of_seeds, axis=0)
    groups, rows = by_length(evaluations[0].history_length), []
    for place, name in enumerate(groups.names):
        inside = groups.place == place
        row: Record = {"group": name, "num_queries": int(inside.sum()), "coverage": float(held[inside].mean())}
        rows.append(row | {"interval": mean_interval(np.flatnonzero(inside), held[inside])})
    return {
        "wanted": COVERAGE,
        "coverage": float(held.mean()),
        "interval": mean_interval(np.arange(len(held)), held),
        "by_seed": [float(one.mean()) for one in of_seeds],
        "by_history_length": rows,
    }


def size_of_sets(sizes: Int[np.ndarray, " set"], num_items: int) -> Record:
    """How many items the sets of some users hold, and which share of the catalog that is."""
    mean, median = float(sizes.mean()), float(np.median(sizes))
    shares = {"mean_share": mean / num_items, "median_share": median / num_items}
    return {"num_users": len(sizes), "mean": mean, "median": median, **shares}


def selective(evaluations: Evaluations, share: float) -> Record:
    """NDCG of the share of queries with the least entropy, and its gain over answering all, with its interval."""
    num_kept = max(1, round(share * len(evaluations[0].rank)))
    value = np.stack([one.metric("ndcg") for one in evaluations])
    order = np.argsort([forecasts_of(one).entropy for one in evaluations], axis=1, kind="stable")[:, :num_kept]
    kept = np.zeros(value.shape)
    np.put_along_axis(kept, order, 1.0, axis=1)
    drawn = resampled_sums(np.concatenate([kept * value, kept, value]).T).reshape(-1, 3, len(evaluations))
    inside, num_inside, everywhere = drawn[:, 0], np.maximum(drawn[:, 1], 1), np.maximum(drawn[:, 2], 1e-12)
    gain = (inside / num_inside / (everywhere / value.shape[1]) - 1).mean(axis=1)
    answered = (kept * value).sum(axis=1) / num_kept
    of_seeds = answered / np.maximum(value.mean(axis=1), 1e-12) - 1
    return {
        "share": share,
        "ndcg": float(answered.mean()),
        "ndcg_of_all": float(value.mean()),
        "gain": float(of_seeds.mean()),
        "gain_interval": percentile_interval(gain),
        "gain_by_seed": of_seeds.tolist(),
    }


def risk_curve(evaluations: Evaluations) -> Record:
    """Mean over seeds of the NDCG of those answered, least entropy first, at each share of the queries."""
    curves = [risk_coverage(-forecasts_of(one).entropy, one.metric("ndcg")) for one in evaluations]
    at = np.array(CURVE_SHARES)
    value = np.mean([np.interp(at, curve.coverage, curve.value) for curve in curves], axis=0)
    return {"share": list(CURVE_SHARES), "ndcg": value.tolist(), "area": float(np.mean([one.area for one in curves]))}


def reliability_curve(evaluations: Evaluations, depth: int) -> Record:
    """What was said and how often it came true, in bins of equal mass over the forecasts of all seeds."""
    filled = np.concatenate([one.top_item[:, :depth] >= 0 for one in evaluations])
    said = np.concatenate([forecasts_of(one).top_probability[:, :depth] for one in evaluations])
    happened = np.concatenate([forecasts_of(one).top_is_target[:, :depth] for one in evaluations])
    bins = reliability(said[filled], happened[filled])
    count = bins.num_forecasts.tolist()
    return {"said": bins.mean_probability.tolist(), "happened": bins.frequency.tolist(), "num_forecasts": count}
