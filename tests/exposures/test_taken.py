"""Events of a log that were taken from shown lists: joined forward in time, each to one list, every row counted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exposures.lists import SECOND, START, event, exposure, write
from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.exposures.table import Exposures
from variseq.exposures.taken import TakenEvents, taken_events
from variseq.pipeline import joined_exposures
from variseq.sequences.histories import Histories

WINDOW = 100
VOCABULARY = Vocabulary(pa.array(["ann", "bob"]), pa.array(["a", "b", "c", "d"]), ("event",))


def exposures_of(*lists: tuple[str | None, int, dict[str, float]]) -> Exposures:
    """Lists as user, time and the reward of each item; an item with a mark, as `a2`, is the item again."""
    ids = sorted({item[0] for _, _, items in lists for item in items})
    item = [ids.index(one[0]) for _, _, items in lists for one in items]
    offsets = np.concatenate([[0], np.cumsum([len(items) for _, _, items in lists])]).astype(np.int64)
    unknown = np.full(len(item), np.nan)
    return Exposures(
        offsets=offsets,
        exposure_id=[str(number) for number in range(len(lists))],
        user=[user for user, _, _ in lists],
        time=np.array([time for _, time, _ in lists], dtype=np.int64),
        context=None,
        item=np.array(item, dtype=np.int64),
        item_ids=list(ids),
        rank=np.concatenate([np.arange(1, len(items) + 1) for _, _, items in lists]),
        propensity_at_rank=unknown,
        propensity_in_list=unknown,
        is_pinned=np.zeros(len(item), dtype=bool),
        reward=np.array([float(reward) for _, _, items in lists for reward in items.values()]),
    )


def log_of(*events: tuple[str, str, int]) -> Histories:
    """User, item and time of each event, by user and time."""
    users, items = VOCABULARY.users.to_pylist(), VOCABULARY.items.to_pylist()
    user = np.array([users.index(one) for one, _, _ in events])
    return Histories(
        offsets=np.searchsorted(user, [0, 1, 2]).astype(np.int64),
        item=np.array([items.index(one) for _, one, _ in events], dtype=np.int32),
        behavior=np.zeros(len(events), dtype=np.uint8),
        timestamp=np.array([time for _, _, time in events], dtype=np.int64),
        value=np.full(len(events), np.nan, dtype=np.float32),
    )


def found_in(exposures: Exposures, *events: tuple[str, str, int]) -> TakenEvents:
    found = taken_events(exposures, log_of(*events), VOCABULARY, WINDOW)
    assert found.rows.total() == len(exposures)
    return found


def lists_of(
    found: TakenEvents, begin: list[int], end: list[int]
) -> list[tuple[int, list[tuple[int, bool]], list[int]]]:
    """User, rows and history of each list of a part."""
    lists, histories = found.lists(np.array(begin), np.array(end))
    rows = list(zip(lists.item.tolist(), lists.is_taken.tolist(), strict=True))
    spans = itertools.pairwise(lists.offsets.tolist())
    of_each = [rows[first:last] for first, last in spans]
    before = [histories.history(number).item.tolist() for number in range(len(lists))]
    return list(zip(lists.user.tolist(), of_each, before, strict=True))


def test_taken_row_is_the_first_event_at_its_time_or_within_the_window() -> None:
    shown = exposures_of(("ann", 50, {"a": 1, "b": 0, "x": 0, "b2": 0}), ("bob", 60, {"c": 1, "d": 0}))
    found = found_in(shown, ("ann", "a", 40), ("ann", "a", 50), ("ann", "a", 60), ("bob", "c", 160))
    assert found.of_event.tolist() == [-1, 0, -1, 1]
    assert lists_of(found, [0, 3], [3, 4]) == [
        (0, [(0, True), (1, False), (-1, False), (1, False)], [0]),
        (1, [(2, True), (3, False)], []),
    ], "the history of a list is what was strictly before it"
    assert +found.rows == {"taken": 2, "not taken": 3, "not taken, of an item that is not in the log": 1}


def test_event_before_its_list_or_later_than_the_window_is_not_joined() -> None:
    shown = exposures_of(("ann", 50, {"a": 1, "b": 0}), ("ann", 60, {"c": 1, "d": 0}), ("bob", 60, {"c": 1, "d": 0}))
    found = found_in(shown, ("ann", "a", 49), ("ann", "c", 161), ("bob", "c", 160))
    assert found.of_event.tolist() == [-1, -1, 2]
    assert +found.rows == {
        "taken": 1,
        "not taken": 1,
        "taken, of no event of the log": 2,
        "of lists without a taken event": 2,
    }


def test_event_belongs_to_the_latest_list_and_item_that_is_twice_in_a_list_was_taken() -> None:
    shown = exposures_of(("ann", 50, {"a": 1, "b": 0}), ("ann", 60, {"a": 1, "a2": 0, "c": 0}))
    found = found_in(shown, ("ann", "a", 70), ("bob", "a", 70))
    assert found.of_event.tolist() == [1, -1]
    assert lists_of(found, [0, 1], [1, 2]) == [(0, [(0, True), (2, False)], [])]
    assert found.rows["twice in a list"] == 1


def test_list_of_which_something_is_taken_in_a_later_part_is_in_no_part() -> None:
    shown = exposures_of(
        ("ann", 50, {"a": 1, "b": 0, "c": 1}), ("ann", 55, {"d": 1, "b": 0}), ("bob", 50, {"a": 1, "b": 0})
    )
    found = found_in(shown, ("ann", "a", 60), ("ann", "d", 60), ("ann", "c", 70), ("bob", "a", 50))
    assert [user for user, _, _ in lists_of(found, [0, 3], [2, 4])] == [0, 1]
    assert lists_of(found, [2, 4], [3, 4]) == []
    assert [len(rows) for _, rows, _ in lists_of(found, [0, 3], [3, 4])] == [3, 2, 2]


def test_folder_of_a_server_is_joined_by_hashed_users_to_the_lists_that_events_name(tmp_path: Path) -> None:
    lists = [exposure("x1", ["a", "b"], user_id="ann"), exposure("x2", ["a", "c"], user_id="ann", time=START + 1)]
    taken = [event("e1", "a", START + 2, user_id="ann", exposure_id="x1"), event("e2", "c", START + 9, user_id="ann")]
    write(tmp_path / "exposures", *lists, *taken)
    histories = log_of(("ann", "a", START + 2), ("ann", "c", START + 9), ("bob", "b", START))
    found = joined_exposures(tmp_path / "exposures", histories, VOCABULARY)
    assert found.of_event.tolist() == [0, 1, -1]
    assert lists_of(found, [0, 2], [2, 3]) == [(0, [(0, True), (1, False)], []), (0, [(0, False), (2, True)], [])]


@given(st.data())
def test_join_equals_a_search_event_by_event(data: st.DataObject) -> None:
    times = st.integers(1, 300)
    row = st.tuples(st.sampled_from(["ann", "bob", None, "eve"]), times, st.sets(st.sampled_from("abx"), min_size=1))
    lists = sorted(data.draw(st.lists(row, min_size=1, max_size=6)), key=lambda one: one[1])
    event_of = st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from("abc"), times)
    events = sorted(data.draw(st.lists(event_of, min_size=1, max_size=8)), key=lambda one: (one[0], one[2]))
    shown = exposures_of(*((user, time, dict.fromkeys(sorted(items), 1.0)) for user, time, items in lists))
    wanted: dict[int, int] = {}
    for number, (user, time, items) in enumerate(lists):
        for item in items:
            later = [e for e, one in enumerate(events) if one[:2] == (user, item) and time <= one[2] <= time + WINDOW]
            wanted |= {min(later, key=lambda e: (events[e][2], e)): number} if later else {}
    try:
        found = found_in(shown, *events)
    except InputError:
        assert not wanted
        return
    assert {e: int(one) for e, one in enumerate(found.of_event) if one >= 0} == wanted


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([("ann", 50, {"x": 1, "y": 0})], "another catalog"),
        ([("eve", 50, {"a": 1, "b": 0})], "none of the users"),
        ([(None, 50, {"a": 1, "b": 0})], "no users or no times"),
        ([("ann", 0, {"a": 1, "b": 0})], "no users or no times"),
        ([("ann", 50, {"a": 0, "b": 0})], "No item of the exposures was taken"),
        ([("ann", 50 * SECOND, {"a": 1, "b": 0})], "earlier than the first list"),
        ([("ann", 50, {"b": 1, "a": 0})], "no event for any of the 1 taken rows"),
    ],
)
def test_exposures_that_do_not_fit_the_log_are_refused_with_one_message(lists: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        found_in(exposures_of(*lists), ("ann", "a", 60), ("bob", "a", 60))
