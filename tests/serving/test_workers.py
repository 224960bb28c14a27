"""Several workers are one server: what one takes in, all know; a dead one is replaced."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.load import load
from tests.serving.server_process import ServerProcess, event, serving


@pytest.fixture(scope="module")
def strangers(workers: ServerProcess) -> Iterator[httpx.Client]:
    """A client with a new connection for every request: any worker may take it."""
    with httpx.Client(base_url=workers.address, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client


@pytest.fixture(scope="module")
def workers(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("workers"), bundle_folder, "--workers", "2") as server:
        yield server


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def listening_addresses(pids: list[int]) -> set[str]:
    """Where the processes listen, as /proc has it: address in hexadecimal, port."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.add(f"{table} {fields[1]}")
    return found


def test_every_socket_that_listens_is_at_127_0_0_1(workers: ServerProcess) -> None:
    """CVE-2025-30202: a socket on all interfaces beside the one that was asked for."""
    pids = [workers.process.pid, *children_of(workers.process.pid)]
    assert len(pids) == 3
    assert listening_addresses(pids) == {f"tcp 0100007F:{workers.port:04X}"}


def test_event_taken_by_one_worker_is_in_the_next_answer_of_each(strangers: httpx.Client) -> None:
    for number in range(1, 15):
        events = [event(f"all-{number}", "all", f"i{number:02}", 1000 + number)]
        assert strangers.post("/v1/events", json={"events": events}).status_code == 200
        for _ in range(4):
            answer = strangers.post("/v1/recommend", json={"user_id": "all"}).json()
            assert answer["num_events_used"] == number


def test_metrics_are_of_all_workers(workers: ServerProcess, strangers: httpx.Client) -> None:
    def count() -> float:
        lines = workers.client.get("/metrics").text.splitlines()
        wanted = 'variseq_requests_total{method="GET",route="/health",status="200"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))

    before = count()
    for _ in range(30):
        strangers.get("/health")
    assert count() == before + 30


def test_erasure_in_one_worker_empties_the_memory_of_all(workers: ServerProcess, strangers: httpx.Client) -> None:
    workers.add(event("worker-1", "worker", "i00"))
    for _ in range(20):
        assert strangers.post("/v1/recommend", json={"user_id": "worker"}).status_code == 200
    assert cache_bytes(workers) > 0
    workers.client.delete("/v1/users/worker")
    end = time.monotonic() + 20
    while cache_bytes(workers) > 0:
        assert time.monotonic() < end, "a worker still remembers, though each looks twice a second"
        time.sleep(0.05)


def cache_bytes(server: ServerProcess) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("variseq_cache_bytes"))


def test_dead_worker_is_replaced_and_the_others_go_on(workers: ServerProcess) -> None:
    first, second = children_of(workers.process.pid)
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 40
    while len(now := children_of(workers.process.pid)) < 2 or first in now:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert second in now
    with load(workers.address, 6, {"history": ["i00"], "k": 2}) as found:
        found.wait_for(10)
    assert found.failed == []


def test_workers_end_with_their_parent_however_it_ends(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle_folder, "--workers", "2") as server:
        children = children_of(server.process.pid)
        assert len(children) == 2
        server.process.kill()
        server.process.wait(10)
        end = time.monotonic() + 20
        while any(is_alive(child) for child in children):
            assert time.monotonic() < end
            time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
