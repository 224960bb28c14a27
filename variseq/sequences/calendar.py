"""The calendar that times are read with: an IANA time zone, or none where times are relative."""

from __future__ import annotations

import difflib
from functools import cache
from zoneinfo import available_timezones

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError

UTC = "UTC"
NO_CALENDAR = "none"
HOUR = 3_600_000_000
_DAY = 24 * HOUR


def checked_calendar(name: str) -> str:
    """The name of a calendar as it is. Raises InputError for what is neither "none" nor an IANA time zone.

    >>> checked_calendar("Europe/Berlin")
    'Europe/Berlin'
    """
    if name not in (UTC, NO_CALENDAR) and name not in _zones():
        if not _zones():
            raise InputError(
                f"calendar={name!r}: this system has no list of time zones. Install one: pip install tzdata"
            )
        near = difflib.get_close_matches(name, sorted(_zones()), 3, 0.5) or ["Europe/Berlin"]
        raise InputError(
            f"calendar={name!r} is no time zone of the IANA list. Give one such as {', '.join(near)}, or none where "
            "times are relative."
        )
    return name


@cache
def _zones() -> frozenset[str]:
    """The zones that have a region; short names such as EST stand for several."""
    return frozenset(name for name in available_timezones() if "/" in name)


def hour_and_weekend(
    time: Int[np.ndarray, " event"], calendar: str
) -> tuple[Float[np.ndarray, " event"], Bool[np.ndarray, " event"]]:
    """The hour of the day with its fraction, and whether it is Saturday or Sunday, of UTC microseconds in a zone.

    >>> hour_and_weekend(np.array([5 * 3_600_000_000 + 48 * 3_600_000_000]), "Asia/Kolkata")
    (array([10.5]), array([ True]))
    """
    local = time
    if calendar != UTC:
        local = pd.DatetimeIndex(time.astype("datetime64[us]"), tz=UTC).tz_convert(calendar).tz_localize(None).asi8
    # 1 January 1970 was a Thursday.
    return local % _DAY / HOUR, (local // _DAY + 3) % 7 >= 5
