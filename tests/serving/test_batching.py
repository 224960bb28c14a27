"""Requests that arrive together are one pass; the cache never answers with an old history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.ranking.engine import KnownHistory, Request
from variseq.ranking.options import RecommendOptions
from variseq.serving.batching import OVERHEAD_BYTES, Batcher, HistoryCache, InferenceRequest, InferenceResult
from variseq.serving.http import HTTPError
from variseq.serving.models import ModelManager
from variseq.serving.stores.protocol import Event, StoreUnavailable
from variseq.serving.stores.sqlite import SqliteOptions, SqliteStore

TWO = Request(RecommendOptions(k=2, reasons=False))


@pytest.fixture(scope="module")
def models(bundle_folder: Path) -> ModelManager:
    return ModelManager(bundle_folder, None)


@asynccontextmanager
async def batching(models: ModelManager, queue_length: int = 100, seconds: float = 30.0) -> AsyncIterator[Batcher]:
    store = SqliteStore(options=SqliteOptions("fast"))
    batcher = Batcher(models, store, HistoryCache(1 << 20), 32, queue_length, seconds)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.stop()
        store.close()


def test_requests_that_arrive_together_are_one_pass_and_each_has_its_own_answer(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models) as batcher:
            sizes: list[int] = []
            batcher.on_batch = sizes.append
            items = [f"i{number:02}" for number in range(40)]
            together = await asyncio.gather(*(batcher.submit(InferenceRequest(TWO, history=[item])) for item in items))
            alone = [await batcher.submit(InferenceRequest(TWO, history=[item])) for item in items]
            assert max(sizes) > 5
            for one, other in zip(together, alone, strict=True):
                assert list(one.answer.recommendations.item_id) == list(other.answer.recommendations.item_id)
            assert batcher.num_waiting == 0

    asyncio.run(main())


def test_those_who_were_answered_together_are_waited_for(models: ModelManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def later(batcher: Batcher, seconds: float) -> InferenceResult:
        await asyncio.sleep(seconds)
        return await batcher.submit(InferenceRequest(TWO, history=["i00"]))

    async def main() -> None:
        async with batching(models) as batcher:
            sizes: list[int] = []
            batcher.on_batch = sizes.append
            # A pass is short here; for so many times of it nobody comes too late.
            monkeypatch.setattr("variseq.serving.batching.LINGER", 1e4)
            await asyncio.gather(*(later(batcher, 0.0) for _ in range(4)))
            while sizes[-1] < 4:
                await asyncio.gather(*(later(batcher, 0.0) for _ in range(4)))
            await asyncio.gather(*(later(batcher, 0.01 * place) for place in range(4)))
            assert sizes[-1] == 4
            monkeypatch.setattr("variseq.serving.batching.LINGER", 0.0)
            await asyncio.gather(*(later(batcher, 0.1 * place) for place in range(3)))
            assert sizes[-3:] == [1, 1, 1]

    asyncio.run(main())


def test_question_that_is_not_possible_fails_alone(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models) as batcher:
            bad = Request(RecommendOptions(k=2, candidates=["nothing"]))
            asked = [InferenceRequest(bad if number == 3 else TWO, history=["i00"]) for number in range(8)]
            asked.append(InferenceRequest(TWO, history=[7]))
            found = await asyncio.gather(*(batcher.submit(one) for one in asked), return_exceptions=True)
            assert [isinstance(one, InferenceResult) for one in found] == [True] * 3 + [False] + [True] * 4 + [False]
            assert isinstance(found[3], InputError)

    asyncio.run(main())


def test_cached_history_is_used_until_the_store_has_another(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models) as batcher:
            store = batcher.store
            for number in range(1, 6):
                store.append([Event(f"e-{number}", "ann", f"i{number:02}", number)])
                for _ in range(2):
                    assert (await batcher.submit(InferenceRequest(TWO, "ann"))).num_events == number
            assert len(batcher.cache) == 1
            store.erase("ann")
            assert (await batcher.submit(InferenceRequest(TWO, "ann"))).num_events == 0
            await batcher.forget("ann")
            assert (len(batcher.cache), batcher.cache.nbytes) == (0, 0)

    asyncio.run(main())


def test_store_that_fails_fails_those_who_need_it_and_nobody_else(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models) as batcher:
            store = batcher.store
            store.close()
            asked = (InferenceRequest(TWO, "ann"), InferenceRequest(TWO, history=["i00"]))
            failed, answered = await asyncio.gather(*(batcher.submit(one) for one in asked), return_exceptions=True)
            assert isinstance(failed, StoreUnavailable)
            assert isinstance(answered, InferenceResult)

    asyncio.run(main())


def test_more_than_the_queue_holds_is_refused_at_once(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models, queue_length=3) as batcher:
            asked = (batcher.submit(InferenceRequest(TWO, history=["i00"])) for _ in range(10))
            found = await asyncio.gather(*asked, return_exceptions=True)
            refused = [one for one in found if isinstance(one, HTTPError)]
            assert len(refused) == 7
            assert all(one.status == 429 for one in refused)
            assert isinstance(await batcher.submit(InferenceRequest(TWO, history=["i00"])), InferenceResult)

    asyncio.run(main())


def test_page_of_another_model_is_refused_in_the_pass_itself(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models) as batcher:
            with pytest.raises(InputError, match="Start again"):
                await batcher.submit(InferenceRequest(TWO, history=["i00"], model="another"))

    asyncio.run(main())


def test_late_answer_is_503_and_leaves_nothing_behind(models: ModelManager) -> None:
    async def main() -> None:
        async with batching(models, seconds=1e-6) as batcher:
            with pytest.raises(HTTPError) as refused:
                await batcher.submit(InferenceRequest(TWO, history=["i00"]))
            assert refused.value.status == 503
            while batcher.num_waiting:
                await asyncio.sleep(0.01)

    asyncio.run(main())


@given(data=st.data())
def test_bytes_are_counted_and_bounded_whatever_is_put_and_dropped(models: ModelManager, data: st.DataObject) -> None:
    histories = [models.engine.given(["i00"] * length) for length in range(30)]
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


def test_least_recently_used_history_is_dropped_first(models: ModelManager) -> None:
    history = models.engine.given(["i00"] * 3)
    cache = HistoryCache(2 * (history.nbytes + OVERHEAD_BYTES))
    for user in ("a", "b"):
        cache.put(user, 1, "m", history)
    cache.get("a", 1, "m")
    cache.put("c", 1, "m", history)
    assert [cache.get(user, 1, "m") is not None for user in "abc"] == [True, False, True]
