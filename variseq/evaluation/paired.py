"""A model and its rivals into paired differences, corrected for their number: for JSON, and as a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.significance import compare, holm

METRICS = ("nll", "ndcg")


def paired_differences(model: Evaluation, rivals: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One record a rival and metric: `difference` is the mean over users of model minus rival, with `interval` (95 %).

    `p_value` is that of the comparison alone, `p_value_holm` is corrected for all that are made here. A metric that one
    of the two does not have, or that is infinite for a query (NLL where repeats were never seen to happen), is left
    out.
    """
    found = [compare(model, rival, name) for rival in rivals for name in METRICS if _is_known(name, model, rival)]
    corrected = holm([one.p_value for one in found])
    return [
        {
            "model": one.first,
            "beside": one.second,
            "metric": f"ndcg@{model.k}" if one.metric == "ndcg" else one.metric,
            "difference": one.difference,
            "interval": list(one.interval),
            "p_value": one.p_value,
            "p_value_holm": p_value,
            "num_users": one.num_users,
        }
        for one, p_value in zip(found, corrected, strict=True)
    ]


def difference_sentences(records: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence a rival.

    >>> found = {"model": "variseq", "beside": "twin", "metric": "nll", "difference": -0.0481, "p_value_holm": 0.0002,
    ...     "interval": [-0.052, -0.0442], "num_users": 5000}
    >>> difference_sentences([found])
    ["variseq minus 'twin', paired by 5,000 users: nll -0.0481 (-0.0520 to -0.0442), p (Holm) = 0.0002"]
    """
    by_rival: dict[tuple[str, str, int], list[str]] = {}
    for one in records:
        (low, high), p_value = one["interval"], one["p_value_holm"]
        told = f"{one['metric']} {one['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p (Holm) = {p_value:.4f}"
        by_rival.setdefault((one["model"], one["beside"], one["num_users"]), []).append(told)
    return [
        f"{model} minus {beside!r}, paired by {num_users:,} users: {'; '.join(told)}"
        for (model, beside, num_users), told in by_rival.items()
    ]


def _is_known(name: str, *evaluations: Evaluation) -> bool:
    if name == "nll" and any(one.forecasts is None for one in evaluations):
        return False
    return all(bool(np.isfinite(one.metric(name)).all()) for one in evaluations)
