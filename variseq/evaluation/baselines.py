"""Baselines that count events: popularity, recent popularity, transitions, item-kNN, and what somebody did before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from variseq.errors import InputError
from variseq.evaluation.recommender import Recommender
from variseq.ranking.counts import PRIOR_EVENTS, OwnHistory, own_history
from variseq.sequences.histories import Histories, Visits, last_items, ragged_index

State = dict[str, Tensor]
_CELLS_AT_ONCE = 16_000_000
PAIRS_AT_ONCE = 4_000_000


def baselines(num_items: int, known: Histories, calendar: str | None = None) -> list[Recommender]:
    """All baselines of this module, fitted on the same events as the model; with a calendar those of the hour too."""
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
        return self.log_share.repeat(len(histories), 1)


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
        prior = PRIOR_EVENTS * self.log_share.double().exp().numpy()
        return torch.from_numpy(np.log(own_history(histories, self.options).dense(prior))).float()


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
        self.followers = SparseRows.empty(num_items)

    def fit(self, histories: Histories) -> LastItemTransitions:
        num_items = len(self.log_share)
        self.log_share = _log_share(item_counts(histories.of_targets(histories.item), num_items))
        keys, counts = zip(*_followers(histories, num_items), strict=True)
        key, cell = np.unique(np.concatenate(keys), return_inverse=True)
        count = np.bincount(cell, weights=np.concatenate(counts), minlength=len(key))
        self.followers = SparseRows.from_cells(key // num_items, key % num_items, count, num_items)
        return self

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        known, last_item = last_items(histories)
        index, item, count = self.followers.take(torch.from_numpy(last_item))
        row = torch.from_numpy(known)[index]
        if histories.visit_gap is not None:
            pair, number = np.unique((row * len(self.log_share) + item).numpy(), return_inverse=True)
            cell, inverse = torch.from_numpy(pair), torch.from_numpy(number)
            row, item = cell // len(self.log_share), cell % len(self.log_share)
            count = torch.zeros(len(cell)).index_add_(0, inverse, count)
        num_followers = torch.zeros(len(histories), dtype=torch.float64).index_add_(0, row, count.double())
        prior = PRIOR_EVENTS * self.log_share.double().exp()
        log_total = (num_followers + PRIOR_EVENTS).log()
        scores = (prior.log()[None, :] - log_total[:, None]).float()
        scores[row, item] = ((count + prior[item]).log() - log_total[row]).float()
        return scores

    def state(self) -> State:
        return {"log_share": self.log_share} | self.followers.state()


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


class ItemKNN:
    """Items whose users are the users of the items of the history; each step back in the history counts half.

    score(item) = sum over events of decay ** age * cosine(item, event's item), where the cosine is between the binary
    columns of the user-item matrix, an item is no neighbor of itself, and all neighbors are kept. Events whose
    weight has fallen below one millionth are skipped. Scores are not probabilities.
    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), with decay.
    """

    name = "item-knn"
    gives_probabilities = False
    SMALLEST_WEIGHT = 1e-6

    def __init__(self, num_items: int, decay: float = 0.5) -> None:
        if not 0 < decay <= 1:
            raise InputError(f"decay={decay} is not allowed. Give a number above 0 and at most 1, such as 0.5.")
        self.decay = decay
        self.neighbors: SparseRows | Tensor = SparseRows.empty(num_items)

    def fit(self, histories: Histories) -> ItemKNN:
        num_items = len(self.neighbors)
        item_counts(histories.item, num_items)  # refuses an item outside the catalog
        user, item = histories.distinct_items()
        neighbors = SparseRows.joined(list(_cosines(user, item, len(histories), num_items)))
        # A sparse cell takes twice the memory of a dense one.
        mostly_filled = 2 * len(neighbors.item) > num_items**2
        self.neighbors = neighbors.to_dense() if mostly_filled else neighbors
        return self

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        if self.decay < 1:
            histories = histories.latest(max(1, math.ceil(math.log(self.SMALLEST_WEIGHT) / math.log(self.decay))))
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        age = histories.offsets[1:][row] - 1 - np.arange(histories.num_events)
        weight = torch.from_numpy(self.decay ** age.astype(np.float32)).float()
        item, neighbors = torch.from_numpy(histories.item.astype(np.int64)), self.neighbors
        if isinstance(neighbors, Tensor):
            offsets = torch.from_numpy(histories.offsets[:-1])
            return F.embedding_bag(item, neighbors, offsets, mode="sum", per_sample_weights=weight)
        event, column, value = neighbors.take(item)
        cell = torch.from_numpy(row)[event] * len(neighbors) + column
        scores = torch.zeros(len(histories) * len(neighbors)).index_add_(0, cell, value * weight[event])
        return scores.view(len(histories), -1)


def _cosines(
    user: Int[np.ndarray, " pair"], item: Int[np.ndarray, " pair"], num_users: int, num_items: int
) -> Iterator[SparseRows]:
    """Neighbors of a block of items at a time: a sparse matrix times a few dense columns of itself."""
    scale = 1 / np.sqrt(np.maximum(item_counts(item, num_items), 1))
    value = torch.from_numpy(scale[item]).float()
    by_item = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([item, user])), value, (num_items, num_users), check_invariants=True
    ).coalesce()
    order = np.argsort(item, kind="stable")
    ordered_item = item[order]
    width = max(1, _CELLS_AT_ONCE // max(num_users, num_items, 1))
    for first in range(0, num_items, width):
        last = min(first + width, num_items)
        begin, end = np.searchsorted(ordered_item, [first, last])
        pairs = order[begin:end]
        columns = torch.zeros(num_users, last - first)
        columns[torch.from_numpy(user[pairs]), torch.from_numpy(item[pairs] - first)] = value[torch.from_numpy(pairs)]
        cosine = torch.sparse.mm(by_item, columns).T.contiguous()
        block = torch.arange(last - first)
        cosine[block, first + block] = 0
        yield SparseRows.from_dense(cosine)


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Row r holds `value` at the columns `item`, both at `offsets[r]:offsets[r + 1]`; columns ascend in a row.

    >>> rows = SparseRows.from_cells(np.array([0, 2, 2]), np.array([1, 0, 1]), np.array([5, 6, 7]), num_rows=3)
    >>> rows.take(torch.tensor([2, 1, 0]))
    (tensor([0, 0, 2]), tensor([0, 1, 1]), tensor([6., 7., 5.]))
    """

    offsets: Int[Tensor, " row_plus_one"]
    item: Int[Tensor, " cell"]
    value: Float[Tensor, " cell"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def empty(cls, num_rows: int) -> SparseRows:
        return cls(torch.zeros(num_rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), torch.zeros(0))

    @classmethod
    def from_cells(
        cls,
        row: Int[np.ndarray, " cell"],
        item: Int[np.ndarray, " cell"],
        value: Integer[np.ndarray, " cell"] | Float[np.ndarray, " cell"],
        num_rows: int,
    ) -> SparseRows:
        """Cells in ascending order of (row, item)."""
        offsets = np.searchsorted(row, np.arange(num_rows + 1))
        return cls(
            torch.from_numpy(offsets.astype(np.int64)),
            torch.from_numpy(item.astype(np.int32)),
            torch.from_numpy(value.astype(np.float32)),
        )

    @classmethod
    def joined(cls, parts: list[SparseRows]) -> SparseRows:
        """The rows of all parts, one part below the other."""
        lengths = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return cls(offsets, torch.cat([part.item for part in parts]), torch.cat([part.value for part in parts]))

    @classmethod
    def from_dense(cls, matrix: Float[Tensor, "row item"]) -> SparseRows:
        """The cells of a dense matrix that are not zero."""
        row, item = matrix.nonzero(as_tuple=True)
        offsets = torch.zeros(len(matrix) + 1, dtype=torch.int64)
        offsets[1:] = torch.bincount(row, minlength=len(matrix)).cumsum(0)
        return cls(offsets, item.int(), matrix[row, item])

    def take(
        self, rows: Int[Tensor, " taken"]
    ) -> tuple[Int[Tensor, " cell"], Int[Tensor, " cell"], Float[Tensor, " cell"]]:
        """All cells of some rows: the index in `rows`, the item, the value."""
        start = self.offsets[rows]
        length = self.offsets[rows + 1] - start
        row = torch.repeat_interleave(torch.arange(len(rows)), length)
        cell = torch.arange(len(row)) + (start - length.cumsum(0) + length)[row]
        return row, self.item[cell].long(), self.value[cell]

    def to_dense(self) -> Float[Tensor, "row item"]:
        """The whole matrix, with as many columns as rows."""
        matrix = torch.zeros(len(self), len(self))
        row = torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())
        matrix[row, self.item.long()] = self.value
        return matrix

    def state(self) -> State:
        return {"offsets": self.offsets, "item": self.item, "value": self.value}
