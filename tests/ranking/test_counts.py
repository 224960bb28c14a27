from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from variseq.ranking.counts import OTHER_HOURS, PRIOR_EVENTS, OwnHistory, followers, own_history
from variseq.sequences.histories import Histories

HOUR = 3_600_000_000
OPTIONS = OwnHistory(decay=0.7, transitions=2.5, gap=0.6, hour=4.0, weekend=0.3)
lists_of_events = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 90)), max_size=8), min_size=1, max_size=6
)


def histories_of(events: list[list[tuple[int, int]]], hours_later: int) -> Histories:
    """Items with the hours since the event before; each history is asked for some hours after its last event."""
    plain = Histories.of_items([[item for item, _ in one] for one in events])
    time = [HOUR * np.cumsum([0, *(hours for _, hours in one)])[1:] for one in events]
    last = np.array([one[-1] if len(one) else 0 for one in time])
    timestamp = np.concatenate(time).astype(np.int64)
    return replace(plain, timestamp=timestamp, request_time=last + hours_later * HOUR)


def plain_counts(histories: Histories, row: int, options: OwnHistory) -> dict[int, float]:
    """What is counted for one history, event by event."""
    one, request = histories.history(row), int(histories.request_time[row])
    counts: dict[int, float] = {}
    for index, (item, time) in enumerate(zip(one.item.tolist(), one.timestamp.tolist(), strict=True)):
        weight = options.decay ** (one.num_events - 1 - index)
        if index and one.item[index - 1] == one.item[-1]:
            own_gap, gap = (
                np.log2(1 + span / 1e6) for span in (time - one.timestamp[index - 1], request - one.timestamp[-1])
            )
            weight += weight * options.transitions * np.exp(-options.gap * abs(min(own_gap, 25) - min(gap, 25)))
        angle = 2 * np.pi * (time - request) / (24 * HOUR)
        weight *= OTHER_HOURS + (1 - OTHER_HOURS) * np.exp(options.hour * (np.cos(angle) - 1))
        days = [(one_time // (24 * HOUR) + 3) % 7 for one_time in (time, request)]
        weight *= 1 if (days[0] >= 5) == (days[1] >= 5) else options.weekend
        counts[item] = counts.get(item, 0.0) + weight
    return counts


@given(lists_of_events, st.integers(0, 400))
def test_events_count_as_the_plain_form_says(events: list[list[tuple[int, int]]], hours_later: int) -> None:
    histories = histories_of(events, hours_later)
    counted = own_history(histories, OPTIONS)
    for row in range(len(histories)):
        cells = counted.row == row
        expected = plain_counts(histories, row, OPTIONS)
        assert counted.item[cells].tolist() == sorted(expected)
        np.testing.assert_allclose(counted.count[cells], [expected[item] for item in sorted(expected)], rtol=1e-9)


@given(lists_of_events, st.integers(0, 400))
def test_hours_mean_nothing_without_a_request_time_or_a_calendar(
    events: list[list[tuple[int, int]]], hours_later: int
) -> None:
    known = histories_of(events, hours_later)
    plain = OwnHistory(OPTIONS.decay, OPTIONS.transitions)
    expected = own_history(replace(known, request_time=None), plain).count
    np.testing.assert_array_equal(own_history(replace(known, request_time=None), OPTIONS).count, expected)
    no_calendar = replace(OPTIONS, gap=0.0, calendar="none")
    np.testing.assert_array_equal(own_history(known, no_calendar).count, expected)


def test_followers_of_several_lags_are_the_weighted_mean_of_those_of_each_event() -> None:
    random, num_items, lags, decay = np.random.default_rng(0), 7, 3, 0.5
    table = random.integers(0, 5, (num_items, num_items)) * 40.0
    offsets = np.concatenate([[0], np.cumsum((table > 0).sum(axis=1))])
    follower, count = np.nonzero(table)[1], table[table > 0]
    share = random.dirichlet(np.ones(num_items))
    rows = [[0, 1, 2, 3, 4], [5, 6], [2], []]
    found = followers(Histories.of_items(rows), offsets, follower, count, lags, decay)
    smoothed = (table + PRIOR_EVENTS * share) / (table.sum(axis=1, keepdims=True) + PRIOR_EVENTS)
    plain = np.stack(
        [
            np.average(smoothed[row[: -lags - 1 : -1]], axis=0, weights=decay ** np.arange(min(lags, len(row))))
            if row
            else share
            for row in rows
        ]
    )
    np.testing.assert_allclose(found.dense(PRIOR_EVENTS * share), plain, rtol=1e-9)
    assert len(np.unique(found.row * num_items + found.item)) == len(found.row)
