"""Whether people came back after a list, or how long they stayed: rewards that no single item has earned."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from variseq.errors import InputError
from variseq.events.report import DAY
from variseq.exposures.rewards import LoggedEvent
from variseq.exposures.table import Exposures

MINUTE = 60_000_000
"""Microseconds."""
ListReward = Callable[[Sequence[int], int, int], float]
"""What a list is worth: of the times of all that its person did, ascending, its own time, and how long it counts."""


def came_back(times: Sequence[int], time: int, within: int) -> float:
    """1 where something was done later than a day after a list and within the time, 0 otherwise.

    >>> came_back([0, DAY, DAY + 1], 0, 2 * DAY), came_back([0, DAY], 0, 2 * DAY)
    (1.0, 0.0)
    """
    return float(bisect_right(times, time + DAY) < bisect_right(times, time + within))


def dwell_time(times: Sequence[int], time: int, within: int) -> float:
    """Minutes from a list to the last of what was done within the time.

    >>> dwell_time([0, 3 * MINUTE, 90 * MINUTE], 0, 60 * MINUTE)
    3.0
    """
    return (times[bisect_right(times, time + within) - 1] - time) / MINUTE


def with_list_rewards(
    exposures: Exposures, events: Iterable[LoggedEvent], reward_of: ListReward, within: int
) -> tuple[Exposures, Counter[str], Counter[str]]:
    """The lists of which it is known what their persons did within a time, with a reward for each.

    What a person did are lists and events. The reward is in the last row of the list, whose weight down to that row is
    that of the whole list.

    Args:
        exposures: In the order of their times; their own rewards are replaced.
        events: In any order.
        reward_of: `came_back` or `dwell_time`.
        within: Microseconds after the list.

    Returns:
        The lists, numbers of lists by outcome, and numbers of events by outcome.

    Raises:
        InputError: The log is too short for any list.
    """
    times, of_events, latest = _activity(exposures, events)
    outcomes, kept, rewards = Counter[str](), [], []
    for number, (user, time) in enumerate(zip(exposures.user, exposures.time.tolist(), strict=True)):
        if user is None:
            outcomes["of nobody known"] += 1
        elif not exposures.lengths[number]:
            outcomes["without items"] += 1
        elif time + within > latest:
            outcomes["too late to know what the person did"] += 1
        else:
            kept.append(number)
            rewards.append(reward_of(times[user], time, within))
    if not kept:
        raise InputError(
            f"No list is {_in_words(within)} older than the end of the log, so it is not known what people did. Give a "
            "shorter time, or a longer log."
        )
    found = exposures.exposures(np.array(kept, dtype=np.int64))
    reward = np.zeros(len(found))
    reward[found.offsets[1:] - 1] = rewards
    return replace(found, reward=reward, rewards_lists=True), outcomes, of_events


def _in_words(duration: int) -> str:
    return f"{duration / DAY:g} days" if duration >= DAY else f"{duration / MINUTE:g} minutes"


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
