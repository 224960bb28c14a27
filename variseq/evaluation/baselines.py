"""Baselines that count events: popularity, recent popularity, transitions, and what somebody did before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from variseq.evaluation.recommender import Recommender
from variseq.ranking.counts import OwnHistory, followers, item_counts, own_history
from variseq.sequences.histories import Histories, Visits, ragged_index

State = dict[str, Tensor]
PAIRS_AT_ONCE = 4_000_000


def baselines(num_items: int, known: Histories, calendar: str | None = None) -> list[Recommender]:
    """All baselines, fitted on the same events as the model; with a calendar those of the hour too."""
    from variseq.evaluation.item_knn import ItemKNN  # imports scipy: 0.13 s that only a comparison should take

    kinds = (Popular, RecentPopular, LastItemTransitions, ItemKNN, OwnFrequency, OwnTransitions)
    of_visits = () if known.visit_gap is None else (OwnLatest,)
    found: list[Recommender] = [kind(num_items).fit(known) for kind in (*kinds, *of_visits)]
    return found if calendar is None else [*found, OwnByHour(num_items, calendar).fit(known)]


class Popular:
    """The same for everybody: how often each item occurs as a target, plus one (so that no item is impossible).

    >>> popular = Popular(num_items=3).fit(Histories.of_items([[0, 1], [1]]))
    >>> popular.scores(Histories.of_items([[2]])).exp()
    tensor([[0.3333, 0.5000, 0.1667]])
    """

    name = "popular"
    gives_probabilities = True

    def __init__(self, num_items: int) -> None:
        self.log_share = _log_share(np.zeros(num_items, dtype=np.int64))

    def fit(self, histories: Histories) -> Popular:
        self.log_share = _log_share(item_counts(histories.of_targets(histories.item), len(self.log_share)))
        return self

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        return self.log_share.expand(len(histories), -1)


class RecentPopular(Popular):
    """What was popular of late, with 5 % of the all-time popularity mixed in.

    The window is a half, a quarter, ... of the known time: the one whose earlier counts make the latest tenth of the
    events most likely. The mixture keeps every item possible, and orders those that the window does not hold. Where
    events have an order and no times, this is popularity.
    """

    name = "recent-popular"
    NUM_WINDOWS = 10
    ALL_TIME_SHARE = 0.05

    def fit(self, histories: Histories) -> RecentPopular:
        if not histories.has_times:
            super().fit(histories)
            return self
        item, time = histories.of_targets(histories.item), histories.of_targets(histories.timestamp)
        self.log_share = self._mixture(item, time, self._likeliest_window(item, time))
        return self

    def _likeliest_window(self, item: Int[np.ndarray, " event"], time: Int[np.ndarray, " event"]) -> int:
        """In microseconds; 0 without events."""
        if not len(time):
            return 0
        latest_tenth = len(time) - max(1, len(time) // 10)
        before = time < np.partition(time, latest_tenth)[latest_tenth]
        windows = [int(np.ptp(time)) >> halvings for halvings in range(1, self.NUM_WINDOWS + 1)]
        latest = torch.from_numpy(item_counts(item[~before], len(self.log_share))).double()
        likelihoods = [float(latest @ self._mixture(item[before], time[before], window).double()) for window in windows]
        return windows[int(np.argmax(likelihoods))]

    def _mixture(
        self, item: Int[np.ndarray, " event"], time: Int[np.ndarray, " event"], window: int
    ) -> Float[Tensor, " item"]:
        """log p of every item, from the events of all time and those of the last `window` microseconds."""
        all_time = _log_share(item_counts(item, len(self.log_share)))
        if not len(time):
            return all_time
        recent = torch.from_numpy(item_counts(item[time >= time.max() - window], len(all_time)))
        mixed = self.ALL_TIME_SHARE * all_time.exp() + (1 - self.ALL_TIME_SHARE) * recent / recent.sum()
        return mixed.log().float()


class OwnFrequency(Popular):
    """How often somebody had each item before, with the popularity counting for one event.

    >>> own = OwnFrequency(num_items=3).fit(Histories.of_items([[0, 1], [1]]))
    >>> own.scores(Histories.of_items([[2, 2, 0]])).exp()
    tensor([[0.3333, 0.1250, 0.5417]])
    """

    name = "own-frequency"

    options = OwnHistory(decay=1.0, transitions=0.0)

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        return torch.from_numpy(own_history(histories, self.options).log_dense(self.log_share.numpy()))


class OwnTransitions(OwnFrequency):
    """What somebody did before: late events count more, and events after the last item most; see `own_history`."""

    name = "own-transitions"
    options = OwnHistory()


class OwnByHour(OwnFrequency):
    """`OwnTransitions` where the request time is known: events near its hour, and of its kind of day, count more.

    Without a calendar there is no hour, and transitions with a time gap like that to the request count more.
    """

    name = "own-by-hour"

    def __init__(self, num_items: int, calendar: str) -> None:
        super().__init__(num_items)
        self.options = OwnHistory(gap=0.7, hour=8.0, weekend=0.5, calendar=calendar)


class OwnLatest(OwnFrequency):
    """What somebody had in the latest visit, then in the one before, and so on; frequent items first in each."""

    name = "own-latest-first"
    options = OwnHistory(decay=0.01, transitions=0.0)


class LastItemTransitions:
    """What followed the last item of the history in training: a first-order Markov chain over events.

    Followers are counted where they are targets. With visits these are transitions from set to set: a follower counts
    1 / (items of a visit) for each item of the visit before its own.

    p(next | last) = (count(last, next) + m * share(next)) / (count(last) + m) with m = `PRIOR_EVENTS` and `share` the
    popularity; an empty history, or a last item that nothing followed, gets the popularity. At m = 100 the order of the
    items is that of the counts (popularity decides between equal ones) and the likelihood is better than popularity's;
    a small m orders alike but is overconfident.
    """

    name = "last-item-transitions"
    gives_probabilities = True

    def __init__(self, num_items: int) -> None:
        self.log_share = _log_share(np.zeros(num_items, dtype=np.int64))
        self.offsets = np.zeros(num_items + 1, dtype=np.int64)
        self.follower, self.count = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)

    def fit(self, histories: Histories) -> LastItemTransitions:
        num_items = len(self.log_share)
        self.log_share = _log_share(item_counts(histories.of_targets(histories.item), num_items))
        keys, counts = zip(*_followers(histories, num_items), strict=True)
        key, cell = np.unique(np.concatenate(keys), return_inverse=True)
        count = np.bincount(cell, weights=np.concatenate(counts), minlength=len(key))
        self.offsets = np.searchsorted(key, np.arange(num_items + 1) * num_items).astype(np.int64)
        self.follower, self.count = (key % num_items).astype(np.int32), count.astype(np.float32)
        return self

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        counted = followers(histories, self.offsets, self.follower, self.count)
        return torch.from_numpy(counted.log_dense(self.log_share.numpy()))

    def state(self) -> State:
        cells = {"offsets": self.offsets, "item": self.follower, "value": self.count}
        return {"log_share": self.log_share} | {name: torch.from_numpy(array) for name, array in cells.items()}


def _followers(
    histories: Histories, num_items: int
) -> Iterator[tuple[Int[np.ndarray, " pair"], Integer[np.ndarray, " pair"] | Float[np.ndarray, " pair"]]]:
    """Pairs, item · num_items + follower, with their weights; some visits at a time, as pairs of sets are many."""
    visits = histories.visits
    has_next = np.ones(len(visits), dtype=bool)
    has_next[visits.offsets[1:][histories.lengths > 0] - 1] = False
    for source in _blocks(visits, has_next):
        # Each event of the visit after, once for each event of the visit before.
        after = visits.size(source + 1)
        follower = ragged_index(visits.begin(source + 1), after)
        number = np.repeat(visits.size(source), after)
        item = ragged_index(np.repeat(visits.begin(source), after), number)
        follower = np.repeat(follower, number)
        weight = 1 / np.repeat(number, number)
        if histories.is_target is not None:
            is_target = histories.is_target[follower]
            item, follower, weight = item[is_target], follower[is_target], weight[is_target]
        key, cell = np.unique(
            histories.item[item].astype(np.int64) * num_items + histories.item[follower], return_inverse=True
        )
        yield key, np.bincount(cell, weights=weight, minlength=len(key))


def _blocks(visits: Visits, has_next: Bool[np.ndarray, " visit"]) -> Iterator[Int[np.ndarray, " visit"]]:
    """The visits that another one follows, some at a time: about `PAIRS_AT_ONCE` pairs, or those of one visit."""
    for first in range(0, max(1, len(visits)), PAIRS_AT_ONCE):
        source = first + np.flatnonzero(has_next[first : first + PAIRS_AT_ONCE])
        block = np.cumsum(visits.size(source) * visits.size(source + 1)) // PAIRS_AT_ONCE
        yield from np.split(source, np.flatnonzero(np.diff(block)) + 1)


def _log_share(count: Int[np.ndarray, " item"]) -> Float[Tensor, " item"]:
    return torch.from_numpy(np.log((count + 1) / (count.sum() + len(count)))).float()
