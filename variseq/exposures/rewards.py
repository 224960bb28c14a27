"""Joins events to the rows of exposures, and adds up what they are worth."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from variseq.errors import InputError
from variseq.events.options import duration
from variseq.events.parse import DEFAULT_EVENT
from variseq.events.report import DAY
from variseq.events.vocabulary import Id
from variseq.exposures.table import Exposures


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of a segment. `behavior` is "event" where it names none; `time` is UTC microseconds.

    `value` is what the event has: a price, a rating, seconds of play.
    """

    event_id: str
    time: int
    user: str
    item_id: Id
    behavior: str = DEFAULT_EVENT
    exposure_id: str | None = None
    rank: int | None = None
    value: float | None = None


VALUE = "value"
EARLIER = "earlier than the list that they name"
Reward = float | Literal["value"]
"""What an event is worth: a number, or the value of the event itself."""


@dataclass(frozen=True)
class RewardOptions:
    """What actions are worth, and how events are joined to lists.

    Args:
        rewards: Reward of each behavior, a number or "value"; others are worth nothing. None: every behavior is worth
            1, once for a row.
        window: An event that names no list is joined to the latest list of the user with the item, at most so long
            before.
        only_shown: Leave out lists and ranks that were not confirmed as shown.
        return_within: In place of rewards: a list is worth 1 where the person came back later than a day after it and
            within this time, such as "7d".
        dwell_within: In place of rewards: a list is worth the minutes from it to the last list or event of the person
            within this time, such as "1h".

    Raises:
        InputError: For a reward that is no number, a window that is no duration, and for two kinds of rewards.
    """

    rewards: Mapping[str, Reward] | None = None
    window: str = "24h"
    only_shown: bool = False
    return_within: str | None = None
    dwell_within: str | None = None
    window_microseconds: int = field(init=False)
    list_microseconds: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window_microseconds", duration(self.window, "window"))
        of_lists = {"return_within": self.return_within, "dwell_within": self.dwell_within}
        given = {name: duration(text, name) for name, text in of_lists.items() if text is not None}
        object.__setattr__(self, "list_microseconds", next(iter(given.values()), None))
        if given.get("return_within", DAY + 1) <= DAY:
            raise InputError(f"return_within={self.return_within!r} is not possible. Give more than a day, such as 7d.")
        if given.get("dwell_within", 1) <= 0:
            raise InputError(f"dwell_within={self.dwell_within!r} is not possible. Give some time, such as 1h.")
        if len(given) + (self.rewards is not None) > 1:
            raise InputError("return_within, dwell_within and the rewards of behaviors exclude each other. Give one.")
        for behavior, reward in (self.rewards or {}).items():
            is_number = isinstance(reward, int | float) and math.isfinite(reward)
            if not is_number and reward != VALUE:
                raise InputError(
                    f"The reward {reward!r} of {behavior!r} is no number. Give one, such as 1 or 0.2, or 'value': that "
                    "of each event."
                )


def with_rewards(
    exposures: Exposures, events: Iterable[LoggedEvent], options: RewardOptions
) -> tuple[Exposures, Counter[str]]:
    """The exposures with the rewards of their rows, and how many events had each outcome.

    The reward of a row is the sum over its behaviors, each counted once: three clicks on an item of a list are one. Of
    several events whose value is the reward, the largest one counts.

    Args:
        exposures: Their own rewards are replaced.
        events: In any order, none twice.
        options: See `RewardOptions`.

    Returns:
        The exposures, and numbers of events by outcome.
    """
    joiner, outcomes = _Joiner(exposures, options), Counter[str]()
    worth: dict[tuple[int, str], float] = {}
    for event in events:
        row, outcome = joiner.row_of(event)
        if row is not None:
            wanted = 1.0 if options.rewards is None else options.rewards.get(event.behavior)
            reward_of = event.value if wanted == VALUE else wanted
            if wanted is None:
                outcome = "of a behavior without a reward"
            elif reward_of is None:
                outcome = "without the value that is its reward"
            else:
                cell = (row, event.behavior)
                worth[cell] = max(worth.get(cell, -math.inf), float(reward_of))
        outcomes[outcome] += 1
    reward = np.zeros(len(exposures))
    for (row, _), value in sorted(worth.items()):
        reward[row] = 1.0 if options.rewards is None else reward[row] + value
    return replace(exposures, reward=reward), outcomes


class _Joiner:
    """Finds the row of an event."""

    def __init__(self, exposures: Exposures, options: RewardOptions) -> None:
        self.exposures, self.window = exposures, options.window_microseconds
        self.of_id = {exposure_id: number for number, exposure_id in enumerate(exposures.exposure_id)}
        self.index = {item_id: index for index, item_id in enumerate(exposures.item_ids)}
        # Times and rows of each user and item, in the order of the lists.
        self.shown: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        times, users = exposures.time.tolist(), exposures.user
        for row, (number, item) in enumerate(
            zip(exposures.row_exposure.tolist(), exposures.item.tolist(), strict=True)
        ):
            if (user := users[number]) is not None:
                found = self.shown.setdefault((user, item), ([], []))
                found[0].append(times[number])
                found[1].append(row)

    def row_of(self, event: LoggedEvent) -> tuple[int | None, str]:
        """The row, and how it was found; None, and why there is none."""
        if (item := self.index.get(event.item_id)) is None:
            return None, "of an item in no list"
        if event.exposure_id is not None:
            return self._of_named(event, item)
        times, rows = self.shown.get((event.user, item), ([], []))
        after = bisect_right(times, event.time)
        if not rows:
            return None, "of an item in no list of the user"
        if not after:
            return None, "before the list"
        if event.time - times[after - 1] > self.window:
            return None, "later than the window"
        return rows[after - 1], "joined by user, item and window"

    def _of_named(self, event: LoggedEvent, item: int) -> tuple[int | None, str]:
        number = self.of_id.get(str(event.exposure_id))
        if number is None:
            return None, "of a list that is not there"
        if self.exposures.user[number] not in (None, event.user):
            return None, "of a list of another user"
        if event.time < self.exposures.time[number]:
            return None, EARLIER
        first, end = self.exposures.offsets[number], self.exposures.offsets[number + 1]
        found = first + np.flatnonzero(self.exposures.item[first:end] == item)
        if not len(found) or event.rank not in (None, int(self.exposures.rank[found[0]])):
            return None, "of an item that is not there in the list"
        return int(found[0]), "joined by the list"


def confirmed(exposures: Exposures, last_shown: Mapping[str, int]) -> tuple[Exposures, Counter[str]]:
    """The lists that were confirmed as shown, each up to its last rank that was, and numbers by outcome.

    Args:
        exposures: Lists.
        last_shown: The last rank that was shown, by exposure id; 0 where none was.

    Raises:
        InputError: No list was confirmed.
    """
    if not last_shown:
        raise InputError("No list was confirmed as shown. Send POST /v1/shown, or leave only_shown out.")
    last = np.array([last_shown.get(one, -1) for one in exposures.exposure_id], dtype=np.int64)
    up_to = exposures.rank <= last[exposures.row_exposure]
    num_rows = np.bincount(exposures.row_exposure[up_to], minlength=exposures.num_exposures)
    chosen = np.flatnonzero(num_rows)
    kept = exposures.first_rows(num_rows).exposures(chosen)
    outcomes = Counter(
        {
            "lists shown": len(chosen),
            "lists not confirmed": int((last < 0).sum()),
            "lists of which nothing was shown": int(((last >= 0) & (num_rows == 0)).sum()),
            "rows below the last shown rank": int(len(exposures) - up_to.sum() - exposures.lengths[last < 0].sum()),
        }
    )
    return kept, outcomes
