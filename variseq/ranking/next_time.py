"""The time to a person's next event: a mixture of log-logistic distributions, given the gaps between earlier events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float, Int

from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.histories import Histories

EVERYTHING = 1 << 40
WINDOWS = (1, 2, 4, 16, 64, EVERYTHING)
"""Of so many of the latest gaps the mean logarithm is an input."""
HISTOGRAM_WINDOWS = (10, EVERYTHING)
"""Of so many of the latest gaps the histogram is an input."""
BIN_EDGES = np.array([1.5, 15, 60, 240, 900, 3_600, 14_400, 43_200, 108_000, 259_200, 864_000, 3_456_000])
"""In seconds: from a second to forty days."""
PRIOR_GAPS = 2.0
"""How many gaps the mean of all people counts for among those of one person."""
SESSION_SECONDS = 1_800.0
PERIODS = ((86_400.0, 3), (604_800.0, 2))
"""Seconds of a day and of a week, and how many harmonics of each are inputs."""
LARGEST_SECONDS = 3e9
"""No time further ahead is told: 95 years."""
HALVINGS = 60
FURTHEST = 8.0
"""Inputs are at most so many standard deviations from their mean."""
LOG_SCALES = (-3.0, 2.0)
"""Between these are the logarithms of the scales, so that no component is a point."""
PREFIX = "next_time."


@dataclass(frozen=True, eq=False)
class GapMixture:
    """P(gap > s) = Σ weight / (1 + (s / exp(location))^(1 / scale)): a mixture of log-logistic distributions a row.

    A logistic distribution of the logarithm has a closed survival function. So a gap of zero, of one unit of the clock
    and one that has not ended yet have their exact probability.
    """

    log_weight: Float[np.ndarray, "row component"]
    location: Float[np.ndarray, "row component"]
    log_scale: Float[np.ndarray, "row component"]

    def log_survival(self, seconds: Float[np.ndarray, "*row"]) -> Float[np.ndarray, "*row"]:
        """log P(gap > seconds).

        >>> one = GapMixture(np.zeros((1, 1)), np.log([[60.0]]), np.zeros((1, 1)))
        >>> np.exp(one.log_survival(np.array([[0.0, 60.0]])))
        array([[1. , 0.5]])
        """
        with np.errstate(divide="ignore"):
            log_seconds = np.log(seconds)[..., None]
        shape = (len(log_seconds), *[1] * (log_seconds.ndim - 2), -1)
        weight, location, scale = (one.reshape(shape) for one in (self.log_weight, self.location, self.log_scale))
        of_components = weight - np.logaddexp(0.0, (log_seconds - location) * np.exp(-scale))
        log_survival: Float[np.ndarray, "*row"] = np.logaddexp.reduce(of_components, axis=-1)
        return np.minimum(log_survival, 0.0)

    def quantiles(
        self, levels: Float[np.ndarray, " level"], elapsed: Float[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row level"]:
        """Seconds from the last event, given none for `elapsed` seconds; at most `LARGEST_SECONDS` later.

        >>> one = GapMixture(np.zeros((1, 1)), np.log([[60.0]]), np.zeros((1, 1)))
        >>> one.quantiles(np.array([0.5, 0.75]), np.zeros(1)).round(1)
        array([[ 60., 180.]])
        """
        wanted = self.log_survival(elapsed)[:, None] + np.log1p(-levels)
        low = np.zeros(wanted.shape)
        high = np.full(wanted.shape, LARGEST_SECONDS)
        for _ in range(HALVINGS):
            middle = np.sqrt((low + 1e-3) * high)
            is_later = self.log_survival(elapsed[:, None] + middle) > wanted
            low, high = np.where(is_later, middle, low), np.where(is_later, high, middle)
        later: Float[np.ndarray, "row level"] = elapsed[:, None] + high
        return later


@dataclass(frozen=True, eq=False)
class NextTime:
    """A small network from what is known after an event to the distribution of the gap that follows.

    Args:
        resolution: One number, `unit`.
        prior: What the gaps of all people say: mean, mean square and histogram.
        item: Mean and standard deviation of the logarithm of the gap after each item.
        shift: The mean of each input.
        scale: The standard deviation of each input.
        first: Weights of the first layer, with the bias as last row.
        second: Weights of the second layer.
        last: Weights of the last layer.
    """

    resolution: Float[np.ndarray, " one"]
    prior: Float[np.ndarray, " moment"]
    item: Float[np.ndarray, "item two"]
    shift: Float[np.ndarray, " input"]
    scale: Float[np.ndarray, " input"]
    first: Float[np.ndarray, "input_and_bias hidden"]
    second: Float[np.ndarray, "hidden_and_bias hidden"]
    last: Float[np.ndarray, "hidden_and_bias three_components"]

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> NextTime | None:
        """The one whose `tensors` are among these; None where the log had no times."""
        names = [one.name for one in fields(cls)]
        return cls(*(tensors[PREFIX + name] for name in names)) if PREFIX + names[0] in tensors else None

    def tensors(self) -> dict[str, np.ndarray]:
        """What is saved of it."""
        return {PREFIX + one.name: np.ascontiguousarray(getattr(self, one.name)) for one in fields(self)}

    def with_items(self, num_added: int) -> NextTime:
        """The same for a catalog with further items: the gap after one of them is that after an average item."""
        added = np.broadcast_to(self.item.mean(axis=0), (num_added, self.item.shape[1]))
        return replace(self, item=np.concatenate([self.item, added.astype(self.item.dtype)]))

    @property
    def unit(self) -> float:
        """Seconds between two ticks of the log's clock, at least one."""
        return float(self.resolution[0])

    def after_each(self, histories: Histories, event: Int[np.ndarray, " row"]) -> GapMixture:
        """The distribution of the gap after some events, flat indices of `histories`; nothing later is looked at."""
        return self.mixture(self.inputs(histories, event))

    def inputs(self, histories: Histories, event: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row input"]:
        """What the distribution after some events is computed from."""
        own = own_gaps(histories, event, self.unit, self.prior)
        return np.concatenate([own, self.item[histories.item[event]]], axis=1)

    def standard(self, inputs: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row input"]:
        """The inputs as the first layer gets them; none is far from those of the training part."""
        return np.clip((inputs - self.shift) / self.scale, -FURTHEST, FURTHEST)

    def mixture(self, inputs: Float[np.ndarray, "row input"]) -> GapMixture:
        """The distribution, from the inputs."""
        hidden = self.standard(inputs)
        for layer in (self.first, self.second):
            linear = hidden @ layer[:-1] + layer[-1]
            hidden = linear / (1 + np.exp(-linear))
        logit, location, log_scale = np.split(hidden @ self.last[:-1] + self.last[-1], 3, axis=1)
        log_weight = logit - np.logaddexp.reduce(logit, axis=1, keepdims=True)
        return GapMixture(log_weight, location, np.clip(log_scale, *LOG_SCALES))


def in_units(microseconds: Int[np.ndarray, "*gap"], resolution: float) -> Float[np.ndarray, "*gap"]:
    """Seconds, cut to whole units of a clock; nothing is below zero.

    >>> in_units(np.array([90_000_000, -5]), 60.0)
    array([60.,  0.])
    """
    units = np.maximum(microseconds // round(resolution * MICROSECONDS_PER_SECOND), 0)
    return units * resolution


def own_gaps(
    histories: Histories, rows: Int[np.ndarray, " row"], resolution: float, prior: Float[np.ndarray, " moment"]
) -> Float[np.ndarray, "row own_input"]:
    """What the gaps of a person up to some events say.

    Means of the logarithm over several windows and its spread, histograms, how long the session and the stay at one
    tick have lasted, number of events, time since the first one, hour of the day and of the week (UTC).
    """
    event = np.arange(histories.num_events)
    start = np.repeat(histories.offsets[:-1], histories.lengths)
    time = histories.timestamp
    seconds = in_units(np.where(event > start, time - np.roll(time, 1), 0), resolution)
    log_gap, num_gaps = np.log(np.maximum(seconds, resolution)), (event - start)[rows]

    def means(column: np.ndarray, of_all: float, windows: tuple[int, ...]) -> list[np.ndarray]:
        total = np.concatenate([[0.0], np.cumsum(np.where(event > start, column, 0.0))])
        kept = [np.minimum(num_gaps, window) for window in windows]
        return [(total[rows + 1] - total[rows + 1 - n] + PRIOR_GAPS * of_all) / (n + PRIOR_GAPS) for n in kept]

    inputs = means(log_gap, prior[0], WINDOWS)
    inputs.append(np.sqrt(np.maximum(means(log_gap**2, prior[1], (EVERYTHING,))[0] - inputs[-1] ** 2, 0.0)))
    bin_of = np.searchsorted(BIN_EDGES, seconds)
    for number, share in enumerate(prior[2:].tolist()):
        inputs += means(bin_of == number, share, HISTOGRAM_WINDOWS)
    for limit in (resolution, SESSION_SECONDS):
        begin = np.maximum.accumulate(np.where((seconds >= limit) | (event == start), event, 0))[rows]
        inputs += [np.log1p(rows - begin), np.log1p((time[rows] - time[begin]) / MICROSECONDS_PER_SECOND)]
    since_first = (time[rows] - time[start[rows]]) / MICROSECONDS_PER_SECOND
    inputs += [np.log1p(num_gaps), np.log1p(since_first / 3_600)]
    for period, num_harmonics in PERIODS:
        phase = 2 * np.pi * (time[rows] / MICROSECONDS_PER_SECOND % period) / period
        inputs += [wave(number * phase) for number in range(1, num_harmonics + 1) for wave in (np.sin, np.cos)]
    return np.stack(inputs, axis=1)


def gap_moments(seconds: Float[np.ndarray, " gap"], resolution: float) -> Float[np.ndarray, " moment"]:
    """Mean and mean square of the logarithm, and the histogram: what `own_gaps` mixes with the gaps of a person."""
    log_gap = np.log(np.maximum(seconds, resolution))
    share = np.bincount(np.searchsorted(BIN_EDGES, seconds), minlength=len(BIN_EDGES) + 1) / len(seconds)
    return np.concatenate([[log_gap.mean(), np.square(log_gap).mean()], share])
