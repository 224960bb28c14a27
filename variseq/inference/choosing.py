"""What the items of one history are ranked by into a list: the best, a spread, or a set; with pins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.inference.softmaxes import Catalogue
from variseq.recommend.diversity import pool_size, spread_out
from variseq.recommend.wishes import Wish, allowed_pins, with_pins
from variseq.sequences.histories import Histories

SMALLEST = 1e-37


@dataclass(frozen=True, eq=False)
class Chooser:
    """One history and what is wished for it, over the columns of a catalogue.

    `log_weight` is log of what p is multiplied by to be the probability of a new item.
    """

    history: Histories
    wish: Wish
    catalogue: Catalogue
    log_weight: float

    @classmethod
    def of(cls, p: Float[np.ndarray, " column"], history: Histories, wish: Wish, catalogue: Catalogue) -> Chooser:
        """The weight is that of the hurdle of `log_weights`; over all items a forecast comes to 1, up to rounding."""
        log_weight = 0.0
        if wish.exclude_seen:
            seen = catalogue.column_of(np.unique(history.item))
            of_seen = min(float(p[seen].sum(dtype=np.float64)), 1.0)
            if of_seen > 0:
                log_weight = math.log1p(-wish.repeat_share) - math.log(1 - of_seen) if of_seen < 1 else -math.inf
        return cls(history, wish, catalogue, log_weight)

    def best(
        self, p: Float[np.ndarray, " column"], diversity: float, vectors: Float[np.ndarray, "item width"]
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The k items that are ranked highest, spread out and with pins if wished, and their scores."""
        wish, catalogue = self.wish, self.catalogue
        ranked = self._new(p)
        if wish.log_boost is not None:
            ranked *= np.exp(self._of_listed(wish.log_boost))
        if wish.candidates is not None:
            ranked[~self._of_listed(wish.candidates)] = -1.0
        column = _highest(ranked, pool_size(wish.k, wish.num_items) if diversity else wish.k)
        if diversity:
            pool = np.arange(len(column))[None]
            near = vectors[catalogue.item_at(column)]
            place = spread_out(pool, ranked[column][None], near, wish.k, diversity)[0]
            column = column[place[place >= 0]]
        item = catalogue.item_at(column)
        if wish.pins:
            pinned = with_pins(item.tolist(), allowed_pins(wish, self.history.item), wish.k)
            item = np.array(pinned, dtype=np.int64)
        score = np.log(np.maximum(ranked[catalogue.column_of(item)], SMALLEST))
        return item, score

    def covering(
        self, p: Float[np.ndarray, " column"], limit: float
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The items before which the list has at most so much probability, those of them that may be recommended."""
        ranked = self._new(p)
        order = np.argsort(-ranked, kind="stable")
        order = order[ranked[order] >= 0]
        said = ranked[order].astype(np.float64) * math.exp(self.log_weight)
        inside = order[np.cumsum(said) - said <= limit]
        if self.wish.candidates is not None:
            inside = inside[self._of_listed(self.wish.candidates)[inside]]
        return self.catalogue.item_at(inside), np.log(p[inside])

    def _new(self, p: Float[np.ndarray, " column"]) -> Float[np.ndarray, " listed"]:
        """What the columns are ranked by that can be recommended, −1 for what is seen and left out."""
        ranked = p[: self.catalogue.num_listed].copy()
        if self.wish.exclude_seen:
            ranked[self.catalogue.column_of(self.history.item)] = -1.0
        return ranked

    def _of_listed(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of all items, those of the columns that can be recommended."""
        return numbers if self.catalogue.listed is None else numbers[self.catalogue.listed]


def _highest(ranked: Float[np.ndarray, " column"], k: int) -> Int[np.ndarray, " k"]:
    """The k highest columns (those below 0 do not count), highest first; of equal ones the earlier first."""
    if k < len(ranked):
        # The k-th highest value first, so that of equal ones the earlier are taken.
        limit = np.partition(ranked, len(ranked) - k)[len(ranked) - k]
        place = np.flatnonzero(ranked >= limit)
    else:
        place = np.arange(len(ranked))
    place = place[ranked[place] >= 0]
    return place[np.lexsort((place, -ranked[place]))][:k]
