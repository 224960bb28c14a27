"""Finds the events of a log that were taken from shown lists, and the lists of each part of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from variseq.errors import InputError
from variseq.evaluation.shown_lists import ShownLists
from variseq.events.vocabulary import Id, Vocabulary
from variseq.exposures.table import Exposures
from variseq.sequences.histories import Histories, ragged_index


@dataclass(frozen=True, eq=False)
class TakenEvents:
    """Exposures beside the log that they belong to.

    Args:
        exposures: Lists with rewards.
        histories: All events of the log.
        of_event: The list that each event was taken from; −1 for none.
        user: The user of each list; −1 where the log has none.
        item: The item of each row; −1 where the log has none.
        rows: Numbers of rows by outcome.
    """

    exposures: Exposures
    histories: Histories
    of_event: Int[np.ndarray, " event"]
    user: Int[np.ndarray, " exposure"]
    item: Int[np.ndarray, " row"]
    rows: Counter[str]

    def lists(self, begin: Int[np.ndarray, " user"], end: Int[np.ndarray, " user"]) -> tuple[ShownLists, Histories]:
        """The lists whose events are all in a part, and what each person did before the list.

        A list of which another event was taken after the part is left out, as that is not known in the part.

        Args:
            begin: Where the events of the part begin, of each user, as in `Part`.
            end: Where they end.
        """
        exposures, num_lists = self.exposures, self.exposures.num_exposures
        of_part = self.of_event[ragged_index(begin, end - begin)]
        inside, everywhere = (np.bincount(one[one >= 0], minlength=num_lists) for one in (of_part, self.of_event))
        chosen = np.flatnonzero((inside > 0) & (inside == everywhere))
        lengths = exposures.lengths[chosen]
        rows = ragged_index(exposures.offsets[chosen], lengths)
        # An item that stands twice in a list, and was taken once, was taken.
        cell, is_taken = exposures.row_exposure * (len(exposures.item_ids) + 1) + exposures.item, exposures.reward > 0
        is_kept = is_taken | ~np.isin(cell, cell[is_taken])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # The number of the list stands for its user until it is known which lists are left.
        found = ShownLists(chosen, offsets, self.item[rows], is_taken[rows]).with_rows(is_kept[rows])
        user, time = self.user[found.user], exposures.time[found.user]
        first, last = self.histories.offsets[user], self.histories.offsets[user + 1]
        spans = zip(first.tolist(), last.tolist(), time.tolist(), strict=True)
        before = [
            one + int(np.searchsorted(self.histories.timestamp[one:other], moment)) for one, other, moment in spans
        ]
        histories = self.histories.select(first, np.array(before, dtype=np.int64))
        return ShownLists(user, found.offsets, found.item, found.is_taken), histories

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in self.rows.items() if number)
        return f"Exposures: {len(self.exposures):,} rows of {self.exposures.num_exposures:,} lists: {counts}."


def taken_events(
    exposures: Exposures,
    histories: Histories,
    vocabulary: Vocabulary,
    window: int,
    name_of_user: Callable[[Id], str] = str,
) -> TakenEvents:
    """Join the taken rows of lists to the events of a log.

    A row with a reward above 0 was taken. Its event is the first one of the user with the item at the time of the list
    or later, within the window. One event belongs to the latest of several lists.

    Args:
        exposures: Lists with rewards.
        histories: All events of the log.
        vocabulary: Its users and items.
        window: Microseconds from a list to the event.
        name_of_user: What stands for a user id in the exposures.

    Raises:
        InputError: No row can be joined: the lists have no users or times, are of another catalog or other people,
            nothing was taken, or all events are earlier than their lists.
    """
    users = {name_of_user(one): number for number, one in enumerate(vocabulary.users.to_pylist())}
    user = np.array([-1 if one is None else users.get(one, -1) for one in exposures.user], dtype=np.int64)
    item = vocabulary.item_positions(exposures.item_ids)[exposures.item]
    of_row, is_taken = exposures.row_exposure, exposures.reward > 0
    _refuse_others(exposures, user, item)
    event = np.full(len(exposures), -1, dtype=np.int64)
    wanted = np.flatnonzero(is_taken & (item >= 0) & (user[of_row] >= 0))
    pair = user[of_row[wanted]] * vocabulary.num_items + item[wanted]
    event[wanted] = _next_events(pair, exposures.time[of_row[wanted]], histories, vocabulary.num_items, window)
    of_event = np.full(histories.num_events, -1, dtype=np.int64)
    joined = np.flatnonzero(event >= 0)
    of_event[event[joined]] = of_row[joined]  # lists are in the order of their times, and the latest one counts
    is_joined = np.zeros(len(exposures), dtype=bool)
    is_joined[joined] = of_event[event[joined]] == of_row[joined]
    if not len(joined):
        _refuse_unjoined(exposures, pair, histories, vocabulary.num_items)
    has_event = np.zeros(exposures.num_exposures, dtype=bool)
    has_event[of_row[is_joined]] = True
    cell = of_row * (len(exposures.item_ids) + 1) + exposures.item
    is_other = ~is_taken & has_event[of_row]
    is_twice = is_other & np.isin(cell, cell[is_taken])
    rows = Counter(
        {
            "taken": int(is_joined.sum()),
            "not taken": int((is_other & ~is_twice & (item >= 0)).sum()),
            "taken, of no event of the log": int((is_taken & ~is_joined).sum()),
            "not taken, of an item that is not in the log": int((is_other & ~is_twice & (item < 0)).sum()),
            "of lists without a taken event": int((~is_taken & ~has_event[of_row]).sum()),
            "twice in a list": int(is_twice.sum()),
        }
    )
    return TakenEvents(exposures, histories, of_event, user, item, rows)


def _next_events(
    pair: Int[np.ndarray, " row"],
    time: Int[np.ndarray, " row"],
    histories: Histories,
    num_items: int,
    window: int,
) -> Int[np.ndarray, " row"]:
    """The first event of the same user and item at the time of each row or within the window after it; −1 for none."""
    chosen, of_events = _events_of(pair, histories, num_items)
    pairs = np.concatenate([of_events, pair])
    times = np.concatenate([histories.timestamp[chosen], time])
    is_row = np.arange(len(pairs)) >= len(chosen)
    order = np.lexsort((~is_row, times, pairs))
    number = np.where(is_row[order], len(order), np.arange(len(order)))
    following = np.minimum.accumulate(number[::-1])[::-1][is_row[order]]
    row = order[is_row[order]]
    candidate = order[np.minimum(following, len(order) - 1)]
    is_found = (following < len(order)) & (pairs[candidate] == pairs[row]) & (times[candidate] - times[row] <= window)
    found = np.full(len(pair), -1, dtype=np.int64)
    found[row[is_found] - len(chosen)] = chosen[candidate[is_found]]
    return found


def _events_of(
    pair: Int[np.ndarray, " row"], histories: Histories, num_items: int
) -> tuple[Int[np.ndarray, " event"], Int[np.ndarray, " event"]]:
    """The events of pairs of a user and an item, and the pair of each."""
    of_events = np.repeat(np.arange(len(histories)), histories.lengths) * num_items + histories.item
    chosen = np.flatnonzero(np.isin(of_events, pair))
    return chosen, of_events[chosen]


def _refuse_others(exposures: Exposures, user: Int[np.ndarray, " list"], item: Int[np.ndarray, " row"]) -> None:
    if not exposures.time.any() or all(one is None for one in exposures.user):
        raise InputError(
            "The exposures have no users or no times, so events cannot be joined to them. Give a table with user_id "
            "and timestamp."
        )
    if not (item >= 0).any():
        raise InputError(
            f"The log has none of the {len(exposures.item_ids):,} items of the exposures, which are of another "
            "catalog. Give those of the same shop."
        )
    if not (user >= 0).any():
        raise InputError(
            "The log has none of the users of the exposures. Give the log of the same people, with the same ids."
        )
    if not (exposures.reward > 0).any():
        raise InputError("No item of the exposures was taken: no row has a reward above 0. Are events missing?")


def _refuse_unjoined(exposures: Exposures, pair: Int[np.ndarray, " row"], histories: Histories, num_items: int) -> None:
    chosen, _ = _events_of(pair, histories, num_items)
    if len(chosen) and histories.timestamp[chosen].max() < exposures.time.min():
        raise InputError(
            f"All {len(chosen):,} events of taken items are earlier than the first list. Compare the clocks and the "
            "time zones of log and exposures."
        )
    raise InputError(
        f"The log has no event for any of the {int((exposures.reward > 0).sum()):,} taken rows within the window. Give "
        "the log of the same time, or compare the clocks of log and exposures."
    )
