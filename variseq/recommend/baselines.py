"""Counts events into trivial recommenders: yardsticks for any model, and fallbacks when a model cannot answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.errors import InputError
from variseq.recommend.item_matrix import SparseRows
from variseq.sequences.histories import Histories

State = dict[str, Tensor]


class Popular:
    """The same for everybody: how often each item occurs as a target, plus one (so that no item is impossible).

    >>> popular = Popular(num_items=3).fit(Histories.of_items([[0, 1], [1]]))
    >>> popular.scores(popular.query(Histories.of_items([[2]])), 0, 3).exp()
    tensor([[0.3333, 0.5000, 0.1667]])
    """

    name = "popular"
    gives_probabilities = True

    def __init__(self, num_items: int) -> None:
        self.log_share = _log_share(np.zeros(num_items, dtype=np.int64))

    def fit(self, histories: Histories) -> Popular:
        self.log_share = _log_share(item_counts(histories.of_targets(histories.item), len(self.log_share)))
        return self

    def query(self, histories: Histories) -> int:
        return len(histories)

    def scores(self, query: int, first: int, last: int) -> Float[Tensor, "history item"]:
        return self.log_share[first:last].repeat(query, 1)


class RecentPopular(Popular):
    """What was popular of late, with 5 % of the all-time popularity mixed in.

    How late is learned: of windows of a half, a quarter, ... of the time that is known, the one that makes the latest
    tenth of the events most likely, counted before them. The mixture keeps every item possible, and orders those that
    the window does not hold. Where events have an order and no times, there is no "of late": it is popularity.
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
        """In microseconds; 0 where there is nothing to learn it from."""
        if not len(time):
            return 0
        place = len(time) - max(1, len(time) // 10)
        before = time < np.partition(time, place)[place]
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


class LastItemTransitions:
    """What followed the last item of the history in training: a first-order Markov chain over events.

    Followers are counted where they are targets.

    p(next | last) = (count(last, next) + m * share(next)) / (count(last) + m) with m = `PRIOR_EVENTS` and `share` the
    popularity; an empty history, or a last item that nothing followed, gets the popularity. At m = 100 the order of the
    items is that of the counts (popularity decides between equal ones) and the likelihood is better than popularity's;
    a small m orders alike but is far too sure.
    """

    name = "last-item-transitions"
    gives_probabilities = True
    PRIOR_EVENTS = 100.0

    def __init__(self, num_items: int) -> None:
        self.log_share = _log_share(np.zeros(num_items, dtype=np.int64))
        self.followers = SparseRows.empty(num_items)

    def fit(self, histories: Histories) -> LastItemTransitions:
        num_items = len(self.log_share)
        self.log_share = _log_share(item_counts(histories.of_targets(histories.item), num_items))
        within = np.ones(max(0, histories.num_events - 1), dtype=bool)
        inner = histories.offsets[1:-1]
        within[inner[(inner > 0) & (inner < histories.num_events)] - 1] = False
        if histories.is_target is not None:
            within &= histories.is_target[1:]
        pair = histories.item[:-1].astype(np.int64)[within] * num_items + histories.item[1:][within]
        key, count = np.unique(pair, return_counts=True)
        self.followers = SparseRows.from_cells(key // num_items, key % num_items, count, num_items)
        return self

    def query(self, histories: Histories) -> FollowersOfLast:
        known = np.flatnonzero(histories.lengths)
        last_item = torch.from_numpy(histories.item[histories.offsets[known + 1] - 1].astype(np.int64))
        place, item, count = self.followers.take(last_item)
        row = torch.from_numpy(known)
        num_followers = torch.zeros(len(histories), dtype=torch.float64)
        num_followers.index_add_(0, row[place], count.double())
        return FollowersOfLast(num_followers, row[place], item, count)

    def scores(self, query: FollowersOfLast, first: int, last: int) -> Float[Tensor, "history item"]:
        prior = self.PRIOR_EVENTS * self.log_share[first:last].double().exp()
        log_total = (query.num_followers + self.PRIOR_EVENTS).log()
        scores = (prior.log()[None, :] - log_total[:, None]).float()
        inside = (query.item >= first) & (query.item < last)
        row, column = query.row[inside], query.item[inside] - first
        scores[row, column] = ((query.count[inside] + prior[column]).log() - log_total[row]).float()
        return scores

    def add_probabilities(
        self,
        query: FollowersOfLast,
        first: int,
        last: int,
        weight: Float[Tensor, " history"],
        total: Float[Tensor, "history item"],
    ) -> Float[Tensor, "history item"]:
        """Adds weight · p of the items first:last to `total`, in place; p is what `scores` is the logarithm of."""
        per_event = weight / (query.num_followers + self.PRIOR_EVENTS).to(total)
        total.addr_(per_event, (self.PRIOR_EVENTS * self.log_share[first:last].double().exp()).to(total))
        inside = (query.item >= first) & (query.item < last)
        row, column = query.row[inside].to(total.device), query.item[inside].to(total.device) - first
        return total.index_put_((row, column), query.count[inside].to(total) * per_event[row], accumulate=True)

    def probabilities(self, query: FollowersOfLast, item: Int[Tensor, "history k"]) -> Float[Tensor, "history k"]:
        """p of some items of each history."""
        prior = self.PRIOR_EVENTS * self.log_share.double().exp()[item.cpu()]
        same = query.item[:, None] == item.cpu()[query.row]
        counted = torch.zeros_like(prior).index_add_(0, query.row, same * query.count.double()[:, None])
        return (counted + prior) / (query.num_followers + self.PRIOR_EVENTS)[:, None]

    def state(self) -> State:
        return {"log_share": self.log_share} | self.followers.state()

    @classmethod
    def from_state(cls, state: State) -> LastItemTransitions:
        recommender = cls(len(state["log_share"]))
        recommender.log_share, recommender.followers = state["log_share"], SparseRows.from_state(state)
        return recommender


@dataclass(frozen=True, eq=False)
class FollowersOfLast:
    """Cells (history, item) with a count: what followed the last item of each history; and the total of each."""

    num_followers: Float[Tensor, " history"]
    row: Int[Tensor, " cell"]
    item: Int[Tensor, " cell"]
    count: Float[Tensor, " cell"]


def item_counts(item: Int[np.ndarray, " event"], num_items: int) -> Int[np.ndarray, " item"]:
    """How often each item of the catalog occurs. Raises InputError for an item outside the catalog."""
    count = np.bincount(item, minlength=num_items)
    if len(count) > num_items:
        raise InputError(
            f"The histories hold item {len(count) - 1}, but the catalog has {num_items} items. "
            "Make the recommender with the num_items of the split."
        )
    return count


def _log_share(count: Int[np.ndarray, " item"]) -> Float[Tensor, " item"]:
    return torch.from_numpy(np.log((count + 1) / (count.sum() + len(count)))).float()
