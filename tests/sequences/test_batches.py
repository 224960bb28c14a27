from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.sequences.batches import (
    Windows,
    group_by_length,
    make_batch,
    query_windows,
    training_windows,
)
from variseq.sequences.histories import GAP_BUCKETS, Histories, gap_bucket

NUM_ITEMS = 1000
lengths_of_histories = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def numbered(lengths: list[int]) -> Histories:
    """Histories whose items count through all events, so that an item tells its flat position."""
    ends = np.cumsum(lengths).tolist()
    return Histories.of_items([list(range(end - length, end)) for length, end in zip(lengths, ends, strict=True)])


def whole_epoch(histories: Histories, max_seq_len: int, seed: int = 0) -> Windows:
    return training_windows(histories, max_seq_len, np.random.default_rng(seed))


@settings(max_examples=30)
@given(lengths_of_histories, st.integers(2, 12), st.integers(0, 1000))
def test_windows_cover_every_event_exactly_once(lengths: list[int], max_seq_len: int, seed: int) -> None:
    histories = numbered(lengths)
    windows = whole_epoch(histories, max_seq_len, seed)
    covered = [place for first, last in zip(windows.first, windows.last, strict=True) for place in range(first, last)]
    assert covered == list(range(histories.num_events))
    assert all(0 < length <= max_seq_len for length in windows.lengths)


@settings(max_examples=30)
@given(lengths_of_histories, st.integers(2, 12), st.integers(0, 1000))
def test_input_is_the_event_right_before_the_target(lengths: list[int], max_seq_len: int, seed: int) -> None:
    histories = numbered(lengths)
    windows = whole_epoch(histories, max_seq_len, seed)
    if not len(windows.first):
        return
    batch = make_batch(histories, windows, np.arange(len(windows.first)), NUM_ITEMS)
    firsts = set(histories.offsets[:-1][histories.lengths > 0].tolist())
    for known, target in zip(batch.item.tolist(), batch.target_item.tolist(), strict=True):
        assert known == (NUM_ITEMS if target in firsts else target - 1)


def test_start_token_stands_only_at_the_true_beginning() -> None:
    histories = numbered([10])
    batch = make_batch(histories, Windows(np.array([0]), np.array([4]), np.array([8])), np.array([0]), NUM_ITEMS)
    assert batch.item.tolist() == [3, 4, 5, 6]
    assert batch.target_item.tolist() == [4, 5, 6, 7]


def test_long_history_is_cut_elsewhere_in_another_epoch() -> None:
    histories = numbered([100])
    cuts = {whole_epoch(histories, 10, seed).first[1] for seed in range(30)}
    assert len(cuts) > 5


@settings(max_examples=30)
@given(lengths_of_histories, st.integers(2, 12), st.integers(16, 64), st.integers(0, 1000))
def test_batches_of_an_epoch_hold_every_window_once(
    lengths: list[int], max_seq_len: int, max_tokens: int, seed: int
) -> None:
    windows = whole_epoch(numbered(lengths), max_seq_len, seed)
    order = np.random.default_rng(seed).permutation(len(windows.first))
    groups = group_by_length(windows.lengths, max_tokens, order)
    members = np.concatenate(groups) if groups else np.array([], dtype=np.int64)
    assert sorted(members.tolist()) == list(range(len(windows.first)))
    for group in groups:
        assert len(group) == 1 or len(group) * windows.lengths[group].max() <= max_tokens


@pytest.mark.parametrize(("mean", "longest"), [(9, 50), (150, 200)])
def test_padding_is_below_a_tenth_of_the_work(mean: int, longest: int) -> None:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(mean) - 0.32, 0.8, 20_000), 1, 10 * longest).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item = np.zeros(offsets[-1], dtype=np.int32)
    bare = np.zeros(offsets[-1])
    histories = Histories(offsets, item, item.astype(np.uint8), item.astype(np.int64), bare.astype(np.float32))
    windows = whole_epoch(histories, longest)
    groups = group_by_length(windows.lengths, 4096, generator.permutation(len(windows.first)))
    slots = sum(len(group) * int(windows.lengths[group].max()) for group in groups)
    assert (slots - histories.num_events) / histories.num_events < 0.10
    # Neighbors in the epoch are not all of one length: batches come from many pools.
    assert len(groups) > 20


@settings(max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_pack_is_the_inverse_of_unpack(lengths: list[int]) -> None:
    histories = numbered(lengths)
    layout = make_batch(histories, whole_epoch(histories, 50), np.arange(len(lengths)), NUM_ITEMS).layout
    packed = torch.arange(3.0 * sum(lengths)).view(-1, 3) + 1
    rectangle = layout.unpack(packed)
    assert torch.equal(layout.pack(rectangle), packed)
    for row, length in enumerate(lengths):
        assert bool((rectangle[row, :length] > 0).all())
        assert bool((rectangle[row, length:] == 0).all())
    assert torch.equal(rectangle[torch.arange(len(lengths)), layout.lengths - 1], packed[layout.last_tokens()])
    assert layout.positions().tolist() == [place for length in lengths for place in range(length)]


@settings(max_examples=30)
@given(lengths_of_histories, st.integers(2, 12))
def test_query_ends_with_the_latest_event(lengths: list[int], max_seq_len: int) -> None:
    histories = numbered(lengths)
    windows = query_windows(histories, max_seq_len)
    batch = make_batch(histories, windows, np.arange(len(lengths)), NUM_ITEMS)
    last = batch.item[batch.layout.last_tokens()].tolist()
    ends = histories.offsets[1:].tolist()
    assert last == [end - 1 if length else NUM_ITEMS for length, end in zip(lengths, ends, strict=True)]
    assert windows.lengths.tolist() == [min(length + 1, max_seq_len) for length in lengths]


def test_empty_histories_are_a_start_token_each() -> None:
    histories = Histories.of_items([[], []])
    batch = make_batch(histories, query_windows(histories, 5), np.arange(2), NUM_ITEMS)
    assert batch.item.tolist() == [NUM_ITEMS, NUM_ITEMS]
    assert batch.gap.tolist() == [0, 0]
    assert bool(batch.value.isnan().all())
    assert len(whole_epoch(histories, 5).first) == 0


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1e12), min_size=2, max_size=20))
def test_longer_gap_never_has_a_smaller_bucket(gaps: list[float]) -> None:
    buckets = gap_bucket(np.sort(np.array(gaps)))
    assert (np.diff(buckets) >= 0).all()
    assert buckets.min() >= 0
    assert buckets.max() < GAP_BUCKETS


def test_gap_is_the_time_since_the_event_before_in_the_same_history() -> None:
    histories = Histories.of_items([[0, 1], [2, 3]])
    times = np.array([0, 60, 1_000_000, 1_000_001]) * 1_000_000
    timed = Histories(histories.offsets, histories.item, histories.behavior, times, histories.value)
    batch = make_batch(timed, query_windows(timed, 5), np.arange(2), NUM_ITEMS)
    minute, second = gap_bucket(np.array([60.0, 1.0])).tolist()
    # Start token, first event (nothing before it), second event; then the same for the other history.
    assert batch.gap.tolist() == [0, 0, minute, 0, 0, second]


def test_time_that_runs_backwards_counts_as_no_gap() -> None:
    assert gap_bucket(np.array([-5.0])).tolist() == [0]


def test_value_and_behavior_are_those_of_the_event_before_and_of_the_target() -> None:
    histories = Histories.of_items([[4, 5, 6]])
    told = Histories(
        histories.offsets,
        histories.item,
        np.array([2, 1, 3], dtype=np.uint8),
        histories.timestamp,
        np.array([1.5, np.nan, 4.0], dtype=np.float32),
    )
    batch = make_batch(told, whole_epoch(told, 10), np.array([0]), NUM_ITEMS)
    assert batch.behavior.tolist() == [0, 2, 1]
    np.testing.assert_array_equal(batch.value.numpy(), np.array([np.nan, 1.5, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(batch.target_value.numpy(), np.array([1.5, np.nan, 4.0], dtype=np.float32))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), max_seq_len=st.integers(2, 12), seed=st.integers(0, 99)
)
@pytest.mark.parametrize("visit_gap", [None, 1])
@pytest.mark.parametrize("is_marked", [False, True])
def test_seen_and_later_items_are_those_of_the_window_before_and_after_each_target(
    visit_gap: int | None, is_marked: bool, lengths: list[int], max_seq_len: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    number = sum(lengths)
    histories = Histories.of_items(
        [list(range(sum(lengths[:row]), sum(lengths[: row + 1]))) for row in range(len(lengths))]
    )
    time = np.cumsum(generator.integers(0, 3, number)) * 1_000_000
    mark = generator.random(number) < 0.7 if is_marked else None
    histories = dataclasses.replace(histories, timestamp=time, visit_gap=visit_gap, is_target=mark)
    windows = whole_epoch(histories, max_seq_len, seed)
    if not len(windows.first):
        return
    batch = make_batch(histories, windows, np.arange(len(windows.first)), number)
    # Every item stands once in the log, so its id is its position.
    visit_of = np.repeat(np.arange(len(histories.visits)), histories.visits.size(np.arange(len(histories.visits))))
    window_of = {
        visit: row for row in range(len(windows.first)) for visit in range(windows.first[row], windows.last[row])
    }
    targets = batch.targets()[1].tolist()
    expected_seen, expected_later = set(), []
    for index, item in enumerate(targets):
        row = window_of[visit_of[item]]
        start = max(windows.start[row], windows.first[row] - 1)
        before = [other for other in range(number) if start <= visit_of[other] < visit_of[item]]
        expected_seen |= {(index, other) for other in before}
        after = [
            item + ahead for ahead in (1, 2) if item + ahead < number and window_of.get(visit_of[item + ahead]) == row
        ]
        expected_later.append({other: 0.5 ** (other - item) for other in after if mark is None or mark[other]})
    assert set(zip(*(part.tolist() for part in batch.seen(number)), strict=True)) == expected_seen
    if visit_gap is None:
        found = zip(*(part.tolist() for part in batch.later(0.5, 2)), strict=True)
        assert [{i: w for i, w in zip(*pair, strict=True) if w} for pair in found] == expected_later
