"""Items near those of a history on the map, as a distribution over the catalog."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.ranking.softmax import Columns
from variseq.sequences.histories import Histories

COORDINATES = "coordinates"
"""The name of latitudes and longitudes among the tables of a model."""
EARTH_RADIUS_KM = 6371.0
BLOCK_ITEMS = 4096
NUM_VISITS = 16
"""Earlier visits do not count; without visits, earlier events."""


@dataclass(frozen=True)
class NearItems:
    """How the distance from the items of a history to another one counts.

    Args:
        scale_km: At this distance an item is half as likely as at none, in kilometers.
        decay: An event counts `decay` times as much as the next one.
    """

    scale_km: float
    decay: float = 0.7


class NearItemsModel:
    """p(i) = Σ_e w_e k(e, i) / Σ_j k(e, j) over the latest events e of a history, with k = 1 / (1 + (distance / s)²).

    The weights w fall by `decay` from event to event, with visits from visit to visit, and sum to 1. An item that has
    no coordinates has p = 0, and its events do not count. A history without any that counts has the popularity.

    The kernel is a Cauchy density: people go far now and then (Brockmann, Hufnagel and Geisel 2006). The mean over
    events is the kernel density of a person's places (Lichman and Smyth 2014).

    Args:
        degrees: Latitude and longitude of each item, NaN for an item without.
        is_candidate: Items that p is spread over, where they have coordinates.
        popularity: The share of each item in the log.
        options: Scale and decay.
    """

    def __init__(
        self,
        degrees: Float[np.ndarray, "item two"],
        is_candidate: Bool[np.ndarray, " item"],
        popularity: Float[np.ndarray, " item"],
        options: NearItems,
    ) -> None:
        self.options, self.popularity = options, popularity.astype(np.float32)
        self.is_known = ~np.isnan(degrees).any(axis=1)
        self.is_candidate = is_candidate & self.is_known
        self._points = np.ascontiguousarray(_on_sphere(degrees).T, np.float32)
        self._blocks = [slice(first, first + BLOCK_ITEMS) for first in range(0, len(degrees), BLOCK_ITEMS)]
        self._mass = np.full(len(degrees), np.nan)
        """Σ_j k(e, j) of each item e, as soon as it is needed."""

    def kernel(
        self, of: Int[np.ndarray, " event"], item: Int[np.ndarray, " cell"] | slice
    ) -> Float[np.ndarray, "event cell"]:
        """k of events of some items and other items; 0 for other items that are no candidates."""
        # The chord, which is as long as the arc where both are short. Single precision is 40 centimeters.
        square = sum((all_of[of, None] - all_of[item]) ** 2 for all_of in self._points)
        square *= np.float32((EARTH_RADIUS_KM / self.options.scale_km) ** 2)
        square += 1
        return self.is_candidate[item] / square

    def dense(self, histories: Histories) -> Float[np.ndarray, "history item"]:
        """p of all items."""
        p = np.tile(self.popularity, (len(histories), 1))
        for row, of, weight in self._events(histories):
            for block in self._blocks:
                p[row, block] = weight @ self.kernel(of, block)
        return p

    def of_columns(self, histories: Histories, columns: Columns) -> Float[np.ndarray, "history column"]:
        """p of the columns; where each history has a list, of the items on it alone."""
        if columns.listed is None:
            return self.dense(histories)
        return self.at(histories, columns.of_columns(np.arange(columns.num_items))).astype(np.float32)

    def likeliest(self, histories: Histories, number: int) -> tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
        """The likeliest items of each history, at most so many: the row of the history and the item."""
        p = self.dense(histories)
        item = np.argpartition(-p, min(number, p.shape[1]) - 1, axis=1)[:, :number]
        return np.repeat(np.arange(len(p)), item.shape[1]), item.ravel()

    def at(self, histories: Histories, item: Int[np.ndarray, "history k"]) -> Float[np.ndarray, "history k"]:
        """p of some items of each history."""
        p = self.popularity[item].astype(np.float64)
        for row, of, weight in self._events(histories):
            p[row] = weight @ self.kernel(of, item[row])
        return p

    def _events(self, histories: Histories) -> list[tuple[int, Int[np.ndarray, " event"], Float[np.ndarray, " event"]]]:
        """For each history with events that count: its row, their items, and the weight of each over Σ_j k(e, j)."""
        visits = histories.visits
        row = np.repeat(np.arange(len(histories)), visits.lengths)
        age = visits.offsets[1:][row] - 1 - np.arange(len(visits))
        of_event = visits.of(np.arange(histories.num_events))
        chosen = np.flatnonzero((age[of_event] < NUM_VISITS) & self.is_known[histories.item])
        row, item = row[of_event[chosen]], histories.item[chosen].astype(np.int64)
        weight = self.options.decay ** age[of_event[chosen]]
        # Events of one item are one, which has the sum of their weights.
        pair, cell = np.unique(row * len(self.popularity) + item, return_inverse=True)
        row, item = np.divmod(pair, len(self.popularity))
        weight = np.bincount(cell, weights=weight)
        self._fill_mass(item)
        has_mass = self._mass[item] > 0
        row, item, weight = row[has_mass], item[has_mass], weight[has_mass]
        weight = (weight / (np.bincount(row, weights=weight)[row] * self._mass[item])).astype(np.float32)
        bounds = np.searchsorted(row, np.arange(len(histories) + 1))
        spans = [(number, slice(*bounds[number : number + 2])) for number in np.unique(row).tolist()]
        return [(number, item[span], weight[span]) for number, span in spans]

    def _fill_mass(self, item: Int[np.ndarray, " event"]) -> None:
        missing = np.unique(item[np.isnan(self._mass[item])])
        for some in np.array_split(missing, -(-len(missing) // NUM_VISITS) or 1):
            of_blocks = [self.kernel(some, block).sum(axis=1, dtype=np.float64) for block in self._blocks]
            self._mass[some] = np.sum(of_blocks, axis=0)


def _on_sphere(degrees: Float[np.ndarray, "item two"]) -> Float[np.ndarray, "item three"]:
    """The point of each item on a sphere of radius 1; zero where it has none."""
    latitude, longitude = np.radians(np.nan_to_num(degrees)).T
    flat = np.cos(latitude)
    points = np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=1)
    return np.where(np.isnan(degrees).any(axis=1, keepdims=True), 0.0, points)
