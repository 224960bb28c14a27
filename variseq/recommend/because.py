"""Histories and recommended items into reasons: the earlier items without which each would be less probable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from variseq.sequences.histories import Histories, latest_items, without_items

NUM_REASONS = 3
NUM_CANDIDATES = 5
"""How many of the latest items are tried: on validation, trying more lowered the probability hardly more than five."""
CONTEXT_EVENTS = 32
"""How many of the latest events the trials look at, so that a long history costs no more than this."""
LEAST_FALL = 0.01
"""An item is a reason when without it log p is lower by at least so many nats: the probability by 1 % of itself."""
HISTORIES_AT_ONCE = 64
MOST_EXPLAINED = 100
"""Places after these have no reasons: a set can hold half a catalog, and nobody reads that far."""
PAIRS_AT_ONCE = 16_384
"""At most so many pairs of a history and a recommended item are tried together."""

Reasons = list[list[list[int]]]
LogProbability = Callable[[Histories, Int[np.ndarray, "copy k"], Int[np.ndarray, " copy"]], Float[np.ndarray, "copy k"]]
"""log p of some items of each history; the last argument says of which asked history each is a copy."""


def reasons(log_probability: LogProbability, histories: Histories, items: Int[np.ndarray, "history k"]) -> Reasons:
    """For each history and each of its recommended items at most three items of the history, the strongest first.

    One of the latest items is taken out of the history (all its events) and `log_probability` is asked again; the item
    is a reason when the recommended one is then less probable. The first `MOST_EXPLAINED` items of a list are tried.
    Where nothing supports a recommended item its list is empty, as it is for an item of −1. `deletion_test` measures
    how far this holds for a forecast over samples and whole histories.

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
        bounds = histories.offsets[begin : begin + size + 1]
        context = histories.select(bounds[:-1], bounds[1:]).latest(CONTEXT_EVENTS)
        candidates = latest_items(context, NUM_CANDIDATES)
        falls = _falls(partial(_counted_from, log_probability, begin), context, candidates, items[begin : begin + size])
        order = np.argsort(-falls, axis=2, kind="stable")[..., :NUM_REASONS]
        named = np.take_along_axis(candidates[:, None], order, axis=2).tolist()
        counts = np.minimum((falls >= LEAST_FALL).sum(axis=2), NUM_REASONS).tolist()
        for of_history, of_counts in zip(named, counts, strict=True):
            found.append([of_item[:count] for of_item, count in zip(of_history, of_counts, strict=True)] + rest)
    return found


def _counted_from(
    log_probability: LogProbability,
    first: int,
    histories: Histories,
    items: Int[np.ndarray, "copy k"],
    source: Int[np.ndarray, " copy"],
) -> Float[np.ndarray, "copy k"]:
    """The same of copies whose sources are counted from the first history of a part."""
    return log_probability(histories, items, source + first)


def _falls(
    log_probability: LogProbability,
    context: Histories,
    candidates: Int[np.ndarray, "history candidate"],
    items: Int[np.ndarray, "history k"],
) -> Float[np.ndarray, "history k candidate"]:
    """By how much log p of each item falls without each candidate; 0 where one of the two is −1."""
    source, place = np.nonzero(candidates >= 0)
    known = np.maximum(items, 0)
    fewer = without_items(context, source, candidates[source, place][:, None])
    # All are asked together: first the histories as they are, then the copies without an item.
    of = np.concatenate([np.arange(len(context)), source])
    asked = log_probability(context.joined(fewer), known[of], of)
    before, after = asked[: len(context)], asked[len(context) :]
    falls = np.zeros((*candidates.shape, items.shape[1]), dtype=np.float32)
    falls[source, place] = before[source] - after
    return np.where(items[..., None] >= 0, falls.transpose(0, 2, 1), 0.0)
