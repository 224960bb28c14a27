"""When a person's next event is expected: what may be asked, and the answer as times and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.events.options import duration
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.events.vocabulary import Id
from variseq.ranking.next_time import NextTime
from variseq.sequences.given_history import request_microseconds, too_early
from variseq.sequences.histories import Histories

MOST_HORIZONS = 20
WITHIN = ("1d", "7d", "30d")
LEVELS = (0.5, 0.99)


@dataclass(frozen=True, kw_only=True)
class WhenOptions:
    """What may be asked about the time of the next event.

    Args:
        at: From when on the answer counts, given that nothing happened since the last event: "now", seconds since 1970,
            text with a zone, or a datetime. None: from the last event.
        level: Probability of the interval, from 0.5 to 0.99.
        within: Durations from there, such as "7d", each of which gets the probability of an event.

    Raises:
        InputError: For a value that is not possible.
    """

    at: str | int | float | datetime | None = None
    level: float = 0.9
    within: Sequence[str] = WITHIN

    def __post_init__(self) -> None:
        low, high = LEVELS
        if isinstance(self.level, bool) or not isinstance(self.level, int | float) or not low <= self.level <= high:
            raise InputError(f"level={self.level!r} is not possible. Allowed: numbers from {low} to {high}.")
        if isinstance(self.within, str) or len(self.within) > MOST_HORIZONS:
            raise InputError(
                f"within={self.within!r} is no list of at most {MOST_HORIZONS} durations. Give one: ['7d', '30d']."
            )
        self.horizons()
        self.moment()

    def horizons(self) -> list[float]:
        """The durations in seconds."""
        return [duration(one, "within") / MICROSECONDS_PER_SECOND for one in self.within]

    def moment(self) -> int | None:
        """`at` in UTC microseconds."""
        return None if self.at is None else request_microseconds(self.at)


@dataclass(frozen=True, eq=False)
class NextTimes:
    """When the next event of each history is expected, in UTC microseconds; −1 where a history has no event.

    Attributes:
        last: The time of the last event.
        low: The lower end of the central interval.
        median: The time before which it comes with a probability of one half.
        high: The upper end.
        within: The probability of an event within each duration; NaN where a history has no event.
    """

    last: Int[np.ndarray, " history"]
    low: Int[np.ndarray, " history"]
    median: Int[np.ndarray, " history"]
    high: Int[np.ndarray, " history"]
    within: Float[np.ndarray, "history horizon"]

    def to_pandas(self, user_ids: Sequence[Id | None], within: Sequence[str]) -> pd.DataFrame:
        """One row a history: user_id, times in UTC, and a column for each duration."""
        columns = {"last_event": self.last, "low": self.low, "median": self.median, "high": self.high}
        times = {
            name: pd.to_datetime(pd.Series(one).where(one >= 0), unit="us", utc=True) for name, one in columns.items()
        }
        shares = {f"within {text}": self.within[:, number] for number, text in enumerate(within)}
        return pd.DataFrame({"user_id": pd.Series(list(user_ids), dtype=object), **times, **shares})


def next_times(fit: NextTime, histories: Histories, options: WhenOptions) -> NextTimes:
    """The answers of the fit; with visits, when the next visit begins, counted from the begin of the last one.

    Raises InputError where `at` is before the last event of a history.
    """
    histories = histories.visit_begins()
    known = np.flatnonzero(histories.lengths)
    last = histories.timestamp[histories.offsets[1:][known] - 1]
    moment = options.moment()
    if moment is not None and len(last) and moment < last.max():
        raise too_early(options.at, int(last.max()), "a history")
    elapsed = np.zeros(len(known)) if moment is None else (moment - last) / MICROSECONDS_PER_SECOND
    mixture = fit.after_each(histories, histories.offsets[1:][known] - 1)
    edge = (1 - options.level) / 2
    seconds = mixture.quantiles(np.array([edge, 0.5, 1 - edge]), elapsed)
    later = elapsed[:, None] + np.array(options.horizons())
    expected = -np.expm1(mixture.log_survival(later) - mixture.log_survival(elapsed)[:, None])
    times = np.full((4, len(histories)), -1, dtype=np.int64)
    times[:, known] = last + np.concatenate([np.zeros((1, len(known))), seconds.T]) * MICROSECONDS_PER_SECOND
    within = np.full((len(histories), later.shape[1]), np.nan)
    within[known] = expected
    return NextTimes(times[0], times[1], times[2], times[3], within)
