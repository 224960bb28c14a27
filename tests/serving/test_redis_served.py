"""Servers that share a Redis: what one takes in changes the next answer of the other, also after Redis was gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.server_process import LocalServer, event, serving_here
from tests.serving.stores.some_redis import RedisServer, needs_redis

pytestmark = [pytest.mark.redis, needs_redis]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def replicas(
    redis: RedisServer, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalServer, LocalServer]]:
    folder = tmp_path_factory.mktemp("replicas")
    stores = [redis.address(folder / f"{name}.db", "durability=durable") for name in "ab"]
    with serving_here(bundle_folder, store=stores[0]) as one, serving_here(bundle_folder, store=stores[1]) as other:
        yield one, other


def until_ready(server: LocalServer) -> None:
    end = time.monotonic() + 60
    while server.client.get("/ready").status_code != 200:
        assert time.monotonic() < end, server.errors()[-2000:]
        time.sleep(0.05)


def test_event_at_one_replica_changes_the_next_answer_of_the_other(
    replicas: tuple[LocalServer, LocalServer],
) -> None:
    one, other = replicas
    one.add(event("e1", "ann", "i01"))
    before = other.recommend("ann", k=5)
    one.add(event("e2", "ann", "i02", 1_700_000_001))
    after = other.recommend("ann", k=5)
    assert (before["num_events_used"], after["num_events_used"]) == (1, 2)
    assert before["recommendations"] != after["recommendations"]
    assert one.client.delete("/v1/users/ann").json()["verified"] is True
    assert other.recommend("ann", k=5)["num_events_used"] == 0


def test_without_redis_both_refuse_and_with_an_empty_one_nothing_is_missing(
    redis: RedisServer, replicas: tuple[LocalServer, LocalServer]
) -> None:
    for number, server in enumerate(replicas):
        server.add(*(event(f"{number}-{place}", f"user-{number}", f"i0{place}", place) for place in range(5)))
    redis.kill()
    for server in replicas:
        refused = server.client.post("/v1/events", json={"events": [event("late", "user-0", "i07", 100)]})
        assert refused.status_code == 503
        assert "Traceback" not in refused.text
        assert server.client.post("/v1/recommend", json={"user_id": "user-0"}).status_code == 503
        assert server.client.post("/v1/recommend", json={"history": ["i01"], "k": 1}).status_code == 200
        assert server.client.get("/health").status_code == 200
    redis.start()
    for server in replicas:
        until_ready(server)
    for server in replicas:
        assert [server.recommend(f"user-{number}", k=1)["num_events_used"] for number in range(2)] in ([5, 5], [6, 5])
    # What was refused may be sent again as it is; it is there once.
    replicas[0].add(event("late", "user-0", "i07", 100))
    assert [server.recommend("user-0", k=1)["num_events_used"] for server in replicas] == [6, 6]
    assert all("Traceback" not in server.errors() for server in replicas)
