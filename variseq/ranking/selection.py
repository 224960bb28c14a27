"""Ranked lists from numbers of columns: the best k, a diverse list, a conformal set; with boosts and pins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.distinct import distinct
from variseq.ranking.item_codes import ItemVectors
from variseq.ranking.softmax import SMALLEST, Columns
from variseq.sequences.histories import Histories

GROUP = 16
"""Columns of a group, of which first only the highest is looked at."""
POOL_LISTS, MIN_POOL = 5, 50
SHORTEST = 1e-12
"""A vector shorter than this has no direction."""
Ranked = tuple[Int[np.ndarray, "history k"], Float[np.ndarray, "history k"]]
"""Items, best first, −1 where a list is shorter; and their scores, −inf there."""


@dataclass(frozen=True)
class Constraints:
    """`RecommendOptions` as numbers of a catalog: what may be in a list, and where.

    Args:
        num_items: The size of the catalog.
        k: Length of the list.
        exclude_seen: Leave out the items of the history.
        candidates: Which items may be recommended; None: all.
        log_boost: What is added to log p before ranking.
        pins: Indices in the list, ascending, and the items that are put there.
        num_new: At least so many items of the list are new ones, where there are so many.
        is_new: Which items are new.
        random_key: Of the random numbers that a list is drawn by; see `random_key`.
    """

    num_items: int
    k: int = 10
    exclude_seen: bool = True
    candidates: Bool[np.ndarray, " item"] | None = None
    log_boost: Float[np.ndarray, " item"] | None = None
    pins: tuple[tuple[int, int], ...] = ()
    num_new: int = 0
    is_new: Bool[np.ndarray, " item"] | None = None
    random_key: int = 0

    def allowed_pins(self, seen: Int[np.ndarray, " event"]) -> list[tuple[int, int]]:
        """The pins whose items may be recommended to somebody who has seen some items."""
        out = set(seen.tolist()) if self.exclude_seen else set()
        allowed = self.candidates
        return [(index, item) for index, item in self.pins if item not in out and (allowed is None or allowed[item])]


@dataclass(frozen=True, eq=False)
class Selector:
    """Chooses the items of lists.

    Seen items that are left out are the cells `seen_row`, `seen_column`, each once.
    """

    histories: Histories
    constraints: Sequence[Constraints]
    columns: Columns
    seen_row: Int[np.ndarray, " cell"]
    seen_column: Int[np.ndarray, " cell"]

    @classmethod
    def of(cls, histories: Histories, constraints: Sequence[Constraints], columns: Columns) -> Selector:
        """For histories and what may be recommended to each."""
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        excludes = np.array([one.exclude_seen for one in constraints])
        row, item = row[excludes[row]], histories.item[excludes[row]].astype(np.int64)
        cell = distinct(row * columns.num_columns + columns.of_items(row, item))
        return cls(histories, constraints, columns, *np.divmod(cell, columns.num_columns))

    def best(
        self,
        p: Float[np.ndarray, "history column"],
        diversity: float,
        vectors: ItemVectors,
        overwrite: bool = False,
    ) -> Ranked:
        """The k items of each history that are ranked highest, diverse and with pins where that is asked for.

        `overwrite` allows that p is changed, which saves a copy.
        """
        ranked, is_log = self.ranked(p if overwrite else p.copy())
        sizes = [pool_size(one.k, one.num_items) if diversity else one.k for one in self.constraints]
        item, score = self.highest(ranked, is_log, sizes)
        of_row = np.arange(len(ranked))[:, None]
        if diversity:
            k = np.array([one.k for one in self.constraints])
            relevance = np.exp(score - np.where(item[:, :1] >= 0, score[:, :1], 0.0))
            chosen = diverse(item, relevance, vectors, int(k.max()), diversity)
            chosen[np.arange(chosen.shape[1]) >= k[:, None]] = -1
            item, score = (
                np.where(chosen >= 0, one[of_row, chosen], end) for one, end in ((item, -1), (score, -np.inf))
            )
        if any(one.pins or one.num_new for one in self.constraints):
            return self._rearranged(item, ranked, is_log)
        return item, score

    def ranked(
        self, p: Float[np.ndarray, "history column"]
    ) -> tuple[Float[np.ndarray, "history listed"], Bool[np.ndarray, " history"]]:
        """What items are ranked by, −inf for those that may not be recommended; and of which histories it is a log.

        p is changed.
        """
        ranked, is_log = self._candidates(p), np.zeros(len(p), dtype=bool)
        for row, one in enumerate(self.constraints):
            if one.log_boost is not None:
                # A factor may be larger than any number of 32 bits.
                ranked[row] = np.log(ranked[row], where=ranked[row] > 0, out=ranked[row])
                ranked[row] += self.columns.of_listed(row, one.log_boost)
                is_log[row] = True
            if one.candidates is not None:
                ranked[row, ~self.columns.of_listed(row, one.candidates)] = -np.inf
        return ranked, is_log

    def highest(
        self, ranked: Float[np.ndarray, "history listed"], is_log: Bool[np.ndarray, " history"], sizes: Sequence[int]
    ) -> Ranked:
        """So many items of each history, best first."""
        column, value = top_k(ranked, max(sizes))
        is_there = (value > -np.inf) & (np.arange(column.shape[1]) < np.array(sizes)[:, None])
        item = np.where(is_there, self.columns.items_at(np.arange(len(ranked))[:, None], column), -1)
        return item, np.where(is_there, _log(value, is_log[:, None]), -np.inf)

    def scores(
        self,
        ranked: Float[np.ndarray, "history listed"],
        is_log: Bool[np.ndarray, " history"],
        row: int,
        item: Int[np.ndarray, " chosen"],
    ) -> Float[np.ndarray, " chosen"]:
        """What some items of one history are ranked by."""
        return _log(ranked[row, self.columns.of_items(np.array(row), item)], is_log[row])

    def conformal_set(self, p: Float[np.ndarray, "history column"], limits: Float[np.ndarray, " history"]) -> Ranked:
        """The items before which a list has at most so much probability, those of them that may be recommended."""
        ranked, lists = self._candidates(p.copy()), []
        for row, (one, limit) in enumerate(zip(self.constraints, limits.tolist(), strict=True)):
            order = np.argsort(-ranked[row], kind="stable")
            order = order[ranked[row, order] >= 0]
            mass = ranked[row, order].astype(np.float64)
            inside = order[np.cumsum(mass) - mass <= limit]
            if one.candidates is not None:
                inside = inside[self.columns.of_listed(row, one.candidates)[inside]]
            lists.append((self.columns.items_at(np.array(row), inside), np.log(p[row, inside])))
        return _table(lists)

    def _candidates(self, p: Float[np.ndarray, "history column"]) -> Float[np.ndarray, "history listed"]:
        """p of the columns that can be recommended, −inf for what is seen and left out; p is changed."""
        ranked = p[:, : self.columns.num_listed]
        if self.columns.blocks[0].counts is not None:
            ranked[self.columns.blocks[0].counts == 0] = -np.inf  # a shorter row repeats its last item
        ranked[self.seen_row, self.seen_column] = -np.inf
        return ranked

    def _rearranged(
        self,
        item: Int[np.ndarray, "history before"],
        ranked: Float[np.ndarray, "history listed"],
        is_log: Bool[np.ndarray, " history"],
    ) -> Ranked:
        """Pinned items at their ranks, the others around them, and as many new items as are asked for.

        Each item has the score that it would be ranked by.
        """
        lists = []
        for row, one in enumerate(self.constraints):
            pins = one.allowed_pins(self.histories.history(row).item)
            found = with_pins(item[row].tolist(), pins, one.k)
            if one.num_new and one.is_new is not None:
                column = np.flatnonzero(self.columns.of_listed(row, one.is_new) & (ranked[row] > -np.inf))
                best = column[np.argsort(-ranked[row, column], kind="stable")]
                new = self.columns.items_at(np.array(row), best).tolist()
                found = with_new(found, new, {other for _, other in pins}, one.num_new, one.k)
            chosen = np.array(found, dtype=np.int64)
            lists.append((chosen, self.scores(ranked, is_log, row, chosen)))
        return _table(lists)


def top_k(
    scores: Float[np.ndarray, "row column"], k: int
) -> tuple[Int[np.ndarray, "row k"], Float[np.ndarray, "row k"]]:
    """The columns of the k highest scores of each row, and the scores; of equal scores the earlier column comes first.

    A row is cut into groups. The k highest scores are in the k groups with the highest maxima: any other group has at
    least k scores above its own. So only the maxima, and the members of those groups, are sorted.

    >>> top_k(np.array([[0.2, 0.5, 0.2, -np.inf], [0.0, 0.1, 0.3, 0.2]], dtype=np.float32), 3)[0]
    array([[1, 0, 2],
           [2, 3, 1]])
    """
    width = scores.shape[1]
    k = min(k, width)
    # One more, to see where a tie is cut: a row with such a tie is looked at as a whole.
    column = _highest(scores, min(k + 1, width))
    column.sort(axis=1)
    value = np.take_along_axis(scores, column, axis=1)
    order = np.argsort(-value, axis=1, kind="stable")
    column, value = np.take_along_axis(column, order, axis=1), np.take_along_axis(value, order, axis=1)
    if column.shape[1] > k:
        tied = np.flatnonzero((value[:, k] == value[:, k - 1]) & (value[:, k] > -np.inf))
        if len(tied):
            column[tied, :k] = _earliest(scores[tied], value[tied, k - 1 : k], k)
    return column[:, :k], value[:, :k]


def _earliest(
    scores: Float[np.ndarray, "row column"], lowest: Float[np.ndarray, "row 1"], k: int
) -> Int[np.ndarray, "row k"]:
    """The k highest columns of rows in which more scores than fit equal the `lowest` of them."""
    above, equal = scores > lowest, scores == lowest
    is_first = np.cumsum(equal, axis=1) <= k - above.sum(axis=1, keepdims=True)
    column = np.nonzero(above | (equal & is_first))[1].reshape(-1, k)
    order = np.argsort(-np.take_along_axis(scores, column, axis=1), axis=1, kind="stable")
    return np.take_along_axis(column, order, axis=1)


def _highest(scores: Float[np.ndarray, "row column"], k: int) -> Int[np.ndarray, "row k"]:
    """The columns of the k highest scores of each row, in any order."""
    num_groups = scores.shape[1] // GROUP
    if num_groups < 4 * k:
        return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    whole = num_groups * GROUP
    # Members of a group are `num_groups` apart, so that the maxima are found column by column.
    maxima = scores[:, :whole].reshape(-1, GROUP, num_groups).max(axis=1)
    group = np.argpartition(maxima, num_groups - k, axis=1)[:, -k:]
    member = (group[:, :, None] + np.arange(GROUP) * num_groups).reshape(len(scores), -1)
    rest = np.broadcast_to(np.arange(whole, scores.shape[1]), (len(scores), scores.shape[1] - whole))
    column = np.concatenate([member, rest], axis=1)
    value = np.take_along_axis(scores, column, axis=1)
    return np.take_along_axis(column, np.argpartition(value, value.shape[1] - k, axis=1)[:, -k:], axis=1)


def pool_size(k: int, num_items: int) -> int:
    """How many of the best items a diverse list of k is chosen from: 50 or five lists, whichever is more.

    >>> pool_size(10, 1000), pool_size(20, 1000), pool_size(10, 30)
    (50, 100, 30)
    """
    return min(max(MIN_POOL, POOL_LISTS * k), num_items)


def diverse(
    item: Int[np.ndarray, "history pool"],
    relevance: Float[np.ndarray, "history pool"],
    vectors: ItemVectors,
    k: int,
    diversity: float,
) -> Int[np.ndarray, "history k"]:
    """The indices in the pool of the k items to show, in order; pools come best first, with −1 where they ran out.

    Maximal marginal relevance (Carbonell and Goldstein 1998): one after the other takes the candidate with the highest
    (1 − diversity) · relevance − diversity · (largest cosine to an item taken before). Relevance is the probability
    over that of the best candidate, so the first item is the best one at any diversity below 1. At 0 the result is the
    plain top k, at 1 only the distances count. −1 stands where a pool holds fewer than k items, always at the end.

    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> pool, probability = np.array([[0, 1, 2]]), np.array([[0.5, 0.4, 0.3]])
    >>> diverse(pool, probability, vectors, k=2, diversity=0.0)
    array([[0, 1]])
    >>> diverse(pool, probability, vectors, k=2, diversity=0.5)
    array([[0, 2]])
    """
    is_there = item >= 0
    # Equal scores stay in the order in which they came.
    if diversity == 0:
        return np.where(is_there, np.arange(item.shape[1]), -1)[:, :k]
    relevance = np.where(is_there, relevance / np.maximum(relevance[:, :1], np.finfo(relevance.dtype).tiny), 0.0)
    pooled = vectors[np.maximum(item, 0)]
    direction = pooled / np.maximum(np.linalg.norm(pooled, axis=2, keepdims=True), SHORTEST)
    nearest = np.full_like(relevance, -1.0)
    is_free, row, chosen = is_there.copy(), np.arange(len(item)), []
    for _ in range(min(k, item.shape[1])):
        gain = np.where(is_free, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        # Of equal gains the first, which is the more relevant one.
        index = gain.argmax(axis=1)
        chosen.append(np.where(is_free.any(axis=1), index, -1))
        is_free[row, index] = False
        nearest = np.maximum(nearest, np.einsum("hpw,hw->hp", direction, direction[row, index]))
    return np.stack(chosen, axis=1)


def with_pins(ranked: Sequence[int], pins: Iterable[tuple[int, int]], k: int) -> list[int]:
    """A list with some items at fixed indices, ascending, and the others in their order around them.

    >>> with_pins([4, 7, 1], [(0, 1), (2, 9)], k=3)
    [1, 4, 9]
    """
    pins = list(pins)
    pinned = {item for _, item in pins}
    found = [item for item in ranked if item >= 0 and item not in pinned]
    for index, item in pins:
        found.insert(index, item)
    return found[:k]


def with_new(ranked: Sequence[int], new: Sequence[int], pinned: Collection[int], num_new: int, k: int) -> list[int]:
    """A list in which at least some of the items `new` are: the best take the last ranks of others that are not pinned.

    >>> with_new([4, 7, 1, 3], new=[8, 9], pinned={3}, num_new=2, k=5)
    [4, 7, 8, 3, 9]
    """
    found, are_new = list(ranked), set(new)
    missing = num_new - len(are_new & set(found))
    added = [item for item in new if item not in found][: max(0, missing)]
    others = [index for index, item in enumerate(found) if item not in are_new and item not in pinned]
    num_replaced = min(len(others), max(0, len(found) + len(added) - k))
    for index, item in zip(others[len(others) - num_replaced :], added, strict=False):
        found[index] = item
    return [*found, *added[num_replaced:]][:k]


def _log(
    value: Float[np.ndarray, "*cell"], is_log: Bool[np.ndarray, "*#cell"] | np.bool_
) -> Float[np.ndarray, "*cell"]:
    return np.where(is_log, value, np.log(np.maximum(value, SMALLEST)))


def _table(lists: list[tuple[np.ndarray, np.ndarray]]) -> Ranked:
    """Lists of different lengths as one table."""
    width = max(1, *(len(item) for item, _ in lists))
    items = np.full((len(lists), width), -1, dtype=np.int64)
    scores = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for row, (item, score) in enumerate(lists):
        items[row, : len(item)], scores[row, : len(item)] = item, score
    return items, scores
