"""Every store holds the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.history_store import CONTRACT, MakeStore
from tests.serving.stores.some_redis import SERVER, RedisServer
from tests.serving.stores.some_stores import Stores

KINDS = ["memory", "sqlite", "sqlite-fast", pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer | None]:
    if SERVER is None:
        yield None
        return
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer | None) -> Iterator[Stores]:
    if request.param == "redis":
        if server is None:
            pytest.skip("neither redis-server nor valkey-server is installed")
        client = server.client()
        client.flushall()
        client.close()
    stores = Stores(request.param, tmp_path, server if request.param == "redis" else None)
    yield stores
    stores.close()


@pytest.mark.parametrize("holds", CONTRACT, ids=lambda holds: holds.__name__)
def test_store_holds_the_contract(holds: Callable[[MakeStore], None], make: Stores) -> None:
    holds(make)
