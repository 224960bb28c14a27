"""What columns are ranked by into lists, one a history: the best, a spread, or a set; with pins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.inference.columns import Columns
from variseq.recommend.diversity import pool_size, spread_out
from variseq.recommend.wishes import Wish, allowed_pins, with_pins
from variseq.sequences.histories import Histories

SMALLEST = 1e-37
Chosen = tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]
"""The items of a list and their scores."""


@dataclass(frozen=True, eq=False)
class Chooser:
    """Histories and what is wished for each, over columns.

    Seen items that are left out are the cells `seen_row`, `seen_column`, each once. `log_weight` is log of what p is
    multiplied by to be the probability of a new item.
    """

    histories: Histories
    wishes: Sequence[Wish]
    columns: Columns
    seen_row: Int[np.ndarray, " cell"]
    seen_column: Int[np.ndarray, " cell"]
    log_weight: Float[np.ndarray, " history"]

    @classmethod
    def of(
        cls, p: Float[np.ndarray, "history column"], histories: Histories, wishes: Sequence[Wish], columns: Columns
    ) -> Chooser:
        """The weight is that of the hurdle of `log_weights`; over all items a forecast comes to 1, up to rounding."""
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        leaves_out = np.array([wish.exclude_seen for wish in wishes])
        row, item = row[leaves_out[row]], histories.item[leaves_out[row]].astype(np.int64)
        cell = np.sort(row * p.shape[1] + columns.of_items(row, item))
        cell = cell[np.append(True, cell[1:] != cell[:-1])[: len(cell)]]
        seen_row, seen_column = np.divmod(cell, p.shape[1])
        said = p[seen_row, seen_column].astype(np.float64)
        of_seen = np.minimum(np.bincount(seen_row, weights=said, minlength=len(histories)), 1.0)
        repeat_share = np.array([wish.repeat_share for wish in wishes])
        with np.errstate(divide="ignore"):
            weight = np.log1p(-repeat_share) - np.log1p(-of_seen)
        # Who has seen everything has nothing new to come.
        weight = np.where(of_seen < 1, weight, -np.inf)
        log_weight = np.where(leaves_out & (of_seen > 0), weight, 0.0)
        return cls(histories, wishes, columns, seen_row, seen_column, log_weight)

    def best(
        self, p: Float[np.ndarray, "history column"], diversity: float, vectors: Float[np.ndarray, "item hidden"]
    ) -> list[Chosen]:
        """The k items of each history that are ranked highest, spread out and with pins if wished."""
        ranked = self._new(p)
        for row, wish in enumerate(self.wishes):
            if wish.log_boost is not None:
                ranked[row] *= np.exp(self.columns.of_listed(row, wish.log_boost))
            if wish.candidates is not None:
                ranked[row, ~self.columns.of_listed(row, wish.candidates)] = -1.0
        k = [pool_size(wish.k, wish.num_items) if diversity else wish.k for wish in self.wishes]
        column, lengths = _highest(ranked, np.array(k))
        of_row = np.arange(len(ranked))[:, None]
        item, score = self.columns.items_at(of_row, column), _log(ranked[of_row, column])
        lists = [(item[place, :length], score[place, :length]) for place, length in enumerate(lengths.tolist())]
        if diversity:
            lists = [_spread(*one, wish.k, diversity, vectors) for one, wish in zip(lists, self.wishes, strict=True)]
        return [self._pinned(place, one, ranked[place]) for place, one in enumerate(lists)]

    def covering(self, p: Float[np.ndarray, "history column"], limits: Float[np.ndarray, " history"]) -> list[Chosen]:
        """The items before which a list has at most so much probability, those of them that may be recommended."""
        ranked, chosen = self._new(p), []
        for row, (wish, limit) in enumerate(zip(self.wishes, limits.tolist(), strict=True)):
            order = np.argsort(-ranked[row], kind="stable")
            order = order[ranked[row, order] >= 0]
            said = ranked[row, order].astype(np.float64) * np.exp(self.log_weight[row])
            inside = order[np.cumsum(said) - said <= limit]
            if wish.candidates is not None:
                inside = inside[self.columns.of_listed(row, wish.candidates)[inside]]
            chosen.append((self.columns.items_at(np.array(row), inside), np.log(p[row, inside])))
        return chosen

    def _new(self, p: Float[np.ndarray, "history column"]) -> Float[np.ndarray, "history listed"]:
        """What the columns are ranked by that can be recommended, −1 for what is seen and left out."""
        ranked = p[:, : self.columns.num_listed].copy()
        if self.columns.short is not None:
            ranked[~self.columns.short.is_own] = -1.0
        ranked[self.seen_row, self.seen_column] = -1.0
        return ranked

    def _pinned(self, row: int, chosen: Chosen, ranked: Float[np.ndarray, " listed"]) -> Chosen:
        wish = self.wishes[row]
        if not wish.pins:
            return chosen
        pins = allowed_pins(wish, self.histories.history(row).item)
        item = np.array(with_pins(chosen[0].tolist(), pins, wish.k), dtype=np.int64)
        return item, _log(ranked[self.columns.of_items(np.array(row), item)])


def _spread(
    item: Int[np.ndarray, " pool"],
    score: Float[np.ndarray, " pool"],
    k: int,
    diversity: float,
    vectors: Float[np.ndarray, "item hidden"],
) -> Chosen:
    place = spread_out(np.arange(len(item))[None], np.exp(score)[None], vectors[item], k, diversity)[0]
    place = place[place >= 0]
    return item[place], score[place]


def _log(ranked: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    logarithm: Float[np.ndarray, "*cell"] = np.log(np.maximum(ranked, SMALLEST))
    return logarithm


def _highest(
    ranked: Float[np.ndarray, "history column"], k: Int[np.ndarray, " history"]
) -> tuple[Int[np.ndarray, "history most"], Int[np.ndarray, " history"]]:
    """The k highest columns of each row, highest first, of equal ones the earlier first; and how many there are.

    Columns below 0 do not count. Places after the last are filled with column 0.

    >>> _highest(np.array([[0.2, 0.5, 0.2, -1.0], [-1.0, 0.1, 0.3, 0.2]]), np.array([2, 9]))
    (array([[1, 0, 0],
           [2, 3, 1]]), array([2, 3]))
    """
    most = min(int(k.max()), ranked.shape[1])
    # The k-th highest value first, so that of equal ones the earlier are taken.
    limit = np.partition(ranked, ranked.shape[1] - most, axis=1)[:, ranked.shape[1] - most]
    row, column = np.nonzero(ranked >= np.maximum(limit, 0.0)[:, None])
    order = np.lexsort((column, -ranked[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    is_taken = place < k[row]
    row, column, place = row[is_taken], column[is_taken], place[is_taken]
    lengths = np.bincount(row, minlength=len(ranked))
    found = np.zeros((len(ranked), int(lengths.max(initial=0))), dtype=np.int64)
    found[row, place] = column
    return found, lengths
