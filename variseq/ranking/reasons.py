"""Reasons: the earlier items without which a recommended item would be less probable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from variseq.ranking.calibration import NEAR, TREND, UNIFORM
from variseq.ranking.mixture import HISTORIES_AT_ONCE, MixtureModel
from variseq.ranking.softmax import Columns, Softmaxes
from variseq.sequences.histories import Histories, latest_items, without_items

NUM_REASONS = 3
NUM_CANDIDATES = 5
"""How many of the latest items are tried: on validation, trying more lowered the probability hardly more than five."""
CONTEXT_EVENTS = 32
"""How many of the latest events are looked at, so that a long history costs no more than this."""
LEAST_FALL = 0.01
"""An item is a reason when without it log p is lower by at least so many nats: the probability by 1 % of itself."""
MOST_EXPLAINED = 100
"""Ranks after these have no reasons: a conformal set can hold half a catalog."""
PAIRS_AT_ONCE = 16_384
"""At most so many pairs of a history and a recommended item are looked at together."""

Reasons = list[list[list[int]]]
LogProbability = Callable[[Histories, Int[np.ndarray, "copy k"], Int[np.ndarray, " copy"]], Float[np.ndarray, "copy k"]]
"""log p of some items of each history; the last argument is the history of which each is a copy."""


def reasons(log_p: LogProbability, histories: Histories, items: Int[np.ndarray, "history k"]) -> Reasons:
    """For each history and each of its recommended items at most three items of the history, the strongest first.

    One of the latest items is taken out of the history (all its events) and log p is computed again; the item is a
    reason when the recommended one is then less probable. The first `MOST_EXPLAINED` items of a list are explained.
    Where nothing supports a recommended item its list is empty, as it is for an item of −1.

    >>> def falls_with_each_event(histories, items, source):
    ...     return np.repeat(histories.lengths[:, None], items.shape[1], axis=1).astype(np.float32)
    >>> reasons(falls_with_each_event, Histories.of_items([[3, 1, 3], []]), np.array([[0, 2], [0, -1]]))
    [[[3, 1], [3, 1]], [[], []]]
    """
    rest: list[list[int]] = [[] for _ in range(items.shape[1] - MOST_EXPLAINED)]
    items = items[:, :MOST_EXPLAINED]
    size = min(HISTORIES_AT_ONCE, max(1, PAIRS_AT_ONCE // max(1, items.shape[1])))
    found: Reasons = []
    for begin in range(0, len(histories), size):
        rows = np.arange(begin, min(begin + size, len(histories)))
        context = histories.rows(rows).latest(CONTEXT_EVENTS)
        candidates = latest_items(context, NUM_CANDIDATES)
        falls = _falls(log_p, rows, context, candidates, items[rows])
        order = np.argsort(-falls, axis=2, kind="stable")[..., :NUM_REASONS]
        named = np.take_along_axis(candidates[:, None], order, axis=2).tolist()
        counts = np.minimum((falls >= LEAST_FALL).sum(axis=2), NUM_REASONS).tolist()
        for of_history, of_counts in zip(named, counts, strict=True):
            found.append([of_item[:count] for of_item, count in zip(of_history, of_counts, strict=True)] + rest)
    return found


def _falls(
    log_p: LogProbability,
    rows: Int[np.ndarray, " history"],
    context: Histories,
    candidates: Int[np.ndarray, "history candidate"],
    items: Int[np.ndarray, "history k"],
) -> Float[np.ndarray, "history k candidate"]:
    """By how much log p of each item falls without each candidate; 0 where one of the two is −1."""
    source, index = np.nonzero(candidates >= 0)
    fewer = without_items(context, source, candidates[source, index][:, None])
    # All are computed together: first the histories as they are, then the copies without an item.
    of = np.concatenate([np.arange(len(context)), source])
    found = log_p(context.joined(fewer), np.maximum(items, 0)[of], rows[of])
    before, after = found[: len(context)], found[len(context) :]
    falls = np.zeros((*candidates.shape, items.shape[1]), dtype=np.float32)
    falls[source, index] = before[source] - after
    return np.where(items[..., None] >= 0, falls.transpose(0, 2, 1), 0.0)


def log_probability(
    model: MixtureModel,
    columns: Columns,
    copies: Histories,
    items: Int[np.ndarray, "copy k"],
    source: Int[np.ndarray, " copy"],
) -> Float[np.ndarray, "copy k"]:
    """log p of some items at the posterior mean, over columns that the copies of a history share."""
    row = source
    if columns.listed is None:
        _, row = np.unique(source, return_inverse=True)
    encoded = model.encoder.encode(copies, model.noise(0), row)
    # Copies of one history stand side by side, as samples do elsewhere; a row that has fewer is filled with zeros.
    index = _index_in_row(row)
    num_rows = int(row.max()) + 1 if columns.listed is None else len(columns.listed)
    scaled = model.scaled(encoded, copies)[:, 0]
    side_by_side = np.zeros((num_rows, index.max() + 1, scaled.shape[1]), dtype=np.float32)
    side_by_side[row, index] = scaled
    softmaxes = Softmaxes(columns, side_by_side)
    calibration = model.calibration.of(copies)
    log_gap = calibration.log_gap(copies)
    weights = calibration.gate.weights(softmaxes.log_mass[row, index], encoded.log_variance, log_gap)[..., None]
    p = weights[0] * softmaxes.at(row[:, None], index[:, None], columns.of_items(row[:, None], items))
    for number, counted in model.counted(copies):
        p += weights[number] * counted.share(items, model.prior[items].astype(np.float32))
    p += weights[TREND] * model.trend[items] + weights[UNIFORM] / columns.num_items
    if model.near is not None:
        p += weights[NEAR] * model.near.at(copies, items)
    return np.log(p).astype(np.float32)


def _index_in_row(row: Int[np.ndarray, " copy"]) -> Int[np.ndarray, " copy"]:
    """How many copies of the same history come before each.

    >>> _index_in_row(np.array([0, 1, 0, 1, 1]))
    array([0, 0, 1, 1, 2])
    """
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    index = np.empty(len(row), dtype=np.int64)
    index[order] = np.arange(len(row)) - np.searchsorted(ordered, ordered)
    return index
