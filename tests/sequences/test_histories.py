from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from variseq.events.table import EventTable
from variseq.sequences.histories import Histories

some_lists = st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=8)


@given(some_lists)
def test_histories_of_items_give_the_lists_back(lists: list[list[int]]) -> None:
    histories = Histories.of_items(lists)
    assert [histories.history(place).item.tolist() for place in range(len(histories))] == lists


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
