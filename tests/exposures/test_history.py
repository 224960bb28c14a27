"""A history that is built again from the store has the hash of the one that was read, and no other has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.exposures.history import HistoryDigest, history_hash, rebuild_history
from variseq.sequences.given_history import HistoryRow

KEY = b"k" * 32
ROW = st.tuples(
    st.one_of(st.integers(-3, 3), st.sampled_from(["1", "a", 'a","b'])),
    st.integers(0, 3),
    st.sampled_from([None, "view", "buy"]),
    st.sampled_from([None, 0.0, 2.5]),
)
ROWS = st.lists(ROW, max_size=8).map(lambda rows: sorted(rows, key=lambda row: row[1]))


@given(first=ROWS, second=ROWS)
def test_equal_histories_alone_have_equal_hashes(first: list[HistoryRow], second: list[HistoryRow]) -> None:
    is_same = [(type(a[0]), *a) for a in first] == [(type(b[0]), *b) for b in second]
    assert (history_hash(first, KEY) == history_hash(second, KEY)) is is_same


@given(rows=ROWS, num_read=st.integers(0, 8), limit=st.integers(1, 8))
def test_history_is_found_among_later_events(rows: list[HistoryRow], num_read: int, limit: int) -> None:
    read = rows[:num_read][-limit:]
    digest = HistoryDigest(history_hash(read, KEY), len(read), read[-1][1] if read else None)
    assert rebuild_history(rows, digest, KEY) == read


def test_history_with_another_event_in_between_is_not_found() -> None:
    rows: list[HistoryRow] = [("a", 1, None, None), ("b", 3, None, None)]
    digest = HistoryDigest(history_hash(rows, KEY), 2, 3)
    assert rebuild_history([rows[0], ("late", 2, None, None), rows[1]], digest, KEY) is None


@pytest.mark.parametrize("other", [b"x" * 32, b""])
def test_hash_depends_on_the_key(other: bytes) -> None:
    assert history_hash([], KEY) != history_hash([], other)
