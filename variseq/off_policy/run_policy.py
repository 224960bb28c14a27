"""The policy of a fitted run at logged exposures: histories are built again, then its engine ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.exposures.history import history_before, rebuild_history
from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import TargetProbabilities
from variseq.ranking.engine import Engine, together
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import at_rank, in_list
from variseq.ranking.ranked_lists import RankedLists
from variseq.ranking.selection import Constraints
from variseq.sequences.given_history import HistoryRow
from variseq.sequences.histories import Histories

PLAIN_FILTERS = {"exclude_seen", "pin", "at", "next"}
"""Filters that a record holds as they are; of others it has hashes only."""
LISTS_AT_ONCE = 16
"""The probabilities of a pool to be in a list take a few megabytes for each list while they are computed."""
NO_USER = "of no known user"
NO_HISTORY = "the store has another history than the one that was logged"
NO_FILTERS = "only hashes of their filters were logged"
NO_OPTIONS = "the run does not allow their options"


@dataclass(frozen=True, eq=False)
class RunPolicy:
    """What a run would draw, or with strategy "greedy" show, at exposures.

    Args:
        name: Names it in tables.
        engine: Of the run.
        options: Its strategy, temperature, pool and uniform_share. Of the rest, the log has what each request wanted.
        history_of: The events of a user of the exposures, oldest first; None where the user is not known.
        key: The key of the folder of exposures, which proves histories. None: of a table, which has none. There the
            history of a list is all events before it, and a list is asked for without filters.
        report: Called with the number of lists that are done and that of all.
    """

    name: str
    engine: Engine
    options: RecommendOptions
    history_of: Callable[[str], Sequence[HistoryRow] | None]
    key: bytes | None
    report: Callable[[int, int], None] = lambda done, total: None

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        """Probabilities at all lists whose history is known. Raises InputError for a log of another catalog."""
        log = lists.exposures
        if (self.key is None) != (log.context is None) or (self.key is None and not log.time.any()):
            raise InputError(
                f"What the run {self.name} would show cannot be known, as it needs the history before each list. Log "
                "exposures with `variseq serve --exposures`, or give a table with times and a log with --histories."
            )
        position, left_out = self.positions(lists), Counter[str]()
        found = _Found(lists, position, self.engine.vocabulary.num_items, self.options)
        for batch, ranked in self.ranked(lists, left_out):
            assert ranked.pool_item is not None
            assert ranked.pool_weight is not None
            found.add(batch, ranked.pool_item, ranked.pool_weight)
        return TargetProbabilities(found.at_rank, found.in_list, found.expected, found.expected_next, dict(left_out))

    def positions(self, lists: LoggedLists) -> Int[np.ndarray, " logged"]:
        """The logged items in the catalog of the run. Raises InputError for a log of another catalog."""
        item_ids = lists.exposures.item_ids
        found = self.engine.vocabulary.item_positions(item_ids)
        if not (found >= 0).any():
            raise InputError(
                f"The run {self.name} knows none of the {len(item_ids):,} items of the log, which is of another "
                "catalog. Name a run of the same one."
            )
        return found

    def ranked(
        self, lists: LoggedLists, left_out: Counter[str]
    ) -> Iterator[tuple[Sequence[LoggedRequest], RankedLists]]:
        """What the run ranks at all lists whose history is known, some at a time; the rest is counted by its reason.

        The lists have pools, scores and weights also where the strategy is greedy.
        """
        # Requests with and without a time are ranked apart from each other.
        waiting: dict[bool, list[LoggedRequest]] = {True: [], False: []}
        for request in self._requests(lists, left_out):
            batch = waiting[request.history.request_time is None]
            batch.append(request)
            if len(batch) == LISTS_AT_ONCE:
                yield batch, self._rank(batch)
                batch.clear()
        for batch in waiting.values():
            if batch:
                yield batch, self._rank(batch)

    def _rank(self, batch: Sequence[LoggedRequest]) -> RankedLists:
        histories = together([one.history for one in batch])
        return self.engine.rank(histories, [one.constraints for one in batch], self._options(batch), only_pools=True)

    def _options(self, batch: Sequence[LoggedRequest]) -> RecommendOptions:
        """Those of a batch. A greedy policy shows the first items of a pool, which come best first."""
        longest = max(one.constraints.k for one in batch)
        pool = longest if self.options.strategy == "greedy" else max(self.options.pool, longest)
        return replace(self.options, k=longest, strategy="softmax", pool=pool, seed=0, reasons=False)

    def _requests(self, lists: LoggedLists, left_out: Counter[str]) -> Iterator[LoggedRequest]:
        """What the run is asked, person by person; the rest is counted by its reason."""
        log = lists.exposures
        user: str | None = None
        events: Sequence[HistoryRow] | None = None
        for done, number in enumerate(np.argsort(lists.user, kind="stable").tolist(), 1):
            self.report(done, log.num_exposures)
            if (name := log.user[number]) is None:
                left_out[NO_USER] += 1
                continue
            if name != user:
                user, events = name, self.history_of(name)
            context: Mapping[str, Any] = {"filters": {}} if log.context is None else log.context[number]
            if events is None or set(context["filters"]) - PLAIN_FILTERS:
                left_out[NO_USER if events is None else NO_FILTERS] += 1
                continue
            if (rebuilt := self._history(events, context, int(log.time[number]))) is None:
                left_out[NO_HISTORY] += 1
                continue
            try:
                options = self._of_request(context, int(lists.lengths[number]))
                history = self.engine.history(rebuilt).at_request(options)
                yield LoggedRequest(number, history, self.engine.constraints(options))
            except InputError:
                left_out[NO_OPTIONS] += 1

    def _history(self, events: Sequence[HistoryRow], context: Mapping[str, Any], time: int) -> list[HistoryRow] | None:
        """What a list was made from; None where that cannot be proved."""
        if self.key is None:
            return history_before(events, time)
        return rebuild_history(events, context["history"], self.key)

    def _of_request(self, context: Mapping[str, Any], length: int) -> RecommendOptions:
        """The options of the run with those of a request. A list that was cut had as many scores as items."""
        filters = dict(context["filters"])
        pins = {int(rank): item for rank, item in filters.pop("pin", {}).items()}
        k = max(1, len(context.get("log_p") or ()), length)
        return replace(self.options, k=k, pool=max(self.options.pool, k), seed=0, pin=pins, **filters)


@dataclass(frozen=True, eq=False)
class LoggedRequest:
    """A list that a run is asked for: the number of its exposure, and what it is made from."""

    number: int
    history: Histories
    constraints: Constraints


class _Found:
    """Probabilities of the logged rows, and the pools that they come from."""

    def __init__(
        self, lists: LoggedLists, position: Int[np.ndarray, " logged"], num_items: int, options: RecommendOptions
    ) -> None:
        log = lists.exposures
        self.lists, self.is_greedy = lists, options.strategy == "greedy"
        self.at_rank, self.in_list = np.full(len(log.item), np.nan), np.full(len(log.item), np.nan)
        self.catalog_item = position[log.item]
        # Items of the catalog in the order of the log; one that was never logged comes after the last one.
        self.logged_item = np.full(num_items + 1, len(log.item_ids))
        self.logged_item[position[position >= 0]] = np.flatnonzero(position >= 0)
        self.pool_item: list[np.ndarray | None] = [None] * log.num_exposures
        self.pool_in_list: list[np.ndarray | None] = [None] * log.num_exposures
        self.pool_weight: list[np.ndarray | None] = [None] * log.num_exposures
        self.pool_index = np.full(len(log.item), -1)

    def add(
        self,
        batch: Sequence[LoggedRequest],
        item: Int[np.ndarray, "history pool"],
        weight: Float[np.ndarray, "history pool"],
    ) -> None:
        """The probabilities of some requests from their pools."""
        log = self.lists.exposures
        rows = [np.arange(log.offsets[one.number], log.offsets[one.number + 1]) for one in batch]
        free = [one[~log.is_pinned[one]] for one in rows]
        num_drawn = np.array([one.constraints.k - log.is_pinned[of].sum() for one, of in zip(batch, rows, strict=True)])
        index = self._index(free, item)
        if self.is_greedy:
            in_pool = ((np.arange(item.shape[1]) < num_drawn[:, None]) & (item >= 0)).astype(float)
            next_one = (index == np.arange(index.shape[1])).astype(float)
        else:
            everything = np.where(item >= 0, np.arange(item.shape[1]), -1)
            in_pool = in_list(weight, everything, np.maximum(num_drawn, 1))
            next_one = at_rank(weight, index)
        listed = np.where(index >= 0, np.take_along_axis(in_pool, np.maximum(index, 0), axis=1), 0.0)
        for number, one in enumerate(batch):
            drawn, is_used = free[number], in_pool[number] > 0
            self.at_rank[rows[number]] = self.in_list[rows[number]] = 1.0
            self.at_rank[drawn] = next_one[number, : len(drawn)]
            self.in_list[drawn] = listed[number, : len(drawn)]
            self.pool_item[one.number] = self.logged_item[item[number, is_used]]
            self.pool_in_list[one.number] = in_pool[number, is_used]
            self.pool_weight[one.number] = weight[number, is_used]
            self.pool_index[drawn] = index[number, : len(drawn)]

    def _index(self, rows: Sequence[np.ndarray], item: Int[np.ndarray, "history pool"]) -> Int[np.ndarray, "history k"]:
        """Where the drawn items of each list stand in its pool; −1 where they are not in it."""
        wanted = np.full((len(rows), max(1, *(len(one) for one in rows))), -2)
        for number, one in enumerate(rows):
            # An item that the run does not know is in no pool, and −1 stands for the end of one.
            wanted[number, : len(one)] = np.where(self.catalog_item[one] >= 0, self.catalog_item[one], -2)
        is_same: Bool[np.ndarray, "history k pool"] = item[:, None, :] == wanted[:, :, None]
        return np.where(is_same.any(axis=2), is_same.argmax(axis=2), -1)

    def expected(
        self, predicted: Float[np.ndarray, "fold item"], fold: Int[np.ndarray, " exposure"]
    ) -> Float[np.ndarray, " exposure"]:
        """Expected rewards of the lists; an item that was never logged is predicted to be as good as the mean."""
        log, every = self.lists.exposures, _every(predicted)
        of_rows = np.where(log.is_pinned, predicted[fold[log.row_exposure], log.item], 0.0)
        found = self.lists.per_exposure(of_rows)
        for number, (item, chance) in enumerate(zip(self.pool_item, self.pool_in_list, strict=True)):
            if item is not None:
                found[number] += every[fold[number], item] @ chance
        return found

    def expected_next(
        self, predicted: Float[np.ndarray, "fold item"], index: int
    ) -> Float[np.ndarray, "exposure fold"]:
        """The expected reward of the item at a rank, given the logged ones above it."""
        log, every = self.lists.exposures, _every(predicted)
        found = np.zeros((log.num_exposures, len(predicted)))
        for number, (item, weight) in enumerate(zip(self.pool_item, self.pool_weight, strict=True)):
            first = log.offsets[number]
            if item is None or weight is None or first + index >= log.offsets[number + 1]:
                continue
            above = self.pool_index[first : first + index]
            above = above[(above >= 0) & (above < len(item))]
            if self.is_greedy:
                num_above = index - int(log.is_pinned[first : first + index].sum())
                weight = (np.arange(len(item)) == num_above).astype(float)
            else:
                weight = weight.copy()
                weight[above] = 0.0
            found[number] = every[:, item] @ weight / max(weight.sum(), np.finfo(float).tiny)
        return found


def _every(predicted: Float[np.ndarray, "fold item"]) -> Float[np.ndarray, "fold item_plus_one"]:
    """The predicted rewards, and last that of an item that was never logged, which is the mean."""
    return np.concatenate([predicted, predicted.mean(axis=1, keepdims=True)], axis=1)
