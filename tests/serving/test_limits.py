"""More than can be worked off is refused in time; who asks too often waits; tables do not grow without end."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from hypothesis import given
from hypothesis import strategies as st

from tests.serving.server_process import LocalServer, event, serving_here
from variseq.serving.auth import TokenBuckets
from variseq.serving.keys import create_key


def many_connections(server: LocalServer) -> httpx.Client:
    return httpx.Client(base_url=server.address, timeout=60.0, limits=httpx.Limits(max_connections=64))


@given(
    st.floats(0.1, 100), st.floats(1, 50), st.lists(st.floats(0, 2), min_size=1, max_size=200)
)  # fmt: skip
def test_no_more_is_let_through_than_burst_and_rate_allow(rate: float, burst: float, gaps: list[float]) -> None:
    buckets, now, passed = TokenBuckets(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        passed += buckets.wait_seconds("shop", now) == 0.0
        assert passed <= burst + rate * (now - gaps[0]) + 1e-6


@given(st.floats(0.1, 100), st.floats(1, 50))
def test_who_waits_as_told_is_let_through(rate: float, burst: float) -> None:
    buckets, now = TokenBuckets(rate, burst), 0.0
    for _ in range(100):
        wait = buckets.wait_seconds("shop", now)
        if wait > 0:
            now += wait * (1 + 1e-9)
            assert buckets.wait_seconds("shop", now) == 0.0


def test_table_of_buckets_is_bounded() -> None:
    buckets = TokenBuckets(1.0, 1.0, max_names=10)
    for number in range(1000):
        buckets.wait_seconds(str(number), 0.0)
    assert len(buckets) == 10
    assert buckets.wait_seconds("999", 0.0) > 0


def test_each_key_has_its_own_rate(bundle_folder: Path, tmp_path: Path) -> None:
    keys = [create_key(tmp_path / "keys.yaml", name, ["read"]) for name in ("one", "two")]
    with serving_here(bundle_folder, keys=tmp_path / "keys.yaml", rate_limit=2, burst=5) as server:

        def status(key: str) -> httpx.Response:
            return server.client.get("/v1/model", headers={"authorization": f"Bearer {key}"})

        answers = [status(keys[0]) for _ in range(20)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert status(keys[1]).status_code == 200
        assert server.client.get("/health").status_code == 200
        time.sleep(0.6)
        assert status(keys[0]).status_code == 200


def test_guessing_keys_is_slowed_and_does_not_keep_the_right_key_out(bundle_folder: Path, tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.yaml", "one", ["read"])
    audit_log = tmp_path / "audit.jsonl"
    with serving_here(bundle_folder, keys=tmp_path / "keys.yaml", audit_log=audit_log) as server:
        guesses = Counter(
            server.client.get("/v1/model", headers={"authorization": f"Bearer vsk_{number}"}).status_code
            for number in range(100)
        )
        assert set(guesses) == {401, 429}
        assert guesses[401] < 60
        assert len(audit_log.read_text().splitlines()) == guesses[401]
        assert server.client.get("/v1/model", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_full_queue_is_refused_with_retry_after_and_the_rest_is_answered(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, queue_length=4, batch_size=1) as server, many_connections(server) as client:

        def ask(_: int) -> httpx.Response:
            return client.post("/v1/recommend", json={"history": ["i00"] * 40, "k": 40, "exclude_seen": False})

        with ThreadPoolExecutor(48) as threads:
            answers = list(threads.map(ask, range(120)))
        found = Counter(answer.status_code for answer in answers)
        assert set(found) == {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert server.client.get("/ready").status_code == 200


def test_answer_that_does_not_come_in_time_is_503(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, timeout_seconds=0.0001) as server:
        # On a busy machine an answer may be there before the clock is looked at.
        answers = [server.client.post("/v1/recommend", json={"history": ["i00"]}) for _ in range(20)]
        late = [answer for answer in answers if answer.status_code != 200]
        assert {answer.status_code for answer in late} == {503}
        assert {answer.headers["retry-after"] for answer in late} == {"1"}


def test_store_that_cannot_be_used_is_503_and_not_ready_and_names_no_file(bundle_folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    with serving_here(bundle_folder, store=f"sqlite:///{store}") as server:
        server.add(event("e-1", "ann", "i00"))
        store.rename(tmp_path / "moved.db")
        end = time.monotonic() + 10
        while (response := server.client.get("/ready")).status_code == 200:
            assert time.monotonic() < end
        assert response.status_code == 503
        assert str(tmp_path) not in response.text
        os.rename(tmp_path / "moved.db", store)
        while server.client.get("/ready").status_code != 200:
            assert time.monotonic() < end + 10
        assert server.recommend("ann")["num_events_used"] == 1


def test_appends_do_not_wait_behind_the_model(bundle_folder: Path) -> None:
    """While the model is busy, events are taken all the same."""
    is_free = threading.Event()
    with serving_here(bundle_folder) as server, ThreadPoolExecutor(1) as threads:
        engine = server.application.services.models.engine
        answer = engine.answer
        engine.answer = lambda queries: is_free.wait(30) and answer(queries)  # type: ignore[method-assign,return-value]
        try:
            waiting = threads.submit(server.recommend, history=["i00"])
            assert server.add(event("e-1", "ann", "i00"))["accepted"] == 1
            assert not waiting.done()
        finally:
            is_free.set()
        assert waiting.result()["recommendations"]
