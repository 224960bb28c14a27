"""`variseq erase` with the store of replicas: the person leaves Redis and every durable log, and does not come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.stores.some_redis import RedisServer, needs_redis
from tests.serving.stores.test_redis import Replicas, event, eventually
from tests.terminal.invoke import refuse, succeed
from variseq.serving.stores.protocol import Appended

pytestmark = [pytest.mark.redis, needs_redis]


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    server = RedisServer()
    server.start()
    replicas = Replicas(server, tmp_path)
    (tmp_path / "runs").mkdir()
    yield replicas
    for store in replicas.opened:
        store.close()
    server.remove()


def words(replicas: Replicas, log: str, *more: object) -> list[object]:
    """The command with a durable log of this name."""
    folder = replicas.folder
    store = replicas.server.address(folder / f"{log}.db", "durability=fast")
    return [
        "erase",
        "--user",
        "ann",
        "--runs",
        folder / "runs",
        "--receipts",
        folder / "receipts",
        "--store",
        store,
        *more,
    ]


def content_of(server: RedisServer) -> bytes:
    """All keys and values of Redis."""
    client = server.client()
    found = b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())
    client.close()
    return found


@pytest.mark.parametrize("log", ["a", "of the command"])
def test_person_leaves_redis_and_all_durable_logs(log: str, replicas: Replicas) -> None:
    """With the durable log of a replica that is running, and with one of its own."""
    first, second = replicas.open("a"), replicas.open("b")
    first.append([event(1), event(2, "bob")])
    second.append([event(3), event(4, "bob")])
    assert b"ann" in content_of(replicas.server)
    assert "store: 2 events removed" in succeed(*words(replicas, log, "--dry-run")).out
    assert len(first.history("ann")) == 2
    succeed(*words(replicas, log))
    assert [store.history("ann") for store in (first, second)] == [[], []]
    assert [len(store.history("bob")) for store in (first, second)] == [2, 2]
    assert b"ann" not in content_of(replicas.server)
    records = [replicas.record(name) for name in ("a", "b")]
    eventually(lambda: [record.history("ann") for record in records] == [[], []])
    eventually(lambda: [path.name for path in replicas.folder.glob("*.db*") if b"ann" in path.read_bytes()] == [])
    receipt = json.loads((replicas.folder / "receipts" / "receipt-000001.json").read_bytes())
    assert receipt["num_stores"] == 1
    assert second.append([event(3)]) == Appended(0, 0, 1)


def test_replica_that_was_stopped_does_not_bring_the_person_back(replicas: Replicas) -> None:
    stopped = replicas.open("b")
    stopped.append([event(3), event(4, "bob")])
    stopped.close()
    replicas.opened.remove(stopped)
    succeed(*words(replicas, "of the command"))
    again = replicas.open("b")
    eventually(lambda: len(again.history("bob")) == 1)
    assert again.history("ann") == []
    assert b"ann" not in content_of(replicas.server)


def test_redis_that_does_not_answer_is_one_message(replicas: Replicas) -> None:
    replicas.open("a").append([event(1)])
    replicas.server.kill()
    refuse("does not answer|not available|cannot be reached", *words(replicas, "a"))
