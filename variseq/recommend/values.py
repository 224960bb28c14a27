"""Forecasts of the values of a part's targets by a network and by baselines, and the calibration of their spread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from variseq.evaluation.splits import TEST_FILE, Part, Queries
from variseq.evaluation.value_forecasts import REACH, ValueBaselines, ValueForecasts
from variseq.model.network import Network
from variseq.model.posterior import value_estimates
from variseq.sequences.histories import Histories

QUERIES_AT_ONCE = 2_000
FEWEST_VALUES, SMALLEST_FACTOR = 50, 1e-3


def forecast_values(network: Network, part: Part, known: Histories, targets: str) -> ValueForecasts | None:
    """Forecasts for the targets of a part; None where the log or the part has no values.

    `known` are the events that the network was trained on, in which the baselines are counted.
    """
    queries = _queries(part, targets)
    value = part.histories.value[queries.position].astype(np.float64)
    if network.value_head is None or not np.isfinite(value).any():
        return None
    baselines = ValueBaselines(known, part.num_items, targets)
    queried = [(value_estimates(network, one), baselines.forecasts(one)) for one in _queried(part, queries)]
    mean, deviation = (
        np.concatenate(column) for column in zip(*(of_network for of_network, _ in queried), strict=True)
    )
    # The people of a test file are numbered anew; those whom the log has begin with its events.
    of_users = part.history() if part.name == TEST_FILE else known
    is_known_user = np.append(of_users.lengths > 0, False)[queries.user.clip(max=len(of_users))]
    return ValueForecasts(
        mean,
        deviation if network.config.value_loss == "gaussian" else None,
        value,
        is_known_user & (part.train_item_count[part.histories.item[queries.position]] > 0),
        {name: np.concatenate([of_baselines[name] for _, of_baselines in queried]) for name in queried[0][1]},
    )


def calibrate_spread(chosen: Network, network: Network, valid: Part) -> None:
    """Scale the standard deviations so that 90 % intervals of `chosen` hold 90 % of the validation values.

    `network`, the refitted one or the same, gets the same factor. With a squared loss or few values it stays 1.
    """
    if chosen.value_head is None or network.value_head is None or chosen.config.value_loss != "gaussian":
        return
    queries = _queries(valid, "all")
    value = valid.histories.value[queries.position].astype(np.float64)
    known = np.isfinite(value)
    if known.sum() < FEWEST_VALUES:
        return
    found = [value_estimates(chosen, one) for one in _queried(valid, queries)]
    mean, deviation = (np.concatenate(column) for column in zip(*found, strict=True))
    factor = float(np.quantile((np.abs(value - mean) / deviation)[known], 0.9)) / REACH
    for head in (chosen.value_head, network.value_head):
        head.spread.fill_(max(factor, SMALLEST_FACTOR))


def _queries(part: Part, targets: str) -> Queries:
    """The queries whose target is in the catalog."""
    every = part.queries(targets)
    in_catalog = ~part.is_unknown_target(every)
    return Queries(every.user[in_catalog], every.position[in_catalog])


def _queried(part: Part, queries: Queries) -> Iterator[Histories]:
    """The histories of the queries, each with its target as the last event, some at a time."""
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        some = slice(first, first + QUERIES_AT_ONCE)
        before = part.histories_before(Queries(queries.user[some], queries.position[some]))
        yield before.followed_by(part.histories.select(queries.position[some], queries.position[some] + 1))
