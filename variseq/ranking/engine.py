"""The answering core: histories and options in, recommendations out; the same for Python, command line and HTTP."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.events.vocabulary import Id
from variseq.ranking.attributes import given_in_words, with_attributes
from variseq.ranking.calibration import NORMAL_90, ConformalThresholds, length_group
from variseq.ranking.catalog import Catalog, check_k
from variseq.ranking.drawing import Pool, draw
from variseq.ranking.encoding import EncodedHistories
from variseq.ranking.index import NUM_NEAR, ItemIndex
from variseq.ranking.item_codes import without_bias
from variseq.ranking.mixture import HISTORIES_AT_ONCE, Distribution, MixtureModel
from variseq.ranking.new_items import NewItemVectors
from variseq.ranking.next_time import NextTime
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import random_key
from variseq.ranking.ranked_lists import RankedLists
from variseq.ranking.reasons import NUM_CANDIDATES, log_probability, reasons
from variseq.ranking.recommendations import Recommendations
from variseq.ranking.selection import Constraints, Selector
from variseq.ranking.softmax import Columns
from variseq.ranking.when import NextTimes, WhenOptions, next_times
from variseq.sequences.given_history import GivenEvent, HistoryRow, as_histories, history_rows, too_early
from variseq.sequences.histories import Histories

ALMOST_32_MEGABYTES = 31 << 20
UNKNOWN_USER = "unknown user, what the model expects of an empty history"
NO_HISTORY = "no known item in the history, what the model expects of an empty history"
MOST_BOOSTED, MOST_EXCLUDED, MOST_LISTED = 1000, 100, 100
"""With more boosted or excluded items, or longer lists, the whole catalog is looked at."""


@dataclass(frozen=True, eq=False)
class KnownHistory:
    """Somebody's events as the model reads them, oldest first; `unknown` are the items that it does not know.

    `has_times` is False where the events have an order only. `user_id` is None for a history that was given. `hash` is
    that of the events, where exposures are kept.
    """

    histories: Histories
    unknown: list[Id]
    latest: int | None
    has_times: bool = True
    user_id: Id | None = None
    hash: str | None = None

    @property
    def num_events(self) -> int:
        return self.histories.num_events

    @property
    def nbytes(self) -> int:
        """The size of its arrays."""
        columns = (self.histories.item, self.histories.behavior, self.histories.timestamp, self.histories.value)
        return sum(column.nbytes for column in columns)

    def at_request(self, options: RecommendOptions) -> Histories:
        """The history with the time of the request. Raises InputError for a time that does not fit it."""
        at = options.request_time()
        if at is None:
            return self.histories
        if self.num_events and not self.has_times:
            raise InputError("at needs the times of the events, and the history has item ids only. Give both, or none.")
        if self.latest is not None and at < self.latest:
            raise too_early(options.at, self.latest, "the history")
        return replace(self.histories, request_time=np.array([at], dtype=np.int64))


@dataclass(frozen=True)
class Request:
    """What one list is to be: options, the items of earlier pages, and what else is wanted.

    That is attention weights, and the time of the next event.
    """

    options: RecommendOptions = field(default_factory=RecommendOptions)
    shown: Sequence[Id] = ()
    attention: bool = False
    when: WhenOptions | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """One list and what holds for all of it. `attention` has one weight for each event of the history.

    `uncertainty` is empty with `ranks_only`.

    `approximate` is True where an index chose the candidates and probabilities were estimated from a sample.
    """

    recommendations: Recommendations
    fallback: str | None
    uncertainty: dict[str, float]
    approximate: bool
    attention: list[float] | None
    when: NextTimes | None = None


class Engine:
    """A fitted model that recommends. One thread at a time may use it.

    Args:
        model: The mixture model.
        catalog: Its items.
        thresholds: Of its conformal sets; None: it forecasts none.
        repeat_share: Probability that the next event is a seen item.
        exclude_seen: What the log suggested.
        usual_behavior: Behavior of an event that names none.
        next_time: The fit of the time to the next event; None for a log without times.
        visit_gap: Longest time between events of one visit in microseconds; None: no visits.
        index: For a large catalog; None: the whole catalog is always looked at.
        version: Names the model in answers.
        health: What the model is and how its posterior is used.
        thresholds_at_request: Those where the time of the request is known.
        new_item_vectors: Gives items that are added their vectors; None: nothing that is known of an item says more.
    """

    def __init__(
        self,
        model: MixtureModel,
        catalog: Catalog,
        thresholds: ConformalThresholds | None,
        *,
        repeat_share: float,
        exclude_seen: bool,
        usual_behavior: int = 0,
        next_time: NextTime | None = None,
        visit_gap: int | None = None,
        index: ItemIndex | None = None,
        version: str = "",
        health: dict[str, Any] | None = None,
        thresholds_at_request: ConformalThresholds | None = None,
        new_item_vectors: NewItemVectors | None = None,
    ) -> None:
        self.thresholds_at_request = thresholds_at_request
        self.model, self.catalog, self.thresholds, self.index = model, catalog, thresholds, index
        self.repeat_share, self.exclude_seen, self.usual_behavior = repeat_share, exclude_seen, usual_behavior
        self.next_time, self.new_item_vectors = next_time, new_item_vectors
        self.visit_gap = visit_gap
        self.version, self.health = version, {"version": version, **(health or {})}
        self.vocabulary, self.items = catalog.vocabulary, catalog.items

    def with_score_offset(self, offset: Float[np.ndarray, " item"]) -> Engine:
        """The same engine, which adds an offset to the score of each item."""
        engine = copy.copy(self)
        engine.model = copy.copy(self.model)
        engine.model.tables = replace(self.model.tables, score_offset=offset.astype(np.float32))
        return engine

    def history(self, events: Iterable[HistoryRow], user_id: Id | None = None) -> KnownHistory:
        """Somebody's events, oldest first, as the model reads them. Raises InputError for ids of the other type.

        Items that the model does not know are left out. A behavior that it does not know is read as the usual one.
        """
        rows = list(events)
        histories, unknown = as_histories(rows, self.vocabulary, self.usual_behavior, self.visit_gap)
        return KnownHistory(histories, unknown, rows[-1][1] if rows else None, user_id=user_id)

    def given(self, history: Sequence[Id | GivenEvent]) -> KnownHistory:
        """A history as a caller gives it. Raises InputError; see `history_rows`."""
        has_times = any(isinstance(one, GivenEvent) and one.timestamp is not None for one in history)
        rows = history_rows(history, MICROSECONDS_PER_SECOND + (self.visit_gap or 0))
        return replace(self.history(rows), has_times=has_times)

    def when(self, histories: Histories, options: WhenOptions) -> NextTimes:
        """When the next event of each history is expected. Raises InputError for a model of a log without times."""
        if self.next_time is None:
            raise InputError(
                "This model forecasts no times, for its log has none. Fit a log with the times of its events."
            )
        return next_times(self.next_time, histories, options)

    def _when(self, history: KnownHistory, options: WhenOptions | None) -> NextTimes | None:
        """The answer for one history; None where it is not wanted, or there is no event."""
        if options is None or not history.num_events:
            return None
        if not history.has_times:
            raise InputError("The history has items without times, so no time can be forecast. Send events with times.")
        return self.when(history.histories, options)

    def constraints(
        self, options: RecommendOptions, shown: Sequence[Id] = (), user_id: Id | None = None
    ) -> Constraints:
        """Options as numbers of the catalog. Raises InputError for what the catalog does not have."""
        num_items = self.vocabulary.num_items
        check_k(options.k, num_items, "the size of the catalog")
        if options.conformal_level is not None:
            if self.thresholds is None:
                raise InputError(
                    "This model was not calibrated on validation, so it has no conformal sets. Leave out "
                    "conformal_level."
                )
            self.thresholds.at(options.conformal_level)
        if options.strategy == "thompson" and not self.model.encoder.latent_dim:
            raise InputError("This model has no posterior to sample. Give strategy='softmax', or leave it out.")
        if options.at is not None:
            self.model.calibration.require_at_request("The model")
        if options.next == "visit" and self.model.calibration.visit is None:
            raise InputError(
                "next='visit' asks for the next visit, and the log of this model was read without visits. Read it with "
                "visit_gap (--visit-gap 30m) or with a column of visits, and fit again."
            )
        return Constraints(
            num_items=num_items,
            k=options.k,
            exclude_seen=self.exclude_seen if options.exclude_seen is None else options.exclude_seen,
            candidates=self.catalog.candidates(options, shown),
            log_boost=self._log_boost(options),
            pins=self.catalog.pins(options),
            num_new=math.ceil(options.new_items_share * options.k - 1e-9),
            is_new=self.model.tables.is_new,
            random_key=random_key(options.seed, user_id) if options.strategy == "softmax" else 0,
        )

    def _log_boost(self, options: RecommendOptions) -> Float[np.ndarray, " item"] | None:
        """What is added to log p before ranking: by boosts, by a query, and learned from rewards; None: nothing."""
        parts = [self.catalog.log_boost(options)]
        # A set is defined by probabilities alone.
        parts += [self.model.tables.score_offset] if options.conformal_level is None else []
        if options.query is not None:
            encoder = None if self.new_item_vectors is None else self.new_item_vectors.encoder
            parts.append(self.catalog.query_boost(options.query, encoder))
        given = [one for one in parts if one is not None]
        return np.asarray(np.sum(given, axis=0, dtype=np.float32)) if given else None

    def recommend(
        self,
        histories: Histories,
        users: Sequence[Id | None],
        fallback: Sequence[str | None],
        options: RecommendOptions,
    ) -> Recommendations:
        """One table for several histories, which have the time of the request where it is known.

        Raises InputError for options that the catalog does not allow.
        """
        constraints = [self.constraints(options)] * len(histories)
        if options.strategy == "softmax":
            keys = (random_key(options.seed, one) for one in users)
            constraints = [replace(of_all, random_key=key) for of_all, key in zip(constraints, keys, strict=True)]
        attributes, given = self.model.attributes, options.attributes
        lists = self.rank(with_attributes(attributes, histories, given), constraints, options)
        return self._table(lists, users, [one and one + given_in_words(attributes, given) for one in fallback])

    def answer(self, requests: Sequence[tuple[KnownHistory, Request]]) -> list[Answer | InputError]:
        """All requests in as few passes as they allow; a request that is not possible gets its error."""
        answers: list[Answer | InputError | None] = [None] * len(requests)
        alike: dict[tuple[Any, ...], list[tuple[int, Constraints, Histories]]] = {}
        times: dict[int, NextTimes | None] = {}
        for number, (history, request) in enumerate(requests):
            options = request.options
            try:
                times[number] = self._when(history, request.when)
                constraints = self.constraints(options, request.shown, history.user_id)
                of_request = with_attributes(self.model.attributes, history.at_request(options), options.attributes)
            except InputError as error:
                answers[number] = error
                continue
            how = (*options.strategy_key, options.diversity, options.conformal_level)
            key = (*how, options.ranks_only, options.reasons, options.at is None, options.next)
            alike.setdefault(key, []).append((number, constraints, of_request))
        for members in alike.values():
            histories = together([of_request for _, _, of_request in members])
            options = requests[members[0][0]][1].options
            lists = self.rank(histories, [constraints for _, constraints, _ in members], options)
            for row, (number, _, _) in enumerate(members):
                answers[number] = replace(self._answer(lists, row, *requests[number]), when=times[number])
        return [answer for answer in answers if answer is not None]

    def _answer(self, lists: RankedLists, row: int, history: KnownHistory, request: Request) -> Answer:
        words = given_in_words(self.model.attributes, request.options.attributes)
        fallback = None if history.num_events else NO_HISTORY + words
        attention, uncertainty = None, {}
        if lists.total is not None and lists.aleatoric is not None:
            total, aleatoric = float(lists.total[row]), float(lists.aleatoric[row])
            uncertainty = {"total": total, "aleatoric": aleatoric, "epistemic": max(0.0, total - aleatoric)}
        if request.attention and lists.attention is not None:
            # The window begins with the start token where it reaches that far; older events have no weight.
            visits, num_events = history.histories.visits, history.num_events
            weights = np.concatenate([np.zeros(len(visits)), lists.attention[row]])[-len(visits) or None :]
            attention = weights[visits.of(np.arange(num_events))].tolist() if num_events else []
        return Answer(
            self._table(lists.rows([row]), [None], [fallback], len(request.shown)),
            fallback,
            uncertainty,
            bool(lists.approximate[row]),
            attention,
        )

    def rank(
        self,
        histories: Histories,
        constraints: Sequence[Constraints],
        options: RecommendOptions,
        only_pools: bool = False,
    ) -> RankedLists:
        """A list for each history, some histories at a time; or what strategy="softmax" would draw it from."""
        _keep_freed_memory()
        model = self.model
        noise = model.noise(0 if options.ranks_only else model.calibration.num_samples)
        encoded = model.encoder.encode(histories, noise)
        is_short = np.zeros(len(constraints), dtype=bool)
        if self.index is not None:
            num_removed = int(self.catalog.removed.sum())
            is_short[:] = [_can_be_approximate(one, options, num_removed) for one in constraints]
            # An index does not find what people with some attributes take.
            if model.attributes is not None:
                is_short &= ~model.attributes.change(histories)
        copies = len(noise) if options.ranks_only or not options.reasons else max(len(noise), 1 + NUM_CANDIDATES)
        parts, order = [], []
        for rows, size, index in (
            (np.flatnonzero(is_short), HISTORIES_AT_ONCE, self.index),
            (np.flatnonzero(~is_short), model.rows_at_once(copies), None),
        ):
            for first in range(0, len(rows), size):
                chosen = rows[first : first + size]
                of_chosen = [constraints[row] for row in chosen.tolist()]
                part = (histories.rows(chosen), encoded.rows(chosen), of_chosen)
                parts.append(self._rank_part(*part, options, index, only_pools))
                order.append(chosen)
        return RankedLists.joined(parts).rows(np.argsort(np.concatenate(order)).tolist())

    def _rank_part(
        self,
        histories: Histories,
        encoded: EncodedHistories,
        constraints: Sequence[Constraints],
        options: RecommendOptions,
        index: ItemIndex | None,
        only_pools: bool,
    ) -> RankedLists:
        model, explored = self.model, None
        if options.strategy == "thompson":
            explored = model.encoder.encode(histories, model.noise(1, options.seed or 0))
        columns = None if index is None else self._short(histories, [encoded, explored], constraints, index)
        leaves_out = np.array([one.exclude_seen for one in constraints])
        repeats = np.where(leaves_out | self.exclude_seen, self.repeat_share, np.nan)
        distribution = model.distribution(encoded, histories, columns, repeats)
        p = distribution.probabilities()
        ranking = p if explored is None else model.distribution(explored, histories, columns, repeats).probabilities()
        selector = Selector.of(histories, constraints, columns or model.everything)
        approximate, drawn = np.full(len(p), index is not None), None
        if options.strategy == "softmax":
            pool = Pool.of(selector, ranking, options)
            if only_pools:
                return RankedLists(
                    pool.item[:, : options.k],
                    pool.score[:, : options.k],
                    approximate,
                    pool_item=pool.item,
                    pool_score=pool.score,
                    pool_weight=pool.weight,
                )
            drawn = draw(pool, constraints)
            item, score = drawn.item, drawn.score
        elif options.conformal_level is None:
            vectors = without_bias(model.tables.vectors)
            item, score = selector.best(ranking, options.diversity, vectors, options.ranks_only)
        else:
            fitted = self.thresholds if histories.request_time is None else self.thresholds_at_request
            assert fitted is not None
            limits = fitted.at(options.conformal_level)[length_group(histories.lengths)]
            item, score = selector.conformal_set(ranking, limits)
        if options.ranks_only:
            return RankedLists(item, score, approximate)
        total, aleatoric = distribution.entropies(p)
        found = None
        if options.reasons:
            found = reasons(partial(log_probability, model, columns or model.everything), histories, item)
        intervals = _intervals(distribution, item)
        if options.next == "visit" and model.calibration.visit is not None:
            of_visit = model.calibration.visit
            middle, low, high = (of_visit.probability(one, histories) for one in intervals)
            intervals = middle, low, high
        lists = RankedLists(item, score, approximate, *intervals, total, aleatoric, found, encoded.attention)
        return lists if drawn is None else replace(lists, at_rank=drawn.at_rank, in_list=drawn.in_list)

    def _short(
        self,
        histories: Histories,
        encoded: Sequence[EncodedHistories | None],
        constraints: Sequence[Constraints],
        index: ItemIndex,
    ) -> Columns:
        """The items that are scored themselves: found by the index, followers, trend, history, boosts and pins."""
        num_histories, model = len(histories), self.model
        row, followers = np.arange(num_histories), self.model.followers(histories)
        trending = model.by_trend[: index.num_trending]
        cells = [
            (np.repeat(row, histories.lengths), histories.item.astype(np.int64)),
            (followers.row, followers.item),
            (np.repeat(row, len(trending)), np.tile(trending, num_histories)),
            (np.repeat(row, len(model.new_items)), np.tile(model.new_items, num_histories)),
        ]
        for one in encoded:
            if one is not None:
                found = index.best(model.scaled(one, histories).mean(axis=1))
                cells.append((np.repeat(row, found.shape[1]), found.ravel()))
        if model.near is not None:
            cells.append(model.near.likeliest(histories, NUM_NEAR))
        for number, of_row in enumerate(constraints):
            boosted = [] if of_row.log_boost is None else np.flatnonzero(of_row.log_boost).tolist()
            named = np.array([*boosted, *(item for _, item in of_row.pins)], dtype=np.int64)
            cells.append((np.full(len(named), number), named))
        of_history, item = (np.concatenate(part) for part in zip(*cells, strict=True))
        return index.columns(of_history, item, num_histories)

    def _table(
        self, lists: RankedLists, users: Sequence[Id | None], fallback: Sequence[str | None], num_shown: int = 0
    ) -> Recommendations:
        """Lists in the ids and titles of the catalog."""
        row, index = np.nonzero(lists.item >= 0)
        item, rows, catalog = lists.item[row, index].tolist(), row.tolist(), self.catalog
        total = None if lists.total is None else lists.total[row]
        aleatoric = None if lists.aleatoric is None else lists.aleatoric[row]
        tables = (lists.probability, lists.low, lists.high, lists.at_rank, lists.in_list)
        probability, low, high, at_rank, in_list = (None if one is None else one[row, index] for one in tables)
        named = None
        if lists.reasons is not None:
            of_items = (lists.reasons[one][rank] for one, rank in zip(rows, index.tolist(), strict=True))
            named = [[catalog.name(reason) for reason in found] for found in of_items]
        return Recommendations(
            user_id=[users[one] for one in rows],
            item_id=[catalog.ids[one] for one in item],
            rank=index + 1 + num_shown,
            score=lists.score[row, index],
            probability=probability,
            probability_low=low,
            probability_high=high,
            title=[catalog.titles[one] for one in item],
            source=["content" if self.model.tables.is_new[one] else "events" for one in item],
            reasons=named,
            fallback=[fallback[one] for one in rows],
            uncertainty_total=total,
            uncertainty_aleatoric=aleatoric,
            uncertainty_epistemic=None if total is None else np.maximum(0.0, total - aleatoric),
            propensity_at_rank=at_rank,
            propensity_in_list=in_list,
            id_types=(self.vocabulary.users.type, self.vocabulary.items.type),
        )


@cache
def _keep_freed_memory() -> None:
    """Make glibc keep blocks of up to 32 MB for the next use.

    It returns freed memory to the system above a limit: twice the largest block that was ever freed, at most 32 MB.
    """
    np.empty(ALMOST_32_MEGABYTES, dtype=np.uint8)


def _intervals(
    distribution: Distribution, item: Int[np.ndarray, "history k"]
) -> tuple[Float[np.ndarray, "history k"], Float[np.ndarray, "history k"], Float[np.ndarray, "history k"]]:
    """The probability of ranked items, and the ends of the central 90 % of it under the posterior."""
    sampled = distribution.sampled(np.maximum(item, 0))
    mean = sampled.mean(axis=1)
    # Probabilities are far from normal near zero; their logarithms are closer to it.
    reach = np.exp(NORMAL_90 * np.log(sampled).std(axis=1))
    return mean, mean / reach, np.minimum(mean * reach, 1.0)


def _can_be_approximate(constraints: Constraints, options: RecommendOptions, num_removed: int) -> bool:
    """A set, a category or a choice of items can lie far from what an index finds; for those all items are scored.

    An index does not find removed items.
    """
    few_boosts = constraints.log_boost is None or np.count_nonzero(constraints.log_boost) <= MOST_BOOSTED
    candidates = constraints.candidates
    excluded = 0 if candidates is None else len(candidates) - int(candidates.sum()) - num_removed
    is_short = excluded <= MOST_EXCLUDED and constraints.k <= MOST_LISTED
    return bool(options.conformal_level is None and few_boosts and is_short)


def together(histories: Sequence[Histories]) -> Histories:
    """Histories of one each as one table."""
    offsets = np.cumsum([0, *(one.num_events for one in histories)]).astype(np.int64)
    names = ("item", "behavior", "timestamp", "value")
    columns = (np.concatenate([getattr(one, name) for one in histories]) for name in names)
    found = Histories(offsets, *columns, visit_gap=histories[0].visit_gap)
    for name in ("request_time", "attributes"):
        known = [getattr(one, name) for one in histories if getattr(one, name) is not None]
        changes: dict[str, Any] = {name: np.concatenate(known)} if known else {}
        found = replace(found, **changes)
    return found
