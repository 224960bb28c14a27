"""Cleaning drops what it should, to a fixed point, and nothing else."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.events.clean import statements
from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.report import Events

pytestmark = pytest.mark.slow

Row = tuple[int, int, int]
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=60)


def table_of(rows: list[Row]) -> pa.Table:
    users, items, seconds = (list(column) for column in zip(*rows, strict=True))
    return pa.table({"user": users, "item": items, "ts": seconds})


def rows_of(events: Events) -> list[Row]:
    users = events.vocabulary.user_ids(events.table.user)
    items = events.vocabulary.item_ids(events.table.item)
    return list(zip(users, items, (events.table.timestamp // 1_000_000).tolist(), strict=True))  # type: ignore[arg-type]


def plain_clean(rows: list[Row], min_user: int, min_item: int, collapse: bool) -> list[Row]:
    """The same cleaning in plain Python."""
    kept = sorted(dict.fromkeys(rows), key=lambda row: (row[0], row[2]))
    while True:
        before = list(kept)
        if collapse:
            kept = [row for place, row in enumerate(kept) if place == 0 or kept[place - 1][:2] != row[:2]]
        for column, least in ((0, min_user), (1, min_item)):
            count = Counter(row[column] for row in kept)
            kept = [row for row in kept if count[row[column]] >= least]
        if kept == before:
            return kept


@settings(max_examples=12, deadline=None)
@given(ROWS, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_cleaning_is_the_one_of_plain_python(rows: list[Row], min_user: int, min_item: int, collapse: bool) -> None:
    options = ReadOptions(min_user_events=min_user, min_item_events=min_item, collapse_repeats=collapse)
    expected = plain_clean(rows, min_user, min_item, collapse)
    if not expected:
        with pytest.raises(InputError, match="No event is left"):
            read(table_of(rows), options=options)
        return
    events = read(table_of(rows), options=options)
    assert rows_of(events) == expected
    counts = sum(events.report.rejected.values()) + sum(events.report.filtered.values())
    assert counts + events.report.num_events == events.report.num_rows == len(rows)


def test_repeat_with_another_behavior_is_no_repeat() -> None:
    table = pa.table({"user": [1] * 3, "item": [1] * 3, "ts": [1, 2, 3], "event": ["view", "view", "buy"]})
    events = read(table, options=ReadOptions(collapse_repeats=True))
    assert [events.vocabulary.behaviors[kind] for kind in events.table.behavior] == ["view", "buy"]
    assert events.report.filtered == {"consecutive repeat": 1}


def test_only_whole_events_are_duplicates() -> None:
    table = pa.table(
        {
            "user": [1] * 6,
            "item": [1, 1, 1, 2, 1, 1],
            "ts": [5, 5, 6, 5, 5, 5],
            "event": ["a", "a", "a", "a", "b", "a"],
            "value": [None, None, None, None, None, 1.0],
        }
    )
    events = read(table)
    assert events.report.rejected == {"exact duplicate": 1}
    assert events.report.first_faults == {"exact duplicate": "row 2"}
    assert len(events.table) == 5


def test_positions_are_dense_after_filtering() -> None:
    rows = [(1, 1, 1), (2, 2, 1), (2, 3, 2), (3, 2, 1), (3, 3, 2), (3, 9, 4)]
    events = read(table_of(rows), options=ReadOptions(min_user_events=2, min_item_events=2))
    assert events.vocabulary.users.to_pylist() == [2, 3]
    assert events.vocabulary.items.to_pylist() == [2, 3]
    assert events.table.user.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("policy", "filled"), [("keep", [2, np.nan, 4]), ("zero", [2, 0, 4]), ("mean", [2, 3, 4])])
def test_missing_values_follow_the_policy(policy: str, filled: list[float]) -> None:
    table = pa.table({"user": [1, 2, 3], "item": [1] * 3, "ts": [1] * 3, "value": [2.0, None, 4.0]})
    options = ReadOptions.model_validate({"missing_value": policy})
    np.testing.assert_array_equal(read(table, options=options).table.value, np.array(filled, dtype=np.float32))


def test_too_many_behaviors_are_refused() -> None:
    table = pa.table({"user": [1] * 300, "item": [1] * 300, "ts": [1] * 300, "event": [f"e{n}" for n in range(300)]})
    with pytest.raises(InputError, match="300 different behaviors"):
        read(table)


def test_pipeline_is_plain_sql() -> None:
    text = " ".join(statements().values()).lower()
    for word in ("qualify", "::", "try_cast", "epoch", "list(", "exclude", "hugeint", "$", "?"):
        assert word not in text, f"{word} is not understood by every engine"


def test_same_source_gives_the_same_arrays() -> None:
    generator = np.random.default_rng(5)
    table = pa.table({name: generator.integers(0, 50, 20_000) for name in ("user", "item", "ts")})
    first, second = read(table), read(table)
    for name in ("user", "item", "timestamp", "behavior", "value"):
        np.testing.assert_array_equal(getattr(first.table, name), getattr(second.table, name))


def test_little_memory_is_enough() -> None:
    generator = np.random.default_rng(5)
    table = pa.table({name: generator.integers(0, 10_000, 800_000) for name in ("user", "item", "ts")})
    events = read(table, options=ReadOptions(memory_limit="40MB"))
    order = np.lexsort((events.table.timestamp, events.table.user))
    assert len(events.table) + sum(events.report.rejected.values()) == 800_000
    np.testing.assert_array_equal(order, np.arange(len(order)))


def test_shuffled_ties_are_the_same_events_in_a_drawn_order_that_is_the_same_each_time() -> None:
    generator = np.random.default_rng(5)
    columns = {name: generator.integers(0, 50, 5_000) for name in ("user", "item", "ts")}
    table = pa.table({**columns, "value": columns["item"] / 2})
    kept, *shuffled = (read(table, options=ReadOptions(ties=ties)) for ties in ("keep", "shuffle", "shuffle"))
    assert rows_of(shuffled[0]) == rows_of(shuffled[1])
    assert rows_of(shuffled[0]) != rows_of(kept)
    assert sorted(rows_of(shuffled[0])) == sorted(rows_of(kept))
    np.testing.assert_array_equal(shuffled[0].table.timestamp, kept.table.timestamp)
    np.testing.assert_array_equal([item / 2 for _, item, _ in rows_of(shuffled[0])], shuffled[0].table.value)
    times_of_their_own = table.set_column(2, "ts", pa.array(np.arange(5_000)))
    alone = [rows_of(read(times_of_their_own, options=ReadOptions(ties=ties))) for ties in ("keep", "shuffle")]
    assert alone[0] == alone[1]
