"""The cache of histories holds no more bytes than it may, and nothing of another version."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.inference.engine import load_engine
from variseq.ranking.engine import KnownHistory
from variseq.serving.batching import OVERHEAD_BYTES, HistoryCache


@pytest.fixture(scope="module")
def histories(bundle_folder: Path) -> list[KnownHistory]:
    engine = load_engine(bundle_folder)
    return [engine.given(["i00"] * length) for length in range(30)]


@given(data=st.data())
def test_bytes_are_counted_and_bounded_whatever_is_put_and_dropped(
    histories: list[KnownHistory], data: st.DataObject
) -> None:
    cache = HistoryCache(4000)
    held: dict[int, KnownHistory] = {}
    steps = st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 9), st.integers(0, 29)))
    for step, user, length in data.draw(steps):
        if step == "put":
            cache.put(user, 1, "m", histories[length])
            held[user] = histories[length]
        elif step == "drop":
            cache.drop(user)
            held.pop(user, None)
        else:
            found = cache.get(user, 1, "m")
            assert found is None or found is held[user]
        assert cache.nbytes <= 4000
        kept = [held[user] for user in range(10) if user in held and cache.get(user, 1, "m") is not None]
        assert cache.nbytes == sum(one.nbytes + OVERHEAD_BYTES for one in kept)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_entry_of_another_version_of_history_or_model_is_none(histories: list[KnownHistory]) -> None:
    cache = HistoryCache(10_000)
    cache.put("ann", 7, "m", histories[3])
    assert cache.get("ann", 7, "m") is histories[3]
    assert cache.get("ann", 8, "m") is None
    assert cache.get("ann", 7, "other") is None


def test_least_recently_used_goes_first(histories: list[KnownHistory]) -> None:
    size = histories[3].nbytes + OVERHEAD_BYTES
    cache = HistoryCache(2 * size)
    for user in ("a", "b"):
        cache.put(user, 1, "m", histories[3])
    cache.get("a", 1, "m")
    cache.put("c", 1, "m", histories[3])
    assert [cache.get(user, 1, "m") is not None for user in "abc"] == [True, False, True]
