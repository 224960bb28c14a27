"""The outcomes of an evaluation into its main numbers, and one draw of the users for the intervals of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from variseq.evaluation.bootstrap import Block, means_by_user, percentile_interval, resampled_blocks, sums_by_user
from variseq.evaluation.calibration import answered, risk_coverage
from variseq.evaluation.group_rows import Drawn, GroupRows
from variseq.evaluation.pooled import Outcomes, Pool, interval_of_known

SELECTIVE_GAIN = "selective_gain_50"
POOLED = "entropy"
"""The mean over queries; the other metrics are means over users."""


def summarize(
    outcomes: Outcomes, groups: Sequence[GroupRows], num_resamples: int, seed: int
) -> tuple[Drawn, dict[str, Any]]:
    """The resampled sums that the rows of the groups need, and the numbers over all queries."""
    everything = Pool(outcomes, np.ones(len(outcomes.user), dtype=bool))
    selective = _selective_columns(outcomes)
    every_user = np.arange(len(outcomes.users))
    blocks = {"means": Block(every_user, _means(outcomes)), "everything": everything.block}
    if selective is not None:
        blocks["selective"] = Block(every_user, selective)
    for one in groups:
        blocks |= one.blocks()
    drawn = resampled_blocks(blocks, len(every_user), num_resamples, seed)
    numbers = {
        **everything.told(drawn["everything"]),
        **_told_means(outcomes, blocks["means"].columns, drawn["means"]),
        **_of_lists(outcomes),
        **_told_selective(outcomes.k, selective, drawn.get("selective")),
    }
    return drawn, numbers


def _by_user(outcomes: Outcomes) -> dict[str, Float[np.ndarray, " query"]]:
    return {name: value for name, value in outcomes.metrics.items() if value is not None and name != POOLED}


def _means(outcomes: Outcomes) -> Float[np.ndarray, "user metric"]:
    return means_by_user(outcomes.user, np.stack(list(_by_user(outcomes).values()), axis=1))


def _told_means(
    outcomes: Outcomes, means: Float[np.ndarray, "user metric"], drawn: Float[np.ndarray, "resample metric"]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for column, name in enumerate(_by_user(outcomes)):
        result[name] = float(means[:, column].mean())
        result[f"{name}_interval"] = list(percentile_interval(drawn[:, column] / len(means)))
    return result


def _of_lists(outcomes: Outcomes) -> dict[str, Any]:
    """How probable the lists are, and how far the probability of their first item tells good ones from bad ones."""
    listed, value = outcomes.listed, outcomes.metrics[f"ndcg@{outcomes.k}"]
    assert value is not None
    mass, area = None, None
    if listed is not None:
        mass = float(listed.probability.sum(axis=1).mean())
        area = risk_coverage(listed.probability[:, 0], value).area
    return {f"mass_top{outcomes.k}": mass, "risk_coverage_area": area}


def _selective_columns(outcomes: Outcomes) -> Float[np.ndarray, "user column"] | None:
    """Per user the NDCG and the number of queries, of those in the half with least entropy, then of all."""
    entropy, value = outcomes.metrics["entropy"], outcomes.metrics[f"ndcg@{outcomes.k}"]
    if entropy is None or value is None:
        return None
    is_answered = answered(entropy)
    return sums_by_user(outcomes.user, np.stack([is_answered * value, is_answered, value, np.ones_like(value)], axis=1))


def _told_selective(
    k: int, columns: Float[np.ndarray, "user column"] | None, drawn: Float[np.ndarray, "resample column"] | None
) -> dict[str, Any]:
    """NDCG of the half of the queries with least entropy, and by what share it is above that of all.

    Which queries are in that half is kept fixed in the resamples.
    """
    names = (f"selective_ndcg@{k}_50", SELECTIVE_GAIN)
    result: dict[str, Any] = {key: None for name in names for key in (name, f"{name}_interval")}
    if columns is None or drawn is None:
        return result
    of_half, gain = _half_and_gain(columns.sum(axis=0, keepdims=True))
    for name, value, resampled in zip(names, (of_half, gain), _half_and_gain(drawn), strict=True):
        if not np.isnan(value[0]):
            result |= {name: float(value[0]), f"{name}_interval": interval_of_known(resampled)}
    return result


def _half_and_gain(
    sums: Float[np.ndarray, "row column"],
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """NaN where no query is answered; the gain also where the NDCG of all is 0."""
    half, num_half, every, num_every = sums.T
    of_half = np.divide(half, num_half, out=np.full(len(sums), np.nan), where=num_half > 0)
    of_all = every / num_every
    return of_half, np.divide(of_half, of_all, out=np.full(len(sums), np.nan), where=of_all > 0) - 1
