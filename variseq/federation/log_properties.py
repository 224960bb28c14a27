"""The properties of a log that the settings of a network follow from, as a sum over logs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from variseq.errors import InputError
from variseq.sequences.histories import Histories
from variseq.training.defaults import LONGEST_WINDOW, LogProperties

_FIRST = ("events", "repeats", "targets", "logs with times")
NUM_SUMS = len(_FIRST) + LONGEST_WINDOW
"""After the numbers of `_FIRST`: how many histories have one event, two events, ..., `LONGEST_WINDOW` or more."""


def property_sums(histories: Histories) -> Int[np.ndarray, " number"]:
    """What one log adds.

    Args:
        histories: The events to train on.
    """
    lengths = np.minimum(histories.lengths[histories.lengths > 0], LONGEST_WINDOW)
    targets = histories.distinct_in_visits().num_targets
    first = [histories.num_events, histories.num_repeats(), targets, int(histories.has_times)]
    return np.concatenate([first, np.bincount(lengths, minlength=LONGEST_WINDOW + 1)[1:]]).astype(np.int64)


def summed_properties(
    total: Int[np.ndarray, " number"], num_items: int, parties: int, most_users: int, most_events: int
) -> LogProperties:
    """The properties of the joined log; times are used where every log has them, and values are not.

    Args:
        total: The sum of `property_sums`.
        num_items: Size of the catalog.
        parties: How many logs were summed.
        most_users: The declared number of users.
        most_events: The most events of one user that count.

    Raises:
        InputError: For a sum that so many users cannot make, and for logs without an event.
    """
    (events, repeats, targets, with_times), of_length = (part.tolist() for part in np.split(total, [len(_FIRST)]))
    users = sum(of_length)
    if min(events, repeats, targets, with_times, *of_length) < 0 or users > most_users or events > users * most_events:
        raise InputError(
            f"The lengths of histories are not those of {most_users:,} users. A party is broken, or --users is too "
            "low. Start all again."
        )
    if not targets:
        raise InputError("No party has an event to train on. Give longer logs.")
    lengths = np.repeat(np.arange(1, LONGEST_WINDOW + 1), of_length)
    return LogProperties(
        num_events=events,
        num_items=num_items,
        num_behaviors=1,
        mean_length=events / users,
        long_length=float(np.quantile(lengths, 0.95)),
        has_gaps=with_times == parties,
        has_values=False,
        repeat_share=repeats / targets,
    )
