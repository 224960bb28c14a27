"""Forecasts of the time to the next event: their scores, and two baselines that get the same likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.distinct import distinct
from variseq.evaluation.splits import Part
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.ranking.calibration import LENGTH_EDGES, length_group
from variseq.ranking.next_time import LARGEST_SECONDS, GapMixture, NextTime, in_units
from variseq.sequences.histories import Histories

Survival = Callable[[Float[np.ndarray, "*gap"]], Float[np.ndarray, "*gap"]]
"""log P(gap > seconds), with one row for each gap."""
MOST_GAPS = 20_000
"""Of a part with more gaps than this, so many are scored."""
MOST_FITTED = 4_000
"""The three numbers of a baseline are fitted to so many gaps. With 20,000 they are within a hundredth of a nat, and an
evaluation takes a second longer."""
LEVEL = 0.9
MINUTE, HOUR, DAY = 60, 3_600, 86_400
_EDGES = {
    1: (0, 1, 2, 5, 10, 20, 30),
    MINUTE: (1, 2, 5, 10, 20, 30),
    HOUR: (1, 2, 3, 6, 12, 18),
    DAY: (1, 2, 3, 4, 5, 7, 10, 14, 21, 28, 35, 60, 90, 180, 365, 730, 1_825),
}
EDGES = np.array([*(count * unit for unit, counts in _EDGES.items() for count in counts), np.inf])
"""Seconds between which ended gaps are counted, before they are rounded up to whole units of the clock."""
GRID_POINTS = 256
HAWKES_EVENTS = 128
"""So many of the latest events excite the Hawkes process."""
DECAY_SECONDS = (30.0, 120.0, 600.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0)
"""The times in which an excitation falls to 1/e, of which the likeliest is taken."""
SMALLEST_STEP = 0.02
SMALLEST_SHARE = 1e-15
NAME = "variseq"


@dataclass(frozen=True, eq=False)
class Gaps:
    """Times in seconds from an event, a flat index of a log, to the next event of the same person.

    A clock tells whole units, so a gap lies in [lower, upper). One that had not ended at the end of a part has no upper
    end (infinity). `elapsed` is what had passed without an event when the part began, `limit` what could be seen of the
    gap until the part ended (infinity: all).
    """

    event: Int[np.ndarray, " gap"]
    lower: Float[np.ndarray, " gap"]
    upper: Float[np.ndarray, " gap"]
    elapsed: Float[np.ndarray, " gap"]
    limit: Float[np.ndarray, " gap"]

    def __len__(self) -> int:
        return len(self.event)

    @property
    def is_open(self) -> Bool[np.ndarray, " gap"]:
        """Whether a gap had not ended."""
        return np.isinf(self.upper)

    def rows(self, chosen: np.ndarray) -> Gaps:
        """Some of the gaps."""
        return Gaps(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def sample(self, most: int) -> Gaps:
        """At most so many of the gaps, at even distances."""
        return self.rows(np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64)))


def gaps_of(part: Part, resolution: float) -> Gaps:
    """The gaps of a part: of the training part those between its events, of another one those that its events end.

    A split by time cuts everybody at one moment. There, the gap that is open at the end of the part is one of its gaps,
    and it is known how long a gap had lasted when the part began. Other splits cut a history at an event, so that all
    gaps end: what is forecast is the time to the next event, given that there is one.
    """
    log, start = part.histories, part.histories.offsets[:-1]
    first, end = (start, part.history_end) if part.name == "train" else (part.history_end, part.target_end)
    is_inside = np.zeros(log.num_events + 1, dtype=np.int64)
    np.add.at(is_inside, first, 1)
    np.add.at(is_inside, end, -1)
    ended_by = np.flatnonzero(np.cumsum(is_inside)[:-1])
    event = ended_by[~np.isin(ended_by, start)] - 1
    if part.is_unknown is not None:
        event = event[~part.is_unknown[event]]
    lower = in_units(log.timestamp[event + 1] - log.timestamp[event], resolution)
    closed = Gaps(event, lower, lower + resolution, np.zeros(len(event)), np.full(len(event), np.inf))
    cuts = [part.protocol.get(f"{name}_start_microseconds") for name in ("valid", "test")]
    if part.protocol["method"] != "time" or part.name == "test file":
        return closed
    begin, until = {"train": (None, cuts[0]), "valid": cuts, "test": (cuts[1], None)}[part.name]
    until = log.timestamp.max() if until is None else until
    event = np.concatenate([event, end[end > start] - 1])
    limit = in_units(until - log.timestamp[event], resolution)
    lower = np.concatenate([lower, limit[len(closed) :]])
    upper = np.concatenate([closed.upper, np.full(len(event) - len(closed), np.inf)])
    elapsed = np.zeros(len(event)) if begin is None else in_units(begin - log.timestamp[event], resolution)
    # What had passed is known to whole units only, like the gap itself.
    return Gaps(event, np.maximum(lower, elapsed), np.maximum(upper, elapsed + resolution), elapsed, limit + resolution)


@dataclass(frozen=True, eq=False)
class GapScores:
    """How good a forecast was for each gap.

    Attributes:
        nll: −log P(the gap's unit of the clock), or −log P(no event yet) of an open gap, in nats.
        log_error: E[log gap] minus the logarithm of the gap, in nats; NaN of open gaps. Where a part ends for all at
            one moment, the expectation is given that the gap ends before it.
        transform: The forecast's distribution function F at both ends of what is known of the gap, its probability
            integral transform: F(lower) and F(upper); the latter is 1 for an open gap.
    """

    nll: Float[np.ndarray, " gap"]
    log_error: Float[np.ndarray, " gap"]
    transform: Float[np.ndarray, "gap two"]

    @property
    def covered(self) -> Float[np.ndarray, " gap"]:
        """The share of what is known of each gap that lies in the central 90 % interval."""
        edge = (1 - LEVEL) / 2
        return self.reached(1 - edge) - self.reached(edge)

    def reached(self, level: float) -> Float[np.ndarray, " gap"]:
        """The share of what is known of each gap that lies below the quantile of a level.

        Its mean is the level where the forecasts are calibrated, also where many gaps are zero or open (Czado et al.
        2009 for counts, Haider et al. 2020 for open gaps).
        """
        low, high = self.transform.T
        return (np.clip(level, low, high) - low) / np.maximum(high - low, 1e-300)

    def summary(self) -> dict[str, float]:
        """The means, as they stand in a table."""
        return {
            "gap_nll": float(self.nll.mean()),
            "gap_log_rmse": float(np.sqrt(np.nanmean(np.square(self.log_error)))),
            "gap_interval_coverage_90": float(self.covered.mean()),
        }


def gap_nll(log_survival: Survival, gaps: Gaps) -> Float[np.ndarray, " gap"]:
    """−log P(the gap is in [lower, upper), given that `elapsed` had passed), in nats."""
    at_lower, at_upper = log_survival(gaps.lower), log_survival(gaps.upper)
    log_share = np.log(np.maximum(-np.expm1(np.minimum(at_upper - at_lower, 0.0)), SMALLEST_SHARE))
    return log_survival(gaps.elapsed) - at_lower - log_share


def score_gaps(log_survival: Survival, gaps: Gaps) -> GapScores:
    """The scores of a forecast.

    A gap in [lower, upper) is an interval on the scale of the forecast's distribution function. All is given that
    `elapsed` had passed.
    """
    known = log_survival(gaps.elapsed)
    transform = -np.expm1(np.stack([log_survival(end) - known for end in (gaps.lower, gaps.upper)], axis=1))
    # E[log gap] is the logarithm of the least gap and the integral of P(gap > s) over log s.
    unit = np.where(gaps.is_open, 1.0, gaps.upper - gaps.lower)
    begin, limit = np.maximum(gaps.elapsed, unit), np.clip(gaps.limit, 2 * unit, LARGEST_SECONDS)
    step = np.log(np.maximum(limit / begin, 1.0))[:, None] * np.linspace(0.0, 1.0, GRID_POINTS)
    later = np.exp(log_survival(limit) - known)[:, None]
    survival = np.exp(log_survival(begin[:, None] * np.exp(step)) - known[:, None]) - later
    expected = np.log(begin) + np.trapezoid(survival / np.maximum(1 - later, 1e-15), step, axis=1)
    log_gap = np.log(np.maximum(gaps.lower, unit))
    log_error = np.where(gaps.is_open, np.nan, expected - log_gap)
    return GapScores(gap_nll(log_survival, gaps), log_error, np.clip(transform, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class GapForecasts:
    """The scores of the model and of the baselines on the gaps of a part.

    Attributes:
        scores: By the name of the forecast; the model's own first.
        is_open: Whether each gap had not ended.
        history_length: Events before the end of each gap.
        resolution: Seconds of the clock's unit; a likelihood is that of the unit that a gap lies in.
        edges: Seconds between which ended gaps are counted, whole units of the clock.
        ended: The share of all gaps that ended between two neighbors of them.
        expected: By the name of the forecast the share that it expects there. A gap is not seen to end before
            `elapsed` or after `limit`.
    """

    scores: Mapping[str, GapScores]
    is_open: Bool[np.ndarray, " gap"]
    history_length: Int[np.ndarray, " gap"]
    resolution: float
    edges: Float[np.ndarray, " edge"]
    ended: Float[np.ndarray, " bin"]
    expected: Mapping[str, Float[np.ndarray, " bin"]]

    def summary(self) -> dict[str, Any]:
        """Means of the model and of each baseline, and the coverage by length of the history."""
        model, *baselines = self.scores
        group, covered = length_group(self.history_length), self.scores[model].covered
        return {
            "num_gaps": len(self.is_open),
            "num_open_gaps": int(self.is_open.sum()),
            "gap_resolution_seconds": self.resolution,
            **self.scores[model].summary(),
            "gap_baselines": {name: self.scores[name].summary() for name in baselines},
            "gap_coverage_by_history_length": {
                str(LENGTH_EDGES[one]): [float(covered[group == one].mean()), int((group == one).sum())]
                for one in np.unique(group).tolist()
            },
        }

    def __str__(self) -> str:
        numbers = self.summary()
        others = "; ".join(
            f"{one['gap_nll']:.3f} and {one['gap_log_rmse']:.3f} for {name}"
            for name, one in numbers["gap_baselines"].items()
        )
        return (
            f"Time to the next event, {numbers['num_gaps']:,} gaps ({numbers['num_open_gaps']:,} still open) in units "
            f"of {self.resolution:g} s: NLL {numbers['gap_nll']:.3f} nats, root mean squared error of the logarithm "
            f"{numbers['gap_log_rmse']:.3f} ({others}); 90 % intervals contain "
            f"{numbers['gap_interval_coverage_90']:.1%}."
        )


def own_median_gap(log: Histories, trained: Gaps, scored: Gaps, resolution: float) -> Survival:
    """A log-logistic distribution around the person's median log gap, which is shrunk to that of all people.

    How many gaps the median of all counts for, that median and the scale are those under which `trained` is likeliest.
    Returns the forecasts of `scored`.
    """

    def forecast(gaps: Gaps) -> Callable[[Float[np.ndarray, " three"]], Survival]:
        median, num_gaps = _median_log_gaps(log, gaps.event, resolution)

        def of(parameters: Float[np.ndarray, " three"]) -> Survival:
            prior, of_all, log_scale = np.exp(parameters[0]), parameters[1], np.full((len(gaps), 1), parameters[2])
            location = (num_gaps * median + prior * of_all) / (num_gaps + prior)
            return GapMixture(np.zeros_like(log_scale), location[:, None], log_scale).log_survival

        return of

    middle = float(np.median(np.log(np.maximum(trained.lower, resolution))))
    return forecast(scored)(_most_likely(forecast(trained), trained, [1.0, middle, 0.5]))


def _median_log_gaps(
    log: Histories, event: Int[np.ndarray, " gap"], resolution: float
) -> tuple[Float[np.ndarray, " gap"], Int[np.ndarray, " gap"]]:
    """The median log gap of the person up to each event, 0 where there is none yet, and the number of gaps."""
    first = log.offsets[np.searchsorted(log.offsets, event, side="right") - 1]
    log_gap = np.log(np.maximum(in_units(np.diff(log.timestamp), resolution), resolution))
    spans = zip(first.tolist(), event.tolist(), strict=True)
    return np.array([np.median(log_gap[one:end]) if end > one else 0.0 for one, end in spans]), event - first


def hawkes(log: Histories, trained: Gaps, scored: Gaps, resolution: float) -> Survival:
    """A Hawkes process of each person: a base rate, which each event raises for a while.

    The intensity is c (n + m) / (T + m / r) + Σ a exp(−(t − t_i) / d) / d over the person's latest events t_i: n events
    in T seconds so far, r the mean rate of all. c, m, a and d are those under which `trained` is likeliest. Source:
    Hawkes, "Spectra of some self-exciting and mutually exciting point processes" (1971). Returns the forecasts of
    `scored`.
    """
    rate = np.count_nonzero(~trained.is_open) / np.maximum(trained.lower, resolution).sum()

    def forecast(gaps: Gaps, decay: float) -> Callable[[Float[np.ndarray, " three"]], Survival]:
        first = log.offsets[np.searchsorted(log.offsets, gaps.event, side="right") - 1]
        since_first = (log.timestamp[gaps.event] - log.timestamp[first]) / MICROSECONDS_PER_SECOND
        excitation = np.zeros(len(gaps))
        for back in range(HAWKES_EVENTS):
            earlier = gaps.event - back
            ago = (log.timestamp[gaps.event] - log.timestamp[np.maximum(earlier, 0)]) / MICROSECONDS_PER_SECOND
            excitation += np.where(earlier >= first, np.exp(-np.maximum(ago, 0.0) / decay), 0.0)

        def of(parameters: Float[np.ndarray, " three"]) -> Survival:
            factor, prior, share = np.exp(parameters)
            base = factor * (gaps.event - first + prior) / (since_first + prior / rate)

            def log_survival(seconds: Float[np.ndarray, "*gap"]) -> Float[np.ndarray, "*gap"]:
                rows = (slice(None), *[None] * (seconds.ndim - 1))
                return -base[rows] * seconds + share * excitation[rows] * np.expm1(-seconds / decay)

            return log_survival

        return of

    fits = []
    for decay in DECAY_SECONDS:
        found = _most_likely(forecast(trained, decay), trained, [-1.0, 1.0, -1.0])
        fits.append((float(gap_nll(forecast(trained, decay)(found), trained).mean()), decay, found))
    _, decay, found = min(fits, key=lambda fit: fit[0])
    return forecast(scored, decay)(found)


def _most_likely(
    forecast: Callable[[Float[np.ndarray, " parameter"]], Survival], trained: Gaps, start: list[float]
) -> Float[np.ndarray, " parameter"]:
    return likeliest(lambda one: float(gap_nll(forecast(one), trained).mean()), np.array(start))


def likeliest(
    loss: Callable[[Float[np.ndarray, " parameter"]], float], start: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"]:
    """The parameters with the least loss, by pattern search: one at a time is moved, by ever smaller steps.

    >>> likeliest(lambda one: float((one[0] - 3.0) ** 2), np.zeros(1)).round(1)
    array([3.])
    """
    best, lowest, step = start, loss(start), 1.0
    while step > SMALLEST_STEP:
        before = lowest
        for move in np.concatenate([np.eye(len(start)), -np.eye(len(start))]) * step:
            if (moved := loss(best + move)) < lowest:
                best, lowest = best + move, moved
        step = step if lowest < before else step / 2
    return best


BASELINES = {"own-median-gap": own_median_gap, "hawkes": hawkes}


def forecast_gaps(fit: NextTime, train: Part, part: Part) -> GapForecasts | None:
    """The forecasts of the model and of the baselines, which are fitted to the training part; None without a gap.

    What a forecast knows is what the person did up to the event from which the gap is counted.
    """
    train, part = train.visit_begins(), part.visit_begins()
    log, resolution = part.histories, fit.unit
    gaps = gaps_of(part, resolution).sample(MOST_GAPS)
    if gaps.is_open.all():
        return None
    trained = gaps_of(train, resolution).sample(MOST_FITTED)
    # The training events are the first ones of each history of the part, unless it is a log of its own.
    forecasts: dict[str, Survival] = {NAME: fit.after_each(log, gaps.event).log_survival}
    forecasts |= {name: baseline(log, trained, gaps, resolution) for name, baseline in BASELINES.items()}
    scores = {name: score_gaps(one, gaps) for name, one in forecasts.items()}
    edges = distinct(np.ceil(EDGES / resolution) * resolution)
    seen = np.clip(edges, gaps.elapsed[:, None], np.maximum(gaps.elapsed, gaps.limit)[:, None])
    expected = {
        name: -np.diff(np.exp(one(seen) - one(gaps.elapsed)[:, None]), axis=1).mean(axis=0)
        for name, one in forecasts.items()
    }
    ended = np.histogram(gaps.lower[~gaps.is_open], edges)[0] / len(gaps)
    first = log.offsets[np.searchsorted(log.offsets, gaps.event, side="right") - 1]
    return GapForecasts(scores, gaps.is_open, gaps.event - first + 1, resolution, edges, ended, expected)
