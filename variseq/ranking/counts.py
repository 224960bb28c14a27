"""Items that are counted for histories: what followed the last item, and what the person did before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer, Num

from variseq.distinct import distinct
from variseq.errors import InputError
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.calendar import NO_CALENDAR, UTC, hour_and_weekend
from variseq.sequences.histories import Histories, last_items, log_seconds, ragged_index

PRIOR_EVENTS = 100.0
"""How many events the popularity counts for among what followed an item."""
OTHER_HOURS = 0.05
"""What an event far from the hour of the request counts for at least."""


def item_counts(item: Int[np.ndarray, " event"], num_items: int) -> Int[np.ndarray, " item"]:
    """How often each item of the catalog occurs. Raises InputError for an item outside the catalog."""
    count = np.bincount(item, minlength=num_items)
    if len(count) > num_items:
        raise InputError(
            f"The histories hold item {len(count) - 1}, but the catalog has {num_items} items. "
            "Make the recommender with the num_items of the split."
        )
    return count


@dataclass(frozen=True, eq=False)
class CountedItems:
    """Items counted for each history: cells (row, item) with a count, each item once a row, and the total of each row.

    As a probability: (count + m · popularity) / (total + m) with m = `prior_events`.
    """

    total: Float[np.ndarray, " history"]
    row: Int[np.ndarray, " cell"]
    item: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]
    prior_events: float = PRIOR_EVENTS

    @property
    def events(self) -> Float[np.ndarray, " history"]:
        """The total of each row with what the popularity counts for."""
        return self.total + self.prior_events

    def share(
        self, item: Int[np.ndarray, "history k"], prior: Float[np.ndarray, "history k"]
    ) -> Float[np.ndarray, "history k"]:
        """The smoothed share of some items; `prior` is `PRIOR_EVENTS` times the popularity of each."""
        counted = np.zeros(item.shape)
        if len(self.item):
            num_items = max(int(self.item.max()), int(item.max())) + 1
            pair = self.row * num_items + self.item
            order = np.argsort(pair, kind="stable")
            wanted = np.arange(len(item))[:, None] * num_items + item
            found = order[np.searchsorted(pair, wanted, sorter=order).clip(max=len(pair) - 1)]
            counted = np.where(pair[found] == wanted, self.count[found], 0.0)
        shares: Float[np.ndarray, "history k"] = (counted + self.prior_events / PRIOR_EVENTS * prior) / self.events[
            :, None
        ]
        return shares

    def dense(self, prior: Float[np.ndarray, " item"]) -> Float[np.ndarray, "history item"]:
        """The smoothed share of all items; `prior` is `PRIOR_EVENTS` times the popularity of each."""
        prior = self.prior_events / PRIOR_EVENTS * prior
        shares = prior / self.events[:, None]
        shares[self.row, self.item] = (prior[self.item] + self.count) / self.events[self.row]
        return shares

    def log_dense(self, log_share: Float[np.ndarray, " item"]) -> Float[np.ndarray, "history item"]:
        """The logarithm of the smoothed share of all items; `log_share` is that of the popularity."""
        log_events, log_prior = np.log(self.events), np.log(self.prior_events) + log_share.astype(np.float64)
        # One pass in single precision: the rows of a large catalog are all that takes time here.
        log_shares = log_prior.astype(np.float32) - log_events.astype(np.float32)[:, None]
        counted = np.log(np.exp(log_prior[self.item]) + self.count)
        log_shares[self.row, self.item] = counted - log_events[self.row]
        return log_shares


@dataclass(frozen=True)
class OwnHistory:
    """How events of a person are counted.

    All but the first two are used where the request time is known.

    Args:
        decay: An event counts `decay` times as much for each later event of the person.
        transitions: How many events one transition counts for.
        gap: A transition counts exp(−gap) times as much for each doubling between its own time gap and that from the
            last event to the request.
        hour: The concentration of a von Mises kernel over the hour of the day; 0: the hour does not matter.
        weekend: What an event of a weekday counts for at a weekend, and the other way round.
        calendar: The IANA time zone of hours and days, or "none".
        prior_events: How many events the popularity counts for.
    """

    decay: float = 0.95
    transitions: float = 3.0
    gap: float = 0.0
    hour: float = 0.0
    weekend: float = 1.0
    calendar: str = UTC
    prior_events: float = 1.0

    @property
    def has_calendar(self) -> bool:
        """Whether hours or days matter."""
        return self.calendar != NO_CALENDAR and (self.hour > 0 or self.weekend != 1)


def followers(
    histories: Histories,
    offsets: Integer[np.ndarray, " item_plus_one"],
    follower: Integer[np.ndarray, " cell"],
    count: Num[np.ndarray, " cell"],
    lags: int = 1,
    decay: float = 1.0,
) -> CountedItems:
    """What followed the last item of each history; with visits the items of the last visit, each once.

    The followers of item i are the cells `offsets[i]:offsets[i + 1]`. With several lags it is the mean of what followed
    each of the last events, as probabilities, where an event has `decay` times the weight of the next one.
    Source: the mixture transition distribution (Raftery 1985).
    """
    if lags > 1:
        return _followers_of_lags(histories, offsets, follower, count, lags, decay)
    num_items, (known, last_item) = len(offsets) - 1, last_items(histories)
    start = offsets[last_item].astype(np.int64)
    lengths = offsets[last_item + 1] - start
    row, index = np.repeat(known, lengths), ragged_index(start, lengths)
    item, value = follower[index].astype(np.int64), count[index].astype(np.float32)
    if histories.visit_gap is not None:
        pair, cell = np.unique(row * num_items + item, return_inverse=True)
        row, item = pair // num_items, pair % num_items
        value = np.bincount(cell, weights=value, minlength=len(pair)).astype(np.float64)
    # Without any cell numpy counts in integers.
    total = np.bincount(row, weights=value, minlength=len(histories)).astype(np.float64)
    return CountedItems(total, row, item, value)


def _followers_of_lags(
    histories: Histories,
    offsets: Integer[np.ndarray, " item_plus_one"],
    follower: Integer[np.ndarray, " cell"],
    count: Num[np.ndarray, " cell"],
    lags: int,
    decay: float,
) -> CountedItems:
    num_items, num_histories = len(offsets) - 1, len(histories)
    pairs, shares, counted, weight = [], [], np.zeros(num_histories), np.zeros(num_histories)
    for lag in range(lags):
        row = np.flatnonzero(histories.lengths > lag)
        item = histories.item[histories.offsets[1:][row] - 1 - lag]
        start = offsets[item].astype(np.int64)
        lengths = offsets[item + 1] - start
        index, cell = ragged_index(start, lengths), np.repeat(np.arange(len(row)), lengths)
        total = np.bincount(cell, weights=count[index], minlength=len(row))
        # Each item has its own share of the popularity, as with one lag.
        of_lag = decay**lag / (total + PRIOR_EVENTS)
        pairs.append(row[cell] * num_items + follower[index].astype(np.int64))
        shares.append(of_lag[cell] * count[index])
        counted[row] += of_lag * total
        weight[row] += decay**lag
    pair, cell = np.unique(np.concatenate(pairs), return_inverse=True)
    share = np.bincount(cell, weights=np.concatenate(shares), minlength=len(pair)).astype(np.float64)
    # The total that leaves the popularity the same share in (count + m · popularity) / (total + m).
    prior_share = np.where(weight > 0, 1 - counted / np.maximum(weight, 1e-300), 1.0)
    all_events, row = PRIOR_EVENTS / prior_share, pair // num_items
    return CountedItems(all_events - PRIOR_EVENTS, row, pair % num_items, share * all_events[row] / weight[row])


def own_history(histories: Histories, options: OwnHistory) -> CountedItems:
    """What somebody did before: each item of the history, and what followed earlier events of its last item.

    count(i) = Σ decay^age over events of i + transitions · Σ decay^age over events of i right after the last item. The
    age is the number of later events of the person. Where the request time is known, each event counts as much as its
    hour and day are close to those of the request, and each transition as much as its time gap is, see `OwnHistory`.

    With visits the age is the number of later visits, and events come right after the last visit as far as the visit
    before them holds the same items.

    >>> counted = own_history(Histories.of_items([[4, 7, 4]]), OwnHistory(decay=0.5, transitions=2.0))
    >>> dict(zip(counted.item.tolist(), counted.count.tolist()))
    {4: 1.25, 7: 1.5}
    """
    num_histories, visits = len(histories), histories.visits
    row_of_visit = np.repeat(np.arange(num_histories), visits.lengths)
    age = visits.offsets[1:][row_of_visit] - 1 - np.arange(len(visits))
    weight = options.decay ** age.astype(np.float64)
    item = histories.item.astype(np.int64)
    width = int(item.max(initial=0)) + 1
    if options.transitions:
        after_last = weight * _follows_last(histories, row_of_visit, width)
        if options.gap and (request_gap := histories.log_gap) is not None:
            after_last *= np.exp(-options.gap * np.abs(_log_gaps(histories) - request_gap[row_of_visit]))
        weight = weight + options.transitions * after_last
    if options.has_calendar and histories.request_time is not None:
        weight *= _closeness(histories, row_of_visit, options)
    of_event = visits.of(np.arange(histories.num_events))
    row, weight = row_of_visit[of_event], weight[of_event]
    pair, cell = np.unique(row * width + item, return_inverse=True)
    count = np.bincount(cell, weights=weight, minlength=len(pair)).astype(np.float64)
    of_row = pair // width
    total = np.bincount(of_row, weights=count, minlength=num_histories).astype(np.float64)
    return CountedItems(total, of_row, pair % width, count, options.prior_events)


def _follows_last(histories: Histories, row: Int[np.ndarray, " visit"], width: int) -> Float[np.ndarray, " visit"]:
    """How much the visit before each is like the last one: the share of the last one's items that it holds."""
    visits, item = histories.visits, histories.item.astype(np.int64)
    follows = np.zeros(len(visits))
    last = visits.offsets[1:][row] - 1
    if histories.visit_gap is None:
        follows[1:] = (row[1:] == row[:-1]) & (item[:-1] == item[last[1:]])
        return follows
    pair = distinct(visits.of(np.arange(len(item))) * width + item)
    visit, is_in_last = pair // width, np.isin(last[pair // width] * width + pair % width, pair)
    shared = np.bincount(visit, weights=is_in_last, minlength=len(visits))
    size = np.bincount(visit, minlength=len(visits))
    follows[1:] = np.where(row[1:] == row[:-1], shared[:-1] / size[last[:-1]], 0.0)
    return follows


def _log_gaps(histories: Histories) -> Float[np.ndarray, " visit"]:
    """`log_seconds` from the event before each visit to its begin, of whatever history that is."""
    begin = histories.visits.begin(np.arange(len(histories.visits)))
    seconds = histories.timestamp[begin] - histories.timestamp[np.maximum(begin - 1, 0)]
    return log_seconds(seconds / MICROSECONDS_PER_SECOND)


def _closeness(
    histories: Histories, row: Int[np.ndarray, " visit"], options: OwnHistory
) -> Float[np.ndarray, " visit"]:
    """How much each visit counts for the hour and the day of the request, at most 1."""
    assert histories.request_time is not None
    times = histories.timestamp[histories.visits.begin(np.arange(len(histories.visits)))]
    hour, is_weekend = hour_and_weekend(times, options.calendar)
    request_hour, is_weekend_request = hour_and_weekend(histories.request_time, options.calendar)
    angle = 2 * np.pi / 24 * (hour - request_hour[row])
    close = OTHER_HOURS + (1 - OTHER_HOURS) * np.exp(options.hour * (np.cos(angle) - 1))
    return np.where(is_weekend == is_weekend_request[row], close, options.weekend * close)
