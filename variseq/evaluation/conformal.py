"""What validation came to into sets of items that hold the next one with a wanted probability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.evaluation.groups import LENGTH_EDGES

LEVELS = tuple(round(0.01 * percent, 2) for percent in range(50, 100))
"""The coverages that can be asked for: 0.5, 0.51, ..., 0.99."""
MIN_QUERIES = 200
"""A group with fewer validation queries than this takes the thresholds of all."""


@dataclass(frozen=True, eq=False)
class ConformalThresholds:
    """How much probability may stand before an item that still belongs to the set, by history length and coverage.

    The set of a query holds every candidate before which the list has at most this much probability. It is the smallest
    prefix of the list with the wanted coverage, if test queries are like validation queries (exchangeable).
    Source: adaptive prediction sets without randomisation (Romano et al. 2020), by group (Vovk 2012).
    """

    mass: Float[np.ndarray, "group level"]

    @classmethod
    def fit(cls, mass_before: Float[np.ndarray, " query"], group: Int[np.ndarray, " query"]) -> ConformalThresholds:
        """From the probability that stood before the target of each validation query.

        The threshold of a level is the ⌈(n + 1) · level⌉-th smallest of n, or 1 (everything) where n is too small.

        >>> group = np.zeros(999, dtype=int)
        >>> thresholds = ConformalThresholds.fit(np.arange(1, 1000) / 1000, group)
        >>> float(thresholds.at(0.9)[0])
        0.9
        """
        everyone = _thresholds(mass_before)
        rows = []
        for place in range(len(LENGTH_EDGES)):
            inside = mass_before[group == place]
            rows.append(_thresholds(inside) if len(inside) >= MIN_QUERIES else everyone)
        return cls(np.stack(rows))

    def at(self, coverage: float) -> Float[np.ndarray, " group"]:
        """The threshold of each group of history lengths. Raises InputError for a coverage that is not a level."""
        close = np.flatnonzero(np.abs(np.array(LEVELS) - coverage) < 1e-9)
        if not len(close):
            raise InputError(
                f"coverage={coverage!r} is not possible. Allowed: {LEVELS[0]} to {LEVELS[-1]} in steps of 0.01, for "
                "example 0.9."
            )
        return self.mass[:, int(close[0])]

    def to_json(self) -> list[list[float]]:
        """One list a group, a threshold for each level."""
        return [[round(float(value), 6) for value in row] for row in self.mass]

    @classmethod
    def from_json(cls, record: Any) -> ConformalThresholds:
        """The inverse of `to_json`. Raises ValueError or TypeError for a record of another shape."""
        mass = np.array(record, dtype=np.float64)
        if mass.shape != (len(LENGTH_EDGES), len(LEVELS)) or not np.isfinite(mass).all():
            raise ValueError(f"conformal thresholds of shape {mass.shape}")
        return cls(mass)


def _thresholds(mass_before: Float[np.ndarray, " query"]) -> Float[np.ndarray, " level"]:
    ordered = np.append(np.sort(mass_before), 1.0)
    place = [min(len(mass_before), math.ceil((len(mass_before) + 1) * level - 1e-9) - 1) for level in LEVELS]
    return ordered[place]
