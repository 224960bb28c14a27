"""Histories are ragged arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.some_networks import full_histories
from variseq.events.table import EventTable
from variseq.sequences.histories import Histories, latest_items, without_items

some_lists = st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=8)


@settings(max_examples=30)
@given(some_lists)
def test_histories_of_items_give_the_lists_back(lists: list[list[int]]) -> None:
    histories = Histories.of_items(lists)
    assert [histories.history(place).item.tolist() for place in range(len(histories))] == lists


@settings(max_examples=30)
@given(some_lists, st.integers(1, 5))
def test_latest_keeps_the_end_of_each_history(lists: list[list[int]], max_events: int) -> None:
    latest = Histories.of_items(lists).latest(max_events)
    assert [latest.history(place).item.tolist() for place in range(len(latest))] == [one[-max_events:] for one in lists]


def test_user_without_events_has_an_empty_history() -> None:
    table = EventTable(
        user=np.array([0, 0, 3]),
        item=np.array([5, 6, 7]),
        timestamp=np.array([1, 2, 3]),
        behavior=np.zeros(3, dtype=np.uint8),
        value=np.full(3, np.nan, dtype=np.float32),
    )
    histories = Histories.from_table(table, num_users=5)
    assert histories.lengths.tolist() == [2, 0, 0, 1, 0]
    assert histories.history(3).item.tolist() == [7]
    assert histories.item is table.item


some_items = st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=5)


@settings(max_examples=30)
@given(some_items, st.integers(1, 4))
def test_latest_items_are_those_of_a_walk_from_the_end(items: list[list[int]], num_latest: int) -> None:
    found = latest_items(Histories.of_items(items), num_latest)
    for row, history in zip(found.tolist(), items, strict=True):
        walked = list(dict.fromkeys(reversed(history)))[:num_latest]
        assert row == walked + [-1] * (num_latest - len(walked))


@settings(max_examples=30)
@given(some_items, st.data())
def test_a_copy_has_all_events_but_those_of_the_dropped_items(items: list[list[int]], data: st.DataObject) -> None:
    source = np.array(data.draw(st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=6)))
    dropped = np.array([data.draw(st.lists(st.integers(-1, 4), min_size=2, max_size=2)) for _ in source])
    fewer = without_items(Histories.of_items(items), source, dropped)
    for place, (history, gone) in enumerate(zip(source, dropped, strict=True)):
        assert fewer.history(place).item.tolist() == [item for item in items[history] if item not in gone]


def test_events_that_stay_keep_their_times_behaviors_and_values() -> None:
    histories = full_histories([6, 9])
    gone = int(histories.item[8])
    fewer = without_items(histories, np.array([1]), np.array([[gone]]))
    kept = np.flatnonzero(histories.item[6:] != gone) + 6
    for column in ("item", "behavior", "timestamp", "value"):
        np.testing.assert_array_equal(getattr(fewer, column), getattr(histories, column)[kept])


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=8), min_size=1, max_size=6))
def test_repeats_and_distinct_items_are_those_of_a_walk_over_each_history(rows: list[list[tuple[int, bool]]]) -> None:
    histories = Histories.of_items([[item for item, _ in row] for row in rows])
    are_targets = np.array([is_target for row in rows for _, is_target in row], dtype=bool)
    are_new = [item not in [one for one, _ in row[:place]] for row in rows for place, (item, _) in enumerate(row)]
    assert histories.are_new().tolist() == are_new
    assert histories.num_repeats() == are_new.count(False)
    repeats_of_targets = are_targets & ~np.array(are_new, dtype=bool)
    assert replace(histories, is_target=are_targets).num_repeats() == int(repeats_of_targets.sum())
    pairs = sorted({(number, item) for number, row in enumerate(rows) for item, _ in row})
    assert list(zip(*(column.tolist() for column in histories.distinct_items()), strict=True)) == pairs
