"""Lists that events were taken from: cut in time with the events, and looked up for a batch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories
from variseq.sequences.shown_lists import ShownLists

HISTORIES = Histories.of_items([[3, 1, 4], [1, 5], [9, 2, 6]])
NAMES = ("offsets", "item", "behavior", "timestamp", "value")
LISTS = ShownLists(np.array([-1, 0, 0, 1, 2, -1, 3, -1]), np.array([0, 2, 3, 4, 6]), np.array([5, 9, 3, 4, 1, 7]))
"""Of list 0 two events were taken, and of each other one."""


def test_list_of_which_something_is_taken_later_is_left_out() -> None:
    found = LISTS.within(HISTORIES, np.array([2, 4, 7]))
    assert found.of_event.tolist() == [-1, -1, 1, -1, 3], (
        "list 0 has an event after the end, and list 2 is wholly later"
    )
    assert found.num_lists == 2


def test_items_without_an_event_so_far_are_no_negatives() -> None:
    found = LISTS.within(HISTORIES, np.array([3, 5, 7]))
    assert found.beside(np.array([1, 6]))[1].tolist() == [5, 9, 1], "nobody took 7 before the end"


@given(st.data())
def test_batch_has_what_was_shown_beside_each_of_its_targets(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    num_events, num_lists = sum(lengths), 5
    items = [random.integers(10, size=length).tolist() for length in lengths]
    histories = Histories.of_items(items)
    is_target = random.random(num_events) < 0.7
    is_target[0] = True
    histories = Histories(*(getattr(histories, name) for name in NAMES), is_target=is_target)
    shown = [random.integers(10, size=random.integers(0, 4)).tolist() for _ in range(num_lists)]
    of_event = random.integers(-1, num_lists, num_events)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in shown])]).astype(np.int64)
    lists = ShownLists(of_event, offsets, np.array([item for one in shown for item in one], dtype=np.int64))
    windows = training_windows(histories, 4, np.random.default_rng(0))
    members = random.permutation(len(windows.first))
    batch = make_batch(histories, windows, members, 10, lists)
    events = [event for member in members for event in range(windows.first[member], windows.last[member])]
    targets = [event for event in events if is_target[event]]
    pairs = batch.shown()
    assert pairs is not None
    wanted = [
        (number, item)
        for number, event in enumerate(targets)
        if of_event[event] >= 0
        for item in shown[of_event[event]]
    ]
    assert list(zip(*(column.tolist() for column in pairs), strict=True)) == wanted


def test_items_of_lists_are_rows_of_a_batch_among_few_items() -> None:
    histories = Histories.of_items([[3, 1], [1, 5]])
    lists = ShownLists(np.array([-1, 0, -1, -1]), np.array([0, 2]), np.array([8, 7]))
    windows = training_windows(histories, 4, np.random.default_rng(0))
    batch = make_batch(histories, windows, np.arange(2), 10, lists)
    rows = batch.rows(start=10)
    assert rows.tolist() == [1, 3, 5, 7, 8, 10]
    pairs = batch.among(rows).shown()
    assert pairs is not None
    assert rows[pairs[1]].tolist() == [8, 7]
    assert make_batch(histories, windows, np.arange(2), 10).shown() is None
    assert torch.equal(batch.to(torch.device("cpu")).shown_item, torch.tensor([8, 7]))
