"""What is fitted on validation data: temperatures, mixture weights, conformal thresholds and the share of repeats."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.ranking.counts import OwnHistory
from variseq.ranking.near_items import NearItems
from variseq.ranking.new_items import NewItemForecast
from variseq.ranking.visits import VisitProbability
from variseq.sequences.histories import LARGEST_LOG_GAP, Histories

NUM_SAMPLES = 8
"""Posterior samples that a probability is averaged over."""
NORMAL_90 = 1.645
"""Standard deviations from the mean to the ends of the central 90 % of a normal distribution."""
NORMAL_95 = 1.96
LENGTH_EDGES = (0, 1, 2, 3, 6, 11, 21, 51, 101, 201)
"""Where the groups of history lengths begin: 0, 1, 2, 3-5, 6-10, ... events."""
LEVELS = tuple(round(0.01 * percent, 2) for percent in range(50, 100))
"""The levels of conformal sets: 0.5, 0.51, ..., 0.99."""
TRANSITIONS, TREND, UNIFORM, OWN, NEAR = 1, 2, 3, 4, 5
"""The rows of the mixture weights after the network's, in the order of `GatingNetwork`."""
MIN_QUERIES = 200
"""A group with fewer validation queries than this takes the thresholds of all queries."""


def length_group(length: Int[np.ndarray, " query"]) -> Int[np.ndarray, " query"]:
    """The group of each history length, an index of `LENGTH_EDGES`.

    >>> length_group(np.array([0, 1, 5, 6, 1000]))
    array([0, 1, 3, 4, 9])
    """
    return np.searchsorted(LENGTH_EDGES, length, side="right") - 1


def repeat_share(histories: Histories) -> float:
    """The counted probability that an event after the first has an item of the same history, smoothed by half an event.

    With visits: that an event after the first visit has an item of an earlier one.

    Only events that are targets are counted. It is the probability of a repeat in the hurdle model (Mullahy 1986) that
    is used where seen items are not ranked.

    >>> repeat_share(Histories.of_items([[3, 1, 3], [1]]))
    0.5
    """
    histories = histories.distinct_in_visits()
    visits, known = histories.visits, histories.lengths > 0
    first_visit = visits.offsets[:-1][known]
    num_first = histories.select(visits.begin(first_visit), visits.begin(first_visit + 1)).num_targets
    num_later = histories.num_targets - num_first
    return (histories.num_repeats() + 0.5) / (num_later + 1)


@dataclass(frozen=True)
class GatingNetwork:
    """The weights of the mixture components: network, transitions, trend, uniform part, own history and near items.

    The weights are the softmax of 0 (the network) and, for each other component, bias + a · log Z + b · mean log σ².
    log Z is the log-partition function of the network's softmax: it grows with how well the preference fits some items.
    σ² is the variance of the posterior. Where the request time is known, + c · `Histories.log_gap`, the logarithm of
    the time since the last event. The uniform component changes no order; it holds the probability of events that
    nothing predicts. Source: Jacobs et al., "Adaptive mixtures of local experts" (1991).

    Args:
        transitions: Bias and the two or three slopes of the counted transitions from the last item.
        trend: The same for what was popular of late when the model was fitted.
        uniform: The same for the uniform distribution.
        own: The same for what the person did before.
        near: The same for items near those of the history on the map.
    """

    transitions: tuple[float, ...] = (-math.inf, 0.0, 0.0)
    trend: tuple[float, ...] = (-math.inf, 0.0, 0.0)
    uniform: tuple[float, ...] = (-math.inf, 0.0, 0.0)
    own: tuple[float, ...] = (-math.inf, 0.0, 0.0)
    near: tuple[float, ...] = (-math.inf, 0.0, 0.0)

    def weights(
        self,
        log_mass: Float[np.ndarray, " history"],
        log_variance: Float[np.ndarray, " history"],
        log_gap: Float[np.ndarray, " history"] | None = None,
    ) -> Float[np.ndarray, "component history"]:
        """The weight of each component, the network first; a column sums to 1."""
        logits = [w[0] + w[1] * log_mass + w[2] * log_variance for w in astuple(self)]
        if log_gap is not None:
            logits = [one + w[3] * log_gap if len(w) > 3 else one for one, w in zip(logits, astuple(self), strict=True)]
        weight = np.stack([np.zeros_like(log_mass), *logits])
        weight = np.exp(weight - weight.max(axis=0))
        normalized: Float[np.ndarray, "component history"] = weight / weight.sum(axis=0)
        return normalized


@dataclass(frozen=True)
class Calibration:
    """A temperature for each group of history lengths, the gating network, and how own events are counted.

    Args:
        num_samples: Posterior samples that are averaged; 0 is the posterior mean alone.
        temperatures: One for each group of `LENGTH_EDGES`; the network's logits are divided by it.
        gate: The weights of the mixture components.
        own: How the events of a person are counted; None in a log where people rarely return to items.
        at_request: The same where the request time is known; None for a log without times.
        log_gaps: The least and the largest `Histories.log_gap` that the gating network was fitted to. Beyond them it
            gets the nearest of the two, for what it says there would be a guess.
        visit: The probability that the next visit holds an item; None in a log without visits.
        new: How items without a training event are forecast, whether or not the request time is known; None: as all
            others.
        lags: The counted transitions are those from so many of the last events.
        lag_decay: The weight of each of them over that of the next one.
        near: How the distance to the items of a history counts; None where items have no coordinates.
    """

    num_samples: int = NUM_SAMPLES
    temperatures: tuple[float, ...] = (1.0,) * len(LENGTH_EDGES)
    gate: GatingNetwork = GatingNetwork()
    own: OwnHistory | None = None
    at_request: Calibration | None = None
    log_gaps: tuple[float, float] = (0.0, LARGEST_LOG_GAP)
    visit: VisitProbability | None = None
    new: NewItemForecast | None = None
    lags: int = 1
    lag_decay: float = 1.0
    near: NearItems | None = None

    def of(self, histories: Histories) -> Calibration:
        """The one for these histories: whether their request time is known decides."""
        return self if histories.request_time is None or self.at_request is None else self.at_request

    def log_gap(self, histories: Histories) -> Float[np.ndarray, " history"] | None:
        """What the gating network gets of the time since the last event; None where the request time is not known."""
        gap = histories.log_gap
        if gap is None:
            return None
        inside: Float[np.ndarray, " history"] = np.where(histories.lengths > 0, np.clip(gap, *self.log_gaps), gap)
        return inside

    def require_at_request(self, model: str) -> None:
        """Raises InputError for a model that cannot use the time of a request."""
        if self.at_request is None:
            raise InputError(
                f"{model} was fitted on a log that has an order and no times, so it cannot use the time of a request. "
                "Leave out at and request_time, or fit on a log with times."
            )

    def to_json(self) -> dict[str, Any]:
        """The record for the manifest; the bias of a component without weight is None."""
        gate = {name: [None if math.isinf(w) else w for w in weights] for name, weights in asdict(self.gate).items()}
        own, visit = (None if one is None else asdict(one) for one in (self.own, self.visit))
        record = {"num_samples": self.num_samples, "temperatures": list(self.temperatures), "gate": gate, "own": own}
        if self.at_request is not None:
            record["at_request"] = self.at_request.to_json() | {"log_gaps": list(self.at_request.log_gaps)}
        if self.lags > 1:
            record |= {"lags": self.lags, "lag_decay": self.lag_decay}
        if self.near is not None:
            record["near"] = asdict(self.near)
        return record | {"visit": visit, "new": None if self.new is None else asdict(self.new)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Calibration:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a record that is not one."""
        gate = {}
        for name in asdict(GatingNetwork()):
            bias, of_log_mass, of_log_variance, *of_log_gap = record["gate"].get(name, [None, 0.0, 0.0])
            slopes = (float(slope) for slope in (of_log_mass, of_log_variance, *of_log_gap))
            gate[name] = (-math.inf if bias is None else float(bias), *slopes)
        temperatures = tuple(float(value) for value in record["temperatures"])
        if len(temperatures) != len(LENGTH_EDGES) or not all(0 < value < math.inf for value in temperatures):
            raise ValueError(f"{len(LENGTH_EDGES)} positive temperatures are needed, not {temperatures}")
        own = None if record["own"] is None else OwnHistory(**record["own"])
        at_request = cls.from_json(record["at_request"]) if "at_request" in record else None
        least, largest = (float(gap) for gap in record.get("log_gaps", cls.log_gaps))
        visit = None
        if found := record["visit"]:
            log_count, log_p = (tuple(map(float, found[name])) for name in ("log_count", "log_probability"))
            visit = VisitProbability(log_count, log_p, float(found["mean_size"]))
        new = None if record["new"] is None else NewItemForecast(**record["new"])
        lags, lag_decay = int(record.get("lags", cls.lags)), float(record.get("lag_decay", cls.lag_decay))
        of_log = (own, at_request, (least, largest), visit, new)
        near = NearItems(**record["near"]) if "near" in record else None
        return cls(int(record["num_samples"]), temperatures, GatingNetwork(**gate), *of_log, lags, lag_decay, near)

    def temperature(self, lengths: Int[np.ndarray, " history"]) -> Float[np.ndarray, " history"]:
        """The temperature of histories of these lengths."""
        return np.array(self.temperatures, dtype=np.float32)[length_group(lengths)]


@dataclass(frozen=True, eq=False)
class ConformalThresholds:
    """How much probability may come before an item that still belongs to the set, by history length and level.

    The set of a query holds every candidate before which the ranked list has at most this much probability. It is the
    smallest prefix of the list that holds the next item with the given probability, if test queries are exchangeable
    with validation queries. Source: adaptive prediction sets without randomization (Romano et al. 2020), by group (Vovk
    2012).

    Args:
        mass: The threshold of each group and level.
        num_users: Validation users with a query; 0 where that is not known.
    """

    mass: Float[np.ndarray, "group level"]
    num_users: int = 0

    @classmethod
    def fit(
        cls, mass_before: Float[np.ndarray, " query"], group: Int[np.ndarray, " query"], num_users: int = 0
    ) -> ConformalThresholds:
        """From the probability that came before the target of each validation query.

        The threshold of a level is the ⌈(n + 1) · level⌉-th smallest of n, or 1 (everything) where n is too small.

        >>> group = np.zeros(999, dtype=int)
        >>> thresholds = ConformalThresholds.fit(np.arange(1, 1000) / 1000, group)
        >>> float(thresholds.at(0.9)[0])
        0.9
        """
        everyone = _thresholds(mass_before)
        rows = []
        for index in range(len(LENGTH_EDGES)):
            inside = mass_before[group == index]
            rows.append(_thresholds(inside) if len(inside) >= MIN_QUERIES else everyone)
        return cls(np.stack(rows), num_users)

    def chance_range(self, level: float, num_others: int | None = None) -> tuple[float, float] | None:
        """The share of new targets that sets of a level contain, with 95 % probability, if nothing has changed.

        Over all exchangeable targets the share has the distribution Beta(k, n + 1 − k), k = ⌈(n + 1) · level⌉, for
        thresholds from n users (Vovk 2012, proposition 2a); a finite number of targets adds their own noise. Both are
        taken as normal.

        Args:
            level: The level of the sets.
            num_others: Users whose targets are looked at; None for all there could be.

        Returns:
            The lower and the upper end; None where the number of validation users is not known.
        """
        if not self.num_users:
            return None
        other = 0.0 if num_others is None else 1 / num_others
        mean = min(1.0, math.ceil((self.num_users + 1) * level - 1e-9) / (self.num_users + 1))
        reach = NORMAL_95 * math.sqrt(mean * (1 - mean) * (1 / (self.num_users + 2) + other))
        return max(0.0, mean - reach), min(1.0, mean + reach)

    def at(self, level: float) -> Float[np.ndarray, " group"]:
        """The threshold of each group of history lengths. Raises InputError for a level that is not in `LEVELS`."""
        close = np.flatnonzero(np.abs(np.array(LEVELS) - level) < 1e-9)
        if not len(close):
            raise InputError(
                f"conformal_level={level!r} is not possible. Allowed: {LEVELS[0]} to {LEVELS[-1]} in steps of 0.01, "
                "for example 0.9."
            )
        return self.mass[:, int(close[0])]

    def to_json(self) -> list[list[float]]:
        """One list a group, a threshold for each level."""
        return [[round(float(value), 6) for value in row] for row in self.mass]

    @classmethod
    def from_json(cls, record: Any, num_users: int = 0) -> ConformalThresholds:
        """The inverse of `to_json`. Raises ValueError or TypeError for a record of another shape."""
        mass = np.array(record, dtype=np.float64)
        if mass.shape != (len(LENGTH_EDGES), len(LEVELS)) or not np.isfinite(mass).all():
            raise ValueError(f"conformal thresholds of shape {mass.shape}")
        return cls(mass, num_users)


def _thresholds(mass_before: Float[np.ndarray, " query"]) -> Float[np.ndarray, " level"]:
    ordered = np.append(np.sort(mass_before), 1.0)
    rank = [min(len(mass_before), math.ceil((len(mass_before) + 1) * level - 1e-9) - 1) for level in LEVELS]
    return ordered[rank]


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """Everything that is fitted on validation data.

    Args:
        calibration: Temperatures and gating network.
        thresholds: Thresholds of conformal sets; None for a model that was not calibrated on validation.
        repeat_share: The counted probability of a repeat; see `repeat_share`.
        validation: NDCG@10 and negative log-likelihood of the calibrated model on validation.
        thresholds_at_request: Thresholds where the request time is known; None for a log without times.
    """

    calibration: Calibration
    thresholds: ConformalThresholds | None
    repeat_share: float
    validation: dict[str, float]
    thresholds_at_request: ConformalThresholds | None = None

    def hurdle(self, excludes_seen: bool) -> float | None:
        """The share of repeats that a hurdle needs: where the model was fitted without seen items."""
        return self.repeat_share if excludes_seen else None

    def to_json(self) -> dict[str, Any]:
        """The record for the manifest."""
        fitted, at_request = self.thresholds, self.thresholds_at_request
        return {
            **self.calibration.to_json(),
            "conformal": None if fitted is None else fitted.to_json(),
            "conformal_at_request": None if at_request is None else at_request.to_json(),
            "conformal_users": 0 if fitted is None else fitted.num_users,
            "repeat_share": self.repeat_share,
            "validation": self.validation,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> CalibrationResult:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a record that is not one."""
        num_users = int(record.get("conformal_users", 0))
        fitted, at_request = (
            None if record[name] is None else ConformalThresholds.from_json(record[name], num_users)
            for name in ("conformal", "conformal_at_request")
        )
        calibration, repeat_share = Calibration.from_json(record), float(record["repeat_share"])
        return cls(calibration, fitted, repeat_share, dict(record["validation"]), at_request)
