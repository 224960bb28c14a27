"""Ragged user histories: selection, deletion of items, and time gaps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from variseq.distinct import distinct
from variseq.events.table import MICROSECONDS_PER_SECOND, EventTable

GAP_BUCKETS = 40
"""Time gaps fall into buckets of half powers of two of a second: 40 buckets reach 24 days and more."""
LARGEST_LOG_GAP = 25.0
"""log2 of the seconds in a year."""


def gap_bucket(gap_seconds: Float[np.ndarray, "*token"]) -> Int[np.ndarray, "*token"]:
    """The bucket of a time gap: 0 up to a second, then two buckets per doubling.

    >>> gap_bucket(np.array([0.0, 1.0, 3600.0, 1e9]))
    array([ 0,  2, 23, 39])
    """
    return np.clip(np.floor(2 * np.log2(1 + np.maximum(gap_seconds, 0.0))), 0, GAP_BUCKETS - 1).astype(np.int64)


def log_seconds(seconds: Float[np.ndarray, "*token"]) -> Float[np.ndarray, "*token"]:
    """log2(1 + seconds), at most `LARGEST_LOG_GAP`.

    >>> log_seconds(np.array([0.0, 3.0, 1e9]))
    array([ 0.,  2., 25.])
    """
    return np.minimum(np.log2(1 + np.maximum(seconds, 0.0)), LARGEST_LOG_GAP)


EVENTS_LOOKED_AT = 100_000


@dataclass(frozen=True)
class Visits:
    """Histories as sequences of visits; a visit is a set of events.

    The visits of history u are `offsets[u]:offsets[u + 1]`, the events of visit v are `events[v]:events[v + 1]`. Where
    `events` is None each event is a visit.
    """

    offsets: Int[np.ndarray, " history_plus_one"]
    events: Int[np.ndarray, " visit_plus_one"] | None = None

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int[np.ndarray, " history"]:
        """How many visits each history has."""
        return np.diff(self.offsets)

    def begin(self, visit: Int[np.ndarray, "*visit"]) -> Int[np.ndarray, "*visit"]:
        """The first event of some visits; of the visit after the last, the end of all events."""
        return visit if self.events is None else self.events[visit]

    def size(self, visit: Int[np.ndarray, "*visit"]) -> Int[np.ndarray, "*visit"]:
        """How many events some visits have."""
        return np.ones_like(visit) if self.events is None else self.events[visit + 1] - self.events[visit]

    def of(self, event: Int[np.ndarray, " event"]) -> Int[np.ndarray, " event"]:
        """The visits of some events."""
        return event if self.events is None else self._of_events[event]

    @cached_property
    def _of_events(self) -> Int[np.ndarray, " event"]:
        visit = np.arange(len(self))
        return np.repeat(visit, self.size(visit))


def ragged_index(starts: Int[np.ndarray, " slice"], lengths: Int[np.ndarray, " slice"]) -> Int[np.ndarray, " index"]:
    """The indices of slices, one slice after the other.

    >>> ragged_index(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


@dataclass(frozen=True)
class Histories:
    """Histories side by side; history u is `item[offsets[u]:offsets[u + 1]]`, oldest event first.

    `item` and `behavior` are positions in the vocabulary, `timestamp` is UTC microseconds, `value` is NaN where
    an event has none. `is_target` marks the events to predict; None stands for all of them. `request_time`, in UTC
    microseconds, is when the next event of each history is asked for; None where that is not known. `attributes` are
    the groups that each person is in, −1 for none; None where they are not known. With a `visit_gap` events at most so
    many microseconds apart are one visit, in which they have no order; None: each event stands alone.

    >>> histories = Histories.of_items([[4, 7], [], [7, 1, 2]])
    >>> histories.lengths
    array([2, 0, 3])
    >>> histories.history(2).item
    array([7, 1, 2], dtype=int32)
    """

    offsets: Int[np.ndarray, " history_plus_one"]
    item: Int[np.ndarray, " event"]
    behavior: Integer[np.ndarray, " event"]
    timestamp: Int[np.ndarray, " event"]
    value: Float[np.ndarray, " event"]
    is_target: Bool[np.ndarray, " event"] | None = None
    request_time: Int[np.ndarray, " history"] | None = None
    visit_gap: int | None = field(default=None, kw_only=True)
    attributes: Int[np.ndarray, "history attribute"] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def visits(self) -> Visits:
        """The visits; without a `visit_gap` each event is one.

        >>> histories = replace(Histories.of_items([[3, 1, 4], [2]]), timestamp=np.array([0, 0, 9, 0]), visit_gap=5)
        >>> histories.visits.offsets, histories.visits.events
        (array([0, 2, 3]), array([0, 2, 3, 4]))
        """
        if self.visit_gap is None:
            return Visits(self.offsets)
        begins = np.ones(self.num_events, dtype=bool)
        begins[1:] = np.diff(self.timestamp) > self.visit_gap
        begins[self.offsets[:-1][self.lengths > 0]] = True
        before = np.concatenate([[0], np.cumsum(begins)])
        return Visits(before[self.offsets], np.append(np.flatnonzero(begins), self.num_events))

    def begin_of_visits(self, position: Int[np.ndarray, " position"]) -> Int[np.ndarray, " position"]:
        """Positions moved back to where their visits begin; the end of all events stays."""
        if self.visit_gap is None or not self.num_events:
            return position
        moved = self.visits.begin(self.visits.of(np.minimum(position, self.num_events - 1)))
        return np.where(position < self.num_events, moved, position)

    @property
    def num_events(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int[np.ndarray, " history"]:
        return np.diff(self.offsets)

    @property
    def num_targets(self) -> int:
        """How many events are targets."""
        return self.num_events if self.is_target is None else int(self.is_target.sum())

    def of_targets(self, column: Shaped[np.ndarray, " event"]) -> Shaped[np.ndarray, " target"]:
        """The values of a column at the events that are targets."""
        return column if self.is_target is None else column[self.is_target]

    def num_repeats(self) -> int:
        """How many targets have an item that stands earlier in the same history, in an event of any kind.

        Inside a visit only the first event of an item counts.

        >>> Histories.of_items([[3, 1, 3], [1]]).num_repeats()
        1
        """
        histories = self if self.visit_gap is None else replace(self.distinct_in_visits(), visit_gap=None)
        return histories.num_targets - int(histories.of_targets(histories.are_new()).sum())

    def are_new(self) -> Bool[np.ndarray, " event"]:
        """Whether no earlier visit of the history has the item; without visits, no earlier event.

        >>> Histories.of_items([[3, 1, 3], [1]]).are_new()
        array([ True,  True, False,  True])
        """
        history = np.repeat(np.arange(len(self)), self.lengths)
        pair = history * (int(self.item.max(initial=0)) + 1) + self.item
        _, first, index = np.unique(pair, return_index=True, return_inverse=True)
        visit = self.visits.of(np.arange(self.num_events))
        return visit == visit[first[index]]

    def distinct_items(self) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
        """Each item of each history once: the row of the history and the item, in ascending order.

        >>> Histories.of_items([[3, 1, 3], [], [1]]).distinct_items()
        (array([0, 0, 2]), array([1, 3, 1]))
        """
        num_items = int(self.item.max(initial=0)) + 1
        pair = distinct(np.repeat(np.arange(len(self)), self.lengths) * num_items + self.item)
        return pair // num_items, pair % num_items

    @property
    def has_times(self) -> bool:
        """Whether times hold more than the order; one gap between all events is an order without times.

        >>> Histories.of_items([[3, 1, 3], [1, 2]]).has_times
        False
        """
        gaps = np.diff(self.timestamp[:EVENTS_LOOKED_AT])
        return len(distinct(gaps[gaps >= 0])) > 2

    @property
    def log_gap(self) -> Float[np.ndarray, " history"] | None:
        """log2(1 + the seconds from the last event to the request time), at most that of a year, which no event has.

        None where the request time is not known.

        >>> histories = Histories.of_items([[4, 7], []])
        >>> replace(histories, request_time=np.array([4_000_000, 0])).log_gap
        array([ 2., 25.])
        """
        if self.request_time is None:
            return None
        known = np.flatnonzero(self.lengths)
        gap = np.full(len(self), LARGEST_LOG_GAP)
        seconds = (self.request_time[known] - self.timestamp[self.offsets[known + 1] - 1]) / MICROSECONDS_PER_SECOND
        gap[known] = log_seconds(seconds)
        return gap

    @classmethod
    def from_table(cls, table: EventTable, num_users: int, visit_gap: int | None = None) -> Histories:
        """Histories of all users of the vocabulary; arrays are shared with the table, not copied."""
        offsets = np.searchsorted(table.user, np.arange(num_users + 1), side="left").astype(np.int64)
        return cls(offsets, table.item, table.behavior, table.timestamp, table.value, visit_gap=visit_gap)

    @classmethod
    def of_items(cls, items: list[list[int]]) -> Histories:
        """Histories of bare items: behavior 0, time counting up by a second, no value."""
        lengths = [len(history) for history in items]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        flat = np.array([item for history in items for item in history], dtype=np.int32)
        clock = [position * 1_000_000 for length in lengths for position in range(length)]
        return cls(
            offsets,
            flat,
            np.zeros(len(flat), dtype=np.uint8),
            np.array(clock, dtype=np.int64),
            np.full(len(flat), np.nan, dtype=np.float32),
        )

    def history(self, position: int) -> Histories:
        """The one history at a position."""
        return self.rows(np.array([position]))

    def select(self, starts: Int[np.ndarray, " slice"], ends: Int[np.ndarray, " slice"]) -> Histories:
        """New histories without request times and attributes, each the events `starts[j]:ends[j]` of the flat arrays.

        >>> histories = Histories.of_items([[4, 7], [], [7, 1, 2]])
        >>> histories.select(np.array([0, 3]), np.array([1, 5])).item
        array([4, 1, 2], dtype=int32)
        """
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return self._taken(offsets, np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths))

    def kept(self, chosen: Bool[np.ndarray, " event"]) -> Histories:
        """The same histories with some of their events.

        >>> Histories.of_items([[4, 7], [7]]).kept(np.array([False, True, True])).item
        array([7, 7], dtype=int32)
        """
        index = np.flatnonzero(chosen)
        return replace(self._taken(np.searchsorted(index, self.offsets), index), request_time=self.request_time)

    def _taken(self, offsets: Int[np.ndarray, " offset"], index: Int[np.ndarray, " index"]) -> Histories:
        is_target = None if self.is_target is None else self.is_target[index]
        item, behavior, timestamp, value = (
            self.item[index],
            self.behavior[index],
            self.timestamp[index],
            self.value[index],
        )
        return Histories(offsets, item, behavior, timestamp, value, is_target, visit_gap=self.visit_gap)

    def visit_begins(self) -> Histories:
        """The first event of each visit as a history without visits; without visits the same history."""
        if self.visit_gap is None:
            return self
        begins = np.zeros(self.num_events, dtype=bool)
        begins[self.visits.begin(np.arange(len(self.visits)))] = True
        return replace(self.kept(begins), visit_gap=None)

    def distinct_in_visits(self) -> Histories:
        """The same histories with the first event of each item of a visit; without visits all of them."""
        if self.visit_gap is None:
            return self
        pair = self.visits.of(np.arange(self.num_events)) * (int(self.item.max(initial=0)) + 1) + self.item
        first = np.zeros(self.num_events, dtype=bool)
        first[np.unique(pair, return_index=True)[1]] = True
        return self.kept(first)

    def rows(self, chosen: Int[np.ndarray, " row"]) -> Histories:
        """Some of the histories."""
        selected = self.select(self.offsets[chosen], self.offsets[chosen + 1])
        names = [name for name in ("request_time", "attributes") if getattr(self, name) is not None]
        return replace(selected, **{name: getattr(self, name)[chosen] for name in names}) if names else selected

    def joined(self, other: Histories) -> Histories:
        """These histories and then the others.

        >>> Histories.of_items([[4, 7]]).joined(Histories.of_items([[], [2]])).lengths
        array([2, 0, 1])
        """
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.num_events])
        names = ("item", "behavior", "timestamp", "value")
        columns = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        joined = Histories(offsets, *columns, visit_gap=self.visit_gap)
        if self.request_time is None or other.request_time is None:
            return joined
        return replace(joined, request_time=np.concatenate([self.request_time, other.request_time]))

    def followed_by(self, later: Histories) -> Histories:
        """For each row the events of this history, then those of a later one.

        >>> Histories.of_items([[4, 7], []]).followed_by(Histories.of_items([[1], [2]])).item
        array([4, 7, 1, 2], dtype=int32)
        """
        rows = [np.repeat(np.arange(len(one)), one.lengths) for one in (self, later)]
        order = np.argsort(np.concatenate(rows), kind="stable")
        names = ("item", "behavior", "timestamp", "value")
        columns = [np.concatenate([getattr(self, name), getattr(later, name)])[order] for name in names]
        return Histories(self.offsets + later.offsets, *columns, visit_gap=self.visit_gap)

    def latest(self, max_events: int) -> Histories:
        """The same histories, each cut to its latest `max_events` events."""
        if len(self) == 0 or int(self.lengths.max(initial=0)) <= max_events:
            return self
        shorter = self.select(np.maximum(self.offsets[:-1], self.offsets[1:] - max_events), self.offsets[1:])
        return replace(shorter, request_time=self.request_time)


def last_items(histories: Histories) -> tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
    """The items of the last visit of each history, each once: the row of the history and the item.

    >>> last_items(Histories.of_items([[4, 7], [], [1]]))
    (array([0, 2]), array([7, 1]))
    """
    known = np.flatnonzero(histories.lengths)
    if histories.visit_gap is None:
        return known, histories.item[histories.offsets[known + 1] - 1].astype(np.int64)
    last = histories.visits.offsets[known + 1] - 1
    visit = histories.select(histories.visits.begin(last), histories.visits.begin(last + 1))
    row, item = visit.distinct_items()
    return known[row], item


def latest_items(histories: Histories, num_latest: int) -> Int[np.ndarray, "history latest"]:
    """The different items of each history that occurred last, the latest first; −1 where there are fewer.

    >>> latest_items(Histories.of_items([[4, 7, 4], [], [1, 2, 3]]), 2)
    array([[ 4,  7],
           [-1, -1],
           [ 3,  2]])
    """
    item, num_events = histories.item.astype(np.int64), histories.num_events
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    pair = row * (item.max(initial=0) + 1) + item
    _, from_the_end = np.unique(pair[::-1], return_index=True)
    latest = np.sort(num_events - 1 - from_the_end)
    row = row[latest]
    index = np.cumsum(np.bincount(row, minlength=len(histories)))[row] - 1 - np.arange(len(row))
    wanted = index < num_latest
    found = np.full((len(histories), num_latest), -1, dtype=np.int64)
    found[row[wanted], index[wanted]] = item[latest[wanted]]
    return found


def without_items(
    histories: Histories, source: Int[np.ndarray, " copy"], dropped: Int[np.ndarray, "copy drop"]
) -> Histories:
    """Copies of histories: copy j is history `source[j]` without any event of the items `dropped[j]`; −1 is no item.

    >>> fewer = without_items(Histories.of_items([[4, 7], [7, 1, 7]]), np.array([1, 0]), np.array([[7, -1], [1, 4]]))
    >>> fewer.item.tolist(), fewer.lengths.tolist()
    ([1, 7], [1, 1])
    """
    copies = histories.rows(source)
    kept = np.ones(copies.num_events, dtype=bool)
    for column in dropped.T:
        kept &= copies.item != np.repeat(column, copies.lengths)
    return copies.kept(kept)
