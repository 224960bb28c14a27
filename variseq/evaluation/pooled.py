"""Some queries of an evaluation into pooled numbers with their intervals: means, calibration errors, coverage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.evaluation.bootstrap import Block, percentile_interval, sums_by_user
from variseq.evaluation.calibration import equal_mass_bins, wilson_interval

CONFORMAL = "conformal_coverage_90"


@dataclass(frozen=True, eq=False)
class Listed:
    """The lists of recommendations as forecasts: what was said of each item, whether it came, whether it is there."""

    probability: Float[np.ndarray, "query k"]
    is_target: Bool[np.ndarray, "query k"]
    is_filled: Bool[np.ndarray, "query k"]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What pooled numbers are made of, per query.

    A metric that the model does not have is None, and so is `listed` for a model without probabilities. `is_covered`
    says whether the conformal set holds the target, where there are sets.
    """

    user: Int[np.ndarray, " query"]
    k: int
    metrics: dict[str, Float[np.ndarray, " query"] | None]
    listed: Listed | None
    is_covered: Bool[np.ndarray, " query"] | None

    @cached_property
    def users(self) -> Int[np.ndarray, " user"]:
        """The users that occur, in ascending order."""
        return np.unique(self.user)

    @property
    def depths(self) -> dict[str, int]:
        """The calibration errors, by how much of the lists they look at."""
        return {f"ece_top{depth}": depth for depth in (1, self.k)}


class Pool:
    """Numbers of the queries that are `inside`: means over queries, and calibration errors of the lists' `cells`.

    Without `cells` they are those of the same queries. Its intervals resample users.
    """

    def __init__(
        self, outcomes: Outcomes, inside: Bool[np.ndarray, " query"], cells: Bool[np.ndarray, "query k"] | None = None
    ) -> None:
        self.outcomes = outcomes
        self.inside = inside
        self.num_users = len(np.unique(outcomes.user[inside]))
        parts = {name: self._mean(value) for name, value in outcomes.metrics.items() if value is not None}
        self.by_chance: dict[str, float] = {}
        if outcomes.listed is not None:
            filled = outcomes.listed.is_filled & (inside[:, None] if cells is None else cells)
            parts |= {name: self._gaps(name, filled[:, :depth]) for name, depth in outcomes.depths.items()}
        table = np.concatenate(list(parts.values()), axis=1)
        is_used = table.any(axis=1)
        place = np.searchsorted(outcomes.users, np.unique(outcomes.user[is_used]))
        self.block = Block(place, sums_by_user(outcomes.user[is_used], table[is_used]))
        self.ends = dict(zip(parts, np.cumsum([part.shape[1] for part in parts.values()]), strict=True))

    def _mean(self, value: Float[np.ndarray, " query"]) -> Float[np.ndarray, "query column"]:
        """Columns whose sums give the mean over the queries inside: value and one."""
        return np.stack([np.where(self.inside, value, 0.0), self.inside.astype(np.float64)], axis=1)

    def _gaps(self, name: str, filled: Bool[np.ndarray, "query depth"]) -> Float[np.ndarray, "query column"]:
        """Columns whose sums give the calibration error: probability − hit in each bin, and the number of forecasts.

        With the bins fixed, the error is a ratio of sums over users, which resampling needs.
        """
        assert self.outcomes.listed is not None
        depth = filled.shape[1]
        probability, hit = self.outcomes.listed.probability[:, :depth], self.outcomes.listed.is_target[:, :depth]
        place = np.zeros(filled.shape, dtype=np.int64)
        place[filled] = equal_mass_bins(probability[filled])
        num_bins = int(place.max()) + 1
        query = np.repeat(np.arange(len(filled)), depth)
        gap = np.where(filled, probability - hit, 0.0)
        sums = np.bincount(query * num_bins + place.ravel(), gap.ravel(), minlength=len(gap) * num_bins)
        said = probability[filled]
        # The mean of |noise| is √(2/π) of its deviation, which for a true probability p is √(p (1 − p)).
        noise = np.sqrt(2 / np.pi * np.bincount(place[filled], said * (1 - said)))
        self.by_chance[name] = float(noise.sum() / max(1, len(said)))
        return np.concatenate([sums.reshape(len(gap), num_bins), filled.sum(axis=1, keepdims=True)], axis=1)

    def numbers(self, sums: Float[np.ndarray, "row column"]) -> dict[str, Float[np.ndarray, " row"]]:
        """Each number for rows of column sums; NaN for a row (a resample) that has nothing of it."""
        found, first = {}, 0
        for name, end in self.ends.items():
            *above, below = sums[:, first:end].T
            total = np.abs(above).sum(axis=0) if name in self.outcomes.depths else above[0]
            found[name] = np.divide(total, below, out=np.full(len(sums), np.nan), where=below > 0)
            first = end
        return found

    def values(self) -> dict[str, float]:
        """Each number that is defined."""
        found = self.numbers(self.block.columns.sum(axis=0, keepdims=True))
        return {name: float(value) for name, (value,) in found.items() if not np.isnan(value)}

    def resampled(self, drawn: Float[np.ndarray, "resample column"]) -> dict[str, Float[np.ndarray, " resample"]]:
        """Each number that is defined for resampled sums of `block`.

        A resample has the noise of the sample and its own on top, which makes calibration errors larger: they are moved
        back, so that their mean is the error that was found, and never below 0.
        """
        found, values = self.numbers(drawn), self.values()
        for name in values.keys() & self.outcomes.depths.keys():
            known = found[name][~np.isnan(found[name])]
            if len(known):
                found[name] = np.maximum(0.0, found[name] - known.mean() + values[name])
        return {name: found[name] for name in values}

    def told(self, drawn: Float[np.ndarray, "resample column"]) -> dict[str, Any]:
        """Every number with its 95 % interval; None where it is not defined. `drawn` are resampled sums of `block`."""
        names = [*self.outcomes.metrics, *self.outcomes.depths]
        result: dict[str, Any] = {key: None for name in names for key in (name, f"{name}_interval")}
        resampled = self.resampled(drawn)
        for name, value in self.values().items():
            result[name] = value
            result[f"{name}_interval"] = interval_of_known(resampled[name])
        result |= {f"{name}_by_chance": self.by_chance.get(name) for name in self.outcomes.depths}
        return result | self._coverage()

    def _coverage(self) -> dict[str, Any]:
        """The share of targets in their conformal sets.

        Wilson's interval is not empty where all are covered; a user counts once in it, however many queries there are.
        """
        if self.outcomes.is_covered is None or not self.inside.any():
            return {CONFORMAL: None, f"{CONFORMAL}_interval": None}
        share = self.outcomes.is_covered[self.inside].mean()
        low, high = wilson_interval(np.array([share]), np.array([self.num_users]))
        return {CONFORMAL: float(share), f"{CONFORMAL}_interval": [float(low[0]), float(high[0])]}


def interval_of_known(resampled: Float[np.ndarray, " resample"]) -> list[float] | None:
    """The 95 % interval of the resamples that have a value; None when none has."""
    known = resampled[~np.isnan(resampled)]
    return list(percentile_interval(known)) if len(known) else None
