"""Whether people came back after a list: a reward of the whole list, which no single item has earned."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from variseq.errors import InputError
from variseq.events.report import DAY
from variseq.exposures.rewards import LoggedEvent
from variseq.exposures.table import Exposures


def with_returns(
    exposures: Exposures, events: Iterable[LoggedEvent], within: int
) -> tuple[Exposures, Counter[str], Counter[str]]:
    """The lists of which it is known whether the person came back; the reward of such a list is 1, of others 0.

    A return is another list or an event of the person, later than a day after the list and at most `within` after it.
    The reward is in the last row of the list, whose weight down to that row is that of the whole list.

    Args:
        exposures: In the order of their times; their own rewards are replaced.
        events: In any order.
        within: Microseconds, more than a day.

    Returns:
        The lists, numbers of lists by outcome, and numbers of events by outcome.

    Raises:
        InputError: The log is too short for any list.
    """
    times, of_events, latest = _activity(exposures, events)
    outcomes, kept, returned = Counter[str](), [], []
    for number, (user, time) in enumerate(zip(exposures.user, exposures.time.tolist(), strict=True)):
        if user is None:
            outcomes["of nobody known"] += 1
        elif not exposures.lengths[number]:
            outcomes["without items"] += 1
        elif time + within > latest:
            outcomes["too late to know whether the person came back"] += 1
        else:
            kept.append(number)
            returned.append(bisect_right(times[user], time + DAY) < bisect_right(times[user], time + within))
    if not kept:
        raise InputError(
            f"No list is {within / DAY:g} days older than the end of the log, so no return is known. Give a shorter "
            "return_within, or a longer log."
        )
    found = exposures.exposures(np.array(kept, dtype=np.int64))
    reward = np.zeros(len(found))
    reward[found.offsets[1:] - 1] = returned
    return replace(found, reward=reward, rewards_lists=True), outcomes, of_events


def _activity(exposures: Exposures, events: Iterable[LoggedEvent]) -> tuple[dict[str, list[int]], Counter[str], int]:
    """The times of lists and events of each person with a list, ascending; outcomes of events; the latest time."""
    times: dict[str, list[int]] = {}
    for user, time in zip(exposures.user, exposures.time.tolist(), strict=True):
        if user is not None:
            times.setdefault(user, []).append(time)
    outcomes, latest = Counter[str](), int(exposures.time.max(initial=0))
    for event in events:
        latest = max(latest, event.time)
        if (of_user := times.get(event.user)) is None:
            outcomes["of a user without a list"] += 1
        else:
            of_user.append(event.time)
            outcomes["taken as activity of a user"] += 1
    return {user: sorted(of_user) for user, of_user in times.items()}, outcomes, latest
