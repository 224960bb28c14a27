"""Items near those of a history on the map, as a distribution over the catalog."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.sequences.histories import Histories

COORDINATES = "coordinates"
"""The name of latitudes and longitudes among the tables of a model."""
EARTH_RADIUS_KM = 6371.0
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
        self.points, self.is_known = _on_sphere(degrees), ~np.isnan(degrees).any(axis=1)
        self.is_candidate = is_candidate & self.is_known
        self._mass = np.full(len(degrees), np.nan)
        """Σ_j k(e, j) of each item e, as soon as it is needed."""

    def kernel(self, of: Int[np.ndarray, " event"], item: Int[np.ndarray, " cell"]) -> Float[np.ndarray, "event cell"]:
        """k of events of some items and other items."""
        # The length of the chord, which is that of the arc as long as both are short beside the radius.
        square = np.maximum(2 - 2 * self.points[of] @ self.points[item].T, 0)
        return np.where(self.is_candidate[item], 1 / (1 + square * (EARTH_RADIUS_KM / self.options.scale_km) ** 2), 0.0)

    def dense(self, histories: Histories) -> Float[np.ndarray, "history item"]:
        """p of all items."""
        p = np.tile(self.popularity, (len(histories), 1))
        every = np.arange(len(self.points))
        for row, of, weight in self._events(histories):
            p[row] = weight @ self.kernel(of, every)
        return p

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
        item = histories.item[chosen].astype(np.int64)
        self._fill_mass(item)
        row, age, has_mass = row[of_event[chosen]], age[of_event[chosen]], self._mass[item] > 0
        row, age, item = row[has_mass], age[has_mass], item[has_mass]
        weight = self.options.decay**age
        weight /= np.bincount(row, weights=weight)[row] * self._mass[item]
        bounds = np.searchsorted(row, np.arange(len(histories) + 1))
        spans = [(number, slice(*bounds[number : number + 2])) for number in np.unique(row).tolist()]
        return [(number, item[span], weight[span]) for number, span in spans]

    def _fill_mass(self, item: Int[np.ndarray, " event"]) -> None:
        every = np.arange(len(self.points))
        for one in np.unique(item[np.isnan(self._mass[item])])[:, None]:
            self._mass[one] = self.kernel(one, every).sum()


def _on_sphere(degrees: Float[np.ndarray, "item two"]) -> Float[np.ndarray, "item three"]:
    """The point of each item on a sphere of radius 1; zero where it has none."""
    latitude, longitude = np.radians(np.nan_to_num(degrees)).T
    flat = np.cos(latitude)
    points = np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=1)
    return np.where(np.isnan(degrees).any(axis=1, keepdims=True), 0.0, points)
