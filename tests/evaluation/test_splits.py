from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.evaluation.splits import Split, by_time, by_user_time, by_users, leave_one_out
from variseq.sequences.histories import Histories

DAY = 86_400_000_000


def timed(histories: list[list[tuple[int, int]]]) -> Histories:
    """Histories of (time, item) pairs, put in the order of time."""
    ordered = [sorted(history, key=lambda event: event[0]) for history in histories]
    plain = Histories.of_items([[item for _, item in history] for history in ordered])
    times = np.array([time for history in ordered for time, _ in history], dtype=np.int64)
    return dataclasses.replace(plain, timestamp=times)


timed_lists = st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12), min_size=1, max_size=10)


@given(timed_lists, st.floats(0.05, 0.45), st.floats(0.05, 0.45))
@settings(max_examples=60, deadline=None)
def test_every_training_event_is_before_every_later_part(
    lists: list[list[tuple[int, int]]], test_share: float, valid_share: float
) -> None:
    histories = timed(lists)
    try:
        train, valid, test = by_time(histories, test=test_share, valid=valid_share)
    except InputError:
        assume(False)
    time = histories.timestamp
    valid_time = time[valid.queries("all").position]
    test_time = time[test.queries("all").position]
    assert train.history().timestamp.max() < min(valid_time.min(initial=99), test_time.min(initial=99))
    assert valid_time.max(initial=-1) < test_time.min(initial=99)
    assert valid.history().timestamp.max() < test_time.min(initial=99) or not len(valid_time)
    every_event = train.history().num_events + len(valid_time) + len(test_time)
    assert every_event == histories.num_events


@given(timed_lists)
@settings(max_examples=40, deadline=None)
def test_leave_one_out_gives_last_and_last_but_one_of_long_histories(lists: list[list[tuple[int, int]]]) -> None:
    histories = timed(lists)
    long_enough = np.flatnonzero(histories.lengths >= 3)
    if not len(long_enough):
        with pytest.raises(InputError):
            leave_one_out(histories)
        return
    train, valid, test = leave_one_out(histories)
    np.testing.assert_array_equal(test.queries().user, long_enough)
    np.testing.assert_array_equal(test.queries().position, histories.offsets[1:][long_enough] - 1)
    np.testing.assert_array_equal(valid.queries().position, histories.offsets[1:][long_enough] - 2)
    assert train.history().num_events == histories.num_events - 2 * len(long_enough)
    assert train.train_item_count.sum() == train.history().num_events


@given(timed_lists)
@settings(max_examples=40, deadline=None)
def test_without_a_test_part_everything_but_validation_is_training(lists: list[list[tuple[int, int]]]) -> None:
    histories = timed(lists)
    long_enough = np.flatnonzero(histories.lengths >= 2)
    if len(long_enough):
        train, valid, test = leave_one_out(histories, with_test=False)
        np.testing.assert_array_equal(valid.queries().position, histories.offsets[1:][long_enough] - 1)
        assert train.history().num_events + len(long_enough) == histories.num_events
        assert valid.history_with_targets().num_events == test.history().num_events == histories.num_events
        assert len(test.queries()) == test.protocol["num_test_events"] == 0
    try:
        train, valid, test = by_time(histories, test=None, valid=0.2)
    except InputError:
        return
    valid_time = histories.timestamp[valid.queries("all").position]
    assert train.history().timestamp.max() < valid_time.min()
    assert train.history().num_events + len(valid_time) == test.history().num_events == histories.num_events
    assert "test_start_microseconds" not in test.protocol


@given(timed_lists, st.sampled_from(["first", "last", "all"]))
@settings(max_examples=40, deadline=None)
def test_targets_lie_between_the_bounds_of_their_user(lists: list[list[tuple[int, int]]], targets: str) -> None:
    histories = timed(lists)
    try:
        parts = by_time(histories, test=0.2, valid=0.2)
    except InputError:
        assume(False)
    for part in parts:
        queries = part.queries(targets)
        assert (queries.position >= part.history_end[queries.user]).all()
        assert (queries.position < part.target_end[queries.user]).all()
        num_targets = part.target_end - part.history_end
        expected = num_targets.sum() if targets == "all" else (num_targets > 0).sum()
        assert len(queries) == expected
    assert len(parts[0].queries()) == 0


def test_kinds_of_targets_of_one_user() -> None:
    histories = Histories.of_items([[0, 1, 2, 3, 4, 5]])
    _, _, test = by_time(histories, test=3_000_000, valid=2_000_000)
    assert test.queries("first").position.tolist() == [3]
    assert test.queries("last").position.tolist() == [5]
    assert test.queries("all").position.tolist() == [3, 4, 5]


def test_event_at_the_cut_belongs_to_the_later_side() -> None:
    histories = timed([[(0, 1), (5, 2)], [(1, 1), (5, 3), (9, 4)]])
    train, valid, test = by_time(histories, test=9, valid=5)
    assert train.history().timestamp.tolist() == [0, 1]
    assert histories.item[valid.queries().position].tolist() == [2, 3]
    assert test.queries().user.tolist() == [1]


def test_user_without_earlier_events_is_kept_as_a_cold_query() -> None:
    histories = timed([[(0, 1), (1, 2), (2, 2)], [(9, 3)]])
    _, _, test = by_time(histories, test=9, valid=2)
    assert test.queries().user.tolist() == [1]
    assert test.queries().position.tolist() == [3]
    assert test.history().lengths.tolist() == [3, 0]


def test_duration_counts_back_from_the_last_event() -> None:
    histories = timed([[(day * DAY, day) for day in range(31)]])
    train, valid, test = by_time(histories, test="7d", valid="1w")
    assert test.protocol["test_start_microseconds"] == 23 * DAY
    assert valid.protocol["valid_start_microseconds"] == 16 * DAY
    assert train.history().num_events == 16


def test_split_hash_names_one_split_and_only_that() -> None:
    def hashes(split: Split) -> set[str]:
        return {part.protocol["split_hash"] for part in split}

    histories = Histories.of_items([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    other_items = Histories.of_items([[0, 1, 2, 3, 4], [4, 3, 2, 0, 1]])
    first = hashes(leave_one_out(histories))
    assert len(first) == 1
    assert first == hashes(leave_one_out(histories))
    assert first != hashes(leave_one_out(other_items))
    assert first != hashes(by_time(histories, test=0.4, valid=0.2))


def test_catalog_may_be_larger_than_the_log() -> None:
    _, _, test = leave_one_out(Histories.of_items([[0, 1, 2]]), num_items=7)
    assert test.num_items == 7
    assert test.protocol["num_items_unseen_in_training"] == 6
    with pytest.raises(InputError, match="num_items=2 is too small"):
        leave_one_out(Histories.of_items([[0, 1, 2]]), num_items=2)


@pytest.mark.parametrize(
    ("test", "valid", "message"),
    [
        (1.5, 0.1, "not a share"),
        (0.0, 0.1, "not a share"),
        ("7 moons", 0.1, "not a duration"),
        (10**18, 0.1, "none or all"),
        (0, 0.1, "none or all"),
        (0.9, 0.5, "none or all|no event for training"),
        ("1s", "99d", "none or all"),
    ],
)
def test_impossible_time_split_is_refused_with_its_reason(
    test: float | int | str, valid: float | int | str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        by_time(Histories.of_items([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]), test=test, valid=valid)


def test_unknown_kind_of_target_is_refused() -> None:
    _, _, test = leave_one_out(Histories.of_items([[0, 1, 2]]))
    with pytest.raises(InputError, match=r"Allowed: 'first', 'last', 'all'"):
        test.queries("best")


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (timed([[(5, 1), (5, 2)], [(5, 3)]]), "none or all"),
        (
            dataclasses.replace(Histories.of_items([[1, 2], [3]]), timestamp=np.array([9, 2, 1])),
            "earlier than the event",
        ),
        (Histories.of_items([[]]), "no events"),
    ],
    ids=["constant times", "out of order", "empty"],
)
def test_log_that_has_no_split_by_time_is_refused(histories: Histories, message: str) -> None:
    with pytest.raises(InputError, match=message):
        by_time(histories)


lists_of_events = st.lists(st.lists(st.integers(0, 9), max_size=15), min_size=8, max_size=30)


@given(lists_of_events, st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_user_time_split_takes_the_last_events_of_each_user(lists: list[list[int]], test: float, valid: float) -> None:
    histories = Histories.of_items([*lists, [0, 1, 2, 3, 4, 5, 6, 7]])
    parts = by_user_time(histories, test, valid)
    lengths, held_out = histories.lengths, parts[2].target_end - parts[2].history_end
    is_long = held_out > 0
    assert (held_out[is_long] == np.maximum(1, np.round(test * lengths[is_long]))).all()
    assert (parts[0].history().lengths[is_long] >= 1).all()
    assert (parts[2].target_end[is_long] == histories.offsets[1:][is_long]).all()
    assert (parts[0].history().lengths[~is_long] == lengths[~is_long]).all(), "the others are for training only"
    assert np.array_equal(parts[1].target_end[is_long], parts[2].history_end[is_long])


def test_durations_of_a_user_time_split_are_counted_from_the_last_event_of_each_user() -> None:
    histories = Histories.of_items([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3]])
    _, valid, test = by_user_time(histories, test="1s", valid="2s")
    assert test.history_end.tolist() == [4, 10]
    assert valid.history_end.tolist() == [1, 10], "a user of whom nothing would be left is in training only"


@given(lists_of_events, st.floats(0.05, 0.3))
def test_split_by_users_puts_nobody_into_two_parts(lists: list[list[int]], share: float) -> None:
    histories = Histories.of_items([[0, 1], [1, 0], *([3, *one] for one in lists)])
    train, valid, test = by_users(histories, share, share)
    trained = train.history().lengths > 0
    chosen, evaluated = valid.target_end > valid.history_end, test.target_end > test.history_end
    assert (trained.astype(int) + chosen + evaluated == 1).all()
    assert (test.history_end[evaluated] == histories.offsets[:-1][evaluated]).all(), "all of their events are targets"
    assert evaluated.sum() == max(1, round(share * len(histories)))
    assert np.array_equal(test.history_end, by_users(histories, share, share)[2].history_end)


@pytest.mark.parametrize("split", [by_user_time, by_users])
def test_slice_that_is_no_share_is_refused(split: Callable[..., Split]) -> None:
    for size in (0.0, 1.5, 3, "soon"):
        with pytest.raises(InputError):
            split(Histories.of_items([[0, 1, 2, 3]] * 5), test=size)
